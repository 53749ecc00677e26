//! IPv4 datagrams that carry UDP, as packet sockets send and receive them.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

/// Hops: a server's answer never has far to go, but a relay's may.
const TTL: u8 = 64;

/// A UDP message with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sends it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// What it says.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The packet: IPv4 that is not to be fragmented (RFC 791), UDP (RFC 768), both with their checksums.
    pub fn packet(&self) -> io::Result<Vec<u8>> {
        let builder = PacketBuilder::ipv4(self.from.ip().octets(), self.to.ip().octets(), TTL)
            .udp(self.from.port(), self.to.port());
        let mut packet = Vec::with_capacity(builder.size(self.payload.len()));
        builder.write(&mut packet, self.payload).map_err(io::Error::other)?;
        Ok(packet)
    }

    /// Reads a packet. Checksums are left alone: on virtual wires the kernel leaves them to a card that never comes.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else {
            return None;
        };
        let header = ip.header();
        let address = |octets: [u8; 4], port| SocketAddrV4::new(Ipv4Addr::from(octets), port);
        Some(Self {
            from: address(header.source(), udp.source_port()),
            to: address(header.destination(), udp.destination_port()),
            payload: udp.payload(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read_and_its_sums_are_right() {
        let (from, to) = ("10.77.0.1:67".parse().unwrap(), "10.77.0.50:68".parse().unwrap());
        let packet = Datagram { from, to, payload: b"hello" }.packet().unwrap();
        assert_eq!(Datagram::read(&packet), Some(Datagram { from, to, payload: b"hello" }));
        assert_eq!(packet.len(), 20 + 8 + 5);
        assert_eq!(packet[6] & 0x40, 0x40, "not to be fragmented");
        assert_eq!(sum(&packet[..20]), 0xffff, "RFC 1071: a header with its checksum sums up to all ones");
        let pseudo = [&packet[12..20], &[0, 17, 0, 13], &packet[20..], &[0]].concat();
        assert_eq!(sum(&pseudo), 0xffff);
    }

    #[test]
    fn what_is_cut_or_no_udp_is_nothing() {
        let (from, to) = ("10.77.0.1:67".parse().unwrap(), "10.77.0.50:68".parse().unwrap());
        let packet = Datagram { from, to, payload: &[7; 300] }.packet().unwrap();
        for length in 0..packet.len() {
            assert_eq!(Datagram::read(&packet[..length]), None);
        }
        let mut tcp = packet.clone();
        tcp[9] = 6;
        assert_eq!(Datagram::read(&tcp), None);
        let padded = [&packet[..], &[0; 30]].concat();
        assert_eq!(Datagram::read(&padded).unwrap().payload.len(), 300, "Ethernet pads short frames");
    }

    fn sum(bytes: &[u8]) -> u16 {
        let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}
