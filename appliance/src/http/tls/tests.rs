//! Certificates in a temporary directory, and handshakes on loopback.

use super::*;
use crate::http::{
    blobs::{self, Blobs},
    connection::{Limits, Listener, serve},
    deadline::Deadlines,
};
use axum::{Router, body::Bytes, routing::post};
use bennu_images::store::Store;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use std::{net::SocketAddr, os::unix::fs::PermissionsExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// A client that trusts this certificate alone.
pub fn client(certificate: &Path, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificates(certificate).unwrap().remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

struct Lab {
    address: SocketAddr,
    identity: Identity,
    blob: String,
    large: Vec<u8>,
    _state: tempfile::TempDir,
}

impl Lab {
    async fn open(limits: Limits) -> Self {
        let state = tempfile::tempdir().unwrap();
        let identity = Identity::own(&state.path().join("tls"), &names(&["localhost", "127.0.0.1"]), 2026).unwrap();
        let store = Store::open(state.path().join("images")).unwrap();
        let large: Vec<u8> = (0..9_000_000).map(|i: usize| (i ^ (i >> 8) ^ (i >> 15)) as u8).collect();
        let blob = format!("/blobs/sha256/{}", store.put(&large).unwrap().digest.hex());
        let router = Router::new()
            .route("/echo", post(|body: Bytes| async move { body }))
            .merge(blobs::router(Blobs::new(store, Arc::new(|_, _| {}))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::Tls(listener, identity.config.clone());
        tokio::spawn(serve(listener, router, limits, CancellationToken::new(), Arc::new(|| {})));
        Self { address, identity, blob, large, _state: state }
    }

    async fn connect(&self, config: ClientConfig, name: &'static str) -> io::Result<Client> {
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.map(Client)
    }

    async fn client(&self) -> Client {
        self.connect(client(&self.identity.certificate, &BOTH), "localhost").await.unwrap()
    }
}

struct Client(tokio_rustls::client::TlsStream<TcpStream>);

impl Client {
    /// Sends, and reads until the server closes.
    async fn ask(mut self, text: &str) -> Vec<u8> {
        self.0.write_all(text.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let _ = timeout(Duration::from_secs(20), self.0.read_to_end(&mut all)).await.expect("it closes");
        all
    }
}

fn quick() -> Limits {
    let ms = Duration::from_millis;
    let deadlines = Deadlines { head: ms(400), body: Some(ms(400)), idle: ms(600), stall: ms(1500) };
    Limits { deadlines, ..Limits::management() }
}

async fn closes(mut socket: impl AsyncReadExt + Unpin, within: Duration) {
    let mut rest = [0; 1024];
    let drain = async { while !matches!(socket.read(&mut rest).await, Ok(0) | Err(_)) {} };
    timeout(within, drain).await.expect("the server closes");
}

#[test]
fn our_own_certificate_is_made_once_and_its_key_is_ours_alone() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("tls");
    let first = Identity::own(&directory, &names(&["rack1", "10.0.0.1"]), 1970).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("key.pem"))), (0o700, 0o600));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2, "nothing is left beside them");
    let again = Identity::own(&directory, &names(&["other"]), 2026).unwrap();
    assert_eq!(again.fingerprint, first.fingerprint, "a restart keeps it");
    assert_eq!(again.lacks(&names(&["rack1", "10.0.0.1", "other", "10.0.0.2"])), ["other", "10.0.0.2"]);
    assert_eq!((first.fingerprint.len(), first.fingerprint.matches(':').count()), (95, 31));
    std::fs::remove_file(directory.join("cert.pem")).unwrap();
    std::fs::write(directory.join("key.new"), "left by a start that was cut").unwrap();
    let other = Identity::own(&directory, &names(&["rack1"]), 2026).unwrap();
    assert_ne!(other.fingerprint, first.fingerprint);
    assert_eq!(mode(&directory.join("key.pem")), 0o600);
}

#[test]
fn a_certificate_is_for_this_host_and_what_was_written() {
    let all =
        own_names(&names(&["bennu.example", "localhost"]), ["10.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap()]);
    for name in ["localhost", "127.0.0.1", "::1", "bennu.example", "10.0.0.1"] {
        assert_eq!(all.iter().filter(|known| *known == name).count(), 1, "{name}: {all:?}");
    }
    assert!(!all.contains(&"0.0.0.0".to_owned()));
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let state = tempfile::tempdir().unwrap();
    let (a, b) = (state.path().join("a"), state.path().join("b"));
    for directory in [&a, &b] {
        Identity::own(directory, &names(&["localhost"]), 2026).unwrap();
    }
    let empty = state.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let garbage = state.path().join("garbage.pem");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let missing = state.path().join("missing.pem");
    let (cert, key) = (a.join("cert.pem"), a.join("key.pem"));
    for (certificate, key, says) in [
        (&cert, &b.join("key.pem"), "the key is another certificate's. Name the key"),
        (&empty, &key, "empty.pem holds no certificate. Write PEM"),
        (&cert, &empty, "empty.pem holds no private key. Write PEM"),
        (&cert, &cert, "cert.pem holds no private key"),
        (&key, &key, "key.pem holds no certificate"),
        (&missing, &key, "missing.pem: No such file"),
        (&cert, &missing, "missing.pem: No such file"),
        (&garbage, &key, "cannot be used with the key"),
    ] {
        let files = CertificateFiles { certificate: certificate.clone(), key: key.clone() };
        let error = Identity::load(&files).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(Identity::load(&CertificateFiles { certificate: cert, key }).is_ok());
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_http_1_1_above() {
    let lab = Lab::open(Limits::management()).await;
    for version in BOTH {
        let client = lab.connect(client(&lab.identity.certificate, &[version]), "127.0.0.1").await.unwrap();
        let (_, session) = client.0.get_ref();
        assert_eq!(session.protocol_version(), Some(version.version));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        let answer = client.ask("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with(b"HTTP/1.1 404"));
    }
    let error = lab.connect(client(&lab.identity.certificate, &BOTH), "elsewhere").await.err().unwrap();
    assert!(error.to_string().contains("elsewhere"), "{error}");
}

#[tokio::test]
async fn the_next_handshake_shows_a_renewed_certificate_and_connections_go_on() {
    let lab = Lab::open(Limits::management()).await;
    let before = lab.client().await;
    let directory = lab.identity.certificate.parent().unwrap().join("renewed");
    let renewed = Identity::own(&directory, &names(&["localhost"]), 2026).unwrap();
    assert!(lab.connect(client(&renewed.certificate, &BOTH), "localhost").await.is_err());
    lab.identity.show(&renewed);
    lab.connect(client(&renewed.certificate, &BOTH), "localhost").await.unwrap();
    assert!(lab.connect(client(&lab.identity.certificate, &BOTH), "localhost").await.is_err());
    let answer = before.ask("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 404"));
}

#[tokio::test]
async fn a_blob_of_megabytes_comes_whole() {
    let lab = Lab::open(Limits::management()).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", lab.blob);
    let answer = lab.client().await.ask(&request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.ends_with(&lab.large));
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_so_is_silence_after_it() {
    let lab = Lab::open(quick()).await;
    // A wide margin, and still less than the deadlines that these replace.
    let within = Duration::from_secs(6);
    closes(TcpStream::connect(lab.address).await.unwrap(), within).await;
    let mut dripping = TcpStream::connect(lab.address).await.unwrap();
    // The header of a handshake record that never comes.
    dripping.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    closes(dripping, within).await;
    closes(lab.client().await.0, within).await;
    let mut begun = lab.client().await;
    begun.0.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    closes(begun.0, within).await;
}

#[tokio::test]
async fn handshakes_that_never_end_leave_for_newcomers() {
    let lab = Lab::open(Limits { per_address: 3, ..Limits::management() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut socket = TcpStream::connect(lab.address).await.unwrap();
        socket.write_all(&[22, 3, 1]).await.unwrap();
        held.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let answer = lab.client().await.ask("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 404"), "long before their ten seconds are over");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let lab = Lab::open(quick()).await;
    let mut stalled = lab.client().await;
    let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", lab.blob);
    for _ in 0..20 {
        // Enough of them that no buffer of the kernel holds all the answers.
        stalled.0.write_all(request.as_bytes()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut got = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = timeout(Duration::from_secs(5), stalled.0.read(&mut buffer)).await.expect("it is over")
    {
        got += count;
    }
    assert!(got < 20 * lab.large.len(), "{got} bytes came");
}

#[tokio::test]
async fn whoever_speaks_without_tls_is_told() {
    let lab = Lab::open(Limits::management()).await;
    let mut plain = TcpStream::connect(lab.address).await.unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), plain.read_to_string(&mut answer)).await.expect("it closes").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn requests_may_be_chunked_and_nothing_else_that_is_doubtful() {
    let lab = Lab::open(Limits::management()).await;
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n");
    assert!(lab.client().await.ask(&chunked).await.ends_with(b"\r\n\r\nabcdefgh"));
    for framing in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        "Host: b\r\n\r\n",
        "X: y\n\r\n",
    ] {
        let answer = lab.client().await.ask(&format!("{head}{framing}")).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{framing:?}: {}", String::from_utf8_lossy(&answer));
    }
}
