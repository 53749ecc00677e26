//! Machines, their assignments, and images as far as machines use them.

use super::*;
use http::header::IF_MATCH;

const MAC: &str = "52:54:00:00:00:01";

fn problem(got: &Got) -> Value {
    assert_eq!(got.headers["content-type"], "application/problem+json", "{}", got.text);
    let problem = got.json();
    assert_eq!(problem["status"], got.status.as_u16());
    problem
}

#[tokio::test]
async fn a_machine_is_declared_assigned_changed_and_forgotten() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    assert_eq!(bench.get(&format!("/v1/machines/{MAC}")).await.status, StatusCode::NOT_FOUND);
    let path = format!("/v1/machines/{MAC}/assignment");
    let assigned = bench.write(Method::PUT, &path, r#"{"image":"web:v1"}"#).await;
    assert_eq!((assigned.status, assigned.json()["assignment"].as_str()), (StatusCode::OK, Some("web:v1")));
    let shown = bench.get("/v1/machines/5254.0000.0001").await;
    assert_eq!((shown.json()["id"].as_str(), shown.etag()), (Some(MAC), assigned.etag()));
    let patch =
        r#"{"labels":{"rack":"b7"},"reservation":"10.77.0.20","arguments":"quiet","join":["52-54-00-00-00-02"]}"#;
    let changed = bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), patch).await.json();
    assert_eq!(changed["labels"]["rack"], "b7");
    assert_eq!(changed["macs"], serde_json::json!([MAC, "52:54:00:00:00:02"]));
    let removal = r#"{"labels":{"rack":null},"reservation":null}"#;
    let changed = bench.write(Method::PATCH, "/v1/machines/52:54:00:00:00:02", removal).await.json();
    assert_eq!((&changed["labels"], &changed["reservation"]), (&serde_json::json!({}), &Value::Null));
    assert_eq!(changed["arguments"], "quiet", "what is absent stays");
    let unassigned = bench.delete(&path).await.json();
    assert_eq!(unassigned["assignment"], Value::Null);
    assert_eq!(bench.delete(&format!("/v1/machines/{MAC}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("/v1/machines").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn writes_with_a_stale_etag_change_nothing() {
    let bench = Bench::new();
    let path = format!("/v1/machines/{MAC}");
    let first = bench.write(Method::PATCH, &path, r#"{"labels":{"rack":"a"}}"#).await;
    bench.write(Method::PATCH, &path, r#"{"labels":{"rack":"b"}}"#).await;
    let stale = |method: Method, body: &'static str| {
        Request::builder().method(method).uri(&path).header(IF_MATCH, first.etag()).body(Body::from(body)).unwrap()
    };
    let got = bench.send(stale(Method::PATCH, r#"{"labels":{"rack":"c"}}"#)).await;
    insta::assert_json_snapshot!(problem(&got), @r#"
    {
      "advice": "look at the machine again, then repeat the change with its new ETag",
      "detail": "machine 52:54:00:00:00:01 was changed by somebody else since you looked at it",
      "status": 412,
      "title": "The resource is not as it was expected",
      "type": "urn:bennu:problem:precondition"
    }
    "#);
    assert_eq!(bench.send(stale(Method::DELETE, "")).await.status, StatusCode::PRECONDITION_FAILED);
    let now = bench.get(&path).await;
    assert_eq!(now.json()["labels"]["rack"], "b");
    let fresh = Request::delete(&path).header(IF_MATCH, now.etag()).body(Body::empty()).unwrap();
    assert_eq!(bench.send(fresh).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_unknown_image_is_refused_with_the_tags_near_it() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    bench.import("web:v2", 2).await;
    let got = bench.write(Method::PUT, &format!("/v1/machines/{MAC}/assignment"), r#"{"image":"web:v3"}"#).await;
    insta::assert_json_snapshot!(problem(&got), @r#"
    {
      "advice": "near it: web:v1, web:v2",
      "detail": "there is no image web:v3",
      "status": 404,
      "title": "There is no such thing",
      "type": "urn:bennu:problem:not-found"
    }
    "#);
    assert_eq!(bench.get("/v1/machines").await.json()["items"], serde_json::json!([]), "nothing was declared");
}

#[tokio::test]
async fn wrong_requests_are_refused_with_what_is_wrong() {
    let bench = Bench::new();
    let machine = format!("/v1/machines/{MAC}");
    let got = bench.write(Method::PATCH, &machine, r#"{"label":{"rack":"b7"}}"#).await;
    insta::assert_json_snapshot!(problem(&got), @r#"
    {
      "advice": "send a JSON object of the documented fields",
      "detail": "unknown field `label`, expected one of `labels`, `reservation`, `arguments`, `options`, `join`",
      "pointer": "/label",
      "status": 400,
      "title": "The request cannot be read",
      "type": "urn:bennu:problem:malformed"
    }
    "#);
    for (method, path, body, status) in [
        (Method::GET, "/v1/machines/nonsense", "", 400),
        (Method::GET, "/v1/machines?limits=3", "", 400),
        (Method::GET, "/v1/nothing", "", 404),
        (Method::GET, "/v1/boots/none", "", 404),
        (Method::GET, "/v1/boots?machine=52:54:00:00:00:09", "", 404),
        (Method::GET, "/v1/images/web:v1", "", 404),
        (Method::GET, "/v1/images/W:v1", "", 400),
        (Method::PUT, "/v1/tags/web:v2", r#"{"image":"web:v1"}"#, 404),
        (Method::POST, "/v1/status", "", 405),
        (Method::PATCH, machine.as_str(), r#"{"arguments":"a\nb"}"#, 422),
        (Method::PATCH, machine.as_str(), r#"{"reservation":"10.1.1.1"}"#, 422),
        (Method::PATCH, machine.as_str(), "", 400),
        (Method::DELETE, machine.as_str(), "", 404),
    ] {
        let got = bench.write(method.clone(), path, body).await;
        assert_eq!(got.status.as_u16(), status, "{method} {path}: {}", got.text);
        assert!(!problem(&got)["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn listings_page() {
    let bench = Bench::new();
    for last in 1..=5 {
        bench.write(Method::PATCH, &format!("/v1/machines/52:54:00:00:00:0{last}"), "{}").await;
    }
    let first = bench.get("/v1/machines?limit=3").await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    let rest = bench.get(&format!("/v1/machines?limit=3&after={}", first["next"].as_str().unwrap())).await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), rest.get("next")), (2, None));
    assert_eq!(rest["items"][1]["id"], "52:54:00:00:00:05");
}

#[tokio::test]
async fn an_image_that_is_in_use_stays() {
    let bench = Bench::new();
    let before = bench.blobs();
    bench.import("web:v1", 1).await;
    let path = format!("/v1/machines/{MAC}/assignment");
    bench.write(Method::PUT, &path, r#"{"image":"web:v1"}"#).await;
    let got = bench.delete("/v1/images/web:v1").await;
    insta::assert_json_snapshot!(problem(&got), @r#"
    {
      "advice": "assign these machines another image first",
      "detail": "web:v1 is assigned to 52:54:00:00:00:01",
      "status": 409,
      "title": "The present state forbids it",
      "type": "urn:bennu:problem:conflict"
    }
    "#);
    let boot = bench.boot(MAC, vec![discover()]).await;
    assert!(boot.image.is_some(), "the boot pins what is assigned");
    bench.delete(&path).await;
    assert_eq!(problem(&bench.delete("/v1/images/web:v1").await)["status"], 409, "a machine boots it");
    bench.boot(MAC, vec![discover()]).await;
    let removed = bench.delete("/v1/images/web:v1").await.json();
    assert_eq!(removed["tags"], serde_json::json!(["web:v1"]));
    assert!(removed["freed"].as_u64().unwrap() > 13_000);
    assert_eq!(bench.blobs(), before);
    assert!(!bench.index().contains("web:v1"));
}

#[tokio::test]
async fn explain_tells_what_a_machine_would_get_and_stores_nothing() {
    let bench = Bench::new();
    let image = bench.import("web:v1", 1).await;
    bench.write(Method::PUT, &format!("/v1/machines/{MAC}/assignment"), r#"{"image":"web:v1"}"#).await;
    let told = bench.get(&format!("/v1/machines/{MAC}/explain")).await.json();
    assert_eq!(told["resolution"]["digest"], image["digest"]);
    assert!(told["script"].as_str().unwrap().starts_with("#!ipxe"), "{told}");
    let unknown = bench.get("/v1/machines/52:54:00:00:00:07/explain").await.json();
    assert_eq!(unknown["resolution"]["target"], "wait");
    assert_eq!(bench.get("/v1/boots").await.json()["items"], serde_json::json!([]));
    assert_eq!(bench.get("/v1/machines").await.json()["items"].as_array().unwrap().len(), 1);
}
