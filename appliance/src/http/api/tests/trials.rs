//! `/v1/tests`, as far as it goes without QEMU.

use super::Bench;
use crate::{
    http::{
        connection::{Limits, serve_stream},
        trial::router,
    },
    trial::{
        desk::{Desk, moment},
        machine,
    },
};
use bennu_rules::{
    Records,
    trial::{Trial, TrialRequest},
};
use http::{Method, StatusCode};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;

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

#[tokio::test]
async fn a_machine_under_test_reads_its_image_and_nothing_else() {
    let bench = Bench::new();
    let kernel = |image: &serde_json::Value| image["config"]["kernel"]["digest"].as_str().unwrap()[7..].to_owned();
    let (its_own, other) = (kernel(&bench.import("web:v1", 1).await), kernel(&bench.import("web:v2", 2).await));
    let image = bench.appliance.ledger.read(|records, _| {
        let tag = records.tag(&"web:v1".parse().unwrap()).unwrap();
        records.image(&tag.digest).unwrap()
    });
    let request = TrialRequest {
        image: image.unwrap(),
        reference: "web:v1".parse().unwrap(),
        stage1: bench.appliance.stage1.clone(),
        expect: Some("login:".into()),
    };
    let (trial, _) = Trial::begin(&request, &moment(&bench.appliance)).unwrap();
    let desk = Arc::new(Desk::new(trial, bench.appliance.clone()));
    for (path, status) in [
        (format!("/blobs/sha256/{its_own}"), "200"),
        (format!("/blobs/sha256/{other}"), "404"),
        ("/blobs/sha256/x".to_owned(), "404"),
        (format!("/boot/{}/plan.json", "0".repeat(32)), "404"),
        ("/boot.ipxe".to_owned(), "404"),
        ("/v1/status".to_owned(), "404"),
    ] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let router = router(desk.clone(), bench.appliance.store.clone());
        tokio::spawn(serve_stream(theirs, router, Limits::provisioning(), CancellationToken::new()));
        let request = format!("GET {path} HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: close\r\n\r\n");
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        assert_eq!(head, format!("HTTP/1.1 {status}"), "{path}");
    }
    assert!(bench.get("/v1/machines").await.json()["items"].as_array().unwrap().is_empty());
}
