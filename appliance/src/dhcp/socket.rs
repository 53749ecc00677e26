//! A DHCP socket: one interface, one port, broadcasts and unicasts alike.

use super::inbox::{Inbox, Packet};
use crate::{
    interfaces::Interface,
    privileges,
    wire::{Card, Datagram, Hearing, PacketSocket},
};
use bennu_rules::dhcp::{Received, SERVER_PORT, SendTo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt::Ipv4PacketInfo};
use socket2::{Domain, Socket};
use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

/// A bound port of one interface.
pub struct DhcpSocket {
    socket: Hearing,
    interface: Interface,
    port: u16,
    mtu: u16,
    /// For clients without an address; `None` where the interface is no Ethernet: they get broadcasts.
    frames: Option<PacketSocket>,
}

impl DhcpSocket {
    /// Binds `port` on every address of one interface, since broadcasts reach no socket that is bound to an address.
    ///
    /// Without SO_REUSEADDR: Linux would then let two servers share the port, and neither would know.
    pub fn bind(interface: &Interface, port: u16) -> io::Result<Self> {
        let socket = privileges::receiver(Domain::IPV4, |socket| {
            socket.set_broadcast(true)?;
            socket.bind_device(Some(interface.name.as_bytes()))?;
            setsockopt(socket, Ipv4PacketInfo, &true)?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
        })?;
        Ok(Self {
            socket: Hearing::new(socket)?,
            mtu: mtu(&interface.name),
            frames: frames(interface, port)?,
            interface: interface.clone(),
            port,
        })
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface.name
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for packets, and takes as many as there is room for.
    pub async fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        self.socket.receive(|socket| inbox.take(socket)).await
    }

    /// How a packet came in here.
    pub fn received(&self, packet: &Packet<'_>) -> Received {
        Received {
            interface: self.interface.name.clone(),
            interface_index: self.interface.index,
            interface_address: self.interface.address,
            mtu: self.mtu,
            port: self.port,
            source: packet.source,
            destination: packet.destination,
        }
    }

    /// Sends a packet from our address on the interface: the one that option 54 names, also where it has others.
    pub async fn send(&self, packet: &[u8], to: SendTo) -> io::Result<()> {
        match (to, &self.frames) {
            (SendTo::Hardware { mac, .. }, Some(frames)) => {
                let from = SocketAddrV4::new(self.interface.address, self.port);
                let datagram = Datagram { from, to: to.address(), payload: packet };
                frames.send(mac, &datagram.packet()?).await
            }
            (SendTo::Hardware { .. }, None) => self.send_datagram(packet, SendTo::Broadcast.address()).await,
            (SendTo::Unicast(_) | SendTo::Broadcast, _) => self.send_datagram(packet, to.address()).await,
        }
    }

    async fn send_datagram(&self, packet: &[u8], to: SocketAddrV4) -> io::Result<()> {
        let from = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(self.interface.index).unwrap_or(0),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(self.interface.address.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let send = |socket: &Socket| {
            let (control, data) = ([ControlMessage::Ipv4PacketInfo(&from)], [IoSlice::new(packet)]);
            let to = SockaddrIn::from(to);
            Ok(sendmsg(socket.as_raw_fd(), &data, &control, MsgFlags::empty(), Some(&to))?)
        };
        self.socket.send(send).await.map(drop)
    }
}

/// Frames go out beside the port that clients without an address ask.
fn frames(interface: &Interface, port: u16) -> io::Result<Option<PacketSocket>> {
    let card = Card::of(&interface.name).filter(|_| port == SERVER_PORT);
    card.map(|card| PacketSocket::sender(card, libc::ETH_P_IP)).transpose()
}

/// The interface's MTU; Ethernet's where the system does not say.
fn mtu(interface: &str) -> u16 {
    let path = format!("/sys/class/net/{interface}/mtu");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse::<u32>().map_or(1500, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UdpSocket;

    fn on_loopback(port: u16) -> io::Result<DhcpSocket> {
        DhcpSocket::bind(&Interface::find("lo").unwrap(), port)
    }

    fn port_of(bound: &DhcpSocket) -> u16 {
        bound.socket.socket().local_addr().unwrap().as_socket().unwrap().port()
    }

    #[tokio::test]
    async fn packets_come_with_both_their_addresses_and_leave_from_ours() {
        let ours = on_loopback(0).unwrap();
        let port = port_of(&ours);
        let client = UdpSocket::bind("127.0.0.7:0").await.unwrap();
        client.send_to(b"hello", ("127.0.0.9", port)).await.unwrap();
        let mut inbox = Inbox::new();
        ours.receive(&mut inbox).await.unwrap();
        let packet = inbox.packets().next().unwrap();
        assert_eq!(packet.bytes, b"hello");
        let received = ours.received(&packet);
        assert_eq!(received.source.to_string(), client.local_addr().unwrap().to_string());
        assert_eq!(received.destination, Ipv4Addr::new(127, 0, 0, 9));
        assert_eq!(received.interface_address, Ipv4Addr::LOCALHOST);
        assert_eq!(received.mtu, u16::MAX, "loopback carries 64 KiB");
        ours.send(b"answer", SendTo::Unicast(received.source)).await.unwrap();
        let mut buffer = [0; 16];
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from.ip().to_string().as_str()), (&b"answer"[..], "127.0.0.1"));
    }

    #[tokio::test]
    async fn a_burst_is_taken_whole_and_in_order() {
        let ours = on_loopback(0).unwrap();
        let port = port_of(&ours);
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for n in 0..1000_u32 {
            client.send_to(&[&n.to_be_bytes()[..], &[0; 300]].concat(), ("127.0.0.1", port)).await.unwrap();
        }
        let (mut inbox, mut numbers) = (Inbox::new(), Vec::new());
        while numbers.len() < 1000 {
            ours.receive(&mut inbox).await.unwrap();
            numbers
                .extend(inbox.packets().map(|packet| u32::from_be_bytes(packet.bytes.first_chunk().copied().unwrap())));
        }
        assert!(numbers.into_iter().eq(0..1000));
    }

    #[tokio::test]
    async fn a_port_is_not_shared() {
        let first = on_loopback(0).unwrap();
        let port = port_of(&first);
        let second = on_loopback(port).map(|_| ()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }
}
