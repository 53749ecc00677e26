//! One transfer's life between packets: its socket, its bytes, its report. What to do is [`Transfer`]'s to say.
//!
//! The socket is not connected, since RFC 1350 §4 wants a stranger that hits its port to be told so (ERROR 5)
//! while the transfer lives; a connected one would never see the stranger. Only for the last ACK it is connected:
//! a client that has everything may be gone, and its host's "port unreachable" then tells.

pub use super::sender::{EAGERLY, Waiting};
use super::{content::Found, registry::Place, sender::Sender};
use bennu_rules::{
    journey::Seen,
    tftp::{Emit, End, ErrorCode, Packet, Step, Terms, Then, Transfer, transfer::wire_number},
};
use bytes::Bytes;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// Strangers that are told, for each transfer: the answer must not become a tool against them.
const MAX_STRANGERS: u8 = 8;
/// An ACK has 4 bytes, an ERROR a text.
const RECEIVE: usize = 600;

/// What sessions of one thread share, so that none needs a buffer of its own.
#[derive(Debug, Default)]
pub struct Buffers {
    datagrams: Vec<u8>,
    payloads: Vec<u8>,
}

/// A transfer that goes on.
#[derive(Debug)]
pub struct Session {
    peer: SocketAddr,
    name: Box<str>,
    found: Found,
    blksize: u16,
    window: u16,
    /// The OACK as it is sent; empty when there is none.
    option_ack: Box<[u8]>,
    transfer: Transfer,
    sender: Sender,
    place: Place,
    started: Instant,
    strangers: u8,
    half_open: bool,
    /// What was read from the disk ahead of its sending, and where it lies.
    ahead: Option<(u64, Bytes)>,
    /// Blocks that wait for the disk.
    waiting: Option<RangeInclusive<u64>>,
    /// The last thing that could not be sent, for the report.
    unsent: Option<io::ErrorKind>,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// Call [`Session::on_time`] then, unless a packet comes first.
    WakeAt(Instant),
    /// Have these bytes read, and call [`Session::on_read`]: offset and length.
    Read(u64, usize),
    /// It is over.
    Over(Outcome),
}

/// How a session ended.
#[derive(Debug)]
pub enum Outcome {
    /// By the protocol.
    Ended(End),
    /// For a newer request.
    GaveWay,
    /// With the appliance.
    Stopped,
    /// The file could not be read.
    Unreadable(io::Error),
}

/// What is told of a session that is over.
#[derive(Debug)]
pub struct Report {
    /// The client.
    pub peer: SocketAddr,
    /// For the machine's timeline.
    pub seen: Seen,
    /// Whether the whole file arrived.
    pub complete: bool,
    /// Blocks that were sent again.
    pub resent: u64,
    /// Milliseconds it took.
    pub took_ms: u64,
    /// Whether the client ever answered.
    pub answered: bool,
    /// Whether the machine's timeline holds it.
    pub is_told: bool,
}

impl Session {
    /// A transfer that has not begun.
    pub fn new(peer: SocketAddr, name: &str, found: Found, terms: Terms, place: Place, socket: UdpSocket) -> Self {
        let transfer = Transfer::new(found.content.len(), &terms);
        let Terms { blksize, windowsize: window, answer, .. } = terms;
        let option_ack = if answer.is_empty() { Vec::new() } else { Packet::OptionAck(answer).to_bytes() };
        Self {
            peer,
            name: name.into(),
            found,
            blksize,
            window,
            option_ack: option_ack.into(),
            transfer,
            sender: Sender::new(socket, peer, blksize, window),
            place,
            started: Instant::now(),
            strangers: 0,
            half_open: true,
            ahead: None,
            waiting: None,
            unsent: None,
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &UdpSocket {
        self.sender.socket()
    }

    /// Its place among the transfers.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sends the first packet.
    pub fn start(&mut self, buffers: &mut Buffers) -> Next {
        self.started = Instant::now();
        let step = self.transfer.start(Duration::ZERO);
        self.perform(step, buffers)
    }

    /// Takes one packet from the socket.
    pub fn on_readable(&mut self, buffers: &mut Buffers) -> Next {
        match self.receive(Waiting::Not, buffers) {
            Some(next) => next,
            None => self.perform(self.transfer.wait(), buffers),
        }
    }

    /// Takes one packet from the socket, if there is one.
    pub fn receive(&mut self, waiting: Waiting, buffers: &mut Buffers) -> Option<Next> {
        let mut datagram = [0; RECEIVE];
        let step = match self.sender.receive(&mut datagram, waiting) {
            Ok((length, from)) if from == self.peer => match Packet::parse(&datagram[..length]) {
                Ok(packet) => self.transfer.on_packet(&packet, self.started.elapsed()),
                Err(_) => self.transfer.wait(),
            },
            Ok((_, from)) => {
                if self.strangers < MAX_STRANGERS {
                    self.strangers += 1;
                    let _ = self.sender.packet_to(&unknown_transfer().to_bytes(), from);
                }
                self.transfer.wait()
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.transfer.on_port_closed(),
            Err(_) => return None,
        };
        if self.half_open && !self.transfer.is_half_open() {
            self.half_open = false;
            self.place.opened();
            self.sender.segment();
        }
        Some(self.perform(step, buffers))
    }

    /// The time of [`Next::WakeAt`] has come.
    pub fn on_time(&mut self, buffers: &mut Buffers) -> Next {
        if self.waiting.is_some() {
            // The disk is slow, not the client.
            return Next::WakeAt(Instant::now() + Duration::from_secs(1));
        }
        if self.half_open && self.place.is_crowded() {
            return Next::Over(Outcome::Ended(End::NeverAnswered));
        }
        if self.transfer.awaits_last_ack() {
            let _ = self.socket().connect(self.peer);
        }
        let step = self.transfer.on_timeout(self.started.elapsed());
        self.perform(step, buffers)
    }

    /// The disk has delivered.
    pub fn on_read(&mut self, offset: u64, read: io::Result<Bytes>, buffers: &mut Buffers) -> Next {
        match read {
            Ok(bytes) => self.ahead = Some((offset, bytes)),
            Err(error) => return Next::Over(Outcome::Unreadable(error)),
        }
        let emit = self.waiting.take().map_or(Emit::Nothing, Emit::Blocks);
        let Step { then, .. } = self.transfer.wait();
        self.perform(Step { emit, then }, buffers)
    }

    /// Tells the client that the appliance stops.
    pub fn say_goodbye(&self) {
        let message = "the server stops; try again".to_owned();
        let _ = self.sender.packet(&Packet::Error { code: ErrorCode::UNDEFINED, message }.to_bytes());
    }

    fn perform(&mut self, step: Step, buffers: &mut Buffers) -> Next {
        let sent = match step.emit {
            Emit::Nothing => Ok(()),
            Emit::OptionAck => self.sender.packet(&self.option_ack),
            Emit::Blocks(blocks) => match self.send(blocks, buffers) {
                Ok(None) => Ok(()),
                Ok(Some((offset, length))) => return Next::Read(offset, length),
                Err(Failure::Read(error)) => return Next::Over(Outcome::Unreadable(error)),
                Err(Failure::Send(error)) => Err(error),
            },
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if let Then::Over(end) = self.transfer.on_port_closed().then {
                    return Next::Over(Outcome::Ended(end));
                }
            }
            // A full buffer, a filter's EPERM, a link that is down: lost like anything on a wire, and sent again.
            Err(error) => self.unsent = Some(error.kind()),
            Ok(()) => {}
        }
        match step.then {
            Then::WakeAt(at) => Next::WakeAt(self.started + at),
            Then::Over(end) => Next::Over(Outcome::Ended(end)),
        }
    }

    /// Sends blocks, or says what has to be read first.
    fn send(&mut self, blocks: RangeInclusive<u64>, buffers: &mut Buffers) -> Result<Option<(u64, usize)>, Failure> {
        let (mut next, last) = blocks.into_inner();
        while next <= last {
            let end = last.min(next + self.sender.batch() - 1);
            let (start, _) = self.transfer.extent(next);
            let (last_start, last_length) = self.transfer.extent(end);
            let length = (last_start - start) as usize + last_length;
            let ahead = self.ahead.as_ref().and_then(|(at, bytes)| within(*at, bytes, start, length));
            let payloads = match ahead {
                Some(payloads) => payloads,
                None => {
                    match self.found.content.at_hand(start, length, &mut buffers.payloads).map_err(Failure::Read)? {
                        Some(payloads) => payloads,
                        None => {
                            self.waiting = Some(next..=last);
                            return Ok(Some((start, length)));
                        }
                    }
                }
            };
            let count = end - next + 1;
            let sent = self.sender.blocks(wire_number(next), payloads, count, &mut buffers.datagrams);
            sent.map_err(Failure::Send)?;
            next = end + 1;
        }
        Ok(None)
    }

    /// What to read for [`Next::Read`].
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// What is told of it at its end.
    pub fn report(&self, outcome: &Outcome) -> Report {
        let figures = self.transfer.figures();
        let complete = matches!(outcome, Outcome::Ended(end) if end.is_complete());
        let bytes = if complete { self.found.content.len() } else { figures.bytes };
        // What was waited for a last ACK is not the transfer's time.
        let took = match outcome {
            Outcome::Ended(End::Unconfirmed) => self.transfer.progressed_at(),
            _ => self.started.elapsed(),
        };
        let took_ms = took.as_millis() as u64;
        let seen = match self.found.blob {
            Some(digest) => Seen::BlobRead { digest, part: String::new(), bytes, complete, took_ms },
            None => {
                let (by, file, detail) = ("tftp".to_owned(), self.name.to_string(), self.detail(outcome));
                Seen::LoaderRead { by, file, bytes, complete, detail, took_ms }
            }
        };
        Report {
            peer: self.peer,
            seen,
            complete,
            resent: figures.resent,
            took_ms,
            answered: !self.half_open,
            is_told: self.found.is_told,
        }
    }

    fn detail(&self, outcome: &Outcome) -> String {
        let mut detail = format!("block {}, window {}", self.blksize, self.window);
        let resent = self.transfer.figures().resent;
        if resent > 0 {
            detail += &format!(", {resent} resends");
        }
        if let Some(kind) = self.unsent {
            detail += &format!(", sending failed: {kind}");
        }
        match outcome {
            Outcome::Ended(End::Finished) => detail,
            Outcome::Ended(End::SizeProbe) => End::SizeProbe.to_string(),
            Outcome::Ended(end) => format!("{end}; {detail}"),
            Outcome::GaveWay => format!("gave way to a newer request; {detail}"),
            Outcome::Stopped => format!("the appliance stopped; {detail}"),
            Outcome::Unreadable(error) => format!("the file could not be read: {error}; {detail}"),
        }
    }
}

enum Failure {
    Read(io::Error),
    Send(io::Error),
}

/// A stretch of the file out of what lies at `at`.
fn within(at: u64, bytes: &Bytes, start: u64, length: usize) -> Option<&[u8]> {
    let from = usize::try_from(start.checked_sub(at)?).ok()?;
    bytes.get(from..from.checked_add(length)?)
}

fn unknown_transfer() -> Packet {
    Packet::Error { code: ErrorCode::UNKNOWN_TID, message: "this is not your transfer".to_owned() }
}
