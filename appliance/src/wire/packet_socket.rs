//! A socket for frames of one type on one interface (`packet(7)`). The kernel writes and takes off the Ethernet header.

use super::{
    card::{Card, link_address},
    hearing::Hearing,
};
use bennu_rules::MacAddress;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, SockFilter, Socket, Type};
use std::{io, os::fd::AsRawFd};

/// An open packet socket.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Hearing,
    card: Card,
    ethertype: u16,
}

impl PacketSocket {
    /// One that only sends.
    pub fn sender(card: Card, ethertype: libc::c_int) -> io::Result<Self> {
        Self::open(card, ethertype, None)
    }

    /// One that hears what passes a filter. The filter sees a frame from the header of its payload on.
    pub fn listener(card: Card, ethertype: libc::c_int, filter: &[SockFilter]) -> io::Result<Self> {
        Self::open(card, ethertype, Some(filter))
    }

    fn open(card: Card, ethertype: libc::c_int, filter: Option<&[SockFilter]>) -> io::Result<Self> {
        let ethertype = ethertype as u16;
        // Of no type until it is bound, so that it hears nothing before its filter is there.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        if let Some(filter) = filter {
            socket.attach_filter(filter)?;
            socket.bind(&link_address(card.index, ethertype, card.mac)?)?;
        }
        Ok(Self { socket: Hearing::new(socket)?, card, ethertype })
    }

    /// The card it sends from.
    pub fn card(&self) -> Card {
        self.card
    }

    /// Sends one packet to a card.
    pub async fn send(&self, to: MacAddress, packet: &[u8]) -> io::Result<()> {
        let to = link_address(self.card.index, self.ethertype, to)?;
        self.socket.send(|socket| socket.send_to(packet, &to)).await.map(drop)
    }

    /// Waits for a packet, and says which card sent it.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, MacAddress)> {
        let receive = |socket: &Socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?);
        let (length, from) = self.socket.receive(receive).await?;
        Ok((length, MacAddress(from.and_then(|from| from.addr()).unwrap_or_default())))
    }
}
