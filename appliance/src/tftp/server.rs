//! The well-known port of one address, and what comes in there.

use super::{
    codec::Codec,
    content::Content,
    registry::{Admission, Registry},
    session::Session,
};
use crate::observe::Observe;
use bennu_rules::{
    journey::Seen,
    tftp::{Answer, ErrorCode, Names, Packet, Path, Request, answer, negotiate},
};
use futures_util::{SinkExt, StreamExt};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::{sync::CancellationToken, udp::UdpFramed};

/// A path whose width is unknown carries at least this (RFC 791, and in practice everything).
const SAFE_MTU: u32 = 1500;
/// Requests of a whole rack may come at once; the default of 208 KiB holds some 180.
const RECEIVE_BUFFER: usize = 4 << 20;

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
    pub names: Arc<dyn Names<File = Content> + Send + Sync>,
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
        let socket = bound(local, device)?;
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the kernel cuts it down to net.core.rmem_max.
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
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
        let mut frames = UdpFramed::new(self.socket, Codec);
        let registry = Registry::default();
        let mut sessions = JoinSet::new();
        loop {
            let (packet, peer) = tokio::select! {
                () = service.shutdown.cancelled() => break,
                Some(_) = sessions.join_next() => continue,
                frame = frames.next() => match frame {
                    Some(Ok((Ok(packet), peer))) => (packet, peer),
                    Some(Ok((Err(malformed), peer))) => {
                        (service.count)(Event::Malformed);
                        tracing::debug!(%peer, %malformed, "ignored a datagram");
                        continue;
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, local = %self.local, "the TFTP port cannot be read");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    None => break,
                },
            };
            let refusal = match answer(&packet, &*service.names) {
                Answer::Silence => {
                    (service.count)(Event::Ignored);
                    None
                }
                Answer::Refuse { code, message } => Some((code, message)),
                Answer::Serve { file, name, netascii } => {
                    let Packet::Read(request) = packet else { continue };
                    let asked = Asked { request, name, file, netascii, peer };
                    let place = Way { local: self.local, device: self.device.as_deref() };
                    start(asked, place, &registry, &service, &mut sessions)
                }
            };
            if let Some((code, message)) = refusal {
                tracing::debug!(%peer, %code, message, "refused");
                (service.count)(Event::Refused);
                let _ = frames.send((Packet::Error { code, message }, peer)).await;
            }
        }
        while sessions.join_next().await.is_some() {}
        Ok(())
    }
}

/// A request that names a file.
struct Asked {
    request: Request,
    name: String,
    file: Content,
    netascii: bool,
    peer: SocketAddr,
}

/// Which way its transfer goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    local: SocketAddr,
    device: Option<&'a str>,
}

/// Starts a transfer, or says why not.
fn start(
    asked: Asked,
    way: Way<'_>,
    registry: &Registry,
    service: &Service,
    sessions: &mut JoinSet<()>,
) -> Option<(ErrorCode, String)> {
    let Asked { request, name, file, netascii, peer } = asked;
    let content = match netascii {
        false => file,
        true => match file.as_netascii() {
            Some(content) => content,
            None => return Some((ErrorCode::UNDEFINED, "too large for netascii: use octet (binary)".to_owned())),
        },
    };
    let ignored = || {
        (service.count)(Event::Ignored);
        None
    };
    let place = match registry.admit(peer, &request, Instant::now()) {
        Admission::Start(place) => place,
        Admission::Repeated => return ignored(),
        Admission::Busy => {
            tracing::warn!(%peer, name, "too many transfers; this request was ignored");
            return ignored();
        }
    };
    let socket = match transfer_socket(way) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%peer, name, %error, "no socket for a transfer");
            return ignored();
        }
    };
    let terms = negotiate(&request, content.len(), path_to(peer, way));
    let session = Session { peer, name, content, terms, place, shutdown: service.shutdown.clone() };
    let Service { observe, count, .. } = service.clone();
    count(Event::Started);
    sessions.spawn(async move {
        let seen = session.run(socket).await;
        tracing::debug!(%peer, %seen);
        if !matches!(seen, Seen::LoaderRead { complete: true, .. }) {
            count(Event::Failed);
        }
        observe(peer.ip(), seen);
    });
    None
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
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&SockAddr::from(local))?;
    Ok(socket)
}
