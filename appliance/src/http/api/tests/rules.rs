//! Assignment rules, and machines by selector.

use super::*;
use http::header::IF_MATCH;

const WEB: &str = "52:54:00:00:00:01";
const DB: &str = "52:54:00:00:00:02";

async fn bench() -> Bench {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    bench.import("base:v1", 2).await;
    for (mac, role) in [(WEB, "web"), (DB, "db")] {
        let labels = format!(r#"{{"labels":{{"role":"{role}","rack":"r1"}}}}"#);
        assert_eq!(bench.write(Method::PATCH, &format!("/v1/machines/{mac}"), &labels).await.status, StatusCode::OK);
    }
    bench
}

async fn put(bench: &Bench, name: &str, body: &str) -> Got {
    bench.write(Method::PUT, &format!("/v1/rules/{name}"), body).await
}

#[tokio::test]
async fn rules_are_set_shown_listed_and_removed() {
    let bench = bench().await;
    let set = put(&bench, "web", r#"{"selector":"role=web","image":"web:v1","priority":10}"#).await;
    assert_eq!((set.status, set.json()["applies"].as_u64()), (StatusCode::OK, Some(1)), "{}", set.text);
    put(&bench, "base", r#"{"image":"base:v1","description":"all of them"}"#).await;
    let listed = bench.get("/v1/rules").await.json();
    let counts = |n: usize| {
        let item = &listed["items"][n];
        (
            item["name"].as_str().unwrap().to_owned(),
            item["matches"].as_u64().unwrap(),
            item["applies"].as_u64().unwrap(),
        )
    };
    assert_eq!([counts(0), counts(1)], [("base".into(), 2, 1), ("web".into(), 1, 1)]);
    let next = bench.get(&format!("/v1/machines/{WEB}")).await.json()["next"].clone();
    assert_eq!(next, serde_json::json!({"image": "web:v1", "origin": {"rule": {"name": "web"}}}));
    let explained = bench.get(&format!("/v1/machines/{WEB}/explain")).await.json();
    assert_eq!(explained["resolution"]["origin"]["rule"]["name"], "web");
    assert_eq!((&explained["rules"][0]["name"], &explained["rules"][1]["name"]), (&"web".into(), &"base".into()));
    assert!(explained["script"].as_str().unwrap().contains("web:v1"), "{}", explained["script"]);
    let held = bench.delete("/v1/images/web:v1").await;
    assert_eq!(held.status, StatusCode::CONFLICT);
    assert!(held.text.contains("by the rules web"), "{}", held.text);

    let stale = Request::delete("/v1/rules/web").header(IF_MATCH, "\"00\"").body(Body::empty()).unwrap();
    assert_eq!(bench.send(stale).await.status, StatusCode::PRECONDITION_FAILED);
    let fresh = bench.get("/v1/rules/web").await;
    assert_eq!(fresh.etag(), set.etag());
    let fresh = Request::delete("/v1/rules/web").header(IF_MATCH, fresh.etag()).body(Body::empty()).unwrap();
    assert_eq!(bench.send(fresh).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("/v1/rules/web").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.delete("/v1/images/web:v1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn wrong_rules_are_refused_where_they_are_wrong() {
    let bench = bench().await;
    for (name, body, status, pointer) in [
        ("web", r#"{"image":"web:v9"}"#, StatusCode::NOT_FOUND, Value::Null),
        ("web", r#"{"image":"web:v1","selector":"role=web,"}"#, StatusCode::BAD_REQUEST, "/selector".into()),
        ("web", r#"{"image":"web:v1","selector":7}"#, StatusCode::BAD_REQUEST, "/selector".into()),
        ("web", r#"{"image":"web:v1","priority":1.5}"#, StatusCode::BAD_REQUEST, "/priority".into()),
        ("web", r#"{"image":"web:v1","colour":"red"}"#, StatusCode::BAD_REQUEST, "/colour".into()),
        ("web", r#"{"selector":"role=web"}"#, StatusCode::BAD_REQUEST, "".into()),
        ("-web", r#"{"image":"web:v1"}"#, StatusCode::BAD_REQUEST, Value::Null),
    ] {
        let got = put(&bench, name, body).await;
        assert_eq!((got.status, &got.json()["pointer"]), (status, &pointer), "{body}: {}", got.text);
    }
    assert_eq!(bench.get("/v1/rules").await.json()["items"], serde_json::json!([]));
    for labels in [r#"{"bennu.arch":"x"}"#, r#"{"a b":"x"}"#, r#"{"":"x"}"#, r#"{"k":"line\nbreak"}"#] {
        let body = format!(r#"{{"labels":{labels}}}"#);
        let got = bench.write(Method::PATCH, &format!("/v1/machines/{WEB}"), &body).await;
        assert_eq!(got.status, StatusCode::UNPROCESSABLE_ENTITY, "{labels}: {}", got.text);
    }
}

#[tokio::test]
async fn machines_are_listed_by_selector() {
    let bench = bench().await;
    let ids = |got: Got| -> Vec<String> {
        let items = got.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(bench.get("/v1/machines?selector=role%3Dweb").await), [WEB]);
    assert_eq!(ids(bench.get("/v1/machines?selector=role%20in%20(web,db),rack&limit=1").await), [WEB]);
    let rest = format!("/v1/machines?selector=rack&limit=1&after={WEB}");
    assert_eq!(ids(bench.get(&rest).await), [DB]);
    assert_eq!(ids(bench.get("/v1/machines?selector=bennu.mac%3D525400000002").await), [DB]);
    let wrong = bench.get("/v1/machines?selector=role%20in%20web").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text.contains("at character 9"), "{}", wrong.text);
}
