//! The API over TLS: who is let in, and to what.

use super::*;
use crate::http::{
    access::digest_of,
    connection::{Limits, Listener, serve},
    tls::{Identity, tests::client},
};
use bennu_rules::{
    Change, Decision, Moment, Timestamp, View,
    token::{Bearer, Scope, Scopes, Token, TokenId},
};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{pki_types::ServerName, version::TLS13};
use std::{net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

impl Got {
    fn challenge(&self) -> &str {
        self.headers["www-authenticate"].to_str().unwrap()
    }
}

/// An appliance behind TLS, and who trusts its certificate.
pub(in crate::http) struct Far {
    pub bench: Bench,
    address: SocketAddr,
    connector: TlsConnector,
}

impl Far {
    pub async fn new() -> Self {
        let bench = Bench::new();
        let directory = bench.appliance.store.dir().join("../tls");
        let identity = Identity::own(&directory, &["localhost".to_owned()], 2026).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = access::remote(crate::http::management_router(bench.appliance.clone()), bench.appliance.clone());
        let listener = Listener::Tls(listener, identity.config.clone());
        let (limits, shutdown) = (Limits::management(), bench.appliance.shutdown.clone());
        tokio::spawn(serve(listener, router, limits, shutdown, Arc::new(|| {})));
        let connector = TlsConnector::from(Arc::new(client(&identity.certificate, &[&TLS13])));
        Self { bench, address, connector }
    }

    pub async fn connect(&self) -> http1::SendRequest<Body> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connector.connect(name, socket).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn ask(&self, method: &str, path: &str, authorization: Option<&str>) -> Got {
        ask(&mut self.connect().await, method, path, authorization, Body::empty()).await
    }

    /// Id and header of a new one.
    pub async fn token(&self, name: &str, scopes: &[&str]) -> (String, String) {
        self.make(&format!(r#"{{"name":"{name}","scopes":{scopes:?}}}"#)).await
    }

    async fn limited(&self, name: &str, limit: &str) -> (String, String) {
        self.make(&format!(r#"{{"name":"{name}","scopes":["read","assign"],"limit":"{limit}"}}"#)).await
    }

    async fn make(&self, body: &str) -> (String, String) {
        let made = self.bench.write(Method::POST, "/v1/tokens", body).await.json();
        (made["id"].as_str().unwrap().to_owned(), format!("Bearer {}", made["token"].as_str().unwrap()))
    }
}

async fn ask(
    sender: &mut http1::SendRequest<Body>,
    method: &str,
    path: &str,
    authorization: Option<&str>,
    body: Body,
) -> Got {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    sender.ready().await.unwrap();
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Got { status: parts.status, headers: parts.headers, text }
}

#[tokio::test]
async fn without_a_token_there_is_health_and_nothing_else() {
    let far = Far::new().await;
    for open in ["/healthz", "/readyz"] {
        assert_eq!(far.ask("GET", open, None).await.status, 200, "{open}");
    }
    for (method, path) in [
        ("GET", "/v1/status"),
        ("GET", "/metrics"),
        ("POST", "/healthz"),
        ("GET", "/nothing"),
        ("DELETE", "/v1/tokens/01020304"),
    ] {
        let got = far.ask(method, path, None).await;
        assert_eq!((got.status.as_u16(), got.challenge()), (401, "Bearer realm=\"bennu\""), "{path}");
        let problem = got.json();
        assert_eq!(problem["type"], "urn:bennu:problem:unauthorized");
        assert!(problem["advice"].as_str().unwrap().contains("bennu token create"), "{problem}");
    }
    for path in ["/v2", "/v2/", "/v2/web/manifests/v1"] {
        let got = far.ask("GET", path, None).await;
        assert_eq!((got.status.as_u16(), got.challenge()), (401, "Basic realm=\"bennu\""), "{path}");
        assert_eq!(got.json()["errors"][0]["code"], "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn each_scope_is_let_in_to_what_it_may() {
    let far = Far::new().await;
    let assign = "/v1/machines/52:54:00:00:00:01/assignment";
    // What is let in meets an answer of the handler's own: nothing here exists.
    let asks = [
        ("GET", "/v1/machines", "read", 200),
        ("PUT", "/v1/tags/web:v1", "images", 400),
        ("DELETE", assign, "assign", 404),
        ("POST", "/v1/machines/52:54:00:00:00:01/power", "power", 404),
        ("GET", "/v1/tokens", "admin", 200),
    ];
    for scope in ["read", "assign", "images", "power", "admin"] {
        let (_, token) = far.token(scope, &[scope]).await;
        for (method, path, needed, answer) in asks {
            let got = far.ask(method, path, Some(&token)).await;
            let expected = if scope == needed || scope == "admin" { answer } else { 403 };
            assert_eq!(got.status.as_u16(), expected, "{scope} {method} {path}: {}", got.text);
            if expected == 403 {
                let detail = got.json()["detail"].as_str().unwrap().to_owned();
                assert_eq!(detail, format!("this needs the scope {needed}, and the token has {scope}"));
            }
        }
    }
    let (_, read) = far.token("reader", &["read"]).await;
    for path in [
        "/v1/%74okens",
        "/v1/tokens/",
        "//v1//tokens",
        "/v1/./tokens",
        "/v1/machines/../tokens",
        "/v1/tokens?a=b",
        "/V1/tokens",
    ] {
        assert!(!far.ask("GET", path, Some(&read)).await.status.is_success(), "{path}");
    }
    let denied = far.ask("PUT", "/v2/web/manifests/v1", Some(&far.token("other", &["read"]).await.1)).await;
    assert_eq!((denied.status.as_u16(), &denied.json()["errors"][0]["code"]), (403, &"DENIED".into()));
}

#[tokio::test]
async fn a_wrong_revoked_or_ended_token_is_none() {
    let far = Far::new().await;
    let (id, token) = far.token("ci", &["read"]).await;
    let mut connection = far.connect().await;
    assert_eq!(ask(&mut connection, "GET", "/v1/status", Some(&token), Body::empty()).await.status, 200);
    let digit = if token.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{digit}", &token[..token.len() - 1]);
    for wrong in [wrong.as_str(), "Bearer bnu_x", "Basic x", "Bearer"] {
        let got = ask(&mut connection, "GET", "/v1/status", Some(wrong), Body::empty()).await;
        assert_eq!(got.status, 401, "{wrong}");
        assert!(!got.text.contains(&token[20..]), "{}", got.text);
    }
    assert_eq!(far.bench.delete(&format!("/v1/tokens/{id}")).await.status, StatusCode::NO_CONTENT);
    let got = ask(&mut connection, "GET", "/v1/status", Some(&token), Body::empty()).await;
    assert_eq!(got.status, 401, "the next request on the same connection");

    let bearer = Bearer { id: TokenId([9; 4]), secret: [7; 32] };
    let ended = Token {
        id: bearer.id,
        name: "old".parse().unwrap(),
        scopes: [Scope::Admin].into(),
        role: None,
        limit: None,
        secret: digest_of(&bearer.secret),
        created: Timestamp(0),
        by: "test".into(),
        expires: Some(Timestamp(1)),
        last_used: None,
    };
    let put = |token: &Token, _: &View<'_>, _: &Moment| Decision {
        changes: vec![Change::PutToken(token.clone())],
        ..Decision::just(())
    };
    far.bench.record(ended, put).await;
    let got = far.ask("GET", "/v1/status", Some(&format!("Bearer {}", bearer.reveal()))).await;
    assert_eq!(got.status, 401);
    assert!(got.text.contains("ended at 1970-01-01"), "{}", got.text);
}

#[tokio::test]
async fn the_token_may_be_any_users_password() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let far = Far::new().await;
    let (_, token) = far.token("ci", &["read", "images"]).await;
    let token = token.strip_prefix("Bearer ").unwrap();
    let basic = |pair: String| format!("Basic {}", BASE64_STANDARD.encode(pair));
    assert_eq!(far.ask("GET", "/v1/status", Some(&basic(format!("anybody:{token}")))).await.status, 200);
    assert_eq!(far.ask("GET", "/v1/status", Some(&basic("anybody:password".into()))).await.status, 401);
}

#[tokio::test]
async fn whoever_guesses_is_slowed_and_counted() {
    let far = Far::new().await;
    let (_, token) = far.token("ci", &["read"]).await;
    let mut connection = far.connect().await;
    let mut limited = None;
    for guess in 0..30 {
        let got = ask(&mut connection, "GET", "/v1/status", Some("Bearer wrong"), Body::empty()).await;
        if got.status == 429 {
            limited = Some((guess, got));
            break;
        }
        assert_eq!(got.status, 401);
        let none = ask(&mut connection, "GET", "/v1/status", None, Body::empty()).await;
        assert_eq!(none.status, 401, "to show none is no guess");
    }
    let (after, got) = limited.expect("it is slowed");
    assert!((10..20).contains(&after), "after {after}");
    let wait: u64 = got.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    assert_eq!(far.ask("GET", "/healthz", None).await.status, 200);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    let metrics = far.ask("GET", "/metrics", Some(&token)).await;
    assert_eq!(metrics.status, 200, "it waited as it was told");
    assert!(metrics.text.contains(&format!("bennu_tokens_refused_total {after}\n")), "{}", metrics.text);
    assert!(metrics.text.contains("bennu_tokens_limited_total 1\n"), "{}", metrics.text);
}

#[tokio::test]
async fn it_is_noted_that_a_token_is_used() {
    let far = Far::new().await;
    let (_, token) = far.token("ci", &["read"]).await;
    let used = async || far.bench.get("/v1/tokens").await.json()["items"][0]["last_used"].as_u64();
    assert_eq!(used().await, None);
    assert_eq!(far.ask("GET", "/v1/status", Some(&token)).await.status, 200);
    for _ in 0..100 {
        if used().await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing was noted");
}

#[tokio::test]
async fn an_import_comes_in_chunks_and_its_refusal_is_read() {
    let far = Far::new().await;
    let (_, token) = far.token("ci", &["read", "images"]).await;
    let path = "/v1/imports?kind=foreign&name=web:v1&source=test";
    let chunks = |bytes: Vec<u8>| {
        let chunks: Vec<_> =
            bytes.chunks(1000).map(|part| Ok::<_, std::io::Error>(Bytes::copy_from_slice(part))).collect();
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    let got = ask(&mut far.connect().await, "POST", path, Some(&token), chunks(foreign_tar(1))).await;
    assert_eq!(got.status, 200);
    assert!(got.text.lines().last().unwrap().contains("web:v1"), "{}", got.text);
    let large = vec![7; 12 << 20];
    let got = ask(&mut far.connect().await, "POST", path, None, chunks(large)).await;
    assert_eq!(got.status, 401, "although it was not done sending");
}

#[tokio::test]
async fn the_local_socket_needs_no_token_and_tells_its_user() {
    use crate::http::connection::serve_unix;
    use tokio::net::{UnixListener, UnixStream};
    let bench = Bench::new();
    let path = bench.appliance.store.dir().join("../bennu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(serve_unix(listener, bench.router.clone(), bench.appliance.shutdown.clone()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = Body::from(r#"{"name":"first","scopes":["admin"]}"#);
    let made = ask(&mut sender, "POST", "/v1/tokens", None, body).await;
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(made.json()["by"], format!("local (uid {uid})"), "{}", made.text);
}

#[tokio::test]
async fn handlers_know_who_asks() {
    let far = Far::new().await;
    let (id, token) = far.token("boss", &["admin"]).await;
    let mut connection = far.connect().await;
    let body = Body::from(r#"{"name":"second","scopes":["read"]}"#);
    let made = ask(&mut connection, "POST", "/v1/tokens", Some(&token), body).await;
    assert_eq!(made.json()["by"], format!("boss (token {id})"), "{}", made.text);
}

#[tokio::test]
async fn the_first_admin_comes_from_the_socket_alone() {
    let far = Far::new().await;
    let body = || Body::from(r#"{"name":"first","scopes":["admin"]}"#);
    let mut connection = far.connect().await;
    assert_eq!(ask(&mut connection, "POST", "/v1/tokens", None, body()).await.status, 401);
    let (_, other) = far.token("ci", &["read", "assign", "images", "power"]).await;
    assert_eq!(ask(&mut far.connect().await, "POST", "/v1/tokens", Some(&other), body()).await.status, 403);
    let (_, boss) = far.token("boss", &["admin"]).await;
    assert_eq!(ask(&mut far.connect().await, "POST", "/v1/tokens", Some(&boss), body()).await.status, 201);
}

/// Three machines: of rack r1, of rack r2, of none; each with a boot.
async fn racks(far: &Far) {
    for (last, labels) in [(1, r#"{"rack":"r1"}"#), (2, r#"{"rack":"r2"}"#), (3, "{}")] {
        let path = format!("/v1/machines/52:54:00:00:00:0{last}");
        let body = format!(r#"{{"labels":{labels}}}"#);
        assert!(far.bench.write(Method::PATCH, &path, &body).await.status.is_success());
        far.bench.boot(&format!("52:54:00:00:00:0{last}"), vec![discover()]).await;
    }
}

#[tokio::test]
async fn who_is_limited_to_labels_sees_and_changes_nothing_else() {
    let far = Far::new().await;
    racks(&far).await;
    far.bench.import("web:v1", 1).await;
    for last in [1, 2] {
        let path = format!("/v1/machines/52:54:00:00:00:0{last}/assignment");
        far.bench.write(Method::PUT, &path, r#"{"image":"web:v1"}"#).await;
    }
    let (_, token) = far.limited("r1", "rack=r1").await;
    for path in ["/v1/machines", "/v1/boots", "/v1/images", "/v1/images/web:v1", "/v1/leases"] {
        let got = far.ask("GET", path, Some(&token)).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text);
        assert!(!got.text.contains(":00:02") && !got.text.contains(":00:03"), "{path}: {}", got.text);
        assert!(path == "/v1/leases" || got.text.contains(":00:01"), "{path}: {}", got.text);
    }
    let own = "/v1/machines/52:54:00:00:00:01";
    for path in [own, &format!("{own}/explain"), &format!("{own}/boots")] {
        assert_eq!(far.ask("GET", path, Some(&token)).await.status, 200, "{path}");
    }
    let boots = far.bench.get("/v1/boots").await.json();
    for boot in boots["items"].as_array().unwrap() {
        let got = far.ask("GET", &format!("/v1/boots/{}", boot["id"].as_str().unwrap()), Some(&token)).await;
        let expected = if boot["machine"] == "52:54:00:00:00:01" { 200 } else { 403 };
        assert_eq!(got.status.as_u16(), expected, "{}", got.text);
    }
    for other in ["02", "03", "09"] {
        let other = format!("/v1/machines/52:54:00:00:00:{other}");
        for path in [other.clone(), format!("{other}/explain"), format!("{other}/boots")] {
            let got = far.ask("GET", &path, Some(&token)).await;
            assert_eq!(got.status, 403, "{path}");
            assert!(got.text.contains("rack=r1"), "{}", got.text);
        }
    }
    for path in ["/v1/audit", "/v1/status", "/metrics", "/v2/", "/v1/pushes", "/v1/scrub", "/v1/exports/web:v1"] {
        assert_eq!(far.ask("GET", path, Some(&token)).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn who_is_limited_to_labels_cannot_widen_that() {
    let far = Far::new().await;
    racks(&far).await;
    let (_, token) = far.limited("r1", "rack=r1").await;
    let before = far.bench.get("/v1/machines").await.json();
    let write = async |method: &str, last: u8, body: &'static str| {
        let path = format!("/v1/machines/52:54:00:00:00:0{last}");
        ask(&mut far.connect().await, method, &path, Some(&token), Body::from(body)).await
    };
    for (method, last, body) in [
        ("PATCH", 1, r#"{"labels":{"rack":"r2"}}"#),
        ("PATCH", 1, r#"{"labels":{"rack":null}}"#),
        ("PATCH", 1, r#"{"join":["52:54:00:00:00:02"]}"#),
        ("PATCH", 1, r#"{"join":["52:54:00:00:00:03"]}"#),
        ("PATCH", 1, r#"{"join":["52:54:00:00:00:09"]}"#),
        ("PATCH", 2, r#"{"labels":{"rack":"r1"}}"#),
        ("PATCH", 3, r#"{"labels":{"rack":"r1"}}"#),
        ("PATCH", 9, r#"{"labels":{"rack":"r1"}}"#),
        ("DELETE", 2, ""),
        ("DELETE", 3, ""),
    ] {
        let got = write(method, last, body).await;
        assert_eq!(got.status, 403, "{method} {last} {body}: {}", got.text);
        assert_eq!(got.json()["type"], "urn:bennu:problem:forbidden");
    }
    assert_eq!(far.bench.get("/v1/machines").await.json(), before, "nothing was changed");
    assert_eq!(write("PATCH", 1, r#"{"labels":{"role":"web"}}"#).await.status, 200);
    let newest = far.bench.get("/v1/audit?limit=1").await.json()["items"][0].clone();
    assert_eq!((&newest["who"]["name"], &newest["who"]["kind"]), (&"r1".into(), &"token".into()));
    assert!(newest["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{newest}");
    assert_eq!(write("DELETE", 1, "").await.status, 204);
}

#[tokio::test]
async fn an_event_stream_is_limited_and_ends_with_its_token() {
    let far = Far::new().await;
    racks(&far).await;
    let (id, token) = far.limited("r1", "rack=r1").await;
    let mut sender = far.connect().await;
    let request = Request::get("/v1/events").header("host", "localhost").header("authorization", &token);
    let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let see = |mac: &str| {
        far.bench.appliance.ledger.observe(mac.parse().unwrap(), Seen::DhcpNak { reason: format!("of {mac}") })
    };
    see("52:54:00:00:00:02");
    see("52:54:00:00:00:01");
    let next = async |body: &mut hyper::body::Incoming| {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("nothing came");
        frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    };
    let first = next(&mut body).await.unwrap();
    assert!(first.contains("of 52:54:00:00:00:01") && !first.contains(":00:02"), "{first}");
    far.bench.write(Method::PATCH, "/v1/machines/52:54:00:00:00:02", r#"{"labels":{"a":"b"}}"#).await;
    far.bench.delete(&format!("/v1/tokens/{id}")).await;
    assert_eq!(next(&mut body).await, None, "neither another's write, nor more after the token was revoked");
}

/// Every operation of the description with every token that is not good for it: refused, and nothing is changed. A new
/// route is tried without being named here.
#[tokio::test]
async fn no_operation_heeds_a_token_that_is_not_good_for_it() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    bench.write(Method::PUT, "/v1/machines/52:54:00:00:00:01/assignment", r#"{"image":"web:v1"}"#).await;
    let router = access::remote(super::super::router(bench.appliance.clone()), bench.appliance.clone());
    let mut tokens = Vec::new();
    for scope in Scope::ALL {
        let body = format!(r#"{{"name":"{scope}","scopes":["{scope}"]}}"#);
        let made = bench.write(Method::POST, "/v1/tokens", &body).await.json();
        tokens.push((Scopes::from([scope]), format!("Bearer {}", made["token"].as_str().unwrap())));
    }
    let ended = expired(&bench).await;
    let state = || async {
        let mut state = Vec::new();
        for path in ["/v1/machines", "/v1/images", "/v1/leases", "/v1/boots", "/v1/pushes", "/v1/tags/web:v1"] {
            state.push(bench.get(path).await.text);
        }
        // That a token was used is noted, and is no change of what it may do.
        let tokens = bench.get("/v1/tokens").await.json()["items"].as_array().unwrap().len();
        (state, tokens, bench.blobs())
    };
    let before = state().await;
    let description = super::super::routes().parts().1;
    let (mut refused, mut tried) = (0, 0);
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let target = path
                .replace("{mac}", "52:54:00:00:00:01")
                .replace("{name}", "web:v1")
                .replace("{reference}", "web:v1")
                .replace("{id}", "01020304")
                .replace("{file}", "start.js");
            if bennu_rules::access::is_open(&method, &target) {
                continue;
            }
            let is_weak = |scopes: &Scopes| !bennu_rules::access::allowed(scopes, &method, &target);
            let weak =
                tokens.iter().filter(|(scopes, _)| is_weak(scopes)).map(|(_, token)| (Some(token.as_str()), 403));
            let strangers = [(None, 401), (Some(ended.as_str()), 401), (Some("Bearer nonsense"), 401)];
            for (token, wanted) in weak.chain(strangers) {
                // Each from an address of its own, or the guard would soon hear nobody.
                let octets = [10_u8, 9, (tried >> 8) as u8, tried as u8];
                tried += 1;
                let mut request = Request::builder().method(method.as_str()).uri(&target);
                if let Some(token) = token {
                    request = request.header("authorization", token);
                }
                let mut request = request.body(Body::from(r#"{"image":"web:v1","do":"rollback"}"#)).unwrap();
                let peer = SocketAddr::from((octets, 4242));
                request.extensions_mut().insert(crate::http::connection::PeerAddr(peer));
                let response = router.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status().as_u16(), wanted, "{method} {target} with {token:?}");
                assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {target}");
                refused += 1;
            }
        }
    }
    assert!(refused > 130, "{refused}");
    assert_eq!(state().await, before);
}

/// A token that has ended.
async fn expired(bench: &Bench) -> String {
    let (id, secret) = (TokenId([1, 2, 3, 4]), [7; 32]);
    let token = Token {
        id,
        name: "ended".parse().unwrap(),
        scopes: [Scope::Admin].into(),
        role: None,
        limit: None,
        secret: digest_of(&secret),
        created: Timestamp(0),
        by: "a test".into(),
        expires: Some(Timestamp(1)),
        last_used: None,
    };
    let put = |token: &Token, _: &View<'_>, _: &Moment| Decision {
        changes: vec![Change::PutToken(token.clone())],
        ..Decision::just(())
    };
    bench.record(token, put).await;
    format!("Bearer {}", Bearer { id, secret }.reveal())
}
