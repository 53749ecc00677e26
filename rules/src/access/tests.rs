use super::*;
use crate::{Live, memory::Memory, settings::Settings};
use std::sync::Arc;

const READ: &[Scope] = &[Scope::Read];
const ASSIGN: &[Scope] = &[Scope::Assign];
const IMAGES: &[Scope] = &[Scope::Images];
const POWER: &[Scope] = &[Scope::Power];
const ADMIN: &[Scope] = &[Scope::Admin];
const READ_OR_IMAGES: &[Scope] = &[Scope::Read, Scope::Images];

/// Every route of the API and the registry, and the scopes of which one is enough for it.
const MATRIX: [(&str, &str, &[Scope]); 52] = [
    ("GET", "/v1/machines", READ),
    ("HEAD", "/v1/machines", READ),
    ("GET", "/v1/machines/52:54:00:00:00:01", READ),
    ("PATCH", "/v1/machines/52:54:00:00:00:01", ASSIGN),
    ("DELETE", "/v1/machines/52:54:00:00:00:01", ASSIGN),
    ("PUT", "/v1/machines/52:54:00:00:00:01/assignment", ASSIGN),
    ("DELETE", "/v1/machines/52:54:00:00:00:01/assignment", ASSIGN),
    ("POST", "/v1/machines/52:54:00:00:00:01/power", POWER),
    ("GET", "/v1/machines/52:54:00:00:00:01/power", READ),
    ("GET", "/v1/machines/52:54:00:00:00:01/explain", READ),
    ("GET", "/v1/boots", READ),
    ("GET", "/v1/images", READ),
    ("GET", "/v1/images/web:v1", READ),
    ("DELETE", "/v1/images/web:v1", IMAGES),
    ("GET", "/v1/tags/web:v1", READ),
    ("PUT", "/v1/tags/web:v1", IMAGES),
    ("POST", "/v1/tags/web:v1", IMAGES),
    ("DELETE", "/v1/tags/web:v1", IMAGES),
    ("POST", "/v1/imports", IMAGES),
    ("PATCH", "/v1/imports/7", IMAGES),
    ("DELETE", "/v1/imports/7", IMAGES),
    ("POST", "/v1/importsx", ADMIN),
    ("POST", "/v1/pushes/web:v1", IMAGES),
    ("POST", "/v1/gc", IMAGES),
    ("POST", "/v1/tests", IMAGES),
    ("GET", "/v1/scrub", READ),
    ("GET", "/v1/events", READ),
    ("GET", "/v1/audit", READ),
    ("GET", "/v1/status", READ),
    ("GET", "/metrics", READ),
    ("GET", "/v1/tokens", ADMIN),
    ("HEAD", "/v1/tokens", ADMIN),
    ("GET", "/v1/tokens/01020304", ADMIN),
    ("POST", "/v1/tokens", ADMIN),
    ("DELETE", "/v1/tokens/01020304", ADMIN),
    ("POST", "/v1/tokensx", ADMIN),
    ("GET", "/v2/", READ_OR_IMAGES),
    ("GET", "/v2/web/manifests/v1", READ_OR_IMAGES),
    ("POST", "/v2/web/blobs/uploads/", IMAGES),
    ("PATCH", "/v2/web/blobs/uploads/7", IMAGES),
    ("PUT", "/v2/web/manifests/v1", IMAGES),
    ("DELETE", "/v2/web/manifests/v1", IMAGES),
    ("POST", "/v2x", ADMIN),
    ("POST", "/", ADMIN),
    ("OPTIONS", "/v1/machines", ASSIGN),
    ("PUT", "/v1/rules/web", ASSIGN),
    ("PUT", "/v1/metadata/web", ASSIGN),
    ("GET", "/v1/secrets", ADMIN),
    ("GET", "/", READ),
    ("POST", "/ui/tokens", READ),
    ("POST", "/uix", ADMIN),
    ("POST", "/v1/whatever-comes", ADMIN),
];

#[test]
fn each_scope_may_do_what_the_table_says() {
    for (method, path, enough) in MATRIX {
        assert_eq!(needed(method, path), enough, "{method} {path}");
        for scope in Scope::ALL {
            let may = scope == Scope::Admin || enough.contains(&scope);
            assert_eq!(allowed(&[scope].into(), method, path), may, "{scope} {method} {path}");
        }
        assert!(!allowed(&Scopes::default(), method, path));
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

fn token(scope: Scope) -> Token {
    Token {
        id: TokenId([1, 2, 3, 4]),
        name: "ci".parse().unwrap(),
        scopes: [scope].into(),
        limit: None,
        role: None,
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
fn a_token_opens_what_its_scopes_may_until_it_ends() {
    let mut memory = Memory::default();
    assert_eq!(ask(&mut memory, 9, "GET", 0), (Access::Unknown, 0), "no token is on record");
    memory.apply(Change::PutToken(token(Scope::Read)));
    let granted = Access::Granted {
        id: TokenId([1, 2, 3, 4]),
        name: "ci".parse().unwrap(),
        scopes: [Scope::Read].into(),
        limit: None,
        expires: Some(moment(86_400).now),
    };
    assert_eq!(ask(&mut memory, 8, "GET", 0), (Access::Unknown, 0), "another secret");
    assert_eq!(ask(&mut memory, 9, "GET", 0), (granted.clone(), 1));
    assert_eq!(ask(&mut memory, 9, "PUT", 1).0, Access::Denied { scopes: [Scope::Read].into(), needed: IMAGES });
    assert_eq!(ask(&mut memory, 9, "GET", 86_399).0, granted);
    assert_eq!(ask(&mut memory, 9, "GET", 86_400), (Access::Expired(moment(86_400).now), 0));
    memory.apply(Change::RemoveToken(TokenId([1, 2, 3, 4])));
    assert_eq!(ask(&mut memory, 9, "GET", 1), (Access::Unknown, 0), "revoked");
}

#[test]
fn its_use_is_written_once_an_hour() {
    let mut memory = Memory::default();
    memory.apply(Change::PutToken(token(Scope::Read)));
    let writes: Vec<usize> = [0, 1, 3599, 3600, 3601, 7199, 7200].map(|at| ask(&mut memory, 9, "GET", at).1).into();
    assert_eq!(writes, [1, 0, 0, 1, 0, 0, 1]);
    assert_eq!(ask(&mut memory, 9, "GET", 60).1, 1, "a clock that was set back is followed");
}
