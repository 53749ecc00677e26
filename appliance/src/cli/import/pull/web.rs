//! Requests to registries and to where they send one: connections, redirects, and how long to wait.

use super::url::Url;
use crate::cli::{client::chain, error::CliError};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// More hops than this are a loop.
const MOST_REDIRECTS: usize = 5;

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, its handshake included.
    pub connect: Duration,
    /// For an answer to begin, and between its parts.
    pub silence: Duration,
    /// Before a broken download goes on; longer each time.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (connect, silence) = (Duration::from_secs(10), Duration::from_secs(60));
        Self { connect, silence, pause: Duration::from_millis(500) }
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The connection did not come about or broke: another one may do better.
    Broken(String),
    /// Who answered there does not speak TLS.
    Plain(String),
    /// No further attempt helps.
    Final(CliError),
}

impl Failure {
    /// As a person is told of it.
    pub fn told(self) -> CliError {
        match self {
            Self::Broken(why) => {
                CliError::failed(why, "look at the registry's name and port, and at the network on the way")
            }
            Self::Plain(why) => CliError::failed(
                why,
                "look at the registry's port; --tls-verify=false takes a registry that has no TLS at all",
            ),
            Self::Final(error) => error,
        }
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Final(error)
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes requests.
#[derive(Debug, Clone)]
pub struct Web {
    tls: Arc<ClientConfig>,
    /// Whether requests may leave without TLS for other hosts than this.
    plain: bool,
    /// How long it waits.
    pub patience: Patience,
}

impl Web {
    /// With the TLS of `trust`.
    pub fn new(tls: Arc<ClientConfig>, plain: bool, patience: Patience) -> Self {
        Self { tls, plain, patience }
    }

    /// Whether a request may go there without TLS.
    pub fn may_be_plain(&self, url: &Url) -> bool {
        self.plain || url.is_loopback()
    }

    /// Asks there, and wherever that leads. Only the server that was asked first is shown `Authorization`. Gives the
    /// answer and who gave it.
    pub async fn get(&self, url: &Url, mut headers: HeaderMap) -> Result<(Response<Incoming>, Url), Failure> {
        let mut at = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask(&at, &headers).await?;
            let Some(location) = redirect(&answer) else { return Ok((answer, at)) };
            let next = at.join(location).ok_or_else(|| {
                CliError::failed(format!("{at} leads to '{}', which is no address", short(location)), BROKEN_REGISTRY)
            })?;
            if !next.is_secure() && (at.is_secure() || !self.may_be_plain(&next)) {
                let what = format!("{at} leads to {next}, where anybody on the way could read and change what is sent");
                return Err(CliError::failed(what, "have the registry's storage serve HTTPS").into());
            }
            if !next.has_origin_of(&at) {
                headers.remove(header::AUTHORIZATION);
            }
            at = next;
        }
        let what = format!("{url} leads from place to place, more than {MOST_REDIRECTS} times");
        Err(CliError::failed(what, BROKEN_REGISTRY).into())
    }

    async fn ask(&self, url: &Url, headers: &HeaderMap) -> Result<Response<Incoming>, Failure> {
        let broken = |error: hyper::Error| Failure::Broken(format!("the connection to {url} broke: {}", chain(&error)));
        let Ok(stream) = timeout(self.patience.connect, self.connect(url)).await else {
            let seconds = self.patience.connect.as_secs_f32();
            return Err(Failure::Broken(format!("cannot reach {url}: nobody answered for {seconds} s")));
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream?)).await.map_err(broken)?;
        tokio::spawn(connection);
        let mut request = Request::get(url.target())
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, concat!("bennu/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| CliError::failed(format!("{url} cannot be asked for: {error}"), BROKEN_REGISTRY))?;
        request.headers_mut().extend(headers.clone());
        match timeout(self.patience.silence, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(broken),
            Err(_) => Err(self.silent(url)),
        }
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, Failure> {
        let unreachable = |error: io::Error| Failure::Broken(format!("cannot reach {url}: {error}"));
        let socket = TcpStream::connect((url.host(), url.port())).await.map_err(unreachable)?;
        let _ = socket.set_nodelay(true);
        if !url.is_secure() {
            return Ok(Box::new(socket));
        }
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|_| CliError::failed(format!("{url}: its host is neither a name nor an address"), ""))?;
        let shaken = TlsConnector::from(self.tls.clone()).connect(name, socket).await;
        Ok(Box::new(shaken.map_err(|error| refused(url, &error))?))
    }

    /// The next part of a body; nothing at its end.
    pub async fn next(&self, url: &str, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(self.patience.silence, body.frame()).await {
                Err(_) => return Err(self.silent(url)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Failure::Broken(format!("{url} broke off: {}", chain(&error)))),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_trailers) => {}
                },
            }
        }
    }

    /// A body that must have at most `most` bytes.
    pub async fn collect(&self, url: &str, body: &mut Incoming, most: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(part) = self.next(url, body).await? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > most {
                let what = format!("{url} has more than the {most} bytes that make sense there");
                return Err(CliError::failed(what, "look what was pushed there").into());
            }
        }
        Ok(bytes)
    }

    fn silent(&self, url: impl std::fmt::Display) -> Failure {
        Failure::Broken(format!("{url}: nothing came for {} s", self.patience.silence.as_secs_f32()))
    }
}

const BROKEN_REGISTRY: &str = "look at the registry's configuration, or copy the image with skopeo and import that";

/// Where an answer sends its reader.
fn redirect(answer: &Response<Incoming>) -> Option<&str> {
    match answer.status() {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => answer.headers().get(header::LOCATION)?.to_str().ok(),
        _ => None,
    }
}

/// What kept the handshake from a good end.
fn refused(url: &Url, error: &io::Error) -> Failure {
    let place = format!("https://{}", url.authority());
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let (what, help) = match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                    "is signed by nobody that is trusted here".to_owned(),
                    "put its authority into a directory as ca.crt and name that with --cert-dir",
                ),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    ("is not for this name".to_owned(), "use a name that the certificate is for")
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    ("has ended".to_owned(), "look at this host's clock; else have the registry's certificate renewed")
                }
                other => (format!("is not good: {other}"), "look at the registry's certificate and this host's clock"),
            };
            CliError::failed(format!("the certificate of {place} {what}"), help).into()
        }
        Some(rustls::Error::InvalidMessage(_)) => Failure::Plain(format!("{place} does not speak TLS")),
        None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            Failure::Plain(format!("{place} ended the connection in the TLS handshake"))
        }
        _ => Failure::Broken(format!("no TLS connection to {place} came about: {error}")),
    }
}

/// A header's value that no log shows; nothing, should it be no header at all.
pub fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The beginning of a foreign text.
pub fn short(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
