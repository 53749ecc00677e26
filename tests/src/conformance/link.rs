//! A network card of the test's own: every frame of a namespace's interface, and any frame back.

use anyhow::{Context, Result};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_recv_buffer_size_force,
};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use crate::wire::Namespace;

/// A packet socket (packet(7)) on one interface.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// Frames of a second's traffic must fit, since nobody reads while a test thinks.
const RECEIVE_BUFFER: usize = 4 << 20;

impl Link {
    /// Opens `interface` in `namespace`.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let opened = namespace.inside(|| {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
            let card = getifaddrs()?
                .filter(|found| found.interface_name == interface)
                .find_map(|found| found.address?.as_link_addr().copied());
            bind(socket.as_raw_fd(), &card.context("there is no such interface")?)?;
            Ok(socket)
        });
        Ok(Self { socket: opened.with_context(|| format!("cannot open {interface} of {}", namespace.name()))? })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("cannot send a frame")?;
        Ok(())
    }

    /// The next frame, unless none comes before `deadline`.
    pub fn receive(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !self.is_readable(left)? {
            return Ok(None);
        }
        let mut buffer = vec![0; 1 << 16];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("cannot read a frame")?;
        buffer.truncate(length);
        Ok(Some(buffer))
    }

    fn is_readable(&self, within: Duration) -> Result<bool> {
        let timeout = Timespec::try_from(within)?;
        let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
        Ok(poll(&mut waiting, Some(&timeout))? > 0)
    }
}
