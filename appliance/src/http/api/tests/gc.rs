//! Collections: what goes, what is spared.

use super::*;
use crate::cli::tests::{Served, run};
use bennu_rules::{Change, Decision, image::Digest, registry::Artifact};

async fn put_artifact(bench: &Bench, digest: Digest, pushed: bennu_rules::Timestamp) {
    let artifact = Artifact {
        digest,
        size: 4,
        media_type: String::new(),
        kind: String::new(),
        annotations: Default::default(),
        parts: Vec::new(),
        subject: None,
        repositories: Default::default(),
        pushed,
    };
    let put = |artifact: &Artifact, _: &bennu_rules::View<'_>, _: &bennu_rules::Moment| Decision {
        changes: vec![Change::PutArtifact(artifact.clone())],
        ..Decision::just(())
    };
    bench.record(artifact, put).await;
}

#[tokio::test]
async fn what_nothing_names_goes_and_a_dry_run_only_says_so() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    let gc = async |body: &str| bench.write(Method::POST, "/v1/gc", body).await.json();
    let nothing = gc(r#"{"dry_run":true}"#).await;
    assert_eq!((&nothing["bytes"], &nothing["images"][0]["why"]), (&0.into(), &"tagged".into()), "{nothing}");
    let stray = bench.appliance.store.put(b"stray").unwrap();
    let old = bench.appliance.store.put(b"old!").unwrap();
    let young = bench.appliance.store.put(b"new!").unwrap();
    put_artifact(&bench, old.digest, Default::default()).await;
    put_artifact(&bench, young.digest, bench.appliance.ledger.now()).await;
    let before = bench.blobs();
    let dry = gc(r#"{"dry_run":true}"#).await;
    assert_eq!((bench.blobs(), &dry["bytes"], &dry["dry_run"]), (before, &9.into(), &true.into()), "{dry}");
    let wet = gc("{}").await;
    assert_eq!((&wet["blobs"], &wet["artifacts"]), (&dry["blobs"], &dry["artifacts"]));
    assert_eq!(wet["artifacts"], serde_json::json!([old.digest]));
    assert_eq!(bench.blobs(), before - 2);
    assert!(bench.appliance.store.blob_size(&stray.digest).is_err());
    assert!(bench.appliance.store.blob_size(&young.digest).is_ok());
    assert_eq!(gc("{}").await["bytes"], 0);
    assert_eq!(bench.write(Method::POST, "/v1/gc", r#"{"dry":1}"#).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_on_its_way_is_spared() {
    let bench = Bench::new();
    let hold = bench.appliance.store.hold();
    bench.appliance.store.put(b"arriving").unwrap();
    for dry_run in [true, false] {
        let got = bench.write(Method::POST, "/v1/gc", &format!(r#"{{"dry_run":{dry_run}}}"#)).await.json();
        assert_eq!(got["bytes"], 0, "{got}");
    }
    drop(hold);
    assert_eq!(bench.write(Method::POST, "/v1/gc", "{}").await.json()["bytes"], 8);
}

#[tokio::test]
async fn images_go_by_the_rules_of_retention() {
    let served = Served::with("[retention]\nkeep_last = 2");
    let bench = &served.bench;
    let mut digests = Vec::new();
    for seed in 1..=4 {
        digests.push(bench.import("web:v", seed).await["digest"].clone());
    }
    bench
        .write(Method::PUT, "/v1/machines/52:54:00:00:00:01/assignment", &format!(r#"{{"image":{}}}"#, digests[0]))
        .await;
    let blobs = bench.blobs();
    let error = run(&served, "image gc --dry-run").await.unwrap_err();
    assert_eq!((error.exit_code(), bench.blobs()), (std::process::ExitCode::from(3), blobs));
    assert_eq!(error.to_string(), "", "it is no error");
    let dry = bench.write(Method::POST, "/v1/gc", r#"{"dry_run":true}"#).await.json();
    let why = |digest: &Value| {
        dry["images"].as_array().unwrap().iter().find(|image| image["digest"] == *digest).unwrap()["why"].clone()
    };
    let reasons: Vec<Value> = digests.iter().map(why).collect();
    assert_eq!(reasons, ["assigned", "unneeded", "recent", "tagged"]);
    run(&served, "image gc").await.unwrap();
    // Manifest, config, kernel and initrd of one image.
    assert_eq!(bench.blobs(), blobs - 4);
    let path = format!("/v1/images/{}", digests[1].as_str().unwrap());
    assert_eq!(bench.get(&path).await.status, StatusCode::NOT_FOUND);
    assert!(!bench.index().contains(digests[1].as_str().unwrap()));
    run(&served, "image gc --dry-run").await.unwrap();
}
