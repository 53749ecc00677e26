//! Many packets by one call: a rack that is switched on asks at once.

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, recvmmsg},
};
use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

/// Packets taken at once.
const PLACES: usize = 32;
/// More than any client sends: EDK2 says 65280 and sends some 400 bytes.
const LARGEST: usize = 4096;

/// Room for the packets of one call.
pub struct Inbox {
    buffers: Vec<[u8; LARGEST]>,
    packets: Vec<Arrived>,
}

/// How one of them came.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    length: usize,
    source: SocketAddrV4,
    destination: Ipv4Addr,
}

/// A packet that came in.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// What it says.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub source: SocketAddrV4,
    /// To which address.
    pub destination: Ipv4Addr,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self { buffers: vec![[0; LARGEST]; PLACES], packets: Vec::with_capacity(PLACES) }
    }

    /// Takes what waits at a socket, in the place of what was taken before; fails with `WouldBlock` where nothing waits.
    pub fn take(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        self.packets.clear();
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        // They hold pointers into the slices, so they live no longer than this call.
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(PLACES, Some(cmsg_space!(libc::in_pktinfo)));
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        self.packets.extend(received.map(|message| Arrived::of(&message)));
        Ok(())
    }

    /// What was taken.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        self.packets.iter().zip(&self.buffers).map(|(arrived, buffer)| Packet {
            bytes: &buffer[..arrived.length],
            source: arrived.source,
            destination: arrived.destination,
        })
    }
}

impl Arrived {
    fn of(message: &RecvMsg<'_, '_, SockaddrIn>) -> Self {
        let source = message.address.map_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), SocketAddrV4::from);
        let destination = message.cmsgs().ok().and_then(|mut controls| {
            controls.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())),
                _ => None,
            })
        });
        Self { length: message.bytes, source, destination: destination.unwrap_or(Ipv4Addr::BROADCAST) }
    }
}
