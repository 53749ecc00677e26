//! The registry on a real socket, request by request. The tests bear the names of the distribution specification's
//! conformance list: pull, push, content discovery, content management.

mod clients;
mod pull;
mod speed;

use crate::{
    config::Config,
    http::{
        api::tests::{Bench, CONFIG, Got},
        connection::serve_unix,
    },
};
use axum::body::Body;
use bennu_images::oci::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use bennu_rules::{Records, image::Digest, registry::Outcome, settings::Settings};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use ring::digest::SHA256;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::net::{UnixListener, UnixStream};

struct Lab {
    bench: Bench,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

fn digest(bytes: &[u8]) -> String {
    Digest(ring::digest::digest(&SHA256, bytes).as_ref().try_into().unwrap()).to_string()
}

impl Lab {
    fn new() -> Self {
        Self::on(Bench::new())
    }

    fn on(bench: Bench) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(serve_unix(listener, bench.router.clone(), bench.appliance.shutdown.clone()));
        Self { bench, socket, _directory: directory }
    }

    async fn ask_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> (Got, Vec<u8>) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (Got { status: parts.status, headers: parts.headers, text }, bytes)
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Got {
        self.ask_with(method, path, headers, body.into()).await.0
    }

    async fn get(&self, path: &str) -> Got {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn status(&self, method: Method, path: &str) -> u16 {
        self.ask(method, path, &[], "").await.status.as_u16()
    }

    /// A blob in one piece.
    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let got = self.ask(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.text);
        digest
    }

    async fn begin(&self, repository: &str) -> String {
        let got = self.ask(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        assert_eq!(got.status, StatusCode::ACCEPTED, "{}", got.text);
        location(&got)
    }

    async fn push_manifest(&self, path: &str, manifest: &Value) -> Got {
        let media_type = manifest["mediaType"].as_str().unwrap().to_owned();
        self.ask(Method::PUT, path, &[("content-type", &media_type)], manifest.to_string()).await
    }

    /// A container image of one layer that holds nothing that boots.
    async fn push_image(&self, repository: &str, tag: &str, seed: u8) -> (Value, String) {
        let layer = self.push_blob(repository, &[seed; 1024]).await;
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [layer]}}).to_string();
        let config_digest = self.push_blob(repository, config.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 1024}],
        });
        let got = self.push_manifest(&format!("/v2/{repository}/manifests/{tag}"), &manifest).await;
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.text);
        (manifest.clone(), digest(manifest.to_string().as_bytes()))
    }

    fn outcome(&self, name: &str) -> Option<Outcome> {
        let name = name.parse().unwrap();
        self.bench.appliance.ledger.read(|records, _| records.push(&name)).unwrap().map(|push| push.outcome)
    }
}

fn location(got: &Got) -> String {
    got.headers["location"].to_str().unwrap().to_owned()
}

fn header<'a>(got: &'a Got, name: &str) -> &'a str {
    got.headers[name].to_str().unwrap()
}

fn code(got: &Got) -> String {
    let told = got.json();
    assert!(told["errors"][0]["message"].as_str().is_some_and(|message| !message.is_empty()), "{told}");
    told["errors"][0]["code"].as_str().unwrap().to_owned()
}

const ABSENT: &str = "sha256:0707070707070707070707070707070707070707070707070707070707070707";

#[tokio::test]
async fn pull_blobs() {
    let lab = Lab::new();
    assert_eq!(lab.get("/v2/").await.status, StatusCode::OK);
    let absent = format!("/v2/web/blobs/{ABSENT}");
    assert_eq!((lab.status(Method::HEAD, &absent).await, lab.status(Method::GET, &absent).await), (404, 404));
    assert_eq!(code(&lab.get(&absent).await), "BLOB_UNKNOWN");
    let bytes: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
    let digest = lab.push_blob("web", &bytes).await;
    let path = format!("/v2/web/blobs/{digest}");
    let head = lab.ask(Method::HEAD, &path, &[], "").await;
    assert_eq!((header(&head, "content-length"), head.status), ("300000", StatusCode::OK));
    assert_eq!(head.headers["docker-content-digest"], digest);
    let (got, body) = lab.ask_with(Method::GET, &path, &[], Body::empty()).await;
    assert!(got.status == StatusCode::OK && body == bytes);
    let (part, body) = lab.ask_with(Method::GET, &path, &[("range", "bytes=10-19")], Body::empty()).await;
    assert!(part.status == StatusCode::PARTIAL_CONTENT && body == bytes[10..20]);
}

#[tokio::test]
async fn pull_manifests() {
    let lab = Lab::new();
    for reference in ["none", ABSENT] {
        let path = format!("/v2/web/manifests/{reference}");
        assert_eq!((lab.status(Method::HEAD, &path).await, lab.status(Method::GET, &path).await), (404, 404));
        assert_eq!(code(&lab.get(&path).await), "MANIFEST_UNKNOWN");
    }
    let (manifest, digest) = lab.push_image("team/web", "v1", 1).await;
    for reference in ["v1", &digest] {
        let path = format!("/v2/team/web/manifests/{reference}");
        let head = lab.ask(Method::HEAD, &path, &[], "").await;
        assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.headers["content-length"], manifest.to_string().len().to_string());
        let got = lab.get(&path).await;
        assert_eq!((got.status, &got.text), (StatusCode::OK, &manifest.to_string()));
        assert_eq!(
            (header(&got, "docker-content-digest"), header(&got, "content-type")),
            (digest.as_str(), OCI_MANIFEST)
        );
    }
    assert_eq!(lab.get(&format!("/v2/other/manifests/{digest}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn error_codes_are_json_as_specified() {
    let lab = Lab::new();
    for (method, path, expected) in [
        (Method::GET, "/v2/Web/manifests/v1", "NAME_INVALID"),
        (Method::GET, "/v2/web/manifests/.bad", "TAG_INVALID"),
        (Method::GET, "/v2/web/blobs/sha256:00", "DIGEST_INVALID"),
        (Method::GET, "/v2/web/tags/list", "NAME_UNKNOWN"),
        (Method::GET, "/v2/web/blobs/uploads/none", "BLOB_UPLOAD_UNKNOWN"),
        (Method::PATCH, "/v2/web/blobs/uploads/none", "BLOB_UPLOAD_UNKNOWN"),
        (Method::PUT, "/v2/web/manifests/v1", "MANIFEST_INVALID"),
        (Method::POST, "/v2/web/manifests/v1", "UNSUPPORTED"),
        (Method::GET, "/v2/nothing", "NAME_UNKNOWN"),
    ] {
        let got = lab.ask(method, path, &[], "{}").await;
        assert_eq!(code(&got), expected, "{path}");
        assert_eq!(got.headers["content-type"], "application/json");
        assert!(got.status.is_client_error());
    }
}

#[tokio::test]
async fn blob_upload_streamed() {
    let lab = Lab::new();
    let session = lab.begin("web").await;
    let got = lab.ask(Method::PATCH, &session, &[("content-type", "application/octet-stream")], "streamed").await;
    assert_eq!((got.status, header(&got, "range")), (StatusCode::ACCEPTED, "0-7"));
    let done = lab.ask(Method::PUT, &format!("{}?digest={}", location(&got), digest(b"streamed")), &[], "").await;
    assert_eq!(done.status, StatusCode::CREATED, "{}", done.text);
    assert_eq!(lab.get(&location(&done)).await.text, "streamed");
    assert_eq!(lab.get(&session).await.status, StatusCode::NOT_FOUND, "the session is over");
}

#[tokio::test]
async fn blob_upload_monolithic() {
    let lab = Lab::new();
    let session = lab.begin("web").await;
    let path = format!("{session}?digest={}", digest(b"whole"));
    assert_eq!(lab.ask(Method::PUT, &path, &[], "whole").await.status, StatusCode::CREATED);
    let before = lab.bench.blobs();
    let wrong = format!("{}?digest={ABSENT}", lab.begin("web").await);
    let got = lab.ask(Method::PUT, &wrong, &[], "something else").await;
    assert_eq!((got.status, code(&got).as_str()), (StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
    let got = lab.ask(Method::POST, &format!("/v2/web/blobs/uploads/?digest={ABSENT}"), &[], "other").await;
    assert_eq!(code(&got), "DIGEST_INVALID");
    assert_eq!(lab.bench.blobs(), before, "what is not what it was said to be is gone");
    assert_eq!(std::fs::read_dir(lab.bench.appliance.store.tmp()).unwrap().count(), 0);
}

#[tokio::test]
async fn blob_upload_chunked() {
    let lab = Lab::new();
    let session = lab.begin("web").await;
    let patch = async |range: &str, body: &'static str| {
        let length = body.len().to_string();
        lab.ask(Method::PATCH, &session, &[("content-range", range), ("content-length", &length)], body).await
    };
    let out_of_order = patch("3-5", "def").await;
    assert_eq!(out_of_order.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let first = patch("0-2", "abc").await;
    assert_eq!((first.status, header(&first, "range")), (StatusCode::ACCEPTED, "0-2"));
    assert_eq!(patch("0-2", "abc").await.status, StatusCode::RANGE_NOT_SATISFIABLE, "a chunk that is there already");
    let stale = lab.get(&session).await;
    assert_eq!((stale.status, header(&stale, "range")), (StatusCode::NO_CONTENT, "0-2"));
    assert_eq!(patch("3-5", "def").await.status, StatusCode::ACCEPTED);
    let last = format!("{session}?digest={}", digest(b"abcdefgh"));
    let done = lab.ask(Method::PUT, &last, &[("content-range", "6-7")], "gh").await;
    assert_eq!(done.status, StatusCode::CREATED, "{}", done.text);
    assert_eq!(lab.get(&location(&done)).await.text, "abcdefgh");
    let gone = lab.begin("web").await;
    assert_eq!(lab.status(Method::DELETE, &gone).await, 204);
    assert_eq!(lab.status(Method::GET, &gone).await, 404);
}

#[tokio::test]
async fn a_broken_connection_loses_nothing_of_an_upload() {
    use tokio::io::AsyncWriteExt as _;
    let lab = Lab::new();
    let session = lab.begin("web").await;
    let mut stream = UnixStream::connect(&lab.socket).await.unwrap();
    let head = format!("PATCH {session} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 400]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stream);
    let mut state = lab.get(&session).await;
    for _ in 0..50 {
        if state.headers["range"] == "0-399" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        state = lab.get(&session).await;
    }
    assert_eq!(state.headers["range"], "0-399");
    let whole = [b'x'; 1000];
    let got = lab.ask(Method::PATCH, &session, &[("content-range", "400-999")], vec![b'x'; 600]).await;
    assert_eq!(got.status, StatusCode::ACCEPTED, "{}", got.text);
    let done = lab.ask(Method::PUT, &format!("{session}?digest={}", digest(&whole)), &[], "").await;
    assert_eq!(done.status, StatusCode::CREATED, "{}", done.text);
}

#[tokio::test]
async fn cross_repository_blob_mount() {
    let lab = Lab::new();
    let digest = lab.push_blob("web", b"shared").await;
    for query in [format!("mount={digest}&from=web"), format!("mount={digest}")] {
        let got = lab.ask(Method::POST, &format!("/v2/other/blobs/uploads/?{query}"), &[], "").await;
        assert_eq!((got.status, location(&got)), (StatusCode::CREATED, format!("/v2/other/blobs/{digest}")));
    }
    let got = lab.ask(Method::POST, &format!("/v2/other/blobs/uploads/?mount={ABSENT}&from=web"), &[], "").await;
    assert_eq!(got.status, StatusCode::ACCEPTED, "what is not here is uploaded");
    assert!(location(&got).contains("/blobs/uploads/"));
}

#[tokio::test]
async fn manifest_upload() {
    let lab = Lab::new();
    let (manifest, digest) = lab.push_image("web", "v1", 1).await;
    assert_eq!(lab.outcome("web:v1"), Some(Outcome::Waiting), "it waits to be made bootable");
    let by_digest = lab.push_manifest(&format!("/v2/web/manifests/{digest}"), &manifest).await;
    assert_eq!(by_digest.status, StatusCode::CREATED);
    let other = lab.push_manifest(&format!("/v2/web/manifests/{ABSENT}"), &manifest).await;
    assert_eq!(code(&other), "DIGEST_INVALID");

    let config = lab.push_blob("web", b"{}").await;
    let empty = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x-nothing", "layers": [],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
    });
    let no_layers = lab.push_manifest("/v2/web/manifests/empty", &empty).await;
    assert_eq!(no_layers.status, StatusCode::CREATED);
    assert_eq!(lab.outcome("web:empty"), Some(Outcome::Kept), "no image is made of an artifact");

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        manifest
    };
    for (bad, expected) in [
        (changed(&|m| m["layers"][0]["digest"] = ABSENT.into()), "MANIFEST_BLOB_UNKNOWN"),
        (changed(&|m| m["layers"][0]["size"] = 7.into()), "MANIFEST_INVALID"),
        (changed(&|m| m["schemaVersion"] = 1.into()), "MANIFEST_INVALID"),
        (changed(&|m| m["manifests"] = json!([])), "MANIFEST_INVALID"),
    ] {
        let got = lab.push_manifest("/v2/web/manifests/bad", &bad).await;
        assert_eq!(code(&got), expected, "{bad}");
    }
    let headers = [("content-type", OCI_INDEX)];
    let got = lab.ask(Method::PUT, "/v2/web/manifests/bad", &headers, manifest.to_string()).await;
    assert_eq!(code(&got), "MANIFEST_INVALID", "it came as another type than its own");
    let got = lab.ask(Method::PUT, "/v2/web/manifests/bad", &headers, vec![b' '; 5 << 20]).await;
    assert_eq!((got.status, code(&got).as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"));
    assert_eq!(lab.status(Method::GET, "/v2/web/manifests/bad").await, 404);
}

#[tokio::test]
async fn an_index_of_several_images_is_pushed_after_them() {
    let lab = Lab::new();
    let (manifest, digest) = lab.push_image("web", "one", 1).await;
    let descriptor = |digest: &str| {
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.to_string().len(),
               "platform": {"os": "linux", "architecture": "amd64"}})
    };
    let index = |digest: &str| json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(digest)]});
    let got = lab.push_manifest("/v2/web/manifests/all", &index(ABSENT)).await;
    assert_eq!(code(&got), "MANIFEST_BLOB_UNKNOWN");
    let got = lab.push_manifest("/v2/web/manifests/all", &index(&digest)).await;
    assert_eq!(got.status, StatusCode::CREATED, "{}", got.text);
    assert_eq!(lab.get("/v2/web/manifests/all").await.headers["content-type"], OCI_INDEX);
}

#[tokio::test]
async fn content_discovery_tags() {
    let lab = Lab::new();
    for (at, tag) in ["v3", "v1", "v2", "V9"].iter().enumerate() {
        lab.push_image("team/web", tag, at as u8).await;
    }
    lab.bench.import("team/web:imported", 1).await;
    lab.push_image("zoo", "x", 9).await;
    let tags = async |query: &str| {
        let got = lab.get(&format!("/v2/team/web/tags/list{query}")).await;
        (got.json()["tags"].clone(), got.headers.get("link").map(|link| link.to_str().unwrap().to_owned()))
    };
    assert_eq!(tags("").await, (json!(["V9", "imported", "v1", "v2", "v3"]), None));
    let (page, link) = tags("?n=2").await;
    assert_eq!(page, json!(["V9", "imported"]));
    assert_eq!(link.unwrap(), "</v2/team/web/tags/list?n=2&last=imported>; rel=\"next\"");
    assert_eq!(tags("?n=2&last=v1").await, (json!(["v2", "v3"]), None));
    assert_eq!(tags("?n=0").await.0, json!([]));
    assert_eq!(lab.get("/v2/team/web/tags/list?n=many").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(lab.get("/v2/_catalog").await.json()["repositories"], json!(["team/web", "zoo"]));
}

#[tokio::test]
async fn content_discovery_referrers() {
    let lab = Lab::new();
    let (image, subject) = lab.push_image("web", "v1", 1).await;
    let path = format!("/v2/web/referrers/{subject}");
    let none = lab.get(&path).await;
    assert_eq!((none.status, none.json()["manifests"].clone()), (StatusCode::OK, json!([])));
    assert_eq!(none.headers["content-type"], OCI_INDEX);
    let config = lab.push_blob("web", b"{}").await;
    let artifact = |kind: &str| {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind, "layers": [],
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": image.to_string().len()},
            "annotations": {"org.example": kind},
        })
    };
    for kind in ["application/sig", "application/sbom"] {
        let bytes = artifact(kind).to_string();
        let got = lab.push_manifest(&format!("/v2/web/manifests/{}", digest(bytes.as_bytes())), &artifact(kind)).await;
        assert_eq!((got.status, header(&got, "oci-subject")), (StatusCode::CREATED, subject.as_str()));
    }
    let all = lab.get(&path).await.json();
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    let sig = lab.get(&format!("{path}?artifactType=application%2Fsig")).await;
    assert_eq!(sig.headers["oci-filters-applied"], "artifactType");
    let sig = sig.json()["manifests"].clone();
    assert_eq!(
        (&sig[0]["artifactType"], &sig[0]["annotations"]["org.example"], &sig[1]),
        (&json!("application/sig"), &json!("application/sig"), &Value::Null)
    );
}

#[tokio::test]
async fn content_management() {
    let lab = Lab::new();
    let before = lab.bench.blobs();
    let (_, digest) = lab.push_image("web", "v1", 1).await;
    let got = lab.ask(Method::DELETE, &format!("/v2/web/blobs/{digest}"), &[], "").await;
    assert_eq!((got.status, code(&got).as_str()), (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"));
    assert_eq!(lab.status(Method::DELETE, "/v2/web/manifests/v1").await, 202);
    assert_eq!(lab.status(Method::GET, "/v2/web/manifests/v1").await, 404);
    assert_eq!(lab.status(Method::GET, &format!("/v2/web/manifests/{digest}")).await, 200, "the tag alone is gone");
    assert_eq!(lab.status(Method::DELETE, &format!("/v2/web/manifests/{digest}")).await, 202);
    assert_eq!(lab.status(Method::GET, &format!("/v2/web/manifests/{digest}")).await, 404);
    assert_eq!(lab.status(Method::DELETE, &format!("/v2/web/manifests/{digest}")).await, 404);
    assert_eq!(lab.status(Method::DELETE, "/v2/web/manifests/v1").await, 404);
    // What arrived lately is kept for a manifest to come; the next start finds nothing that names it.
    let used = lab.bench.appliance.blobs_in_use().unwrap();
    assert_eq!((used.len(), before), (1, 1));
}

#[tokio::test]
async fn a_push_that_cannot_boot_says_why() {
    let lab = Lab::new();
    let mut events = lab.bench.appliance.ledger.follow(None).live;
    lab.push_image("web", "v1", 1).await;
    let shown = lab.bench.get("/v1/pushes/web:v1").await.json();
    assert_eq!(shown["outcome"]["outcome"], "waiting");
    let keeping = tokio::spawn(crate::registry::conversions::keep(lab.bench.appliance.clone()));
    let mut shown = Value::Null;
    for _ in 0..200 {
        shown = lab.bench.get("/v1/pushes/web:v1").await.json();
        if shown["outcome"]["outcome"] != "waiting" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shown["outcome"]["outcome"], "failed");
    assert!(shown["outcome"]["reason"].as_str().unwrap().contains("not a tar"), "{shown}");
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let event = serde_json::to_value(&event.event).unwrap();
        // The writes themselves are told of as well.
        let Some(outcome) = event["outcome"].as_str() else { continue };
        told.push(format!("{outcome}{}", event["step"].as_str().unwrap_or_default()));
    }
    assert_eq!(told, ["waiting", "waitingread", "failed"]);
    assert_eq!(lab.bench.get("/v1/images").await.json()["items"], json!([]));
    assert_eq!(lab.get("/v2/web/manifests/v1").await.status, StatusCode::OK, "what was pushed is kept");
    let again = lab.bench.write(Method::POST, "/v1/pushes/web:v1", r#"{"do":"retry"}"#).await.json();
    assert_eq!(again["outcome"]["outcome"], "waiting");
    assert_eq!(lab.bench.get("/v1/pushes").await.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(lab.bench.get("/v1/pushes/web:v2").await.status, StatusCode::NOT_FOUND);
    lab.bench.appliance.shutdown.cancel();
    keeping.await.unwrap().unwrap();
}

/// Whoever may push may push an image of Bennu's own kind whose config says that it was made of something signed.
#[tokio::test]
async fn an_image_made_elsewhere_is_not_signed_by_what_it_says_of_itself() {
    use bennu_images::cosign::{KeyPair, Place, SigningKey, TrustedKey, sign, signature_tag};
    use bennu_rules::{
        facts::Architecture,
        image::{BlobRef, Content, Derivation, Image, ImageConfig},
        signature::{SignaturePolicy, Verdict},
    };
    let pair = KeyPair::generate(b"").unwrap();
    let mut config = Config::parse(CONFIG).unwrap();
    config.signatures.keys = vec![TrustedKey::from_pem("ci", pair.public.as_bytes()).unwrap()];
    let settings = Settings { signatures: SignaturePolicy::Require, ..(*config.settings).clone() };
    config.settings = Arc::new(settings);
    let lab = Lab::on(Bench::of(config));
    let (_, source) = lab.push_image("web", "v1", 1).await;
    let source: Digest = source.parse().unwrap();
    let key = SigningKey::from_pem(pair.private.as_bytes(), Some(b"")).unwrap();
    let signed = sign(&key, &source, "web", &Place::Tag, None).unwrap();
    for blob in [&signed.payload, &signed.config] {
        lab.push_blob("web", blob).await;
    }
    let manifest: Value = serde_json::from_slice(&signed.manifest).unwrap();
    let path = format!("/v2/web/manifests/{}", signature_tag(&source));
    let media_type = [("content-type", OCI_MANIFEST)];
    assert_eq!(
        lab.ask(Method::PUT, &path, &media_type, signed.manifest).await.status,
        StatusCode::CREATED,
        "{manifest}"
    );

    let blob = |seed: u8| BlobRef { digest: Digest([seed; 32]), size: 1 };
    let content = Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6".into(), layer: None };
    let derived = Derivation {
        source: BlobRef { digest: source, size: 1 },
        media_type: OCI_MANIFEST.into(),
        kernel: None,
        created: None,
    };
    let image = |adopted| Image {
        digest: Digest([9; 32]),
        manifest_size: 1,
        config_blob: blob(3),
        config: ImageConfig {
            derived: Some(derived.clone()),
            ..ImageConfig::of(Architecture::X86_64, content.clone())
        },
        imported: Default::default(),
        source: "test".into(),
        verdict: None,
        adopted,
    };
    let mut images = [image(false), image(true)];
    crate::registry::trust::judge_new(&mut images, &Default::default(), &lab.bench.appliance);
    assert!(matches!(images[0].verdict, Some(Verdict::Signed { .. })), "{:?}", images[0].verdict);
    assert_eq!(images[1].verdict, Some(Verdict::Unsigned));
}
