use super::*;
use crate::{Live, memory::Memory, settings::Settings};
use std::sync::Arc;

/// Every route of the API and the registry, and the least role for it.
const MATRIX: [(&str, &str, Role); 42] = [
    ("GET", "/v1/machines", Role::Read),
    ("HEAD", "/v1/machines", Role::Read),
    ("GET", "/v1/machines/52:54:00:00:00:01", Role::Read),
    ("PATCH", "/v1/machines/52:54:00:00:00:01", Role::Operate),
    ("DELETE", "/v1/machines/52:54:00:00:00:01", Role::Operate),
    ("PUT", "/v1/machines/52:54:00:00:00:01/assignment", Role::Operate),
    ("DELETE", "/v1/machines/52:54:00:00:00:01/assignment", Role::Operate),
    ("GET", "/v1/machines/52:54:00:00:00:01/explain", Role::Read),
    ("GET", "/v1/boots", Role::Read),
    ("GET", "/v1/images", Role::Read),
    ("GET", "/v1/images/web:v1", Role::Read),
    ("DELETE", "/v1/images/web:v1", Role::Operate),
    ("GET", "/v1/tags/web:v1", Role::Read),
    ("PUT", "/v1/tags/web:v1", Role::Push),
    ("POST", "/v1/tags/web:v1", Role::Push),
    ("DELETE", "/v1/tags/web:v1", Role::Operate),
    ("POST", "/v1/imports", Role::Push),
    ("PATCH", "/v1/imports/7", Role::Push),
    ("DELETE", "/v1/imports/7", Role::Push),
    ("POST", "/v1/importsx", Role::Operate),
    ("GET", "/v1/scrub", Role::Read),
    ("GET", "/v1/events", Role::Read),
    ("GET", "/v1/status", Role::Read),
    ("GET", "/metrics", Role::Read),
    ("GET", "/v1/tokens", Role::Admin),
    ("HEAD", "/v1/tokens", Role::Admin),
    ("GET", "/v1/tokens/01020304", Role::Admin),
    ("POST", "/v1/tokens", Role::Admin),
    ("DELETE", "/v1/tokens/01020304", Role::Admin),
    ("POST", "/v1/tokensx", Role::Operate),
    ("GET", "/v2/", Role::Read),
    ("GET", "/v2/web/manifests/v1", Role::Read),
    ("POST", "/v2/web/blobs/uploads/", Role::Push),
    ("PATCH", "/v2/web/blobs/uploads/7", Role::Push),
    ("PUT", "/v2/web/manifests/v1", Role::Push),
    ("DELETE", "/v2/web/manifests/v1", Role::Push),
    ("POST", "/v2x", Role::Admin),
    ("POST", "/", Role::Admin),
    ("GET", "/", Role::Read),
    ("POST", "/ui/tokens", Role::Read),
    ("POST", "/uix", Role::Admin),
    ("OPTIONS", "/v1/machines", Role::Operate),
];

#[test]
fn each_role_may_do_what_the_table_says() {
    for (method, path, least) in MATRIX {
        assert_eq!(needed(method, path), least, "{method} {path}");
        for role in Role::ALL {
            assert_eq!(allowed(role, method, path), role >= least, "{role} {method} {path}");
        }
    }
}

#[test]
fn only_health_and_the_way_in_are_open() {
    for (method, path) in [
        ("GET", "/healthz"),
        ("HEAD", "/readyz"),
        ("GET", "/login"),
        ("POST", "/login"),
        ("GET", "/ui/assets/1/bennu.css"),
    ] {
        assert!(is_open(method, path), "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/healthz"),
        ("GET", "/healthz/"),
        ("GET", "/metrics"),
        ("GET", "/v1/status"),
        ("GET", "/"),
        ("GET", "/login/"),
        ("GET", "/ui/assets"),
        ("POST", "/ui/assets/1/bennu.css"),
    ] {
        assert!(!is_open(method, path), "{method} {path}");
    }
}

fn moment(seconds: u64) -> Moment {
    let now = Timestamp(1_790_000_000_000).plus_seconds(seconds);
    Moment { now, entropy: [7; 32], settings: Arc::new(Settings::default()) }
}

fn token(role: Role) -> Token {
    Token {
        id: TokenId([1, 2, 3, 4]),
        name: "ci".parse().unwrap(),
        role,
        secret: Digest([9; 32]),
        created: moment(0).now,
        by: "local (uid 0)".into(),
        expires: Some(moment(86_400).now),
        last_used: None,
    }
}

fn ask(memory: &mut Memory, secret: u8, method: &str, seconds: u64) -> (Access, usize) {
    let request = AccessRequest {
        id: TokenId([1, 2, 3, 4]),
        secret: Digest([secret; 32]),
        method: method.into(),
        path: "/v1/tags/web:v1".into(),
    };
    let live = Live::default();
    let decision = decide(&request, &View { records: &*memory, live: &live }, &moment(seconds));
    let changes = decision.changes.len();
    decision.changes.into_iter().for_each(|change| memory.apply(change));
    (decision.answer, changes)
}

#[test]
fn a_token_opens_what_its_role_may_until_it_ends() {
    let mut memory = Memory::default();
    assert_eq!(ask(&mut memory, 9, "GET", 0), (Access::Unknown, 0), "no token is on record");
    memory.apply(Change::PutToken(token(Role::Read)));
    let granted = Access::Granted { id: TokenId([1, 2, 3, 4]), name: "ci".parse().unwrap(), role: Role::Read };
    assert_eq!(ask(&mut memory, 8, "GET", 0), (Access::Unknown, 0), "another secret");
    assert_eq!(ask(&mut memory, 9, "GET", 0), (granted.clone(), 1));
    assert_eq!(ask(&mut memory, 9, "PUT", 1).0, Access::Denied { role: Role::Read, needed: Role::Push });
    assert_eq!(ask(&mut memory, 9, "GET", 86_399).0, granted);
    assert_eq!(ask(&mut memory, 9, "GET", 86_400), (Access::Expired(moment(86_400).now), 0));
    memory.apply(Change::RemoveToken(TokenId([1, 2, 3, 4])));
    assert_eq!(ask(&mut memory, 9, "GET", 1), (Access::Unknown, 0), "revoked");
}

#[test]
fn its_use_is_written_once_an_hour() {
    let mut memory = Memory::default();
    memory.apply(Change::PutToken(token(Role::Push)));
    let writes: Vec<usize> = [0, 1, 3599, 3600, 3601, 7199, 7200].map(|at| ask(&mut memory, 9, "GET", at).1).into();
    assert_eq!(writes, [1, 0, 0, 1, 0, 0, 1]);
    assert_eq!(ask(&mut memory, 9, "GET", 60).1, 1, "a clock that was set back is followed");
}
