//! A small HTTP/1.1 client: one request a connection, plain TCP, a bound on every wait.

mod response;
mod url;

pub use response::Response;
pub use url::{BadUrl, Url};

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long to wait for a connection, and for the next bytes of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the connection.
    pub connect: Duration,
    /// For each read and write.
    pub quiet: Duration,
}

/// For plans and blobs. Spanning tree on a fresh port swallows the first packets; TCP's own retries cover that.
pub const NORMAL: Patience = Patience { connect: Duration::from_secs(10), quiet: Duration::from_secs(20) };
/// For reports, which must not hold up a boot.
pub const SHORT: Patience = Patience { connect: Duration::from_secs(3), quiet: Duration::from_secs(3) };

/// What went wrong between us and the server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL itself.
    #[error("{0}")]
    Url(#[from] BadUrl),
    /// No connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Where to.
        server: String,
        /// Why.
        source: std::io::Error,
    },
    /// The request did not leave.
    #[error("cannot send the request: {}", cut(.0))]
    Send(std::io::Error),
    /// The head of the answer did not come.
    #[error("no answer: {}", cut(.0))]
    Head(std::io::Error),
    /// The body did not come to its end.
    #[error("the answer broke off: {}", cut(.0))]
    Body(std::io::Error),
    /// What came is not HTTP as we understand it.
    #[error("the answer makes no sense: {0}")]
    Malformed(String),
}

/// The system's words for a timeout and an early end are not those of a person at a console.
fn cut(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "the server went silent".into(),
        std::io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        _ => error.to_string(),
    }
}

/// Asks for a resource, from an offset on if that is not 0.
pub fn get(url: &str, from: u64, patience: Patience) -> Result<Response<BufReader<TcpStream>>, HttpError> {
    let range = if from > 0 { format!("Range: bytes={from}-\r\n") } else { String::new() };
    exchange("GET", url, &range, &[], patience)
}

/// Posts JSON under more fields, each with its line's end, and answers the status.
pub fn post(url: &str, fields: &str, json: &[u8], patience: Patience) -> Result<u16, HttpError> {
    let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n{fields}", json.len());
    exchange("POST", url, &fields, json, patience).map(|response| response.status)
}

/// Posts JSON for what it is answered with.
pub fn post_for(url: &str, json: &[u8], patience: Patience) -> Result<Response<BufReader<TcpStream>>, HttpError> {
    let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len());
    exchange("POST", url, &fields, json, patience)
}

fn exchange(
    method: &str,
    url: &str,
    fields: &str,
    body: &[u8],
    patience: Patience,
) -> Result<Response<BufReader<TcpStream>>, HttpError> {
    let url = Url::parse(url)?;
    let connect = |source| HttpError::Connect { server: url.server.to_string(), source };
    let mut stream = TcpStream::connect_timeout(&url.server, patience.connect).map_err(connect)?;
    stream.set_read_timeout(Some(patience.quiet)).map_err(connect)?;
    stream.set_write_timeout(Some(patience.quiet)).map_err(connect)?;
    let mut request = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bennu-stage1/{}\r\nAccept: */*\r\nConnection: close\r\n{fields}\r\n",
        url.path,
        url.host,
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request).map_err(HttpError::Send)?;
    Response::read(BufReader::with_capacity(64 * 1024, stream))
}
