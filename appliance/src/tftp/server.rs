//! The well-known port of one address, and what comes in there.

use super::{
    content::{Found, Routes, Wanted},
    registry::{Admission, Place, Registry},
    session::Session,
};
use crate::{observe::Observe, privileges};
use bennu_rules::tftp::{Answer, Packet, Path, Refusal, Request, answer, negotiate};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// A path whose width is unknown carries at least this (RFC 791, and in practice everything).
const SAFE_MTU: u32 = 1500;
/// Requests have at most 512 bytes (RFC 2347); what is longer is cut and so malformed.
const MAX_DATAGRAM: usize = 2048;

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
    /// A transfer ended before its file did.
    Failed,
    /// A packet got no answer: it belongs to no request, repeats one, or came when too much went on.
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

    /// The address it is bound to.
    #[cfg(test)]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until the service is shut down.
    pub async fn serve(self, service: Service) -> io::Result<()> {
        let desk = Desk {
            socket: Arc::new(self.socket),
            local: self.local,
            device: self.device.map(Into::into),
            registry: Registry::default(),
            service,
        };
        let mut transfers = JoinSet::new();
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            tokio::select! {
                () = desk.service.shutdown.cancelled() => break,
                Some(_) = transfers.join_next() => {}
                received = desk.socket.recv_from(&mut datagram) => match received {
                    Ok((length, peer)) => desk.take(&datagram[..length], peer, &mut transfers).await,
                    Err(error) => {
                        tracing::warn!(%error, local = %desk.local, "the TFTP port cannot be read");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        while transfers.join_next().await.is_some() {}
        Ok(())
    }
}

/// Where requests are taken.
#[derive(Clone)]
struct Desk {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    device: Option<Arc<str>>,
    registry: Registry,
    service: Service,
}

impl Desk {
    async fn take(&self, datagram: &[u8], peer: SocketAddr, transfers: &mut JoinSet<()>) {
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(malformed) => {
                (self.service.count)(Event::Malformed);
                tracing::debug!(%peer, %malformed, "ignored a datagram");
                return;
            }
        };
        match (answer(&packet), packet) {
            (Answer::Read { name, netascii }, Packet::Read(request)) => match self.admit(peer, &request) {
                Some(place) => {
                    let asked = Asked {
                        request,
                        wanted: Wanted { name, peer: peer.ip(), local: self.local.ip() },
                        netascii,
                        peer,
                    };
                    let desk = self.clone();
                    transfers.spawn(async move { desk.serve(asked, place).await });
                }
                None => (self.service.count)(Event::Ignored),
            },
            (Answer::Refuse(refusal), _) => self.refuse(refusal, peer).await,
            _ => (self.service.count)(Event::Ignored),
        }
    }

    fn admit(&self, peer: SocketAddr, request: &Request) -> Option<Place> {
        match self.registry.admit(peer, request, Instant::now()) {
            Admission::Start(place) => Some(place),
            Admission::Repeated => None,
            Admission::Busy => {
                tracing::warn!(%peer, name = request.name, "too many transfers; this request was ignored");
                None
            }
        }
    }

    async fn refuse(&self, refusal: Refusal, peer: SocketAddr) {
        tracing::debug!(%peer, code = %refusal.code, message = refusal.message, "refused");
        (self.service.count)(Event::Refused);
        let _ = self.socket.send_to(&refusal.packet().to_bytes(), peer).await;
    }

    /// Finds the bytes and sends them, to the transfer's end.
    async fn serve(&self, asked: Asked, place: Place) {
        let Asked { request, wanted, netascii, peer } = asked;
        let Some(mut found) = self.service.routes.find(&wanted).await else {
            drop(place);
            return self.refuse(Refusal::NOT_FOUND, peer).await;
        };
        if netascii {
            let Some(content) = found.content.as_netascii() else {
                drop(place);
                return self.refuse(Refusal::TOO_LARGE, peer).await;
            };
            found = Found { content, ..found };
        }
        let is_told = found.is_told;
        let way = Way { local: self.local, device: self.device.as_deref() };
        let socket = match transfer_socket(way) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%peer, name = wanted.name, %error, "no socket for a transfer");
                return (self.service.count)(Event::Ignored);
            }
        };
        let terms = negotiate(&request, found.content.len(), path_to(peer, way));
        let shutdown = self.service.shutdown.clone();
        (self.service.count)(Event::Started);
        let session = Session { peer, name: wanted.name, found, terms, place, shutdown };
        let (seen, complete) = session.run(socket).await;
        tracing::debug!(%peer, %seen);
        if !complete {
            (self.service.count)(Event::Failed);
        }
        if is_told {
            (self.service.observe)(peer.ip(), seen);
        }
    }
}

/// A request that deserves an answer.
struct Asked {
    request: Request,
    wanted: Wanted,
    netascii: bool,
    peer: SocketAddr,
}

/// Which way its transfer goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    local: SocketAddr,
    device: Option<&'a str>,
}

/// A new transfer id (RFC 1350 §4): a fresh port, on the address that the request was sent to.
fn transfer_socket(way: Way<'_>) -> io::Result<UdpSocket> {
    let socket = bound(SocketAddr::new(way.local.ip(), 0), way.device)?;
    UdpSocket::from_std(socket.into())
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

fn bound(local: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    bind(&socket, local, device).map(|()| socket)
}

fn bind(socket: &Socket, local: SocketAddr, device: Option<&str>) -> io::Result<()> {
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&SockAddr::from(local))
}
