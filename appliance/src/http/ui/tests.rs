//! The pages over the doors by which browsers come: who gets in, what they may do, and what hostile names come to.

mod hostile;

use crate::http::{access, api::tests::Bench, management_router};
use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

pub(super) const MAC: &str = "52:54:00:00:00:01";

/// An appliance whose door to the network stands open, without TLS under it.
pub(super) struct Far {
    pub bench: Bench,
    door: Router,
}

pub(super) struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A browser that logged in.
pub(super) struct Browser {
    cookie: String,
    pub key: String,
}

impl Far {
    pub fn new() -> Self {
        let bench = Bench::new();
        let door = access::remote(management_router(bench.appliance.clone()), bench.appliance.clone());
        Self { bench, door }
    }

    async fn token(&self, name: &str, scope: &str) -> (String, String) {
        let body = format!(r#"{{"name":"{name}","scopes":["{scope}"]}}"#);
        let made = self.bench.write(Method::POST, "/v1/tokens", &body).await.json();
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let mut request = Request::builder().method(method).uri(path).header("host", "bennu.example:8443");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.door.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { status: parts.status, headers: parts.headers, text }
    }

    async fn log_in(&self, token: &str) -> Browser {
        let got = self.send("POST", "/login", &[], &format!("token={token}")).await;
        assert_eq!((got.status, got.header("location")), (StatusCode::SEE_OTHER, "/"), "{}", got.text);
        let cookie = got.header("set-cookie").split(';').next().unwrap().to_owned();
        let page = self.send("GET", "/", &[("cookie", &cookie)], "").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let key = page.text.split("data-key=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        Browser { cookie, key }
    }

    /// A browser in which somebody with such a token logged in.
    pub async fn browser(&self, scope: &str) -> Browser {
        let (_, token) = self.token(&format!("a-{scope}"), scope).await;
        self.log_in(&token).await
    }

    pub async fn open(&self, browser: &Browser, path: &str) -> Got {
        self.send("GET", path, &[("cookie", &browser.cookie)], "").await
    }

    async fn submit(&self, browser: &Browser, path: &str, fields: &str) -> Got {
        let body = format!("key={}&{fields}", browser.key);
        self.send("POST", path, &[("cookie", &browser.cookie)], &body).await
    }

    async fn labels(&self) -> String {
        self.bench.get(&format!("/v1/machines/{MAC}")).await.json()["labels"].to_string()
    }

    async fn declare(&self) {
        let declared =
            self.bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), r#"{"labels":{"rack":"r1"}}"#).await;
        assert_eq!(declared.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_browser_logs_in_with_a_token_and_out_again() {
    let far = Far::new();
    let (_, token) = far.token("ops", "read").await;
    let stranger = far.send("GET", "/ui/images", &[], "").await;
    assert_eq!((stranger.status.as_u16(), stranger.header("location")), (303, "/login?next=%2Fui%2Fimages"));
    let form = far.send("GET", "/login?next=%2Fui%2Fimages", &[], "").await;
    assert!(form.text.contains(r#"name="next" value="/ui/images""#), "{}", form.text);
    let last = if token.ends_with('0') { '1' } else { '0' };
    let wrong = far.send("POST", "/login", &[], &format!("token={}{last}", &token[..token.len() - 1])).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(!wrong.text.contains(&token[10..30]) && wrong.header("set-cookie").is_empty(), "{}", wrong.text);
    let entered = far.send("POST", "/login", &[], &format!("token={token}&next=/ui/images")).await;
    assert_eq!(entered.header("location"), "/ui/images");
    let cookie = entered.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-bennu=") && cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    let browser = far.log_in(&token).await;
    let out = far.submit(&browser, "/ui/logout", "").await;
    assert_eq!((out.status.as_u16(), out.header("location")), (303, "/login"));
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(far.open(&browser, "/").await.status, 303, "the cookie opens nothing more");
}

#[tokio::test]
async fn who_is_limited_to_labels_has_pages_of_their_machines_alone() {
    let far = Far::new();
    far.declare().await;
    let other = "52:54:00:00:00:02";
    far.bench.write(Method::PATCH, &format!("/v1/machines/{other}"), r#"{"labels":{"rack":"r2"}}"#).await;
    let body = r#"{"name":"r1","scopes":["read","assign"],"limit":"rack=r1"}"#;
    let made = far.bench.write(Method::POST, "/v1/tokens", body).await.json();
    let browser = far.log_in(made["token"].as_str().unwrap()).await;
    for path in ["/", "/ui/images", "/ui/leases", "/ui/events", &format!("/ui/machines/{MAC}")] {
        let page = far.open(&browser, path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(!page.text.contains(other), "{path}");
        assert!(!page.text.contains("href=\"/ui/rules\"") && !page.text.contains("href=\"/ui/audit\""), "{path}");
    }
    assert!(far.open(&browser, "/").await.text.contains(MAC));
    for path in ["/ui/rules", "/ui/audit", "/ui/tokens", &format!("/ui/machines/{other}")] {
        let page = far.open(&browser, path).await;
        assert_eq!(page.status, 403, "{path}: {}", page.text);
    }
    let page = far.open(&browser, "/ui/rules").await;
    assert!(page.text.contains("limited to machines with rack=r1"), "{}", page.text);
    let ours = far.submit(&browser, &format!("/ui/machines/{MAC}/labels"), "name=role&value=web").await;
    assert_eq!(ours.status, 303, "{}", ours.text);
    let theirs = far.submit(&browser, &format!("/ui/machines/{other}/labels"), "name=role&value=web").await;
    assert_eq!(theirs.status, 403, "{}", theirs.text);
}

#[tokio::test]
async fn an_event_stream_ends_when_its_session_does() {
    let far = Far::new();
    let browser = far.browser("read").await;
    let request = Request::get("/v1/events").header("host", "bennu.example:8443").header("cookie", &browser.cookie);
    let response = far.door.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let soon = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(soon, body.frame()).await.is_err(), "it goes on");
    assert_eq!(far.submit(&browser, "/ui/logout", "").await.status, StatusCode::SEE_OTHER);
    let end = tokio::time::timeout(std::time::Duration::from_secs(5), body.frame()).await;
    assert!(end.expect("it ends").is_none());
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let far = Far::new();
    let (id, token) = far.token("ops", "admin").await;
    let browser = far.log_in(&token).await;
    assert_eq!(far.open(&browser, "/v1/status").await.status, 200, "the script reads the API with the cookie");
    far.bench.delete(&format!("/v1/tokens/{id}")).await;
    assert_eq!(far.open(&browser, "/").await.header("location"), "/login");
    assert_eq!(far.open(&browser, "/v1/status").await.status, 401);
    let again = far.send("POST", "/login", &[], &format!("token={token}")).await;
    assert_eq!(again.status, 401);
}

#[tokio::test]
async fn whoever_guesses_tokens_in_the_form_is_slowed() {
    let far = Far::new();
    let mut answers = Vec::new();
    for _ in 0..14 {
        let got = far.send("POST", "/login", &[], "token=wrong").await;
        answers.push((got.status.as_u16(), got.headers.contains_key(header::RETRY_AFTER)));
    }
    assert_eq!(answers[0], (401, false));
    assert_eq!(answers[13], (429, true), "{answers:?}");
}

#[tokio::test]
async fn what_another_site_sends_changes_nothing() {
    let far = Far::new();
    far.declare().await;
    let before = far.labels().await;
    let browser = far.browser("admin").await;
    let form = format!("/ui/machines/{MAC}/labels");
    let cookie = ("cookie", browser.cookie.as_str());
    let keyed = format!("key={}&name=rack&value=stolen", browser.key);
    for (headers, body) in [
        (vec![cookie], "name=rack&value=stolen"),
        (vec![cookie], "key=&name=rack&value=stolen"),
        (vec![cookie], &*format!("key={}&name=rack&value=stolen", "0".repeat(64))),
        (vec![cookie, ("sec-fetch-site", "cross-site")], &keyed),
        (vec![cookie, ("sec-fetch-site", "same-site")], &keyed),
        (vec![cookie, ("origin", "https://evil.example")], &keyed),
        (vec![cookie, ("origin", "null")], &keyed),
    ] {
        let got = far.send("POST", &form, &headers, body).await;
        assert_eq!(got.status, 403, "{headers:?} {body}: {}", got.text);
    }
    let patch = r#"{"labels":{"rack":"stolen"}}"#;
    let api = format!("/v1/machines/{MAC}");
    assert_eq!(far.send("PATCH", &api, &[cookie], patch).await.status, 403, "the cookie alone writes nothing");
    assert_eq!(far.send("PATCH", &api, &[cookie, ("x-bennu-key", "0")], patch).await.status, 403);
    assert_eq!(far.send("GET", "/v2/", &[cookie], "").await.status, 401, "the registry knows no sessions");
    assert_eq!(far.send("POST", "/login", &[("origin", "https://evil.example")], "token=x").await.status, 403);
    assert_eq!(far.labels().await, before);
    let own = [cookie, ("sec-fetch-site", "same-origin"), ("origin", "https://bennu.example:8443")];
    let got = far.send("POST", &form, &own, &keyed).await;
    assert_eq!(got.status, 303, "{}", got.text);
    assert_eq!(far.labels().await, r#"{"rack":"stolen"}"#);
    assert_eq!(far.send("PATCH", &api, &[cookie, ("x-bennu-key", &browser.key)], patch).await.status, 200);
}

#[tokio::test]
async fn a_page_can_do_no_more_than_its_token() {
    let far = Far::new();
    far.declare().await;
    far.bench.import("web:v1", 1).await;
    far.bench.import("web:v1", 2).await;
    let before = far.labels().await;
    let reader = far.browser("read").await;
    let machine = far.open(&reader, &format!("/ui/machines/{MAC}")).await;
    assert_eq!(machine.status, 200);
    assert!(!machine.text.contains("Forget it") && !machine.text.contains(r#"name="image""#), "{}", machine.text);
    assert!(!far.open(&reader, "/ui/images").await.text.contains("Roll web:v1 back"));
    for (path, fields) in [
        (format!("/ui/machines/{MAC}/assignment"), "image=web:v1"),
        (format!("/ui/machines/{MAC}/labels"), "name=rack&value=r2"),
        (format!("/ui/machines/{MAC}/forget"), "sure=yes"),
        ("/ui/tags".to_owned(), "tag=web:v1&do=rollback"),
        ("/ui/tags".to_owned(), "tag=web:v1&do=remove&sure=yes"),
    ] {
        let got = far.submit(&reader, &path, fields).await;
        assert_eq!(got.status, 403, "{path}: {}", got.text);
    }
    assert_eq!(far.labels().await, before);
    assert_eq!(far.bench.get("/v1/tags/web:v1").await.json()["history"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn forms_do_what_they_say() {
    let far = Far::new();
    far.declare().await;
    let first = far.bench.import("web:v1", 1).await["digest"].clone();
    far.bench.import("web:v1", 2).await;
    let browser = far.browser("admin").await;
    let page = far.open(&browser, &format!("/ui/machines/{MAC}")).await;
    let etag = page.text.split(r#"name="etag" value=""#).nth(1).unwrap().split('"').next().unwrap();
    let etag = etag.replace("&quot;", "%22").replace("&#34;", "%22");
    let assignment = format!("/ui/machines/{MAC}/assignment");
    let got = far.submit(&browser, &assignment, &format!("image=web:v1&etag={etag}")).await;
    assert_eq!(got.header("location"), format!("/ui/machines/{MAC}?done=assigned"), "{}", got.text);
    assert!(far.open(&browser, got.header("location")).await.text.contains("<option selected>web:v1</option>"));
    let stale = far.submit(&browser, &assignment, &format!("image=local&etag={etag}")).await;
    assert_eq!(stale.status, 412, "somebody else changed it since: {}", stale.text);
    assert!(stale.text.contains("look at the machine again"), "{}", stale.text);
    assert_eq!(far.submit(&browser, &assignment, "image=nothing:here").await.status, 404);
    assert_eq!(far.submit(&browser, &assignment, "image=").await.status, 303);
    assert!(far.bench.get(&format!("/v1/machines/{MAC}")).await.json()["assignment"].is_null());
    assert_eq!(
        far.submit(&browser, "/ui/tags", "tag=web:v1&do=rollback").await.header("location"),
        "/ui/images?done=rolled-back"
    );
    assert_eq!(far.bench.get("/v1/tags/web:v1").await.json()["digest"], first);
    assert_eq!(far.submit(&browser, &format!("/ui/machines/{MAC}/forget"), "").await.status, 400, "it is not meant");
    assert_eq!(far.submit(&browser, &format!("/ui/machines/{MAC}/forget"), "sure=yes").await.header("location"), "/");
    assert_eq!(far.bench.get(&format!("/v1/machines/{MAC}")).await.status, 404);
}

#[tokio::test]
async fn rules_are_set_and_removed() {
    let far = Far::new();
    far.declare().await;
    far.bench.import("web:v1", 1).await;
    let admin = far.browser("admin").await;
    let set = "do=set&name=web-servers&selector=rack%3Dr1&image=web:v1&priority=5&description=%3Cimg+src%3Dx%3E";
    assert_eq!(far.submit(&admin, "/ui/rules", set).await.header("location"), "/ui/rules?done=set");
    let rule = far.bench.get("/v1/rules/web-servers").await.json();
    assert_eq!((rule["selector"].as_str(), rule["priority"].as_i64()), (Some("rack=r1"), Some(5)));
    let shown = far.open(&admin, "/ui/rules").await;
    assert!(shown.text.contains("web-servers") && !shown.text.contains("<img"), "{}", shown.text);
    let by_rule = far.open(&admin, &format!("/ui/machines/{MAC}")).await;
    assert!(by_rule.text.contains("web-servers"), "the machine's page says by which rule: {}", by_rule.text);
    for fields in [
        "do=set&name=a&selector=((&image=web:v1",
        "do=set&name=a&image=web:v1&priority=high",
        "do=remove&name=web-servers",
    ] {
        assert!(far.submit(&admin, "/ui/rules", fields).await.status.is_client_error(), "{fields}");
    }
    assert_eq!(far.submit(&admin, "/ui/rules", "do=remove&name=web-servers&sure=yes").await.status, 303);
    assert_eq!(far.bench.get("/v1/rules/web-servers").await.status, 404);
    let reader = far.browser("read").await;
    assert_eq!(far.submit(&reader, "/ui/rules", set).await.status, 403);
}

#[tokio::test]
async fn a_new_token_is_shown_once() {
    let far = Far::new();
    let admin = far.browser("admin").await;
    let made = far.submit(&admin, "/ui/tokens", "do=make&name=ci&scopes=read,images&days=30").await;
    let token = made.text.split(r#"id="made">"#).nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(token.starts_with("bnu_") && made.header("cache-control") == "no-store", "{token}");
    let list = far.open(&admin, "/ui/tokens").await;
    assert!(list.text.contains(&token[4..12]) && !list.text.contains(&token[13..40]), "{}", list.text);
    let bearer = format!("Bearer {token}");
    assert_eq!(far.send("GET", "/v1/status", &[("authorization", &bearer)], "").await.status, 200);
    for (fields, status) in [
        ("do=make&name=ci&scopes=images", 409),
        ("do=make&name=a+b&scopes=images", 400),
        ("do=make&name=other&scopes=root", 400),
        ("do=make&name=other&scopes=read&days=soon", 400),
        ("do=revoke&id=nobody&sure=yes", 400),
    ] {
        assert_eq!(far.submit(&admin, "/ui/tokens", fields).await.status.as_u16(), status, "{fields}");
    }
    let revoke = format!("do=revoke&id={}", &token[4..12]);
    assert_eq!(far.submit(&admin, "/ui/tokens", &revoke).await.status, 400, "it is not meant");
    assert_eq!(far.submit(&admin, "/ui/tokens", &format!("{revoke}&sure=yes")).await.status, 303);
    assert_eq!(far.send("GET", "/v1/status", &[("authorization", &bearer)], "").await.status, 401);
    let reader = far.browser("read").await;
    assert_eq!(far.open(&reader, "/ui/tokens").await.status, 403);
    assert_eq!(far.submit(&reader, "/ui/tokens", "do=make&name=mine&scopes=admin").await.status, 403);
    assert!(!far.open(&reader, "/").await.text.contains("/ui/tokens"));
}

#[tokio::test]
async fn the_rack_is_searched_and_grouped() {
    let far = Far::new();
    far.declare().await;
    let other = r#"{"labels":{"rack":"r2","role":"db"}}"#;
    far.bench.write(Method::PATCH, "/v1/machines/52:54:00:00:00:02", other).await;
    let browser = far.browser("read").await;
    let both = far.open(&browser, "/").await.text;
    assert!(both.contains("<bdi>r1</bdi>") && both.contains("<bdi>r2</bdi>") && both.contains(r#"scope="rowgroup""#));
    for (query, first, second) in [
        ("?q=rack%3DR1", true, false),
        ("?q=db+r2", false, true),
        ("?q=00:02", false, true),
        ("?state=never&group=role", true, true),
        ("?state=up", false, false),
        ("?q=nobody", false, false),
    ] {
        let text = far.open(&browser, &format!("/{query}")).await.text;
        let has = |mac: &str| text.contains(&format!(r#"data-mac="{mac}""#));
        assert_eq!((has(MAC), has("52:54:00:00:00:02")), (first, second), "{query}");
    }
    assert_eq!(far.open(&browser, "/?wrong=1").await.status, 400);
}

#[tokio::test]
async fn assets_are_kept_for_good_and_pages_are_not() {
    let far = Far::new();
    let page = far.send("GET", "/login", &[], "").await;
    assert_eq!(page.header("cache-control"), "no-store");
    let path = page.text.split("stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let asset = far.send("GET", &path, &[], "").await;
    assert_eq!((asset.status.as_u16(), asset.header("content-type")), (200, "text/css; charset=utf-8"));
    assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
    let known = far.send("GET", &path, &[("if-none-match", asset.header("etag"))], "").await;
    assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
    assert_eq!(far.send("GET", &path.replace("bennu.css", "other.css"), &[], "").await.status, 404);
    let other = far.send("GET", "/ui/assets/0/bennu.css", &[], "").await;
    assert_eq!(other.header("cache-control"), "no-cache");
}

#[tokio::test]
async fn the_local_socket_shows_pages_to_its_owner_and_to_no_page_of_the_web() {
    let bench = Bench::new();
    assert_eq!(bench.get("/").await.status, 200);
    assert_eq!(bench.get("/login").await.headers["location"], "/");
    let ask = async |headers: &[(&str, &str)], method: &str| {
        let mut request = Request::builder().method(method).uri(format!("/v1/machines/{MAC}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        bench.router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&[("host", "localhost:8000"), ("origin", "http://localhost:8000")], "PATCH").await, 200);
    assert_eq!(ask(&[("host", "evil.example:8000")], "GET").await, 403);
    assert_eq!(ask(&[("host", "localhost:8000"), ("origin", "http://evil.example")], "PATCH").await, 403);
    let form = bench.write(Method::POST, &format!("/ui/machines/{MAC}/labels"), "name=a&value=b").await;
    assert_eq!(form.status, 403, "the key is asked for here too");
}
