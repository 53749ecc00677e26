//! Exports by the command line, on real appliances behind real sockets; what comes out is read by the tools that people
//! read layouts with.

use super::*;
use crate::{
    cli::tests::{Served, run as bennu},
    http::api::tests::Bench,
};
use bennu_images::oci::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use bennu_rules::{
    image::{BlobRef, Digest},
    registry::{Artifact, Outcome, Push},
};
use serde_json::{Value, json};
use std::process::Command;

fn tool(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup", words[0]));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_export_imports_elsewhere_to_the_same_digest_and_comes_back() {
    let (here, there) = (Served::new(), Served::new());
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let image = here.bench.import("team/web:v1", 1).await["digest"].clone();
    for (number, dest) in
        [format!("oci:{}", at("layout")), format!("oci-archive:{}", at("file.tar"))].iter().enumerate()
    {
        bennu(&here, &format!("image export team/web:v1 {dest}")).await.unwrap();
        bennu(&there, &format!("image import {dest}:v1 other:n{number}")).await.unwrap();
        let shown = there.bench.get(&format!("/v1/images/other:n{number}")).await.json();
        assert_eq!(shown["digest"], image, "{dest}");
    }
    bennu(&there, &format!("image export other:n1 oci-archive:{}:v1", at("back.tar"))).await.unwrap();
    let [file, back] = ["file.tar", "back.tar"].map(|name| std::fs::read(at(name)).unwrap());
    assert!(file == back, "another appliance writes the same bytes");
    bennu(&here, &format!("image import oci-archive:{} web:back", at("back.tar"))).await.unwrap();
    assert_eq!(here.bench.get("/v1/images/web:back").await.json()["digest"], image);
}

#[tokio::test]
async fn a_layout_is_added_to_and_read_by_skopeo() {
    let here = Served::new();
    let home = tempfile::tempdir().unwrap();
    let layout = home.path().join("layout").display().to_string();
    let first = here.bench.import("web:v1", 1).await["digest"].clone();
    here.bench.import("web:v2", 2).await;
    for image in ["web:v1", "web:v2", "web:v1"] {
        bennu(&here, &format!("image export {image} oci:{layout}")).await.unwrap();
    }
    let index: Value = serde_json::from_slice(&std::fs::read(home.path().join("layout/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    assert_eq!(entries(home.path()), ["layout"]);
    assert_eq!(entries(&home.path().join("layout")), ["blobs", "index.json", "oci-layout"]);
    let inspect =
        || -> Value { serde_json::from_str(&tool(&["skopeo", "inspect", &format!("oci:{layout}:v1")])).unwrap() };
    let inspected = inspect();
    assert_eq!(
        (&inspected["Digest"], &inspected["Architecture"], &inspected["Os"]),
        (&first, &json!("amd64"), &json!("linux"))
    );
    let parts = here.bench.get("/v1/images/web:v1").await.json()["config"]["initrds"].as_array().unwrap().len() + 1;
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), parts, "{inspected}");
    let raw = tool(&["skopeo", "inspect", "--raw", &format!("oci:{layout}:v1")]);
    assert_eq!(format!("sha256:{}", sha256(&raw)), first.as_str().unwrap());
    let listed = tool(&["umoci", "list", "--layout", &layout]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["v1", "v2"]);
    let stat: Value =
        serde_json::from_str(&tool(&["umoci", "stat", "--json", "--image", &format!("{layout}:v1")])).unwrap();
    assert!(stat.is_object(), "{stat}");
    for tag in ["v1", "v2"] {
        let copy = home.path().join(tag).display().to_string();
        let from = format!("oci:{layout}:{tag}");
        tool(&["skopeo", "--insecure-policy", "copy", "--quiet", &from, &format!("dir:{copy}")]);
    }
    // One that has the name gives it up.
    bennu(&here, &format!("image export web:v2 oci:{layout}:v1")).await.unwrap();
    assert_ne!(inspect()["Digest"], first);
}

/// Puts a container image on record, as a push does that came to nothing.
async fn push_container(bench: &Bench) -> Digest {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o640);
    tar.append_data(&mut header, "etc/motd", &b"hello\n"[..]).unwrap();
    let put = |bytes: &[u8]| bench.appliance.store.put(bytes).unwrap();
    let layer = put(&tar.into_inner().unwrap());
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]}, "history": [{"created_by": "test"}],
    });
    let config = put(config.to_string().as_bytes());
    let described = |blob: &BlobRef, kind: &str| json!({"mediaType": kind, "digest": blob.digest, "size": blob.size});
    let manifest = |layer: &BlobRef| {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": described(&config, OCI_CONFIG), "layers": [described(layer, OCI_LAYER)],
        })
    };
    let image = put(manifest(&layer).to_string().as_bytes());
    let payload = put(b"signed");
    let signature = put(manifest(&payload).to_string().as_bytes());
    let artifact = |blob: &BlobRef, layer: &BlobRef| Artifact {
        digest: blob.digest,
        size: blob.size,
        media_type: OCI_MANIFEST.into(),
        kind: OCI_CONFIG.into(),
        annotations: Default::default(),
        parts: vec![config.clone(), layer.clone()],
        subject: None,
        repositories: ["app".to_owned()].into(),
        pushed: Default::default(),
    };
    let tag = format!("app:sha256-{}.sig", image.digest.hex());
    let request = [(artifact(&image, &layer), "app:v1".to_owned()), (artifact(&signature, &payload), tag)];
    let record = |request: &[(Artifact, String); 2], _: &bennu_rules::View<'_>, at: &bennu_rules::Moment| {
        let changes = request.iter().flat_map(|(artifact, name)| {
            let (name, digest, at) = (name.parse().unwrap(), artifact.digest, at.now);
            let push = Push { name, digest, at, by: "ci".into(), outcome: Outcome::Kept };
            [bennu_rules::Change::PutArtifact(artifact.clone()), bennu_rules::Change::PutPush(push)]
        });
        bennu_rules::Decision { changes: changes.collect(), ..bennu_rules::Decision::just(()) }
    };
    bench.record(request, record).await;
    image.digest
}

#[tokio::test]
async fn a_source_leaves_as_it_was_pushed_and_umoci_unpacks_it() {
    let here = Served::new();
    let digest = push_container(&here.bench).await;
    let home = tempfile::tempdir().unwrap();
    let layout = home.path().join("layout").display().to_string();
    bennu(&here, &format!("image export app:v1 oci:{layout} --source")).await.unwrap();
    let inspected: Value = serde_json::from_str(&tool(&["skopeo", "inspect", &format!("oci:{layout}:v1")])).unwrap();
    assert_eq!(inspected["Digest"], digest.to_string());
    let bundle = home.path().join("bundle");
    tool(&["umoci", "unpack", "--rootless", "--image", &format!("{layout}:v1"), &bundle.display().to_string()]);
    assert_eq!(std::fs::read(bundle.join("rootfs/etc/motd")).unwrap(), b"hello\n");
    let tags = tool(&["umoci", "list", "--layout", &layout]);
    assert!(tags.contains(&format!("sha256-{}.sig", digest.hex())), "{tags}");
    let error = bennu(&here, &format!("image export app:v1 oci:{layout}")).await.unwrap_err();
    assert!(error.what.contains("no image app:v1"), "{error}");
    here.bench.import("web:v1", 1).await;
    let error = bennu(&here, &format!("image export web:v1 oci:{layout} --source")).await.unwrap_err();
    assert!(error.what.contains("no container image"), "{error}");
}

/// What was signed at one appliance boots at another that trusts the signer, with nothing but the archive between them.
#[tokio::test]
async fn a_signature_goes_along_with_its_image() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    for name in ["ci", "other"] {
        let private = at(&format!("{name}.key"));
        tool(&["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &private]);
        tool(&["openssl", "pkey", "-in", &private, "-pubout", "-out", &at(&format!("{name}.pub"))]);
    }
    let requiring = |key: &str| Served::with(&format!("[signatures]\npolicy = \"require\"\nkeys = [\"{key}\"]\n"));
    let here = Served::new();
    here.bench.import("team/web:v1", 1).await;
    let export = |name: &str| format!("image export team/web:v1 oci-archive:{}", at(name));
    bennu(&here, &export("unsigned.tar")).await.unwrap();
    bennu(&here, &format!("image sign team/web:v1 --key {}", at("ci.key"))).await.unwrap();
    bennu(&here, &export("signed.tar")).await.unwrap();
    let trusting = requiring(&at("ci.pub"));
    for (file, verdict) in [("unsigned.tar", "unsigned"), ("signed.tar", "signed"), ("unsigned.tar", "signed")] {
        bennu(&trusting, &format!("image import oci-archive:{}:v1 web:v1", at(file))).await.unwrap();
        let shown = trusting.bench.get("/v1/images/web:v1").await.json();
        assert_eq!(shown["verdict"]["verdict"], verdict, "{file}: {shown}");
    }
    let pushes = trusting.bench.get("/v1/pushes").await.json();
    assert_eq!(pushes["items"].as_array().unwrap().len(), 1, "the signature lies in the registry: {pushes}");
    bennu(&trusting, &format!("image export web:v1 oci-archive:{}:v1", at("again.tar"))).await.unwrap();
    let [file, again] = ["signed.tar", "again.tar"].map(|name| std::fs::read(at(name)).unwrap());
    assert!(file == again, "it leaves as it came");
    let doubting = requiring(&at("other.pub"));
    bennu(&doubting, &format!("image import oci-archive:{}:v1 web:v1", at("signed.tar"))).await.unwrap();
    let shown = doubting.bench.get("/v1/images/web:v1").await.json();
    assert_eq!(shown["verdict"]["verdict"], "not_trusted", "{shown}");
}

#[tokio::test]
async fn a_damaged_image_leaves_nothing_behind() {
    let here = Served::new();
    let home = tempfile::tempdir().unwrap();
    let image = here.bench.import("web:v1", 1).await;
    let blob: Digest = image["config"]["initrds"][0]["digest"].as_str().unwrap().parse().unwrap();
    let path = here.bench.appliance.store.blob_path(&blob);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    for (dest, says) in [("oci:{}/layout", "arrived with other bytes"), ("oci-archive:{}/file.tar", "broke off")] {
        let dest = dest.replace("{}", &home.path().display().to_string());
        let error = bennu(&here, &format!("image export web:v1 {dest}")).await.unwrap_err();
        assert!(error.what.contains(says) && error.help.contains("bennu image verify"), "{error}");
        assert_eq!(entries(home.path()), [""; 0], "{dest}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_export() {
    let here = Served::new();
    let store = &here.bench.appliance.store;
    // More than the pipes between hold.
    let digest = store.put(&vec![7; 64 << 20]).unwrap();
    let document = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest.digest, "size": digest.size}, "layers": [],
    });
    let document = store.put(document.to_string().as_bytes()).unwrap();
    let artifact = Artifact {
        digest: document.digest,
        size: document.size,
        media_type: OCI_MANIFEST.into(),
        kind: OCI_CONFIG.into(),
        annotations: Default::default(),
        parts: vec![digest.clone()],
        subject: None,
        repositories: ["app".to_owned()].into(),
        pushed: Default::default(),
    };
    let record = |artifact: &Artifact, _: &bennu_rules::View<'_>, _: &bennu_rules::Moment| bennu_rules::Decision {
        changes: vec![bennu_rules::Change::PutArtifact(artifact.clone())],
        ..bennu_rules::Decision::just(())
    };
    here.bench.record(artifact, record).await;
    let client = Client::new(&here.server).unwrap();
    let path = format!("/v1/exports/{}?source=true", document.digest);
    let answer = client.send(Method::GET, &path, None).await.unwrap();
    assert!(store.collect(&Default::default()).unwrap().iter().all(|blob| blob.digest != digest.digest), "it is held");
    drop(answer);
    for _ in 0..100 {
        if !store.collect(&Default::default()).unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the export goes on without its client");
}

#[test]
fn destinations_are_read() {
    let layout = |path: &str| Dest::Layout(path.into());
    for (text, dest, tag) in [
        ("oci:dir", layout("dir"), None),
        ("oci:/srv/dir:v1", layout("/srv/dir"), Some("v1")),
        ("oci-archive:web.tar", Dest::File("web.tar".into()), None),
        ("oci-archive:-:v2", Dest::Stdout, Some("v2")),
    ] {
        assert_eq!(Dest::parse(text).unwrap(), (dest, tag.map(str::to_owned)), "{text}");
    }
    for text in ["web.tar", "oci:", "oci-archive::v1", "docker://web:v1"] {
        assert_eq!(Dest::parse(text).unwrap_err().exit_code(), std::process::ExitCode::from(2), "{text}");
    }
}

#[test]
fn nothing_is_written_outside_a_layout() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("layout");
    let tar = |name: &str, content: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content).unwrap();
        tar.into_inner().unwrap()
    };
    let digest = "ab".repeat(32);
    for (name, says) in [
        ("../outside", "no layout has"),
        ("/etc/outside", "no layout has"),
        ("blobs/sha256/../../../outside", "no layout has"),
        (&format!("blobs/sha256/{digest}"), "other bytes"),
        ("index.json", "no index"),
    ] {
        let error = layout::write(&directory, &mut tar(name, b"bytes").as_slice()).unwrap_err();
        assert!(error.what.contains(says), "{name}: {error}");
        assert_eq!(entries(home.path()), [""; 0], "{name}");
    }
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("mine"), b"mine").unwrap();
    assert!(layout::check(&directory).unwrap_err().what.contains("something else"));
    std::fs::write(directory.join("oci-layout"), b"{}").unwrap();
    std::os::unix::fs::symlink("/tmp", directory.join("blobs")).unwrap();
    assert!(layout::check(&directory).unwrap_err().what.contains("a link"));
}
