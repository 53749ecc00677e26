//! `/v1/tests`, as far as it goes without QEMU.

use super::Bench;
use crate::trial::machine;
use http::{Method, StatusCode};

async fn refused(bench: &Bench, body: &str, status: StatusCode, what: &str) {
    let got = bench.write(Method::POST, "/v1/tests", body).await;
    assert_eq!(got.status, status, "{body}: {}", got.text);
    assert!(got.text.contains(what), "{body}: {}", got.text);
    assert!(!got.json()["advice"].as_str().unwrap_or("x").is_empty(), "{body}: {}", got.text);
}

#[tokio::test]
async fn what_cannot_be_tested_is_refused_with_a_reason() {
    let bench = Bench::new();
    bench.import("installer:v1", 1).await;
    let (malformed, unprocessable) = (StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY);
    for (body, status, what) in [
        ("{}", malformed, "missing field `image`"),
        (r#"{"image":"W:"}"#, malformed, "/image"),
        (r#"{"image":"installer:v1","promote":"W:"}"#, malformed, "/promote"),
        (r#"{"image":"installer:v1","promotes":"web:v1"}"#, malformed, "promotes"),
        (r#"{"image":"web:v9"}"#, StatusCode::NOT_FOUND, "there is no image web:v9"),
        (r#"{"image":"installer:v1"}"#, unprocessable, "--expect TEXT"),
        (r#"{"image":"installer:v1","timeout":3}"#, unprocessable, "/timeout"),
        (r#"{"image":"installer:v1","memory":64}"#, unprocessable, "/memory"),
        (r#"{"image":"installer:v1","expect":""}"#, unprocessable, "/expect"),
        (r#"{"image":"installer:v1","expect":"a\nb"}"#, unprocessable, "/expect"),
    ] {
        refused(&bench, body, status, what).await;
    }
}

#[tokio::test]
async fn a_host_without_the_emulator_or_the_memory_is_told() {
    let bench = Bench::new();
    bench.import("installer:v1", 1).await;
    let wanted = r#"{"image":"installer:v1","expect":"login:","memory":1048576}"#;
    match machine::find() {
        Some(_) => refused(&bench, wanted, StatusCode::CONFLICT, "1048576 MiB needs").await,
        None => refused(&bench, wanted, StatusCode::SERVICE_UNAVAILABLE, "qemu-system-x86").await,
    }
    assert!(machine::find_in("/nonexistent:/etc".into()).is_none());
    assert!(machine::available_memory().is_some_and(|mib| mib > 0));
}

#[tokio::test]
async fn a_damaged_kernel_fails_before_anything_starts() {
    if machine::find().is_none() {
        return;
    }
    let bench = Bench::new();
    let image = bench.import("installer:v1", 1).await;
    let digest = image["config"]["kernel"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let path = bench.appliance.store.dir().join("blobs/sha256").join(&digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "other bytes").unwrap();
    let body = r#"{"image":"installer:v1","expect":"login:","memory":128,"promote":"web:stable"}"#;
    let got = bench.write(Method::POST, "/v1/tests", body).await;
    assert_eq!(got.status, StatusCode::OK, "{}", got.text);
    let last: serde_json::Value = serde_json::from_str(got.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["passed"], false, "{last}");
    assert!(last["reason"].as_str().unwrap().contains(&digest), "{last}");
    assert_eq!(bench.get("/v1/tags/web:stable").await.status, StatusCode::NOT_FOUND);
    assert_eq!(std::fs::read_dir(bench.appliance.store.tmp()).unwrap().count(), 0);
}
