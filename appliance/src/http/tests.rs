//! The data plane on loopback, against a client that writes and reads raw bytes.

mod smuggling;

use super::{
    blobs::{self, Blobs},
    connection::{Limits, Listener, serve},
    deadline::Deadlines,
    loaders::{self as loader_routes, Served},
};
use crate::{loaders::Loaders, observe::Observe};
use axum::{Router, body::Bytes as RequestBytes, routing::post};
use bennu_images::store::Store;
use bennu_rules::{image::Digest, journey::Seen};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const LARGE: usize = 24 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 15)) as u8).collect()
}

fn quick() -> Deadlines {
    let ms = Duration::from_millis;
    Deadlines { head: ms(300), body: Some(ms(300)), idle: ms(600), stall: ms(1500) }
}

struct Lab {
    address: SocketAddr,
    seen: Arc<Mutex<VecDeque<Seen>>>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
    small: Digest,
    large: Digest,
    empty: Digest,
    _state: tempfile::TempDir,
}

impl Lab {
    async fn open(limits: Limits) -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path().join("images")).unwrap();
        let put = |bytes: &[u8]| store.put(bytes).unwrap().digest;
        let (small, large, empty) = (put(b"0123456789"), put(&pattern(LARGE)), put(b""));
        let seen = Arc::<Mutex<VecDeque<Seen>>>::default();
        let observe: Observe = Arc::new({
            let seen = seen.clone();
            move |_, one| seen.lock().unwrap().push_back(one)
        });
        let loaders = Served::new(Loaders::with_directory(None).unwrap(), observe.clone());
        let router = Router::new()
            .route("/echo", post(|body: RequestBytes| async move { body }))
            .merge(blobs::router(Blobs::new(store, observe)))
            .merge(loader_routes::router(loaders));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(Listener::Tcp(listener), router, limits, shutdown.clone(), Arc::new(|| {})));
        Self { address, seen, shutdown, task, small, large, empty, _state: state }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    async fn next_seen(&self) -> Seen {
        for _ in 0..100 {
            if let Some(seen) = self.seen.lock().unwrap().pop_front() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing was reported")
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        self.answer(method != "HEAD").await
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("an answer's head"));
        }
        String::from_utf8(head).unwrap()
    }

    async fn answer(&mut self, with_body: bool) -> Answer {
        let head = self.head().await;
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if with_body && status != 304 {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body).await.unwrap();
        }
        answer
    }

    /// Waits until the server closes, and says how long that took.
    async fn closed(&mut self) -> Duration {
        let started = Instant::now();
        let mut rest = [0; 4096];
        let drain = async { while !matches!(self.0.read(&mut rest).await, Ok(0) | Err(_)) {} };
        tokio::time::timeout(Duration::from_secs(10), drain).await.expect("the server closes");
        started.elapsed()
    }
}

#[tokio::test]
async fn a_blob_is_served_whole_and_in_parts_on_one_connection() {
    let lab = Lab::open(Limits::provisioning()).await;
    let mut client = lab.connect().await;
    let path = format!("/blobs/sha256/{}", lab.large.hex());
    let content = pattern(LARGE);

    let head = client.ask("HEAD", &path, "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(LARGE.to_string().as_str())));
    let whole = client.ask("GET", &path, "").await;
    assert!(whole.status == 200 && whole.body == content);
    let etag = whole.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", lab.large));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));

    let (from, to) = (LARGE / 2 + 1, LARGE / 2 + 3_000_000);
    let part = client.ask("GET", &path, &format!("Range: bytes={from}-{}\r\nIf-Range: {etag}\r\n", to - 1)).await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, Some(format!("bytes {from}-{}/{LARGE}", to - 1).as_str()))
    );
    assert!(part.body == content[from..to]);
    assert_eq!(client.ask("GET", &path, "Range: bytes=0-4\r\nIf-Range: \"other\"\r\n").await.body.len(), LARGE);
    assert_eq!(client.ask("GET", &path, &format!("If-None-Match: {etag}\r\n")).await.status, 304);
    assert_eq!(client.ask("GET", &path, "If-Match: \"other\"\r\n").await.status, 412);
    let beyond = client.ask("GET", &path, &format!("Range: bytes={LARGE}-\r\n")).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{LARGE}").as_str())));

    let sent: Vec<(u64, bool)> = lab
        .seen
        .lock()
        .unwrap()
        .drain(..)
        .map(|seen| match seen {
            Seen::BlobRead { digest, bytes, complete, .. } if digest == lab.large => (bytes, complete),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [(LARGE as u64, true), ((to - from) as u64, true), (LARGE as u64, true)]);
}

#[tokio::test]
async fn small_empty_and_unknown_blobs() {
    let lab = Lab::open(Limits::provisioning()).await;
    let mut client = lab.connect().await;
    let small = client.ask("GET", &format!("/blobs/sha256/{}", lab.small.hex()), "").await;
    assert_eq!(small.body, b"0123456789");
    let named = client.ask("GET", &format!("/blobs/sha256/{}/a/root.squashfs", lab.small.hex()), "").await;
    assert_eq!(named.body, b"0123456789", "whatever name it is given");
    let empty = client.ask("GET", &format!("/blobs/sha256/{}", lab.empty.hex()), "").await;
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
    for path in [
        format!("/blobs/sha256/{}", "0".repeat(64)),
        format!("/blobs/sha256/{}/root.squashfs", "0".repeat(64)),
        "/blobs/sha256/..%2f..%2fetc%2fpasswd".to_owned(),
        format!("/blobs/sha256/../{}", lab.small.hex()),
        "/blobs/sha256/".to_owned(),
        "/etc/passwd".to_owned(),
    ] {
        assert_eq!(client.ask("GET", &path, "").await.status, 404, "{path}");
    }
    assert_eq!(client.ask("DELETE", &format!("/blobs/sha256/{}", lab.small.hex()), "").await.status, 405);
}

#[tokio::test]
async fn loaders_are_served_as_firmware_asks() {
    let lab = Lab::open(Limits::provisioning()).await;
    let mut client = lab.connect().await;
    let expected = Loaders::with_directory(None).unwrap().get("snponly.efi").unwrap();
    for path in ["/loader/snponly.efi", "//loader//snponly.efi", "/loader///snponly.efi?x=1"] {
        let head = client.ask("HEAD", path, "").await;
        assert_eq!(head.header("content-length"), Some(expected.bytes.len().to_string().as_str()), "{path}");
        let answer = client.ask("GET", path, "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/efi")), "{path}");
        assert!(answer.body == expected.bytes);
        let Seen::LoaderRead { by, file, bytes, complete, .. } = lab.next_seen().await else { panic!() };
        assert_eq!((by.as_str(), file.as_str(), complete), ("http", "snponly.efi", true));
        assert_eq!(bytes, expected.bytes.len() as u64);
    }
    for name in ["revocations_sbat.efi", "..%2fsnponly.efi", "VERSIONS", "SNPONLY.EFI"] {
        assert_eq!(client.ask("GET", &format!("/loader/{name}"), "").await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_is_reported_with_what_was_sent() {
    let lab = Lab::open(Limits::provisioning()).await;
    let mut client = lab.connect().await;
    client.send(&format!("GET /blobs/sha256/{} HTTP/1.1\r\nHost: x\r\n\r\n", lab.large.hex())).await;
    let mut some = vec![0; 1 << 20];
    client.0.read_exact(&mut some).await.unwrap();
    drop(client);
    let Seen::BlobRead { bytes, complete, .. } = lab.next_seen().await else { panic!() };
    assert!(!complete && bytes >= (1 << 20) - 1000 && bytes < LARGE as u64, "{bytes}");
}

#[tokio::test]
async fn a_silent_or_dripping_head_is_cut_off() {
    let lab = Lab::open(Limits { deadlines: quick(), ..Limits::provisioning() }).await;
    let mut silent = lab.connect().await;
    let took = silent.closed().await;
    assert!((200..600).contains(&took.as_millis()), "{took:?}");

    let mut dripping = lab.connect().await;
    let started = Instant::now();
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat(b'a')) {
            if dripping.0.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), drip).await.expect("the drip is cut off");
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    // Wide margins: the machine may be busy.
    let deadlines = Deadlines { idle: Duration::from_secs(2), ..Deadlines::default() };
    let lab = Lab::open(Limits { deadlines, ..Limits::provisioning() }).await;
    for digest in [lab.small, lab.large] {
        let mut client = lab.connect().await;
        let path = format!("/blobs/sha256/{}", digest.hex());
        for _ in 0..3 {
            assert_eq!(client.ask("GET", &path, "").await.status, 200);
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        assert_eq!(client.ask("GET", &path, "").await.status, 200);
        let took = client.closed().await;
        assert!((1500..8000).contains(&took.as_millis()), "{took:?}");
    }
}

#[tokio::test]
async fn a_slow_reader_is_served_and_a_stalled_one_is_not() {
    let lab = Lab::open(Limits { deadlines: quick(), ..Limits::provisioning() }).await;
    let request = format!("GET /blobs/sha256/{} HTTP/1.1\r\nHost: x\r\n\r\n", lab.large.hex());

    let mut slow = lab.connect().await;
    slow.send(&request).await;
    let head = slow.head().await;
    assert!(head.starts_with("HTTP/1.1 200"));
    let mut body = vec![0; LARGE];
    for chunk in body.chunks_mut(6 << 20) {
        // Longer than an idle connection may be; the socket's buffers are full meanwhile.
        tokio::time::sleep(Duration::from_millis(900)).await;
        slow.0.read_exact(chunk).await.unwrap();
    }
    assert!(body == pattern(LARGE));
    assert!(matches!(lab.next_seen().await, Seen::BlobRead { complete: true, .. }));

    let mut stalled = lab.connect().await;
    stalled.send(&request).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let Seen::BlobRead { complete, bytes, .. } = lab.next_seen().await else { panic!() };
    assert!(!complete && bytes < LARGE as u64);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() {
    let lab = Lab::open(Limits { deadlines: quick(), ..Limits::provisioning() }).await;
    let mut client = lab.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").await;
    let answer = tokio::time::timeout(Duration::from_secs(3), client.answer(true)).await.expect("an answer");
    assert_eq!(answer.status, 400, "{answer:?}");
    let whole = lab.connect().await.ask_with_body("12345").await;
    assert_eq!(whole.body, b"12345");
}

impl Client {
    async fn ask_with_body(mut self, body: &str) -> Answer {
        let length = body.len();
        self.send(&format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        self.answer(true).await
    }
}

#[tokio::test]
async fn requests_that_two_readers_would_cut_differently_are_refused_and_closed() {
    let lab = Lab::open(Limits::provisioning()).await;
    for headers in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: -1",
        "Transfer-Encoding : chunked",
        "Content-Length: 0x4",
    ] {
        let mut client = lab.connect().await;
        client.send(&format!("POST /echo HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n0\r\n\r\nGET /loader/ipxe.efi HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let mut all = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), client.0.read_to_end(&mut all))
            .await
            .expect("it closes")
            .unwrap_or(0);
        let text = String::from_utf8_lossy(&all);
        assert!(text.starts_with("HTTP/1.1 400"), "{headers:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{headers:?}: {text}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let lab = Lab::open(Limits::provisioning()).await;
    let long = format!("X: {}\r\n", "a".repeat(40_000));
    let many = "X: y\r\n".repeat(100);
    for headers in [long, many] {
        let mut client = lab.connect().await;
        assert_eq!(client.ask("GET", "/", &headers).await.status, 431);
    }
}

#[tokio::test]
async fn one_address_has_its_share_of_connections() {
    let lab = Lab::open(Limits { per_address: 3, ..Limits::provisioning() }).await;
    let path = format!("/blobs/sha256/{}", lab.small.hex());
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = lab.connect().await;
        assert_eq!(client.ask("GET", &path, "").await.status, 200);
        held.push(client);
    }
    let took = lab.connect().await.closed().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    held.pop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(lab.connect().await.ask("GET", &path, "").await.status, 200);
}

#[tokio::test]
async fn a_stop_lets_an_open_download_end() {
    let lab = Lab::open(Limits::provisioning()).await;
    let mut idle = lab.connect().await;
    assert_eq!(idle.ask("GET", "/", "").await.status, 404);
    let mut client = lab.connect().await;
    client.send(&format!("GET /blobs/sha256/{} HTTP/1.1\r\nHost: x\r\n\r\n", lab.large.hex())).await;
    client.head().await;
    lab.shutdown.cancel();
    assert!(idle.closed().await < Duration::from_secs(1));
    let mut body = vec![0; LARGE];
    client.0.read_exact(&mut body).await.unwrap();
    assert!(body == pattern(LARGE));
    tokio::time::timeout(Duration::from_secs(5), lab.task).await.expect("it ends").unwrap().unwrap();
    assert!(TcpStream::connect(lab.address).await.is_err());
}
