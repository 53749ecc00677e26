//! Metadata documents, from the API to what a boot's token opens.

use super::*;
use crate::cli::tests::{Served, run};
use http::header::IF_MATCH;

const MAC: &str = "52:54:00:00:00:01";

#[tokio::test]
async fn documents_are_written_read_and_removed() {
    let bench = Bench::new();
    let put = |body: &'static str| bench.write(Method::PUT, "/v1/metadata/web", body);
    let first = put(r#"{"selector":"role=web","hostname":"web-{{ labels.n }}","priority":3}"#).await;
    assert_eq!((first.status, first.json()["name"].as_str()), (StatusCode::OK, Some("web")), "{}", first.text);
    assert_eq!(bench.get("/v1/metadata/web").await.etag(), first.etag());
    let second = put(r#"{"name":"web","hostname":"x"}"#).await;
    assert_ne!(second.etag(), first.etag());
    let stale = Request::delete("/v1/metadata/web").header(IF_MATCH, first.etag()).body(Body::empty()).unwrap();
    assert_eq!(bench.send(stale).await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(bench.get("/v1/metadata").await.json()["items"][0]["hostname"], "x");
    assert_eq!(bench.delete("/v1/metadata/web").await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("/v1/metadata/web").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.delete("/v1/metadata/web").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_be_a_document_is_refused_with_its_place() {
    let bench = Bench::new();
    let long = format!(r#"{{"user_data":"{}"}}"#, "x".repeat(300 << 10));
    let huge = format!(r#"{{"user_data":"{}"}}"#, "x".repeat(2 << 20));
    for (body, status, pointer) in [
        ("[]", 400, ""),
        (r#"{"hostnam":"x"}"#, 400, "/hostnam"),
        (r#"{"priority":"high"}"#, 400, "/priority"),
        (r#"{"selector":"role=("}"#, 400, "/selector"),
        (r#"{"machine":"nobody"}"#, 400, "/machine"),
        (r#"{"files":[{"path":"/x"}]}"#, 422, "/files/0/content"),
        (r#"{"files":[{"path":"/x","content":"","secret":"a"}]}"#, 422, "/files/0/secret"),
        (r#"{"files":[{"path":"/x","secret":"a","mode":"4755"}]}"#, 422, "/files/0/mode"),
        (r#"{"files":[{"path":"/x","secret":"a b"}]}"#, 400, "/files/0/secret"),
        (r#"{"files":[{"path":"/../x","content":""}]}"#, 422, "/files/0/path"),
        (r#"{"hostname":"{{ labls.x }}"}"#, 422, "/hostname"),
        (r#"{"user_data":"{% for x in range(9) %}"}"#, 422, "/user_data"),
        (r#"{"name":"other"}"#, 422, "/name"),
        (&long, 422, ""),
        (&huge, 413, ""),
    ] {
        let got = bench.write(Method::PUT, "/v1/metadata/web", body).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(got.status.as_u16(), status, "{shown}: {}", got.text);
        assert_eq!(got.json()["pointer"].as_str().unwrap_or_default(), pointer, "{shown}: {}", got.text);
    }
    assert_eq!(bench.write(Method::PUT, "/v1/metadata/W%20x", "{}").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.get("/v1/metadata").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn a_boots_token_opens_its_metadata_and_no_other() {
    let served = Served::new();
    let bench = &served.bench;
    bench.import("web:v1", 1).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.toml");
    std::fs::write(
        &file,
        "name = \"web\"\nhostname = \"web-{{ labels.n }}\"\nuser_data = '''\n#cloud-config\npackages: []\n'''\nignition = '{}'\n",
    )
    .unwrap();
    run(&served, &format!("machine assign {MAC} web:v1")).await.unwrap();
    run(&served, &format!("metadata set -f {}", file.display())).await.unwrap();
    run(&served, "metadata list").await.unwrap();
    run(&served, "metadata show web").await.unwrap();
    let explained = bench.get(&format!("/v1/machines/{MAC}/explain")).await.json();
    assert!(explained["metadata"]["error"].as_str().unwrap().contains("labels.n"), "{explained}");
    run(&served, &format!("metadata render {MAC}")).await.unwrap_err();
    run(&served, &format!("machine label {MAC} n=7")).await.unwrap();
    run(&served, &format!("metadata render {MAC}")).await.unwrap();
    run(&served, &format!("machine explain {MAC}")).await.unwrap();
    let rendered = bench.get(&format!("/v1/machines/{MAC}/metadata")).await.json();
    assert_eq!(rendered["hostname"]["value"], "web-7");
    assert_eq!(rendered["hostname"]["from"]["document"], "web");

    let boots = crate::http::boot::router().with_state(bench.appliance.clone());
    let ask = async |path: String| {
        let request = crate::http::boot::next_boot(&bench.appliance, MAC.parse().unwrap());
        let script = bench.appliance.ledger.decide(request, bennu_rules::boot::script::decide).await.unwrap();
        assert!(matches!(script, bennu_rules::boot::script::Script::Boot(_)), "{script:?}");
        let token = bench.appliance.ledger.ponder(&(), |_: &(), view, _| {
            bennu_rules::Decision::just(view.live.boot(MAC.parse().unwrap()).unwrap().token.clone().unwrap())
        });
        let path = path.replace("TOKEN", &token.unwrap().answer.0);
        let response = boots.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let (status, meta) = ask("/boot/TOKEN/nocloud/meta-data".into()).await;
    assert!(status == StatusCode::OK && meta.contains(r#""local-hostname":"web-7""#), "{meta}");
    assert_eq!(ask("/boot/TOKEN/nocloud/user-data".into()).await.1, "#cloud-config\npackages: []\n");
    assert_eq!(ask("/boot/TOKEN/nocloud/vendor-data".into()).await, (StatusCode::OK, String::new()));
    assert_eq!(ask("/boot/TOKEN/ignition.json".into()).await, (StatusCode::OK, "{}".into()));
    for path in [
        "/boot/TOKEN/nocloud/network-config",
        "/boot/TOKEN/nocloud/x",
        "/boot/00/nocloud/user-data",
        "/boot/00/ignition.json",
    ] {
        assert_eq!(ask(path.into()).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    run(&served, "metadata remove web").await.unwrap();
}
