//! The conversation of a DHCP client (RFC 2131 §4.4) over one interface.

use super::Mac;
use super::dhcp::{Answer, Ask, Terms, decode, encode};
use crate::entropy;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// First and longest wait for an answer (RFC 2131 §4.1); then it starts again at the first.
const FIRST_WAIT: Duration = Duration::from_secs(4);
const LONGEST_WAIT: Duration = Duration::from_secs(16);

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum NoLease {
    /// Nobody offers.
    #[error("no DHCP server answers: check cable, VLAN and the switch port (spanning tree: enable PortFast)")]
    Silence,
    /// Offered, then not granted.
    #[error("the DHCP server at {0} offered an address and did not grant it")]
    NotGranted(Ipv4Addr),
    /// The socket.
    #[error("the DHCP client cannot use {interface}: {source}")]
    Socket {
        /// Where.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// A DHCP client on one interface.
pub struct Client {
    socket: UdpSocket,
    interface: String,
    mac: Mac,
    started: Instant,
}

impl Client {
    /// Opens the client's port on the interface, which must be up and needs no address.
    pub fn open(interface: &str, mac: Mac) -> Result<Self, NoLease> {
        let open = || -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_reuse_address(true)?;
            socket.set_broadcast(true)?;
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
            Ok(socket.into())
        };
        let socket = open().map_err(|source| NoLease::Socket { interface: interface.to_owned(), source })?;
        Ok(Self { socket, interface: interface.to_owned(), mac, started: Instant::now() })
    }

    /// Gets an address from whoever offers one first, trying for `patience`.
    pub fn acquire(&self, patience: Duration) -> Result<Terms, NoLease> {
        let until = Instant::now() + patience;
        let mut wait = FIRST_WAIT;
        loop {
            if let Some(Answer::Offer(offer)) = self.ask(Ask::Discover, Ipv4Addr::BROADCAST, wait)? {
                let select = Ask::Select { address: offer.address, server: offer.server };
                for _ in 0..3 {
                    match self.ask(select, Ipv4Addr::BROADCAST, FIRST_WAIT)? {
                        Some(Answer::Ack(terms)) => return Ok(terms),
                        Some(Answer::Nak) => break,
                        _ => {}
                    }
                }
                if Instant::now() >= until {
                    return Err(NoLease::NotGranted(offer.server));
                }
                std::thread::sleep(Duration::from_secs(2));
            } else if Instant::now() >= until {
                return Err(NoLease::Silence);
            }
            wait = if wait >= LONGEST_WAIT { FIRST_WAIT } else { wait * 2 };
        }
    }

    /// Sends one request and waits for the answer that belongs to it.
    pub fn ask(&self, ask: Ask, to: Ipv4Addr, wait: Duration) -> Result<Option<Answer>, NoLease> {
        let transaction = entropy::number();
        let seconds = u16::try_from(self.started.elapsed().as_secs()).unwrap_or(u16::MAX);
        let packet = encode(ask, self.mac, transaction, seconds);
        let failed = |source| NoLease::Socket { interface: self.interface.clone(), source };
        self.socket.send_to(&packet, SocketAddrV4::new(to, SERVER_PORT)).map_err(failed)?;
        let until = Instant::now() + wait;
        let mut buffer = [0; 2048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).map_err(failed)?;
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                // A server that is gone makes the network answer with an ICMP error.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(failed(error)),
            };
            let answer = decode(&buffer[..length], self.mac, transaction);
            let fits = match ask {
                Ask::Discover => matches!(answer, Some(Answer::Offer(_))),
                _ => matches!(answer, Some(Answer::Ack(_) | Answer::Nak)),
            };
            if fits {
                return Ok(answer);
            }
        }
    }
}
