//! Sends blocks: a window in one system call, which the kernel cuts into datagrams (UDP_SEGMENT, Linux 4.18) or,
//! where the path does not allow that, takes as many (sendmmsg).

use bennu_rules::tftp::packet::{DATA_HEADER, data_header};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt::UdpGsoSegment};
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use std::{
    io::{self, IoSlice},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

/// The kernel's own limits: 64 datagrams, and what one UDP length field can say, less its headers.
const MAX_SEGMENTS: usize = 64;
const MAX_BATCH: usize = 65_000;

/// What a wait in the socket itself may last. The kernel rounds it up to its tick, of 1 to 10 ms.
const SHORTLY: Duration = Duration::from_millis(1);

/// How to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Only what is there.
    Not,
    /// Waiting a moment for it.
    Shortly,
    /// Asking for it again and again, and then waiting a moment.
    Eagerly,
}

/// How long [`Waiting::Eagerly`] asks: about what it costs to fall asleep and to be woken, so that no more is spent.
pub const EAGERLY: Duration = Duration::from_micros(50);

/// A transfer's socket, and how its blocks are sent.
#[derive(Debug)]
pub struct Sender {
    socket: UdpSocket,
    peer: SocketAddr,
    /// Bytes of a full DATA packet.
    full: u16,
    /// Blocks that leave in one call.
    batch: u16,
    segmented: bool,
    waits_shortly: bool,
}

impl Sender {
    /// Sends blocks of `blksize` over `socket`, `window` at a time.
    pub fn new(socket: UdpSocket, peer: SocketAddr, blksize: u16, window: u16) -> Self {
        let full = DATA_HEADER + usize::from(blksize);
        let batch = usize::from(window).min(MAX_SEGMENTS).min(MAX_BATCH / full).max(1);
        Self { socket, peer, full: full as u16, batch: batch as u16, segmented: false, waits_shortly: false }
    }

    /// The socket, to receive on.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Blocks that leave in one call.
    pub fn batch(&self) -> u64 {
        u64::from(self.batch)
    }

    /// Has windows cut by the kernel. Not before the peer has answered: most requests of a flood never get there.
    pub fn segment(&mut self) {
        self.segmented = self.batch > 1 && setsockopt(&self.socket, UdpGsoSegment, &i32::from(self.full)).is_ok();
    }

    /// Receives one packet, of anybody.
    pub fn receive(&mut self, datagram: &mut [u8], waiting: Waiting) -> io::Result<(usize, SocketAddr)> {
        let asked = Instant::now();
        loop {
            match self.receive_with(datagram, RecvFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && waiting != Waiting::Not => {}
                outcome => return outcome,
            }
            if waiting == Waiting::Shortly || asked.elapsed() >= EAGERLY {
                break;
            }
        }
        if !self.waits_shortly {
            self.socket.set_read_timeout(Some(SHORTLY))?;
            self.waits_shortly = true;
        }
        self.receive_with(datagram, RecvFlags::empty())
    }

    fn receive_with(&self, datagram: &mut [u8], flags: RecvFlags) -> io::Result<(usize, SocketAddr)> {
        let (_, length, from) = recvfrom(&self.socket, datagram, flags)?;
        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
        Ok((length, from.ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Sends one packet to the peer.
    pub fn packet(&self, bytes: &[u8]) -> io::Result<()> {
        self.packet_to(bytes, self.peer)
    }

    /// Sends one packet to anybody.
    pub fn packet_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        sendto(&self.socket, bytes, SendFlags::DONTWAIT, &to)?;
        Ok(())
    }

    /// Sends blocks whose payloads lie one behind the other, the first of them with this number.
    pub fn blocks(&mut self, first: u16, payloads: &[u8], count: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        let blksize = usize::from(self.full) - DATA_HEADER;
        buffer.clear();
        let mut rest = payloads;
        for nth in 0..count {
            let payload;
            (payload, rest) = rest.split_at(blksize.min(rest.len()));
            buffer.extend(data_header(first.wrapping_add(nth as u16)));
            buffer.extend_from_slice(payload);
        }
        if self.segmented || count == 1 {
            match self.packet(buffer) {
                // Some devices and tunnels refuse such sends, and a path may have become narrower than it was.
                Err(error) if self.segmented && count > 1 && error.kind() != io::ErrorKind::WouldBlock => {
                    tracing::debug!(peer = %self.peer, %error, "the kernel does not segment here");
                    let _ = setsockopt(&self.socket, UdpGsoSegment, &0);
                    self.segmented = false;
                }
                sent => return sent,
            }
        }
        self.each(buffer)
    }

    fn each(&self, buffer: &[u8]) -> io::Result<()> {
        let datagrams: Vec<[IoSlice<'_>; 1]> =
            buffer.chunks(usize::from(self.full)).map(|datagram| [IoSlice::new(datagram)]).collect();
        let peer = Some(SockaddrStorage::from(self.peer));
        let mut headers = MultiHeaders::preallocate(datagrams.len(), None);
        let addresses = vec![peer; datagrams.len()];
        // What the socket's buffer does not hold is lost, as on any wire.
        sendmmsg(self.socket.as_raw_fd(), &mut headers, &datagrams, addresses, [], MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};

    #[test]
    fn both_ways_to_send_a_window_put_the_same_on_the_wire() {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut sender = Sender::new(socket, client.local_addr().unwrap(), 512, 8);
        let payloads: Vec<u8> = (0..512 * 4 + 7).map(|i| (i / 5) as u8).collect();
        let mut seen = Vec::new();
        for segmented in [false, true] {
            if segmented {
                sender.segment();
                assert!(sender.segmented, "Linux has UDP_SEGMENT since 4.18");
            }
            sender.blocks(65_534, &payloads, 5, &mut Vec::new()).unwrap();
            let mut datagram = [0; 600];
            let received = (0..5).map(|_| {
                let length = client.recv(&mut datagram).unwrap();
                datagram[..length].to_vec()
            });
            seen.push(received.collect::<Vec<_>>());
        }
        assert_eq!(seen[0], seen[1]);
        let numbers: Vec<&[u8]> = seen[0].iter().map(|datagram| &datagram[..4]).collect();
        assert_eq!(numbers, [[0, 3, 255, 254], [0, 3, 255, 255], [0, 3, 0, 0], [0, 3, 0, 1], [0, 3, 0, 2]]);
        assert_eq!(seen[0].iter().flat_map(|datagram| &datagram[4..]).copied().collect::<Vec<_>>(), payloads);
    }
}
