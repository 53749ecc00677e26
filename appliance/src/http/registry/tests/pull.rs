//! `bennu image import docker://…` from one Bennu into another.

use super::*;
use crate::{
    cli::{client::Client, import::run_words},
    http::{
        access,
        connection::{Limits, Listener, serve},
        tls::Identity,
    },
};
use std::{path::Path, sync::Arc};
use tokio::net::TcpListener;

/// A Bennu on the network, and a token for it.
struct Far {
    bench: Bench,
    /// `docker://HOST:PORT`
    place: String,
    creds: String,
    trust: tempfile::TempDir,
}

impl Far {
    async fn new() -> Self {
        let bench = Bench::new();
        let trust = tempfile::tempdir().unwrap();
        let identity = Identity::own(&trust.path().join("tls"), &["127.0.0.1".to_owned()], 2026).unwrap();
        std::fs::copy(&identity.certificate, trust.path().join("ca.crt")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("docker://{}", listener.local_addr().unwrap());
        let router = access::remote(crate::http::api::router(bench.appliance.clone()), bench.appliance.clone());
        let listener = Listener::Tls(listener, identity.config);
        let (limits, shutdown) = (Limits::management(), bench.appliance.shutdown.clone());
        tokio::spawn(serve(listener, router, limits, shutdown, Arc::new(|| {})));
        let made = bench.write(Method::POST, "/v1/tokens", r#"{"name":"rack2","scopes":["read"]}"#).await.json();
        let creds = format!("any:{}", made["token"].as_str().unwrap());
        Self { bench, place, creds, trust }
    }

    async fn import(&self, into: &Lab, version: &str, creds: &str) -> Result<(), String> {
        let client = Client::new(&format!("unix://{}", into.socket.display())).unwrap();
        let source = format!("{}/{version}", self.place);
        let trust = self.trust.path().display().to_string();
        let words = ["--creds", creds, "--cert-dir", &trust, &source, "web:copied"];
        run_words(&client, &words).await.map_err(|error| error.to_string())
    }
}

fn flip(store: &Path, digest: &str) {
    let path = store.join("blobs").join(digest.replace(':', "/"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn an_image_goes_from_one_bennu_to_another() {
    let (far, near) = (Far::new().await, Lab::new());
    let image = far.bench.import("team/web:v1", 3).await;
    let digest = image["digest"].as_str().unwrap();
    let before = near.bench.blobs();
    let refused = far.import(&near, "team/web:v1", "any:bnu_none").await.unwrap_err();
    assert!(refused.contains("does not take the login any:…"), "{refused}");
    far.import(&near, "team/web:v1", &far.creds).await.unwrap();
    let shown = near.bench.get("/v1/images").await.json()["items"].clone();
    assert_eq!((&shown[0]["digest"], &shown[1]), (&json!(digest), &Value::Null));
    assert_eq!(shown[0]["source"], format!("{}/team/web:v1", far.place));
    let blobs = near.bench.blobs();
    assert!(blobs > before);
    far.import(&near, &format!("team/web@{digest}"), &far.creds).await.unwrap();
    assert_eq!(near.bench.blobs(), blobs, "it is there already");
}

#[tokio::test]
async fn nothing_stays_of_an_image_that_was_damaged_on_its_way() {
    let (far, near) = (Far::new().await, Lab::new());
    let image = far.bench.import("web:v1", 3).await;
    let before = near.bench.blobs();
    let store = far.bench.appliance.store.dir().to_owned();
    let manifest = far.bench.get(&format!("/v2/web/manifests/{}", image["digest"].as_str().unwrap())).await.json();
    flip(&store, manifest["layers"][1]["digest"].as_str().unwrap());
    let error = far.import(&near, "web:v1", &far.creds).await.unwrap_err();
    assert!(error.contains("is damaged"), "{error}");
    // The appliance hears of it a little later than the command line.
    let left = || near.bench.blobs() - before + std::fs::read_dir(near.bench.appliance.store.tmp()).unwrap().count();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..100 {
        if left() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left(), 0);
    assert_eq!(near.bench.get("/v1/images").await.json()["items"], json!([]));
}
