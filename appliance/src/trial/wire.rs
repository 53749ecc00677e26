//! A trial's own wire: a cable from the machine's network card to this process, with the appliance at its other end.
//!
//! QEMU hands over what the card sends as frames on a socket pair, and a small TCP/IP stack here answers them. So the
//! machine reaches the appliance as on any network, and nothing else: there is no interface, route or port of the host that
//! its packets could get to.

use bennu_rules::trial::{APPLIANCE, APPLIANCE_CARD, lease};
use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{self, Device, DeviceCapabilities, Medium},
    socket::{tcp, udp},
    time::Instant as Tick,
    wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address},
};
use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::Shutdown,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::net::UnixStream;

/// Connections at once: stage 1 has a handful.
const CONNECTIONS: usize = 24;
/// HTTP's and DHCP's.
const HTTP_PORT: u16 = 80;
const DHCP_PORTS: (u16, u16) = (67, 68);
/// What a connection holds on its way to the machine, and back.
const TO_GUEST: usize = 256 << 10;
const FROM_GUEST: usize = 32 << 10;
/// An Ethernet frame with a payload of 1500 bytes.
const FRAME: usize = 1514;
/// QEMU sends no longer ones (`NET_BUFSIZE`).
const LONGEST_FRAME: usize = 69 << 10;
/// Frames that wait for QEMU to take them, in bytes.
const MOST_WAITING: usize = 256 << 10;
/// A machine that is gone does not say so.
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);

/// Takes the connections of the machine.
pub type Accept = Box<dyn Fn(UnixStream) + Send + Sync>;

/// The cable and the appliance's end of it.
pub struct Wire {
    frames: Frames,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    connections: Vec<Connection>,
    accept: Accept,
    started: Instant,
}

/// One connection that may be, and where its bytes go.
struct Connection {
    handle: SocketHandle,
    server: Option<UnixStream>,
    told_end: bool,
}

impl Wire {
    /// A wire over QEMU's socket; `accept` gets the machine's connections to the appliance's HTTP port.
    pub fn new(guest: UnixStream, seed: u64, accept: Accept) -> Self {
        let mut frames = Frames { guest, coming: Vec::new(), come: VecDeque::new(), going: VecDeque::new() };
        let mut config = Config::new(EthernetAddress(APPLIANCE_CARD.0).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut frames, Tick::ZERO);
        interface.update_ip_addrs(|addresses| {
            // One of two places that it has.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(APPLIANCE), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let packets = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 16 << 10]);
        let dhcp = sockets.add(udp::Socket::new(packets(), packets()));
        let connections = (0..CONNECTIONS).map(|_| {
            let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
            let mut socket = tcp::Socket::new(buffer(FROM_GUEST), buffer(TO_GUEST));
            socket.set_nagle_enabled(false);
            socket.set_timeout(Some(SILENCE));
            Connection { handle: sockets.add(socket), server: None, told_end: false }
        });
        let connections = connections.collect();
        Self { frames, interface, sockets, dhcp, connections, accept, started: Instant::now() }
    }

    /// Carries frames until QEMU has hung up.
    pub async fn carry(mut self) -> io::Result<()> {
        loop {
            while self.turn()? {}
            let now = self.now();
            let pause = self.interface.poll_delay(now, &self.sockets).map_or(Duration::from_secs(1), Duration::from);
            let something = poll_fn(|context| self.poll(context));
            // Its next resend is due, or somebody has something.
            let _ = tokio::time::timeout(pause.max(Duration::from_millis(1)), something).await;
        }
    }

    fn now(&self) -> Tick {
        Tick::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Moves what can be moved; whether anything was.
    fn turn(&mut self) -> io::Result<bool> {
        let mut moved = self.frames.take()?;
        let now = self.now();
        moved |= self.interface.poll(now, &mut self.frames, &mut self.sockets) == PollResult::SocketStateChanged;
        moved |= self.lease()?;
        for connection in &mut self.connections {
            moved |= connection.turn(self.sockets.get_mut(connection.handle), &self.accept)?;
        }
        moved |= self.interface.poll_egress(now, &mut self.frames, &mut self.sockets) == PollResult::SocketStateChanged;
        moved |= self.frames.give()?;
        Ok(moved)
    }

    fn lease(&mut self) -> io::Result<bool> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.dhcp);
        let (server, client) = DHCP_PORTS;
        if !socket.is_open() {
            socket.bind(server).map_err(io::Error::other)?;
        }
        let Ok((packet, _)) = socket.recv() else { return Ok(false) };
        if let Some(answer) = lease::answer(packet) {
            // Without room it asks again.
            let _ = socket.send_slice(&answer, (Ipv4Address::BROADCAST, client));
        }
        Ok(true)
    }

    /// Ready when a turn could move something.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ready = self.frames.guest.poll_read_ready(context).is_ready();
        ready |= !self.frames.going.is_empty() && self.frames.guest.poll_write_ready(context).is_ready();
        for connection in &self.connections {
            let socket = self.sockets.get::<tcp::Socket<'_>>(connection.handle);
            let Some(server) = &connection.server else { continue };
            ready |= socket.can_send() && server.poll_read_ready(context).is_ready();
            ready |= socket.can_recv() && server.poll_write_ready(context).is_ready();
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Connection {
    fn turn(&mut self, socket: &mut tcp::Socket<'_>, accept: &Accept) -> io::Result<bool> {
        if !socket.is_open() {
            (self.server, self.told_end) = (None, false);
            socket.listen(HTTP_PORT).map_err(io::Error::other)?;
            return Ok(false);
        }
        if self.server.is_none() && socket.state() == tcp::State::Established {
            let (ours, theirs) = UnixStream::pair()?;
            accept(theirs);
            self.server = Some(ours);
        }
        let Some(server) = &self.server else { return Ok(false) };
        let mut moved = false;
        if socket.can_recv() {
            match socket.recv(|bytes| taken(server.try_write(bytes))) {
                Ok(Ok(count)) => moved |= count > 0,
                Ok(Err(_)) | Err(_) => socket.abort(),
            }
        }
        if !self.told_end && !socket.may_recv() && socket.is_active() {
            self.told_end = true;
            let _ = socket2::SockRef::from(server).shutdown(Shutdown::Write);
        }
        if socket.can_send() {
            match socket.send(|room| taken(server.try_read(room).and_then(more))) {
                Ok(Ok(count)) => moved |= count > 0,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    socket.close();
                    self.server = None;
                    // Nothing is accepted on it until it listens again.
                    return Ok(true);
                }
                Ok(Err(_)) | Err(_) => socket.abort(),
            }
        }
        Ok(moved)
    }
}

/// How many bytes a buffer is rid of, and how it went.
fn taken(done: io::Result<usize>) -> (usize, io::Result<usize>) {
    match done {
        Ok(count) => (count, Ok(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, Ok(0)),
        Err(error) => (0, Err(error)),
    }
}

fn more(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

/// QEMU's socket: each frame behind its length, four bytes with the highest first (`net/socket.c`).
struct Frames {
    guest: UnixStream,
    coming: Vec<u8>,
    come: VecDeque<Vec<u8>>,
    going: VecDeque<u8>,
}

impl Frames {
    /// Reads what has come.
    fn take(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        match self.guest.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.coming.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut rest = &self.coming[..];
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > LONGEST_FRAME {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
            }
            let Some((frame, after)) = after.split_at_checked(length) else { break };
            self.come.push_back(frame.to_vec());
            rest = after;
        }
        let left = rest.len();
        self.coming.drain(..self.coming.len() - left);
        Ok(true)
    }

    /// Writes what waits.
    fn give(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while !self.going.is_empty() {
            let (first, second) = self.going.as_slices();
            match self.guest.try_write_vectored(&[io::IoSlice::new(first), io::IoSlice::new(second)]) {
                Ok(count) => drop(self.going.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            moved = true;
        }
        Ok(moved)
    }
}

impl Device for Frames {
    type RxToken<'a> = Come;
    type TxToken<'a> = Going<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }

    fn receive(&mut self, _: Tick) -> Option<(Come, Going<'_>)> {
        self.come.pop_front().map(|frame| (Come(frame), Going(&mut self.going)))
    }

    fn transmit(&mut self, _: Tick) -> Option<Going<'_>> {
        (self.going.len() < MOST_WAITING).then_some(Going(&mut self.going))
    }
}

/// A frame that has come.
struct Come(Vec<u8>);

impl phy::RxToken for Come {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a frame that goes.
struct Going<'a>(&'a mut VecDeque<u8>);

impl phy::TxToken for Going<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let written = write(&mut frame);
        self.0.extend((length as u32).to_be_bytes());
        self.0.extend(frame);
        written
    }
}

#[cfg(test)]
mod tests;
