//! Images in their lives: what they cost, who runs them, how they differ.

use super::*;
use crate::cli::tests::{Served, run};
use bennu_rules::{
    commands::images::{AddImages, add_images},
    facts::Architecture,
    image::{BlobRef, Content, Image, ImageConfig},
};
use std::path::Path;

#[tokio::test]
async fn images_tell_what_they_share_and_who_runs_them() {
    let bench = Bench::new();
    let first = bench.import("web:v1", 1).await;
    let alone = bench.get("/v1/images/web:v1").await.json();
    assert_eq!((&alone["unique"], &alone["running"]), (&alone["size"], &serde_json::json!([])));
    // The same parts with other arguments: only manifest and config are its own.
    let path = "/v1/imports?kind=foreign&name=web:v2&source=test&cmdline=quiet";
    bench.send(Request::post(path).body(Body::from(foreign_tar(1))).unwrap()).await;
    bench.write(Method::PUT, "/v1/machines/52:54:00:00:00:01/assignment", r#"{"image":"web:v1"}"#).await;
    bench
        .boot(
            "52:54:00:00:00:01",
            vec![Seen::Reported { step: bennu_plan::Step::Up, message: String::new(), progress: 0 }],
        )
        .await;
    let listed = bench.get("/v1/images").await.json();
    let of = |name: &str| {
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|image| image["tags"][0]["name"] == name).unwrap().clone()
    };
    let (v1, v2) = (of("web:v1"), of("web:v2"));
    assert_eq!(v1["digest"], first["digest"]);
    assert_eq!((&v1["running"][0], &v1["assigned_to"][0]), (&"52:54:00:00:00:01".into(), &"52:54:00:00:00:01".into()));
    assert_eq!(v2["running"], serde_json::json!([]));
    for image in [&v1, &v2] {
        let parts: u64 = 4096 + 9000;
        assert_eq!(image["unique"].as_u64().unwrap(), image["size"].as_u64().unwrap() - parts, "{image}");
    }
}

/// An image on record whose root is a file.
async fn record(bench: &Bench, name: &str, root: &Path, release: &str) {
    let put = |bytes: &[u8]| bench.appliance.store.put(bytes).unwrap();
    let root = put(&std::fs::read(root).unwrap());
    let (kernel, modules) = (put(release.as_bytes()), put(b"modules"));
    let BlobRef { digest, size: manifest_size } = put(name.as_bytes());
    let config = ImageConfig {
        architecture: Architecture::X86_64,
        cmdline: String::new(),
        content: Content::Root {
            kernel,
            modules,
            root,
            filesystem: Default::default(),
            verity: None,
            kernel_release: release.into(),
        },
        signed: None,
        os: None,
        derived: None,
        entry: None,
        labels: Default::default(),
        tools: Default::default(),
    };
    let source = "test".into();
    let image = Image {
        digest,
        manifest_size,
        config_blob: put(b"{}"),
        config,
        imported: Default::default(),
        source,
        verdict: None,
        adopted: false,
    };
    let request =
        AddImages { images: vec![image], name: name.parse().unwrap(), source: Vec::new(), signatures: Vec::new() };
    bench.record(request, add_images).await;
}

/// A squashfs of some files.
fn squashfs(home: &Path, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let (tree, root) = (home.join(name), home.join(format!("{name}.squashfs")));
    for (path, content) in files {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let made = std::process::Command::new("mksquashfs").arg(&tree).arg(&root).args(["-quiet", "-no-progress"]).output();
    assert!(made.unwrap().status.success());
    root
}

#[tokio::test]
async fn a_diff_names_packages_files_and_what_the_images_say() {
    let served = Served::new();
    let bench = &served.bench;
    let home = tempfile::tempdir().unwrap();
    let status = |version: &str| format!("Package: curl\nStatus: install ok installed\nVersion: {version}\n");
    let (old, new) = (status("1"), status("2"));
    let before = squashfs(home.path(), "a", &[("etc/motd", "one"), ("var/lib/dpkg/status", &old), ("gone", "x")]);
    let after = squashfs(home.path(), "b", &[("etc/motd", "two"), ("var/lib/dpkg/status", &new), ("come", "x")]);
    record(bench, "web:v1", &before, "6.1.0").await;
    record(bench, "web:v2", &after, "6.2.0").await;
    let diff = async |query: &str| bench.get(&format!("/v1/diff?{query}")).await;
    let shown = diff("from=web:v1&to=web:v2").await.json();
    assert_eq!(shown["packages"], serde_json::json!([{"name": "curl", "from": "1", "to": "2"}]));
    assert_eq!(shown["files"], serde_json::json!({"added": 1, "removed": 1, "changed": 2}));
    let release = serde_json::json!({"name": "kernel release", "from": "6.1.0", "to": "6.2.0"});
    assert!(shown["facts"].as_array().unwrap().contains(&release), "{shown}");
    let listed = diff("from=web:v1&to=web:v2&files=true").await.json();
    let motd = serde_json::json!({"path": "/etc/motd", "what": ["content"]});
    assert!(listed["files"]["list"].as_array().unwrap().contains(&motd), "{listed}");
    let same = diff("from=web:v1&to=web:v1").await.json();
    assert_eq!((&same["facts"], &same["files"]["changed"]), (&serde_json::json!([]), &0.into()));
    run(&served, "image diff web:v1 web:v2 --files").await.unwrap();
    run(&served, "image show web:v1").await.unwrap();
    run(&served, "image list").await.unwrap();
    assert_eq!(diff("from=web:v1&to=web:v9").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_be_compared_is_told() {
    let bench = Bench::new();
    let home = tempfile::tempdir().unwrap();
    let other = home.path().join("ext4");
    std::fs::write(&other, [0; 4096]).unwrap();
    let damaged = home.path().join("damaged");
    std::fs::write(&damaged, [b"hsqs", [0xff; 4092].as_slice()].concat()).unwrap();
    bench.import("foreign:v1", 1).await;
    record(&bench, "web:ext4", &other, "6.1.0").await;
    record(&bench, "web:damaged", &damaged, "6.1.0").await;
    let shown = bench.get("/v1/diff?from=foreign:v1&to=web:ext4").await.json();
    let notes = shown["notes"].to_string();
    assert!(notes.contains("has no root") && notes.contains("another file system"), "{shown}");
    assert_eq!(shown["files"], Value::Null);
    let got = bench.get("/v1/diff?from=web:ext4&to=web:damaged").await;
    assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(got.json()["advice"].as_str().unwrap().contains("bennu image verify"), "{}", got.text);
}
