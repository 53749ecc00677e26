//! Serves a router on a listener: hyper driven by hand, so that every phase of a connection has its deadline, every
//! client its share, and blobs their way past the heap.

pub use super::listener::{Listener, bind_tcp};

use super::{
    deadline::{Busy, Deadlines, EndingBody, Timed, TimedBody},
    gate::Gate,
    guests::Guests,
    listener::Accepted,
    sendfile::{Outgoing, Stream, Wire},
    tls::{self, TlsWire},
};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header},
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How long open requests may take to end when the appliance stops.
const DRAIN: Duration = Duration::from_secs(5);
/// A request's head; iPXE's and EDK2's have a few hundred bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// hyper's read buffer, and what it holds of small responses before it writes.
const BUFFER: usize = 64 * 1024;

/// Who asks, in every request's extensions on a TCP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Which of our addresses was asked, in every request's extensions on a TCP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddr(pub SocketAddr);

/// The user who asks, in every request's extensions on a local socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUid(pub u32);

/// The connection that a request came over, in every request's extensions: responses announce their bodies to it.
#[derive(Debug, Clone, Default)]
pub struct Connection(pub Arc<Outgoing>);

/// What a listener puts up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. From three quarters of them on the slowest leave for newcomers.
    pub total: usize,
    /// Connections at once of one address.
    pub per_address: usize,
    /// Whether its clients are trusted: their requests may be chunked, and are read as hyper reads them.
    pub trusted: bool,
    /// Whether requests of clients that are not trusted may be chunked.
    pub may_chunk: bool,
    /// How long each phase may take.
    pub deadlines: Deadlines,
}

impl Limits {
    /// The provisioning plane is untrusted. Nothing that boots sends chunked requests, and without them no two
    /// readers can disagree about where a request ends. One address is one machine with a few range reads at once, or a
    /// whole site behind a translating router: 512 are a rack's loaders at once.
    pub fn provisioning() -> Self {
        Self { total: 8192, per_address: 512, trusted: false, may_chunk: false, deadlines: Deadlines::default() }
    }

    /// The local socket is its owner's. Imports are chunked, and what they read may come slowly: a client that is gone
    /// has closed its end.
    pub fn local() -> Self {
        let deadlines = Deadlines { body: None, ..Deadlines::default() };
        Self { total: 1024, per_address: usize::MAX, trusted: true, may_chunk: true, deadlines }
    }

    /// The management plane over the network: a few people and their programs. Pushes and imports are chunked, and what
    /// an import reads may pause, but a client that is gone may not have closed its end.
    pub fn management() -> Self {
        let deadlines = Deadlines { body: Some(Duration::from_secs(300)), ..Deadlines::default() };
        Self { total: 1024, per_address: 256, trusted: false, may_chunk: true, deadlines }
    }
}

/// Told of every request that cannot be read.
pub type OnMalformed = Arc<dyn Fn() + Send + Sync>;

/// Serves the provisioning plane until `shutdown`.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    malformed: OnMalformed,
) -> io::Result<()> {
    serve(Listener::Tcp(listener), router, Limits::provisioning(), shutdown, malformed).await
}

/// Serves a local socket until `shutdown`.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    serve(Listener::Unix(listener), router, Limits::local(), shutdown, Arc::new(|| {})).await
}

/// Serves one connection that somebody else has accepted.
pub async fn serve_stream(stream: UnixStream, router: Router, limits: Limits, shutdown: CancellationToken) {
    let accepted = Accepted { stream: Stream::Unix(stream), tls: None, addresses: None, uid: None };
    connection(accepted, Arc::default(), router, limits, shutdown, Arc::new(|| {})).await;
}

/// Serves `router` until `shutdown`, then lets open requests end.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    malformed: OnMalformed,
) -> io::Result<()> {
    let guests = Guests::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client left meanwhile, or descriptors ran out: neither ends a server.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let address = accepted.addresses.map(|(PeerAddr(peer), _)| peer.ip());
        let busy = Arc::<Busy>::default();
        let Some(guest) = guests.admit(address, busy.clone(), &limits) else {
            tracing::debug!(?address, "too many connections; this one was closed");
            continue;
        };
        let (router, shutdown, malformed) = (router.clone(), shutdown.clone(), malformed.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection(accepted, busy, router, limits, shutdown, malformed) => {}
                () = guest.asked_to_leave() => tracing::debug!(?address, "a slow connection was closed for another"),
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(
    accepted: Accepted,
    busy: Arc<Busy>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    malformed: OnMalformed,
) {
    let head_by = Instant::now() + limits.deadlines.head;
    // Who says nothing costs a socket, and none of what reading takes.
    tokio::select! {
        first = tokio::time::timeout_at(head_by, accepted.stream.readable()) => if !matches!(first, Ok(Ok(()))) { return },
        () = shutdown.cancelled() => return,
    }
    let outgoing = Arc::new(Outgoing::default());
    let gate = (!limits.trusted).then(|| if limits.may_chunk { Gate::with_chunks() } else { Gate::default() });
    let Accepted { stream, tls, addresses, uid } = accepted;
    let served = Served { busy: busy.clone(), outgoing: outgoing.clone(), addresses, uid, router, limits, malformed };
    let (tls, socket) = match (tls, stream) {
        (Some(tls), Stream::Tcp(socket)) => (tls, socket),
        (_, stream) => {
            let wire = Wire::new(stream, outgoing, gate);
            return served.drive(Timed::new(wire, limits.deadlines, busy, head_by), shutdown).await;
        }
    };
    let shaken = tokio::select! {
        shaken = tls::shake_hands(tls, socket, head_by) => shaken,
        () = shutdown.cancelled() => return,
    };
    match shaken {
        Ok(stream) => {
            let (wire, head_by) = (TlsWire::new(stream, outgoing, gate), Instant::now() + limits.deadlines.head);
            served.drive(Timed::new(wire, limits.deadlines, busy, head_by), shutdown).await;
        }
        Err(error) => {
            (served.malformed)();
            tracing::debug!(peer = ?addresses, %error, "a TLS handshake failed");
        }
    }
}

/// What the requests of one connection share.
struct Served {
    busy: Arc<Busy>,
    outgoing: Arc<Outgoing>,
    addresses: Option<(PeerAddr, LocalAddr)>,
    uid: Option<PeerUid>,
    router: Router,
    limits: Limits,
    malformed: OnMalformed,
}

impl Served {
    /// Answers what comes over the wire until it ends.
    async fn drive<W>(self, wire: Timed<W>, shutdown: CancellationToken)
    where
        W: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { busy, outgoing, addresses, uid, router, limits, malformed } = self;
        let on_malformed = malformed.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            busy.begin();
            if let Some((peer, local)) = addresses {
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(local);
            }
            if let Some(uid) = uid {
                request.extensions_mut().insert(uid);
            }
            request.extensions_mut().insert(Connection(outgoing.clone()));
            let (router, busy, malformed) = (router.clone(), busy.clone(), on_malformed.clone());
            async move {
                let response = respond(request, router, limits, &malformed).await;
                Ok::<_, Infallible>(response.map(|body| EndingBody::new(body, busy)))
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(wire), service);
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                match tokio::time::timeout(DRAIN, served).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            if error.is_parse() || error.is_incomplete_message() {
                malformed();
            }
            tracing::debug!(peer = ?addresses, error = %Chain(&error), "a connection ended early");
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    router: Router,
    limits: Limits,
    malformed: &OnMalformed,
) -> Response<Body> {
    // hyper reads a request that has both lengths as chunked and hides the other (RFC 9112 §6.1 allows that, if the
    // connection ends after it): so what is chunked ends its connection, unless a gate has seen that it has but one.
    let chunked = limits.trusted && request.headers().contains_key(header::TRANSFER_ENCODING);
    if let Some(reason) = misaddressed(&request).filter(|_| !limits.trusted) {
        malformed();
        let mut response = (StatusCode::BAD_REQUEST, reason).into_response();
        close(&mut response);
        return response;
    }
    let mut request = request.map(|body| Body::new(TimedBody::new(body, limits.deadlines.body)));
    if let Some(collapsed) = collapse_slashes(request.uri()) {
        *request.uri_mut() = collapsed;
    }
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if chunked {
        close(&mut response);
    }
    response
}

/// Why two readers may take a request for different servers or things: we are no proxy, so its target is a path, and it
/// names one host (RFC 9112 §3.2).
fn misaddressed(request: &Request<Incoming>) -> Option<&'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if !request.uri().path().starts_with('/') || request.uri().authority().is_some() {
        Some("a target is a path here\n")
    } else if hosts > 1 || (hosts == 0 && request.version() >= Version::HTTP_11) {
        Some("a request names one host\n")
    } else {
        None
    }
}

fn close(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// EDK2's shim asks for `//grubx64.efi`: a path with each run of slashes as one; `None` when it is so already.
fn collapse_slashes(uri: &Uri) -> Option<Uri> {
    if !uri.path().contains("//") {
        return None;
    }
    let mut path = String::with_capacity(uri.path().len());
    for part in uri.path().split('/').filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    if uri.path().ends_with('/') {
        path.push('/');
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    path.parse().ok()
}

/// An error and what caused it, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
