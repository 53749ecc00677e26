//! Writes that know what they change, of every kind of resource (RFC 9110 §13.1).

use super::*;

impl Bench {
    async fn ask_if(&self, method: &str, path: &str, condition: (&str, &str), body: &str) -> Got {
        let request = Request::builder().method(method).uri(path).header(condition.0, condition.1);
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// A write with the ETag of before is refused and changes nothing, and with today's it is carried out.
    async fn heeds(&self, resource: &str, method: &str, path: &str, body: &str, stale: &str) {
        let now = self.get(resource).await.etag().to_owned();
        assert_ne!(now, stale, "{resource}");
        let refused = self.ask_if(method, path, ("if-match", stale), body).await;
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{method} {path}: {}", refused.text);
        let problem = refused.json();
        assert_eq!(problem["type"], "urn:bennu:problem:precondition", "{problem}");
        assert!(problem["advice"].as_str().unwrap().contains("ETag"), "{problem}");
        assert_eq!(self.get(resource).await.etag(), now, "{method} {path} changed something");
        let done = self.ask_if(method, path, ("if-match", &now), body).await;
        assert!(done.status.is_success(), "{method} {path}: {}", done.text);
    }
}

#[tokio::test]
async fn tags_and_images() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    let second = bench.import("web:v2", 2).await["digest"].as_str().unwrap().to_owned();
    let put = |condition, body: &'static str| bench.ask_if("PUT", "/v1/tags/web:stable", condition, body);
    let first = put(("if-none-match", "*"), r#"{"image":"web:v1"}"#).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    let there = put(("if-none-match", "*"), r#"{"image":"web:v2"}"#).await;
    assert_eq!(there.status, StatusCode::PRECONDITION_FAILED, "{}", there.text);
    assert!(there.json()["detail"].as_str().unwrap().contains("tag web:stable is there already"), "{}", there.text);
    let stale = first.etag().to_owned();
    assert_eq!(stale.split('-').next(), bench.get("/v1/tags/web:stable").await.etag().split('-').next());
    assert_eq!(put(("if-match", &stale), r#"{"image":"web:v2"}"#).await.status, StatusCode::OK);
    let (tag, back) = ("/v1/tags/web:stable", r#"{"do":"rollback"}"#);
    bench.heeds(tag, "POST", tag, back, &stale).await;
    bench.heeds(tag, "PUT", tag, r#"{"image":"web:v2"}"#, &stale).await;
    assert_eq!(bench.ask_if("PUT", "/v1/tags/web:new", ("if-match", "*"), r#"{"image":"web:v2"}"#).await.status, 412);

    let image = format!("/v1/images/{second}");
    let stale = bench.get(&image).await.etag().to_owned();
    bench.write(Method::PUT, "/v1/tags/web:other", &format!(r#"{{"image":"{second}"}}"#)).await;
    bench.heeds(&image, "DELETE", &image, "", &stale).await;
    assert_eq!(bench.ask_if("DELETE", &image, ("if-match", &stale), "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn secrets() {
    let bench = Bench::new();
    let (path, body) = ("/v1/secrets/db", r#"{"selector":"role=db","value":"a"}"#);
    let first = bench.ask_if("PUT", path, ("if-none-match", "*"), body).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    assert_eq!(bench.ask_if("PUT", path, ("if-none-match", "*"), body).await.status, StatusCode::PRECONDITION_FAILED);
    let stale = first.etag().to_owned();
    assert_eq!(bench.ask_if("PUT", path, ("if-match", &stale), body).await.status, StatusCode::OK);
    bench.heeds(path, "PUT", path, body, &stale).await;
    bench.heeds(path, "DELETE", path, "", &stale).await;
}

#[tokio::test]
async fn tokens() {
    let bench = Bench::new();
    let made = bench.write(Method::POST, "/v1/tokens", r#"{"name":"ci","scopes":["read"]}"#).await.json();
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    let shown = bench.get(&path).await;
    assert_eq!(shown.json()["name"], "ci");
    assert!(!shown.text.contains("secret") && !shown.text.contains("bnu_"), "{}", shown.text);
    bench.heeds(&path, "DELETE", &path, "", "\"other\"").await;
    assert_eq!(bench.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pushes() {
    use bennu_rules::{
        Change, Decision, Timestamp,
        image::Digest,
        registry::{Outcome, Push},
    };
    let bench = Bench::new();
    let outcome = Outcome::Failed { reason: "no kernel".into(), advice: "push one".into() };
    let (name, by) = ("web:v1".parse().unwrap(), "ci".into());
    let push = Push { name, digest: Digest([1; 32]), at: Timestamp(1), by, outcome };
    let put = |push: &Push, _: &bennu_rules::View<'_>, _: &bennu_rules::Moment| {
        let changes = vec![Change::PutPush(push.clone())];
        Decision { changes, ..Decision::just(()) }
    };
    bench.record(push, put).await;
    bench.heeds("/v1/pushes/web:v1", "POST", "/v1/pushes/web:v1", r#"{"do":"retry"}"#, "\"other\"").await;
}

#[tokio::test]
async fn machines_rules_and_metadata_are_made_only_where_there_is_none() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    for (method, path, body) in [
        ("PATCH", "/v1/machines/52:54:00:00:00:01", r#"{"labels":{"rack":"r1"}}"#),
        ("PUT", "/v1/machines/52:54:00:00:00:02/assignment", r#"{"image":"web:v1"}"#),
        ("PUT", "/v1/rules/web", r#"{"selector":"role=web","image":"web:v1"}"#),
        ("PUT", "/v1/metadata/web", r#"{"hostname":"a"}"#),
    ] {
        let first = bench.ask_if(method, path, ("if-none-match", "*"), body).await;
        assert_eq!(first.status, StatusCode::OK, "{path}: {}", first.text);
        let again = bench.ask_if(method, path, ("if-none-match", "*"), body).await;
        assert_eq!(again.status, StatusCode::PRECONDITION_FAILED, "{path}: {}", again.text);
        assert!(again.text.contains("is there already"), "{}", again.text);
        let other = bench.ask_if(method, path, ("if-none-match", "\"other\""), body).await;
        assert_eq!(other.status, StatusCode::OK, "{path}: {}", other.text);
    }
}
