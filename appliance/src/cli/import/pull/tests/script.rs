//! An HTTP server that says whatever a test wants said, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request's head.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// With its query.
    pub path: String,
    /// In lower case.
    headers: Vec<(String, String)>,
}

impl Asked {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What to write, and whether the connection stays open after it.
#[derive(Debug, Clone)]
pub struct Reply {
    head: String,
    body: Vec<u8>,
    has_length: bool,
    cut: Option<usize>,
    hangs: bool,
}

impl Reply {
    pub fn ok(body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::status("200 OK") }
    }

    pub fn status(status: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        Self { head, body: Vec::new(), has_length: true, cut: None, hangs: false }
    }

    pub fn to(status: &str, location: &str) -> Self {
        Self::status(status).with("Location", location)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Not even a head.
    pub fn mute() -> Self {
        Self { head: String::new(), has_length: false, ..Self::ok(b"").hanging() }
    }

    /// What is asked for with a `Range`: from a byte on, of so many.
    pub fn partial(mut self, from: usize, length: usize) -> Self {
        self.head = self.head.replace("200 OK", "206 Partial Content");
        self.with("Content-Range", &format!("bytes {from}-{}/{length}", length - 1))
    }

    pub fn says(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// Chunked, so that no head says how long it is.
    pub fn without_length(mut self) -> Self {
        let mut chunked = Vec::new();
        for part in self.body.chunks(1000) {
            chunked.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            chunked.extend_from_slice(part);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        (self.body, self.has_length) = (chunked, false);
        self.with("Transfer-Encoding", "chunked")
    }

    /// The connection ends after so much of the body.
    pub fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    /// The connection stays open, and nothing more comes.
    pub fn hanging(mut self) -> Self {
        self.hangs = true;
        self
    }
}

/// The server.
pub struct Script {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Script {
    pub async fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let heard = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &answer, &heard).await;
            }
        });
        Self { address, asked, task }
    }

    /// `docker://…/web` and a version.
    pub fn image(&self, version: &str) -> String {
        format!("docker://{}/web{version}", self.address)
    }

    /// The requests so far whose path begins so.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: &(impl Fn(&Asked) -> Reply + Send + Sync), heard: &Mutex<Vec<Asked>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            // A TLS handshake begins so, and this server has no TLS.
            Ok(22) if head.is_empty() => return,
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head).unwrap();
    let path = text.split(' ').nth(1).unwrap().to_owned();
    let headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let asked = Asked { path, headers };
    heard.lock().unwrap().push(asked.clone());
    let reply = answer(&asked);
    let length = if reply.has_length { format!("Content-Length: {}\r\n", reply.body.len()) } else { String::new() };
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    if !reply.head.is_empty() {
        let _ = stream.write_all(format!("{}{length}\r\n", reply.head).as_bytes()).await;
    }
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    if reply.hangs {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        });
    }
}
