//! DHCP as a relay agent speaks it: every simulated machine's packets go through one socket.

use anyhow::{Context, Result};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// What a thousand answers need that come at once.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Types of DHCP messages (option 53).
pub mod kind {
    /// DHCPDISCOVER
    pub const DISCOVER: u8 = 1;
    /// DHCPOFFER
    pub const OFFER: u8 = 2;
    /// DHCPREQUEST
    pub const REQUEST: u8 = 3;
    /// DHCPACK
    pub const ACK: u8 = 5;
    /// DHCPNAK
    pub const NAK: u8 = 6;
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Transaction.
    pub xid: u32,
    /// Message type.
    pub kind: u8,
    /// The address it gives.
    pub yiaddr: Ipv4Addr,
    /// Its name for itself (option 54).
    pub server_id: Ipv4Addr,
}

/// What a machine's UEFI PXE firmware asks.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Transaction.
    pub xid: u32,
    /// The machine's card.
    pub mac: [u8; 6],
    /// Without one a DISCOVER is sent, with one the REQUEST that takes it.
    pub offer: Option<&'a Reply>,
    /// Seconds since the machine first asked.
    pub secs: u16,
}

impl Ask<'_> {
    /// The packet, as a relay passes it on.
    pub fn encode(&self, relay: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0_u8; 240];
        packet[..4].copy_from_slice(&[1, 1, 6, 1]);
        packet[4..8].copy_from_slice(&self.xid.to_be_bytes());
        packet[8..10].copy_from_slice(&self.secs.to_be_bytes());
        packet[10] = 0x80;
        packet[24..28].copy_from_slice(&relay.octets());
        packet[28..34].copy_from_slice(&self.mac);
        packet[236..240].copy_from_slice(&COOKIE);
        let mut option = |code: u8, value: &[u8]| {
            packet.extend([code, value.len() as u8]);
            packet.extend(value);
        };
        match self.offer {
            None => option(53, &[kind::DISCOVER]),
            Some(offer) => {
                option(53, &[kind::REQUEST]);
                option(50, &offer.yiaddr.octets());
                option(54, &offer.server_id.octets());
            }
        }
        option(55, &[1, 3, 6, 12, 15, 28, 43, 54, 60, 66, 67, 97]);
        option(57, &1472_u16.to_be_bytes());
        option(60, b"PXEClient:Arch:00007:UNDI:003016");
        option(93, &[0, 7]);
        option(94, &[1, 3, 16]);
        let mut uuid = [0_u8; 17];
        uuid[11..].copy_from_slice(&self.mac);
        option(97, &uuid);
        packet.push(255);
        packet.resize(packet.len().max(300), 0);
        packet
    }
}

impl Reply {
    /// Reads what a server sent; `None` when it is no answer.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() < 240 || packet[0] != 2 || packet[236..240] != COOKIE {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let xid = u32::from_be_bytes(packet[4..8].try_into().ok()?);
        let mut reply = Self { xid, kind: 0, yiaddr: address(16)?, server_id: Ipv4Addr::UNSPECIFIED };
        let mut at = 240;
        while at + 1 < packet.len() && packet[at] != 255 {
            if packet[at] == 0 {
                at += 1;
                continue;
            }
            let length = usize::from(packet[at + 1]);
            match (packet[at], length) {
                (53, 1) => reply.kind = *packet.get(at + 2)?,
                (54, 4) => reply.server_id = address(at + 2)?,
                _ => {}
            }
            at += 2 + length;
        }
        Some(reply)
    }
}

/// A relay agent's socket.
#[derive(Debug)]
pub struct Relay {
    socket: UdpSocket,
    server: SocketAddrV4,
    address: Ipv4Addr,
}

impl Relay {
    /// A relay at `address` that passes on to `server`. No wait for an answer is longer than `wait`.
    pub fn open(server: Ipv4Addr, address: Ipv4Addr, wait: Duration) -> Result<Self> {
        let socket = UdpSocket::bind((address, 67)).with_context(|| format!("cannot relay at {address}:67"))?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .context("cannot enlarge a receive buffer")?;
        socket.set_read_timeout(Some(wait))?;
        Ok(Self { socket, server: SocketAddrV4::new(server, 67), address })
    }

    /// Passes a machine's message on. What cannot be sent is lost, as on a wire.
    pub fn send(&self, ask: &Ask<'_>) {
        let _ = self.socket.send_to(&ask.encode(self.address), self.server);
    }

    /// The next answer, or `None` when none came within the wait.
    pub fn receive(&self) -> Option<Reply> {
        let mut buffer = [0_u8; 2048];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(reply) = Reply::parse(&buffer[..length]) {
                        return Some(reply);
                    }
                }
                // A server that is not there yet makes its host say so.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_carries_what_it_takes_from_the_offer() {
        let relay = Ipv4Addr::new(10, 80, 0, 1);
        let offer =
            Reply { xid: 9, kind: kind::OFFER, yiaddr: [10, 80, 16, 5].into(), server_id: [10, 77, 0, 1].into() };
        let packet = Ask { xid: 9, mac: super::super::mac(5), offer: Some(&offer), secs: 3 }.encode(relay);
        assert!(packet.len() >= 300 && packet[3] == 1 && packet[24..28] == relay.octets());
        assert!(packet.windows(6).any(|six| six == [50, 4, 10, 80, 16, 5]));
        assert!(packet.windows(6).any(|six| six == [54, 4, 10, 77, 0, 1]));
    }

    #[test]
    fn an_answer_is_read_and_a_question_is_none() {
        let mut packet =
            Ask { xid: 0x0102_0304, mac: super::super::mac(1), offer: None, secs: 0 }.encode(Ipv4Addr::UNSPECIFIED);
        assert_eq!(Reply::parse(&packet), None);
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 80, 16, 9]);
        packet.truncate(240);
        packet.extend([0, 53, 1, kind::OFFER, 54, 4, 10, 77, 0, 1, 255]);
        let reply = Reply::parse(&packet).unwrap();
        assert_eq!((reply.xid, reply.kind), (0x0102_0304, kind::OFFER));
        assert_eq!((reply.yiaddr, reply.server_id), ([10, 80, 16, 9].into(), [10, 77, 0, 1].into()));
        packet.truncate(246);
        assert!(Reply::parse(&packet).is_none());
    }
}
