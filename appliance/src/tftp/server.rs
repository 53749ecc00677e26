//! The well-known port of one address, and what comes in there.

use super::{
    content::{Found, Routes, Wanted},
    engine::{self, Blocking, Orders},
    registry::{Admission, Place, Registry},
    session::{Report, Session},
};
use crate::{observe::Observe, privileges};
use bennu_rules::tftp::{
    Answer, Packet, Path, Refusal, Request, answer,
    limit::{Bucket, Rate},
    negotiate,
    peer::Standing,
};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// A path whose width is unknown carries at least this (RFC 791, and in practice everything).
const SAFE_MTU: u32 = 1500;
/// Requests have at most 512 bytes (RFC 2347); what is longer is cut and so malformed.
const MAX_DATAGRAM: usize = 2048;
/// More threads than this would wait for the network card.
const MAX_THREADS: usize = 8;
/// Warnings about requests that were ignored.
const COMPLAINTS: Rate = Rate { every: Duration::from_secs(10), burst: 3 };

/// A bound port.
pub struct Listener {
    socket: UdpSocket,
    local: SocketAddr,
    device: Option<String>,
}

/// What the server serves, and whom it tells.
#[derive(Clone)]
pub struct Service {
    /// The files.
    pub routes: Arc<Routes>,
    /// Told of each transfer's end.
    pub observe: Observe,
    /// Told of each event that is only counted.
    pub count: Arc<dyn Fn(Event) + Send + Sync>,
    /// Whom to answer.
    pub judge: Arc<dyn Fn(SocketAddr) -> Standing + Send + Sync>,
    /// Ends the server and its transfers.
    pub shutdown: CancellationToken,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A transfer began.
    Started,
    /// A request was answered with an ERROR.
    Refused,
    /// A transfer is over.
    Ended {
        /// Whether the whole file arrived.
        complete: bool,
        /// Bytes of the file that did.
        bytes: u64,
        /// Blocks that were sent again.
        resent: u64,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// A packet got no answer: it belongs to no request, repeats one, comes from where no client
    /// of ours is, or came when too much went on.
    Ignored,
    /// A datagram is no TFTP packet.
    Malformed,
}

impl Listener {
    /// Binds one address, and the interface it is on: a request that comes by another way is not ours, and one that
    /// was broadcast does not reach a socket bound to a unicast address (RFC 1123 §4.2.3.5 wants it ignored).
    pub fn bind(local: SocketAddr, device: Option<&str>) -> io::Result<Self> {
        // Requests of a whole rack may come at once.
        let socket = privileges::receiver(Domain::for_address(local), |socket| bind(socket, local, device))?;
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, local, device: device.map(str::to_owned) })
    }

    /// The interface it is bound to.
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The address it is bound to.
    #[cfg(test)]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until the service is shut down.
    pub async fn serve(self, service: Service) -> io::Result<()> {
        let orders = Orders::new(threads())?;
        let (tell, reports) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        let blocking: Blocking = Arc::new(move |read| drop(runtime.spawn_blocking(read)));
        engine::launch(&orders, &tell, &blocking)?;
        drop(tell);
        let mut reporting = tokio::spawn(report(reports, service.clone()));
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let desk = Desk {
            socket: Arc::new(self.socket),
            local: self.local,
            device: self.device.map(Into::into),
            registry: Registry::new(orders.clone(), descriptors),
            orders: orders.clone(),
            complaints: Arc::default(),
            service,
        };
        let mut finding = JoinSet::new();
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            tokio::select! {
                () = desk.service.shutdown.cancelled() => break,
                _ = &mut reporting => return Err(io::Error::other("the threads of the TFTP transfers ended")),
                Some(_) = finding.join_next() => {}
                received = desk.socket.recv_from(&mut datagram) => match received {
                    Ok((length, peer)) => desk.take(&datagram[..length], peer, &mut finding).await,
                    Err(error) => {
                        tracing::warn!(%error, local = %desk.local, "the TFTP port cannot be read");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        while finding.join_next().await.is_some() {}
        orders.quit();
        reporting.await.map_err(io::Error::other)
    }
}

/// Threads for transfers: a processor sends some 200 MB a second in windows of one block, and a gigabyte in larger ones.
/// Three for each, since where others compete for the processors a thread gets its share and no more.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (3 * processors.get()).min(MAX_THREADS))
}

/// Tells of transfers that are over, until the last one.
async fn report(mut reports: mpsc::UnboundedReceiver<Report>, service: Service) {
    while let Some(Report { peer, seen, complete, resent, took_ms, answered, is_told }) = reports.recv().await {
        tracing::debug!(%peer, %seen);
        (service.count)(Event::Ended { complete, bytes: seen.bytes_moved(), resent, took_ms });
        // Whoever never answered and is no neighbour was most likely never there.
        if is_told && (answered || (service.judge)(peer) == Standing::Known) {
            (service.observe)(peer.ip(), seen);
        }
    }
}

/// Where requests are taken.
#[derive(Clone)]
struct Desk {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    device: Option<Arc<str>>,
    registry: Registry,
    orders: Orders,
    complaints: Arc<Mutex<Complaints>>,
    service: Service,
}

impl Desk {
    async fn take(&self, datagram: &[u8], peer: SocketAddr, finding: &mut JoinSet<()>) {
        let standing = (self.service.judge)(peer);
        if matches!(standing, Standing::Foreign | Standing::Impossible) {
            self.complain(peer, match standing {
                Standing::Foreign => "a TFTP request from outside our networks was ignored; if machines boot from there, add a [[boot.subnet]] with their network",
                _ => "a TFTP request from an address that no host has was ignored",
            });
            return (self.service.count)(Event::Ignored);
        }
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(malformed) => {
                (self.service.count)(Event::Malformed);
                tracing::debug!(%peer, %malformed, "ignored a datagram");
                return;
            }
        };
        match (answer(&packet), packet) {
            (Answer::Read { name, netascii }, Packet::Read(request)) => {
                match self.registry.admit(peer, &request, standing, Instant::now()) {
                    Admission::Start(place) => {
                        let wanted = Wanted { name, peer: peer.ip(), local: self.local.ip() };
                        let asked = Asked { request, wanted, netascii, peer, standing };
                        let desk = self.clone();
                        finding.spawn(async move { desk.serve(asked, place).await });
                    }
                    Admission::Repeated => (self.service.count)(Event::Ignored),
                    Admission::Busy => {
                        self.complain(peer, "too many TFTP transfers; this request was ignored");
                        (self.service.count)(Event::Ignored);
                    }
                }
            }
            (Answer::Refuse(refusal), _) => self.refuse(refusal, peer, standing).await,
            _ => (self.service.count)(Event::Ignored),
        }
    }

    /// Warns, but not so often that a flood fills the log.
    fn complain(&self, peer: SocketAddr, what: &'static str) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let since = complaints.began.elapsed();
        if complaints.bucket.take(COMPLAINTS, since) {
            tracing::warn!(%peer, unsaid = std::mem::take(&mut complaints.unsaid), "{what}");
        } else {
            complaints.unsaid += 1;
        }
    }

    async fn refuse(&self, refusal: Refusal, peer: SocketAddr, standing: Standing) {
        tracing::debug!(%peer, code = %refusal.code, message = refusal.message, "refused");
        if !self.registry.may_refuse(peer.ip(), standing, Instant::now()) {
            return (self.service.count)(Event::Ignored);
        }
        (self.service.count)(Event::Refused);
        let _ = self.socket.send_to(&refusal.packet().to_bytes(), peer).await;
    }

    /// Finds the bytes, and has them sent.
    async fn serve(&self, asked: Asked, place: Place) {
        let Asked { request, wanted, netascii, peer, standing } = asked;
        let Some(mut found) = self.service.routes.find(&wanted).await else {
            drop(place);
            return self.refuse(Refusal::NOT_FOUND, peer, standing).await;
        };
        if netascii {
            let Some(content) = found.content.as_netascii() else {
                drop(place);
                return self.refuse(Refusal::TOO_LARGE, peer, standing).await;
            };
            found = Found { content, ..found };
        }
        let way = Way { local: self.local, device: self.device.as_deref() };
        let socket = match transfer_socket(way) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%peer, name = wanted.name, %error, "no socket for a transfer");
                self.complain(peer, "the system has no socket for a TFTP transfer (LimitNOFILE)");
                return (self.service.count)(Event::Ignored);
            }
        };
        let terms = negotiate(&request, found.content.len(), path_to(peer, way));
        (self.service.count)(Event::Started);
        self.orders.start(Session::new(peer, &wanted.name, found, terms, place, socket));
    }
}

/// Warnings that were given, and those that were not.
struct Complaints {
    began: Instant,
    bucket: Bucket,
    unsaid: u64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self { began: Instant::now(), bucket: Bucket::default(), unsaid: 0 }
    }
}

/// A request that deserves an answer.
struct Asked {
    request: Request,
    wanted: Wanted,
    netascii: bool,
    peer: SocketAddr,
    standing: Standing,
}

/// Which way its transfer goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    local: SocketAddr,
    device: Option<&'a str>,
}

/// A new transfer id (RFC 1350 §4): a fresh port, on the address that the request was sent to.
fn transfer_socket(way: Way<'_>) -> io::Result<std::net::UdpSocket> {
    bound(SocketAddr::new(way.local.ip(), 0), way.device).map(Into::into)
}

/// The width of the path, as the kernel knows it: the interface's, or less where a router has said so.
fn path_to(peer: SocketAddr, way: Way<'_>) -> Path {
    let mtu = || -> io::Result<u32> {
        let probe = bound(SocketAddr::new(way.local.ip(), 0), way.device)?;
        probe.connect(&SockAddr::from(peer))?;
        Ok(match peer.ip() {
            IpAddr::V4(_) => rustix::net::sockopt::ip_mtu(&probe)?,
            IpAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&probe)?,
        })
    };
    Path { mtu: mtu().unwrap_or(SAFE_MTU), ip_header: if peer.is_ipv4() { 20 } else { 40 } }
}

/// A socket whose every use says whether it waits.
fn bound(local: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    bind(&socket, local, device).map(|()| socket)
}

fn bind(socket: &Socket, local: SocketAddr, device: Option<&str>) -> io::Result<()> {
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&SockAddr::from(local))
}
