//! Debian's `docker-registry`: a registry that others wrote, filled by skopeo.

use super::*;
use crate::{
    cli::tests::{Served, run as bennu},
    http::tls::Identity,
};
use bennu_images::{
    import::{ImportStep, Meter as ImportMeter, Progress, variants},
    oci::{DOCKER_MANIFEST, read_archive},
    store::Store,
};
use bennu_rules::facts::Architecture;
use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// `htpasswd -nbB ci secret`, at the least cost.
const HTPASSWD: &str = "ci:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

struct Foreign {
    address: SocketAddr,
    directory: TempDir,
    process: Child,
    guarded: bool,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Foreign {
    /// With TLS and a password, or without both.
    async fn new(guarded: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let identity = Identity::own(&dir.join("tls"), &["127.0.0.1".to_owned()], 2026).unwrap();
        std::fs::create_dir(dir.join("trust")).unwrap();
        std::fs::copy(&identity.certificate, dir.join("trust/ca.crt")).unwrap();
        std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": dir.join("storage")}},
            "http": {"addr": address.to_string()},
        });
        if guarded {
            config["http"]["tls"] = json!({"certificate": identity.certificate, "key": dir.join("tls/key.pem")});
            config["auth"] = json!({"htpasswd": {"realm": "registry", "path": dir.join("htpasswd")}});
        }
        // JSON is YAML.
        std::fs::write(dir.join("config.yml"), config.to_string()).unwrap();
        let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/docker-registry/usr/bin/docker-registry");
        let unpacked = std::path::Path::new(unpacked);
        let mut command = Command::new(if unpacked.exists() { unpacked } else { "docker-registry".as_ref() });
        command.arg("serve").arg(dir.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("docker-registry is not here; run scripts/setup");
        let foreign = Self { address, directory, process, guarded };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        foreign
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn image(&self, version: &str) -> String {
        format!("docker://{}/team/web{version}", self.address)
    }

    fn options(&self) -> Options {
        let guarded = || self.guarded.then_some(());
        Options {
            creds: guarded().map(|()| "ci:secret".to_owned()),
            cert_dir: guarded().map(|()| self.path("trust")),
            ..Options::default()
        }
    }

    /// `skopeo copy`, and what more it is to be told.
    async fn push(&self, layout: &Path, tag: &str, more: &[&str]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet"]).args(more);
        match self.guarded {
            true => skopeo.args(["--dest-creds", "ci:secret", "--dest-cert-dir"]).arg(self.path("trust")),
            false => skopeo.arg("--dest-tls-verify=false"),
        };
        skopeo.arg(format!("oci:{}:{tag}", layout.display())).arg(self.image(&format!(":{tag}")));
        let done = tokio::task::spawn_blocking(move || skopeo.output().expect("skopeo runs; else run scripts/setup"));
        let done = done.await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// An OCI layout of these images, the last one an index of the others.
fn layout(directory: &Path, images: &[(&str, &Image)]) -> String {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| std::fs::write(blobs.join(hex(&digest_of(bytes))), bytes).unwrap();
    let named = |mut descriptor: Value, name: &str| {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        descriptor
    };
    let mut listed = Vec::new();
    for (architecture, image) in images {
        [&image.layer, &image.config, &image.manifest].into_iter().for_each(|bytes| put(bytes));
        listed.push(named(image.descriptor(architecture), architecture));
    }
    let manifests: Vec<Value> = images.iter().map(|(architecture, image)| image.descriptor(architecture)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string();
    put(index.as_bytes());
    let digest = digest_of(index.as_bytes());
    listed.push(named(json!({"mediaType": OCI_INDEX, "digest": digest, "size": index.len()}), "all"));
    let list = json!({"schemaVersion": 2, "manifests": listed}).to_string();
    std::fs::write(directory.join("index.json"), list).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    digest
}

struct Silent;

impl Progress for Silent {
    fn step(&self, _step: ImportStep, _done: u64, _total: Option<u64>) {}
    fn note(&self, _note: &str) {}
}

/// What the appliance reads of the files, and for which machines that is.
fn read(files: &BTreeMap<String, Vec<u8>>, wanted: &str) -> (String, Vec<Architecture>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut meter = ImportMeter::new(&Silent, ImportStep::Read, None);
    let arrived = read_archive(tar.as_slice(), Some(wanted), &store, &mut meter).unwrap();
    let found = variants(&arrived.document.digest, &arrived.media_type, &store).unwrap();
    (arrived.document.digest.to_string(), found.into_iter().map(|(architecture, _)| architecture).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_registry_with_tls_and_a_password() {
    let foreign = Foreign::new(true).await;
    let (amd64, arm64, s390x) = (Image::new("amd64", 200_000), Image::new("arm64", 300), Image::new("s390x", 20));
    let source = foreign.path("layout");
    let index = layout(&source, &[("amd64", &amd64), ("arm64", &arm64), ("s390x", &s390x)]);
    foreign.push(&source, "all", &["--all", "--preserve-digests"]).await;
    foreign.push(&source, "amd64", &["--format", "v2s2"]).await;
    foreign.push(&source, "arm64", &["--preserve-digests"]).await;

    let files = pull_with(&foreign.image(":all"), &foreign.options(), &[]).await.unwrap();
    assert_eq!(read(&files, "all"), (index.clone(), vec![Architecture::X86_64, Architecture::Arm64]));
    assert!(!files.contains_key(&format!("blobs/sha256/{}", hex(&s390x.digest()))), "nobody here runs that");
    let files = pull_with(&foreign.image(&format!("@{index}")), &foreign.options(), &[]).await.unwrap();
    assert_eq!(read(&files, &index).0, index);

    let platform = Some(platform("linux/arm64").unwrap());
    let options = Options { platform, ..foreign.options() };
    let files = pull_with(&foreign.image(":all"), &options, &[]).await.unwrap();
    assert_eq!(read(&files, "all"), (arm64.digest(), vec![Architecture::Arm64]));

    let files = pull_with(&foreign.image(":amd64"), &foreign.options(), &[]).await.unwrap();
    let list: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(list["manifests"][0]["mediaType"], DOCKER_MANIFEST, "what docker pushes");
    assert_eq!(read(&files, "amd64").1, [Architecture::X86_64]);

    let error = |options: Options, version: &'static str| {
        let image = foreign.image(version);
        async move { pull_with(&image, &options, &[]).await.unwrap_err().to_string() }
    };
    let wrong = Options { creds: Some("ci:wrong".into()), ..foreign.options() };
    assert!(error(wrong, ":all").await.contains("does not take the login ci:…"));
    let anonymous = Options { creds: None, ..foreign.options() };
    assert!(error(anonymous, ":all").await.contains("asks for a user and a password"));
    let stranger = Options { cert_dir: None, ..foreign.options() };
    assert!(error(stranger.clone(), ":all").await.contains("signed by nobody that is trusted here"));
    assert!(error(foreign.options(), ":none").await.contains("no such image"));
    let anybody = Options { tls_verify: Some(false), ..stranger };
    pull_with(&foreign.image(":arm64"), &anybody, &[]).await.unwrap();
    let trusted = foreign.path("trust/ca.crt");
    let cacert = [("BENNU_CACERT", trusted.to_str().unwrap()), ("BENNU_REGISTRY_CREDS", "ci:secret")];
    pull_with(&foreign.image(":arm64"), &Options::default(), &cacert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_registry_behind_a_wire_that_breaks() {
    let foreign = Foreign::new(false).await;
    let image = Image::new("amd64", 3_500_000);
    let source = foreign.path("layout");
    layout(&source, &[("amd64", &image)]);
    foreign.push(&source, "amd64", &["--preserve-digests"]).await;
    pull_with(&foreign.image(":amd64"), &Options::default(), &[]).await.unwrap();

    // Each connection carries a megabyte, and breaks.
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = (wire.local_addr().unwrap(), foreign.address);
    let carrying = tokio::spawn(async move {
        while let Ok((client, _)) = wire.accept().await {
            tokio::spawn(async move {
                let (server, client) = (TcpStream::connect(far).await.unwrap(), client);
                let ((mut from_client, mut to_client), (from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let _ = tokio::io::copy(&mut from_server.take(1 << 20), &mut to_client).await;
                let _ = to_client.shutdown().await;
            });
        }
    });
    let files = pull_with(&format!("docker://{near}/team/web:amd64"), &Options::default(), &[]).await.unwrap();
    assert_eq!(files[&format!("blobs/sha256/{}", hex(&digest_of(&image.layer)))], image.layer);
    carrying.abort();
}

/// To others an image of ours is one like any: skopeo carries it there and back, and changes no byte of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_ours_passes_through_a_foreign_registry() {
    let (here, there, foreign) = (Served::new(), Served::new(), Foreign::new(false).await);
    let image = here.bench.import("team/web:v1", 1).await["digest"].clone();
    let source = foreign.path("layout");
    bennu(&here, &format!("image export team/web:v1 oci:{}", source.display())).await.unwrap();
    foreign.push(&source, "v1", &[]).await;
    bennu(&there, &format!("image import {} web:pulled", foreign.image(":v1"))).await.unwrap();
    let back = foreign.path("back").display().to_string();
    let (from, to) = (foreign.image(":v1"), format!("oci:{back}:v1"));
    let copy = move || {
        let words = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &from, &to];
        Command::new("skopeo").args(words).output().expect("skopeo runs; else run scripts/setup")
    };
    let copied = tokio::task::spawn_blocking(copy).await.unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    bennu(&there, &format!("image import oci:{back}:v1 web:copied")).await.unwrap();
    for name in ["web:pulled", "web:copied"] {
        assert_eq!(there.bench.get(&format!("/v1/images/{name}")).await.json()["digest"], image, "{name}");
    }
}
