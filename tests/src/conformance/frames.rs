//! Ethernet frames: UDP over IPv4, and ARP.

use std::net::{Ipv4Addr, SocketAddrV4};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Every station.
pub const EVERYBODY: Mac = [0xff; 6];

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];
const UDP: u8 = 17;

/// A UDP datagram with the addresses of its link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Datagram {
    pub link_from: Mac,
    pub link_to: Mac,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Bytes of its IP packet, headers and all.
    pub fn ip_length(&self) -> usize {
        20 + 8 + self.payload.len()
    }

    /// As a frame; its UDP checksum is zero, which IPv4 allows.
    pub fn frame(&self) -> Vec<u8> {
        let (length, udp_length) = (self.ip_length() as u16, 8 + self.payload.len() as u16);
        let mut ip = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, UDP, 0, 0]].concat();
        ip.extend(self.from.ip().octets());
        ip.extend(self.to.ip().octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [&self.link_to[..], &self.link_from, &IPV4, &ip].concat();
        for field in [self.from.port(), self.to.port(), udp_length, 0] {
            frame.extend(field.to_be_bytes());
        }
        frame.extend(&self.payload);
        frame
    }

    /// Reads a frame; `None` for anything else than a whole UDP datagram.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..).filter(|_| frame[12..14] == IPV4)?;
        let header = usize::from(ip.first()? & 15) * 4;
        let length = usize::from(u16_at(ip, 2)?);
        let udp = ip.get(header..length).filter(|_| ip[9] == UDP)?;
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
        let udp_length = usize::from(u16_at(udp, 4)?);
        Some(Self {
            link_to: frame[..6].try_into().ok()?,
            link_from: frame[6..12].try_into().ok()?,
            from: SocketAddrV4::new(address(12)?, u16_at(udp, 0)?),
            to: SocketAddrV4::new(address(16)?, u16_at(udp, 2)?),
            payload: udp.get(8..udp_length)?.to_vec(),
        })
    }
}

/// An ARP packet (RFC 826) for IPv4 on Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Arp {
    pub is_request: bool,
    pub sender: (Mac, Ipv4Addr),
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Asks everybody who has `address`.
    pub fn request(sender: (Mac, Ipv4Addr), address: Ipv4Addr) -> Self {
        Self { is_request: true, sender, target: ([0; 6], address) }
    }

    /// The answer of the card `mac` to a request.
    pub fn answered_by(&self, mac: Mac) -> Self {
        Self { is_request: false, sender: (mac, self.target.1), target: self.sender }
    }

    /// As a frame.
    pub fn frame(&self) -> Vec<u8> {
        let to = if self.is_request { EVERYBODY } else { self.target.0 };
        let operation = if self.is_request { 1 } else { 2 };
        let mut frame = [&to[..], &self.sender.0, &ARP, &[0, 1, 8, 0, 6, 4, 0, operation]].concat();
        for (mac, address) in [self.sender, self.target] {
            frame.extend(mac);
            frame.extend(address.octets());
        }
        frame
    }

    /// Reads a frame; `None` for anything else.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let arp = frame.get(ETHERNET..ETHERNET + 28).filter(|_| frame[12..14] == ARP)?;
        let station = |at: usize| {
            let mac = arp[at..at + 6].try_into().ok()?;
            let address: [u8; 4] = arp[at + 6..at + 10].try_into().ok()?;
            Some((mac, Ipv4Addr::from(address)))
        };
        Some(Self { is_request: arp[7] == 1, sender: station(8)?, target: station(18)? })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_comes_back_whole() {
        let datagram = Datagram {
            link_from: [2, 0, 0, 0, 0, 1],
            link_to: EVERYBODY,
            from: "0.0.0.0:68".parse().unwrap(),
            to: "255.255.255.255:67".parse().unwrap(),
            payload: vec![7; 301],
        };
        let mut frame = datagram.frame();
        assert_eq!(checksum(&frame[14..34]), 0);
        frame.extend([0; 9]);
        assert_eq!(Datagram::parse(&frame), Some(datagram), "what pads a frame is no payload");
        for length in 0..329 {
            assert_eq!(Datagram::parse(&frame[..length]), None);
        }
    }

    #[test]
    fn arp_comes_back_whole() {
        let asks = Arp::request(([2; 6], Ipv4Addr::new(10, 0, 0, 2)), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(Arp::parse(&asks.frame()), Some(asks));
        let answers = asks.answered_by([4; 6]);
        assert_eq!(Arp::parse(&answers.frame()), Some(answers));
        assert_eq!((answers.sender, answers.target), (([4; 6], Ipv4Addr::new(10, 0, 0, 1)), asks.sender));
    }
}
