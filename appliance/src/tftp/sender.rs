//! Sends blocks: a window as one system call where the kernel cuts it into datagrams (UDP_SEGMENT, Linux 4.18),
//! else one datagram at a time.

use super::content::Content;
use bennu_rules::tftp::{
    Packet, Transfer,
    packet::{DATA_HEADER, data_header},
    transfer::wire_number,
};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use std::{io, net::SocketAddr, ops::RangeInclusive};
use tokio::net::UdpSocket;

/// The kernel's own limits: 64 datagrams, and what one UDP length field can say, less its headers.
const MAX_SEGMENTS: usize = 64;
const MAX_BATCH: usize = 65_000;

/// The sending half of a transfer.
pub struct Sender {
    socket: UdpSocket,
    peer: SocketAddr,
    /// Bytes of a full DATA packet.
    full: usize,
    /// Blocks that leave in one call.
    batch: usize,
    buffer: Vec<u8>,
}

impl Sender {
    /// Sends blocks of `blksize` over `socket`, `window` at a time.
    pub fn new(socket: UdpSocket, peer: SocketAddr, blksize: u16, window: u16) -> Self {
        let full = DATA_HEADER + usize::from(blksize);
        let batch = usize::from(window).min(MAX_SEGMENTS).min(MAX_BATCH / full).max(1);
        let segmented = batch > 1 && setsockopt(&socket, UdpGsoSegment, &(full as i32)).is_ok();
        Self { socket, peer, full, batch: if segmented { batch } else { 1 }, buffer: Vec::new() }
    }

    /// The socket, to receive on.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends one packet to the peer.
    pub async fn packet(&self, packet: &Packet) -> io::Result<()> {
        self.socket.send_to(&packet.to_bytes(), self.peer).await.map(drop)
    }

    /// Sends blocks of a file.
    pub async fn blocks(
        &mut self,
        transfer: &Transfer,
        content: &Content,
        blocks: RangeInclusive<u64>,
    ) -> io::Result<()> {
        let (mut next, last) = blocks.into_inner();
        while next <= last {
            let end = last.min(next + self.batch as u64 - 1);
            self.fill(transfer, content, next..=end).await?;
            match self.socket.send_to(&self.buffer, self.peer).await {
                Ok(_) => next = end + 1,
                Err(_) if self.batch > 1 => self.stop_batching(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn fill(&mut self, transfer: &Transfer, content: &Content, blocks: RangeInclusive<u64>) -> io::Result<()> {
        let (start, _) = transfer.extent(*blocks.start());
        let (last_start, last_length) = transfer.extent(*blocks.end());
        let bytes = content.read(start, (last_start - start) as usize + last_length).await?;
        self.buffer.clear();
        for block in blocks {
            let (offset, length) = transfer.extent(block);
            let at = (offset - start) as usize;
            self.buffer.extend(data_header(wire_number(block)));
            self.buffer.extend(&bytes[at..at + length]);
        }
        Ok(())
    }

    /// Some devices and tunnels refuse such sends, and a path may have become narrower than it was.
    fn stop_batching(&mut self) {
        tracing::debug!(peer = %self.peer, segment = self.full, "the kernel does not segment here; sending one by one");
        let _ = setsockopt(&self.socket, UdpGsoSegment, &0);
        self.batch = 1;
    }
}
