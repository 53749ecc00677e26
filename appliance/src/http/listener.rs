//! Where connections come from: ports of an interface, ports under TLS, and the local socket.

use super::{
    connection::{LocalAddr, PeerAddr, PeerUid},
    sendfile::Stream,
};
use crate::ports::{self, Transport};
use rustls::ServerConfig;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::{TcpListener, UnixListener};

const BACKLOG: i32 = 1024;

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve HTTP on {address} ({device}): {reason}. {advice}")]
pub struct BindError {
    address: SocketAddr,
    device: String,
    reason: String,
    advice: &'static str,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "Stop that server, or set boot.http_port",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "Look at the interface and its address (ip address)",
    }
}

/// Listens on an address, for connections that come by its interface.
pub fn bind_tcp(address: SocketAddr, device: &str) -> Result<TcpListener, BindError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| BindError {
        address,
        device: device.to_owned(),
        reason: ports::why(Transport::Tcp, address.port(), &error),
        advice: advice(&error),
    })
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// The network.
    Tcp(TcpListener),
    /// The network, under TLS.
    Tls(TcpListener, Arc<ServerConfig>),
    /// This host.
    Unix(UnixListener),
}

/// A connection that has come.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) addresses: Option<(PeerAddr, LocalAddr)>,
    pub(super) uid: Option<PeerUid>,
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                let (socket, peer) = listener.accept().await?;
                socket.set_nodelay(true)?;
                let local = socket.local_addr()?;
                let tls = if let Self::Tls(_, config) = self { Some(config.clone()) } else { None };
                let addresses = Some((PeerAddr(peer), LocalAddr(local)));
                Ok(Accepted { stream: Stream::Tcp(socket), tls, addresses, uid: None })
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                let uid = socket.peer_cred().ok().map(|peer| PeerUid(peer.uid()));
                Ok(Accepted { stream: Stream::Unix(socket), tls: None, addresses: None, uid })
            }
        }
    }
}
