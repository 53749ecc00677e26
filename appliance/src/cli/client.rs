//! The API's client: HTTP over the management socket, or over TLS with a token.

mod remote;

use super::error::{CliError, Done};
use crate::http::api::{problem::Problem, request::Page};
use bytes::Bytes;
use http::HeaderValue;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use remote::{Credentials, Remote};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, path::PathBuf};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

/// A body of a request, in memory or streamed.
pub type RequestBody = BoxBody<Bytes, io::Error>;

/// What must be encoded in a query's value or a path's segment (RFC 3986 §3.3, §3.4).
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'`');

/// Text as part of a query or path.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// An appliance to talk to.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
}

/// Where it is.
#[derive(Debug, Clone)]
enum Place {
    /// On this host, at this socket.
    Local(PathBuf),
    /// On the network.
    Remote(Box<Remote>),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// The appliance at `server`, as `BENNU_SERVER` writes it.
    pub fn new(server: &str) -> Done<Self> {
        Self::with(server, Credentials::from_environment())
    }

    /// The same, with these credentials.
    pub fn with(server: &str, credentials: Credentials) -> Done<Self> {
        if let Some(path) = server.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(CliError::usage(
                    format!("BENNU_SERVER={server}: the socket's path is not absolute"),
                    "write three slashes, such as unix:///run/bennu/bennu.sock",
                ));
            }
            return Ok(Self { place: Place::Local(path.into()) });
        }
        if server.starts_with("https://") {
            return Ok(Self { place: Place::Remote(Box::new(Remote::new(server, credentials)?)) });
        }
        Err(CliError::usage(
            format!("BENNU_SERVER={server} names no server"),
            "write unix:// and a path, such as unix:///run/bennu/bennu.sock, or https:// and a host",
        ))
    }

    /// Whether there is anybody to talk to, as far as that is known before a request.
    pub async fn is_there(&self) -> bool {
        match &self.place {
            Place::Local(socket) => UnixStream::connect(socket).await.is_ok(),
            Place::Remote(_) => true,
        }
    }

    /// Reads a resource.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Done<T> {
        decoded(self.send(Method::GET, path, None).await?).await
    }

    /// Reads every page of a listing, or `limit` items of it.
    pub async fn list<T: DeserializeOwned>(&self, path: &str, limit: Option<usize>) -> Done<Vec<T>> {
        let mut items: Vec<T> = Vec::new();
        let mut after = String::new();
        loop {
            let wanted = limit.map_or(1000, |limit| (limit - items.len()).min(1000));
            let joint = if path.contains('?') { '&' } else { '?' };
            let page: Page<T> = self.get(&format!("{path}{joint}limit={wanted}{after}")).await?;
            items.extend(page.items);
            match page.next {
                Some(next) if limit.is_none_or(|limit| items.len() < limit) => {
                    after = format!("&after={}", encoded(&next))
                }
                _ => return Ok(items),
            }
        }
    }

    /// Writes a resource.
    pub async fn write<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Done<T> {
        let json = serde_json::to_vec(body).map_err(|error| CliError::failed(error.to_string(), ""))?;
        decoded(self.send(method, path, Some(full(json))).await?).await
    }

    /// Removes a resource; the answer may be empty.
    pub async fn delete(&self, path: &str) -> Done<Vec<u8>> {
        collected(self.send(Method::DELETE, path, None).await?).await
    }

    /// Reads an answer that comes line by line while work goes on, until `take` knows how it ended.
    pub async fn lines<T: DeserializeOwned, R>(&self, path: &str, take: impl FnMut(T) -> Option<R>) -> Done<R> {
        let answer = self.send(Method::GET, path, None).await?;
        lines(answer.into_body(), take)
            .await
            .map_err(|why| CliError::failed(format!("the answer broke off: {why}"), LOST))
    }

    /// Sends a request and takes the answer's head. A problem is an error.
    pub async fn send(&self, method: Method, path: &str, body: Option<RequestBody>) -> Done<Response<Incoming>> {
        self.send_with(method, path, body, &[]).await
    }

    /// The same, with further headers.
    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        body: Option<RequestBody>,
        headers: &[(&'static str, String)],
    ) -> Done<Response<Incoming>> {
        let lost = |error: hyper::Error| CliError::failed(self.told("the connection to", &chain(&error)), LOST);
        let (stream, host): (Box<dyn Stream>, &str) = match &self.place {
            Place::Local(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| self.unreachable(&error))?;
                (Box::new(stream), "localhost")
            }
            Place::Remote(remote) => (Box::new(remote.connect().await?), remote.authority()),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Place::Remote(remote) = &self.place {
            request = request.header(header::AUTHORIZATION, secret(remote.authorization()));
        }
        let is_typed = headers.iter().any(|(name, _)| *name == "content-type");
        if body.is_some() && !is_typed {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(body.unwrap_or_else(|| full(Vec::new())))
            .map_err(|error| CliError::usage(format!("{path}: {error}"), ""))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    fn told(&self, what: &str, why: &str) -> String {
        match &self.place {
            Place::Local(socket) => format!("{what} {}: {why}", socket.display()),
            Place::Remote(remote) => format!("{what} https://{}: {why}", remote.authority()),
        }
    }

    fn unreachable(&self, error: &io::Error) -> CliError {
        let what = match error.kind() {
            io::ErrorKind::NotFound => self.told("cannot reach bennu at", "there is no such socket"),
            io::ErrorKind::ConnectionRefused => self.told("cannot reach bennu at", "nobody listens on this socket"),
            _ => self.told("cannot reach bennu at", &error.to_string()),
        };
        let help = match (error.kind(), running_service()) {
            (io::ErrorKind::PermissionDenied, _) => "the socket is root's: run this with sudo".to_owned(),
            (_, Some(pid)) => format!(
                "a bennu service runs (process {pid}) with another socket: set BENNU_SERVER=unix://<api.socket of its configuration>"
            ),
            (_, None) => "the service does not run: start it with `systemctl start bennu` or `bennu serve`, \
                          or name another appliance in BENNU_SERVER"
                .to_owned(),
        };
        CliError::failed(what, help)
    }
}

const LOST: &str = "look whether the service still runs (bennu status), then try again";

/// The process id of a `bennu serve` on this host.
pub fn running_service() -> Option<u32> {
    let serves = |pid: &u32| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = cmdline.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"bennu")) && words.any(|word| word == b"serve")
    };
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(serves)
}

/// A header that no log shows; nothing, should it be no header at all.
fn secret(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// A body in memory.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Reads JSON lines until `take` knows the end. The error says why there was none.
pub async fn lines<T: DeserializeOwned, R>(
    mut body: Incoming,
    mut take: impl FnMut(T) -> Option<R>,
) -> Result<R, String> {
    let mut buffer = Vec::new();
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(chain(&error)),
            None => return Err("the appliance gave no result".into()),
        };
        buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
            if let Some(end) = take(line) {
                return Ok(end);
            }
        }
    }
}

async fn collected(response: Response<Incoming>) -> Done<Vec<u8>> {
    match response.into_body().collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) => Err(CliError::failed(format!("the answer broke off: {}", chain(&error)), LOST)),
    }
}

/// An answer's JSON.
pub async fn decoded<T: DeserializeOwned>(response: Response<Incoming>) -> Done<T> {
    serde_json::from_slice(&collected(response).await?).map_err(|error| {
        CliError::failed(
            format!("the appliance's answer is not understood: {error}"),
            "the service may be of another version: compare `bennu --version` and `bennu status`",
        )
    })
}

async fn refused(response: Response<Incoming>) -> CliError {
    let status = response.status();
    match collected(response).await.map(|body| serde_json::from_slice::<Problem>(&body)) {
        Ok(Ok(problem)) => problem.into(),
        Ok(Err(_)) => CliError::failed(format!("the appliance answered {status} without a reason"), LOST),
        Err(error) => error,
    }
}
