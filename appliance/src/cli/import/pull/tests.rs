//! Pulls from a server that follows a script, from Debian's registry, and what comes of both.

mod bent;
mod foreign;
mod logins;
mod script;

use super::*;
use bennu_images::oci::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use bennu_rules::image::Digest;
use ring::digest::{SHA256, digest};
use script::{Reply, Script};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::Read, time::Duration};
use tokio::sync::mpsc;

/// As in the field, but that nobody waits before a further attempt.
fn patience() -> Patience {
    Patience { pause: Duration::from_millis(10), ..Patience::default() }
}

async fn look_at(reference: &str, options: &Options, variables: &[(&str, &str)]) -> Done<(Pulled, Vec<String>)> {
    let reference = Reference::parse(reference.strip_prefix("docker:").unwrap())?;
    let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    look(&reference, options, variable, patience()).await
}

/// The files of the tar that a pull comes to.
async fn pull_with(reference: &str, options: &Options, variables: &[(&str, &str)]) -> Done<BTreeMap<String, Vec<u8>>> {
    sent(look_at(reference, options, variables).await?).await
}

async fn sent((pulled, notes): (Pulled, Vec<String>)) -> Done<BTreeMap<String, Vec<u8>>> {
    assert_eq!(notes, Vec::<String>::new());
    let size = pulled.size().unwrap();
    let (out, mut chunks) = mpsc::channel(4);
    let sending = tokio::spawn(pulled.send(out));
    let mut tar = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        tar.extend_from_slice(&chunk.unwrap());
    }
    sending.await.unwrap()?;
    assert_eq!(tar.len() as u64, size, "it is as long as was announced");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(digest_of(&bytes), format!("sha256:{hex}"));
        }
        assert_eq!(files.insert(name, bytes), None, "each file once");
    }
    Ok(files)
}

async fn pull(reference: &str) -> Done<BTreeMap<String, Vec<u8>>> {
    pull_with(reference, &Options::default(), &[]).await
}

fn digest_of(bytes: &[u8]) -> String {
    Digest(digest(&SHA256, bytes).as_ref().try_into().unwrap()).to_string()
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// A small image by its parts.
#[derive(Clone)]
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// Of one layer with so many bytes.
    fn new(architecture: &str, length: usize) -> Self {
        let layer: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251 + architecture.len()) as u8).collect();
        let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": [digest_of(&layer)]}});
        let mut image = Self { layer, config: config.to_string().into_bytes(), manifest: Vec::new() };
        let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(&image.layer),
                           "size": image.layer.len()});
        image.set(json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(&image.config), "size": image.config.len()},
            "layers": [layer],
        }));
        image
    }

    fn set(&mut self, manifest: Value) {
        self.manifest = manifest.to_string().into_bytes();
    }

    fn changed(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = serde_json::from_slice(&self.manifest).unwrap();
        change(&mut manifest);
        self.set(manifest);
        self
    }

    fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// In an index.
    fn descriptor(&self, architecture: &str) -> Value {
        json!({"mediaType": OCI_MANIFEST, "digest": self.digest(), "size": self.manifest.len(),
               "platform": {"os": "linux", "architecture": architecture}})
    }

    /// What a registry that holds it as `web:v1` answers.
    fn reply(&self, path: &str) -> Option<Reply> {
        let (manifest, blobs) = (format!("/v2/web/manifests/{}", self.digest()), [&self.layer, &self.config]);
        if path == manifest || path == "/v2/web/manifests/v1" {
            return Some(Reply::ok(&self.manifest).with("Content-Type", OCI_MANIFEST));
        }
        let blob = blobs.into_iter().find(|blob| path == format!("/v2/web/blobs/{}", digest_of(blob)))?;
        Some(Reply::ok(blob))
    }
}

/// A registry that holds the image, where `other` does not answer first.
async fn registry(image: &Image, other: impl Fn(&script::Asked) -> Option<Reply> + Send + Sync + 'static) -> Script {
    let image = image.clone();
    Script::new(move |asked| {
        let usual = || match asked.path.as_str() {
            "/v2/" => Some(Reply::ok(b"{}")),
            path => image.reply(path),
        };
        other(asked).or_else(usual).unwrap_or_else(|| Reply::status("404 Not Found"))
    })
    .await
}

#[tokio::test]
async fn an_image_comes_as_a_layout_with_its_digest() {
    let image = Image::new("amd64", 70_000);
    let server = registry(&image, |_| None).await;
    for version in [":v1".to_owned(), format!("@{}", image.digest())] {
        let reference = server.image(&version);
        let files = pull(&reference).await.unwrap();
        assert_eq!(files.len(), 5, "{:?}", files.keys());
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(index["manifests"][0]["digest"], image.digest());
        let annotation = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
        assert_eq!(annotation, &json!(version[1..]));
        assert_eq!(files[&format!("blobs/{}", image.digest().replace(':', "/"))], image.manifest);
    }
    let none = pull(&server.image(":v2")).await.unwrap_err();
    assert!(none.what.contains("no such image"), "{none}");
}

#[tokio::test]
async fn of_an_index_come_the_manifests_that_bennu_knows_and_its_digest_stays() {
    let (amd64, arm64, s390x) = (Image::new("amd64", 900), Image::new("arm64", 1500), Image::new("s390x", 10));
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        s390x.descriptor("s390x"), amd64.descriptor("amd64"), arm64.descriptor("arm64"), arm64.descriptor("arm64"),
        {"mediaType": OCI_MANIFEST, "digest": digest_of(b"attestation"), "size": 1,
         "platform": {"os": "unknown", "architecture": "unknown"}},
    ]})
    .to_string();
    let (first, second, bytes) = (amd64.clone(), arm64.clone(), index.clone());
    let server = registry(&s390x, move |asked| match asked.path.as_str() {
        "/v2/web/manifests/v1" => Some(Reply::ok(bytes.as_bytes()).with("Content-Type", OCI_INDEX)),
        path => first.reply(path).or_else(|| second.reply(path)),
    })
    .await;
    let files = pull(&server.image(":v1")).await.unwrap();
    let listed: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(listed["manifests"][0]["digest"], digest_of(index.as_bytes()));
    let has = |digest: String| files.contains_key(&format!("blobs/sha256/{}", hex(&digest)));
    assert!(has(digest_of(index.as_bytes())) && has(amd64.digest()) && has(arm64.digest()) && !has(s390x.digest()));

    let only = Options { platform: Some(platform("linux/arm64").unwrap()), ..Options::default() };
    let files = pull_with(&server.image(":v1"), &only, &[]).await.unwrap();
    let listed: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!((&listed["manifests"][0]["digest"], files.len()), (&json!(arm64.digest()), 5));

    let other = Options { platform: Some(platform("linux/riscv64").unwrap()), ..Options::default() };
    let error = pull_with(&server.image(":v1"), &other, &[]).await.unwrap_err();
    assert!(error.what.contains("linux/riscv64") && error.help.contains("linux/s390x, linux/amd64"), "{error}");
}

#[tokio::test]
async fn an_image_for_another_platform_is_not_taken() {
    let image = Image::new("amd64", 10);
    let server = registry(&image, |_| None).await;
    let wanted = |name| Options { platform: Some(platform(name).unwrap()), ..Options::default() };
    assert!(pull_with(&server.image(":v1"), &wanted("linux/amd64"), &[]).await.is_ok());
    let error = pull_with(&server.image(":v1"), &wanted("linux/arm64"), &[]).await.unwrap_err();
    assert!(error.what.contains("is for linux/amd64"), "{error}");
    assert!(platform("windows/amd64").is_err() && platform("linux/arm/v7").is_err());
}

#[tokio::test]
async fn a_signature_beside_the_image_comes_along() {
    let (image, signature) = (Image::new("amd64", 10), Image::new("sig", 20));
    let tag = format!("sha256-{}.sig", hex(&image.digest()));
    let (beside, path) = (signature.clone(), format!("/v2/web/manifests/{tag}"));
    let server = registry(&image, move |asked| match asked.path == path {
        true => Some(Reply::ok(&beside.manifest)),
        false => beside.reply(&asked.path).filter(|_| asked.path.contains("/blobs/")),
    })
    .await;
    let files = pull(&server.image(":v1")).await.unwrap();
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let second = &index["manifests"][1];
    assert_eq!((&second["digest"], files.len()), (&json!(signature.digest()), 8));
    assert_eq!(second["annotations"]["org.opencontainers.image.ref.name"], tag);
}
