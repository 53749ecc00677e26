//! One transfer, as a state machine without a socket or a clock: packet or timeout in, step out.
//!
//! ```text
//!            start             ACK 0 / ACK 1              last block ACKed
//!   (asked) ──────► Opening ──────────────────► Sending ───────────────────► Finished
//!                   one packet,                 a window per ACK
//!                   ≤ 5 resends                 adaptive resends
//!                      │ silent, or an ERROR       │ silent, or an ERROR
//!                      └──────────► end ◄──────────┘
//! ```
//!
//! Blocks are counted from 1 without wrapping; [`wire_number`] gives their 16 bits. What a window is answered
//! with decides what is sent:
//!
//! - An ACK of a block in flight moves the transfer on and brings a fresh window, from the block after it: that is
//!   progress or, in mid-window, the receiver's word that it misses the next one (RFC 7440 §4).
//! - An ACK repeated is ignored when the window is one block (RFC 1123 §4.2.3.1, the Sorcerer's Apprentice). With
//!   larger windows it may mean that a window's first block was lost, and is answered once.
//! - Every block sent twice may draw an ACK that means neither: EDK2 answers each unexpected block with one. Answering
//!   those by resends would multiply them for ever. So from a resend until a block that was never sent before is
//!   acknowledged, no ACK brings another resend: it only lets new blocks go, and a short silence after it, or the
//!   peer's own timer, mends what is lost meanwhile.
//! - Silence brings a resend after a time that follows the path (RFC 6298's estimate, Karn's rule), since the
//!   fixed 2 s of EDK2 and the like make a lossy path crawl. Repeated silence doubles it, until an ACK comes that is
//!   too late to belong to the first copy alone.

mod round_trip;
#[cfg(test)]
mod tests;

use super::{
    negotiate::Terms,
    packet::{ErrorCode, Packet},
};
use round_trip::RoundTrip;
use std::{fmt, ops::RangeInclusive, time::Duration};

/// Resends to a peer that never answered: its address may be forged, and we a reflector.
const MAX_OPENING_RESENDS: u32 = 5;
/// Resends of the last window, and how long its ACK is waited for at least: a receiver that has everything may be gone,
/// and one that has not asks again after its own timer, of 4 s in EDK2.
const FINAL_RESENDS: u32 = 5;
const FINAL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer that did answer may make no progress.
const PATIENCE: Duration = Duration::from_secs(25);

/// What the shell has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Send this.
    pub emit: Emit,
    /// Then this.
    pub then: Then,
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emit {
    /// Nothing.
    Nothing,
    /// The OACK with the agreed options.
    OptionAck,
    /// These blocks, counted from 1 without wrapping.
    Blocks(RangeInclusive<u64>),
}

/// What comes after sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Call [`Transfer::on_timeout`] at this time, unless a packet comes first.
    WakeAt(Duration),
    /// The transfer is over; free it.
    Over(End),
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every block was acknowledged.
    Finished,
    /// Every block was sent, and the last ACK never came: the peer closed its port, or is silent. One that misses a
    /// block would ask for it; one that has everything sends its last ACK once, and may be gone (RFC 1350 §6).
    Unconfirmed,
    /// The peer wanted the size only: it took the OACK and refused to go on.
    SizeProbe,
    /// The peer sent an ERROR.
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Its message.
        message: String,
    },
    /// The peer never answered.
    NeverAnswered,
    /// The peer stopped answering.
    FellSilent {
        /// Blocks acknowledged before.
        after: u64,
    },
}

impl End {
    /// Whether the whole file arrived, as far as can be known.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Finished | Self::Unconfirmed)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Unconfirmed => f.write_str("finished, the last ACK never came"),
            Self::SizeProbe => f.write_str("asked for the size only"),
            Self::Refused { code, message } if message.is_empty() => write!(f, "the client sent error {code}"),
            Self::Refused { code, message } => write!(f, "the client sent error {code}: {message}"),
            Self::NeverAnswered => f.write_str("the client never answered"),
            Self::FellSilent { after } => write!(f, "the client fell silent after block {after}"),
        }
    }
}

/// What a transfer cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of the file that were acknowledged.
    pub bytes: u64,
    /// Blocks sent again.
    pub resent: u64,
    /// Times that silence forced a resend.
    pub timeouts: u32,
}

/// The number that stands on the wire for a block: it wraps from 65535 to 0.
pub fn wire_number(block: u64) -> u16 {
    block as u16
}

/// A transfer of one file to one client. Times are since any fixed moment.
#[derive(Debug, Clone)]
pub struct Transfer {
    length: u64,
    blksize: u64,
    window: u64,
    last: u64,
    with_options: bool,
    asked_size: bool,
    /// An ACK came.
    answered: bool,
    /// Everything up to this block has arrived.
    acked: u64,
    /// The highest block ever sent.
    sent: u64,
    sent_at: Duration,
    /// Whether what is in flight was sent for the first time, so that its ACK measures a round trip (Karn).
    first_time: bool,
    /// ACKs of blocks up to this one may be echoes of blocks sent twice.
    echoes_to: u64,
    /// The peer seems to miss a block: if nothing more comes soon, it does.
    suspects_a_gap: bool,
    progress_at: Duration,
    resends: u32,
    rtt: RoundTrip,
    figures: Figures,
}

impl Transfer {
    /// A transfer of a file of `length` bytes under `terms`.
    pub fn new(length: u64, terms: &Terms) -> Self {
        let blksize = u64::from(terms.blksize);
        Self {
            length,
            blksize,
            window: u64::from(terms.windowsize),
            // A file that fills its last block needs an empty one to tell its end (RFC 1350 §6).
            last: length / blksize + 1,
            with_options: !terms.answer.is_empty(),
            asked_size: terms.answer.iter().any(|(name, _)| name == "tsize"),
            answered: false,
            acked: 0,
            sent: 0,
            sent_at: Duration::ZERO,
            first_time: true,
            echoes_to: 0,
            suspects_a_gap: false,
            progress_at: Duration::ZERO,
            resends: 0,
            rtt: RoundTrip::new(terms.timeout),
            figures: Figures::default(),
        }
    }

    /// The first packet.
    pub fn start(&mut self, now: Duration) -> Step {
        self.progress_at = now;
        if self.with_options { self.open(now) } else { self.send_window(now) }
    }

    /// A packet from the peer. What makes no sense in a transfer of ours is ignored.
    pub fn on_packet(&mut self, packet: &Packet, now: Duration) -> Step {
        match packet {
            Packet::Ack(number) => self.on_ack(*number, now),
            Packet::Error { code, message } => over(self.end_by_error(*code, message)),
            Packet::Read(_) | Packet::Write(_) | Packet::Data { .. } | Packet::OptionAck(_) => self.wait(),
        }
    }

    /// The peer's host said that nobody listens on its port any more (ICMP).
    pub fn on_port_closed(&mut self) -> Step {
        over(self.end_by_error(ErrorCode::UNKNOWN_TID, "its port is closed"))
    }

    /// The time of [`Then::WakeAt`] has come.
    pub fn on_timeout(&mut self, now: Duration) -> Step {
        if now < self.deadline() {
            return self.wait();
        }
        if let Some(end) = self.lost_patience(now) {
            return over(end);
        }
        self.figures.timeouts += 1;
        if self.suspects_a_gap {
            return self.send_window(now);
        }
        self.resends += 1;
        self.rtt.back_off();
        if self.answered || !self.with_options {
            return self.send_window(now);
        }
        self.first_time = false;
        self.open(now)
    }

    /// Whether the peer has not answered yet.
    pub fn is_half_open(&self) -> bool {
        !self.answered
    }

    /// Whether only ACKs are missing: the peer may have everything, and be gone.
    pub fn awaits_last_ack(&self) -> bool {
        self.answered && self.sent == self.last
    }

    /// What it cost so far.
    pub fn figures(&self) -> Figures {
        Figures { bytes: (self.acked * self.blksize).min(self.length), ..self.figures }
    }

    /// When an ACK last moved it on.
    pub fn progressed_at(&self) -> Duration {
        self.progress_at
    }

    /// Where in the file a block lies: offset and length.
    pub fn extent(&self, block: u64) -> (u64, usize) {
        let offset = (block - 1) * self.blksize;
        (offset, self.length.saturating_sub(offset).min(self.blksize) as usize)
    }

    fn on_ack(&mut self, number: u16, now: Duration) -> Step {
        let ahead = u64::from(number.wrapping_sub(wire_number(self.acked)));
        let block = self.acked + ahead;
        if block > self.sent {
            return self.wait();
        }
        let opens = !self.answered && self.with_options;
        if ahead == 0 && !opens {
            return self.on_repeated_ack(now);
        }
        let in_mid_window = block < self.sent;
        self.answered = true;
        self.progress(block, now);
        if block == self.last {
            return over(End::Finished);
        }
        if in_mid_window && self.expects_echoes() { self.send_new(now) } else { self.send_window(now) }
    }

    fn progress(&mut self, block: u64, now: Duration) {
        let waited = now.saturating_sub(self.sent_at);
        if self.first_time {
            self.rtt.measured(waited);
        } else {
            self.rtt.answered_a_resend(waited);
        }
        self.acked = block;
        self.progress_at = now;
        self.resends = 0;
    }

    fn on_repeated_ack(&mut self, now: Duration) -> Step {
        if self.dallies() {
            return self.send_window(now);
        }
        let waited = now.saturating_sub(self.sent_at);
        let is_the_peers_timer = waited >= self.rtt.estimate();
        let may_be_an_echo = waited < self.rtt.fastest / 2 || self.expects_echoes();
        if self.window == 1 || (may_be_an_echo && !is_the_peers_timer) {
            return self.wait();
        }
        self.send_window(now)
    }

    fn open(&mut self, now: Duration) -> Step {
        self.sent_at = now;
        Step { emit: Emit::OptionAck, then: Then::WakeAt(self.deadline()) }
    }

    fn send_window(&mut self, now: Duration) -> Step {
        let first = self.acked + 1;
        let end = (self.acked + self.window).min(self.last);
        let again = (self.sent.min(end) + 1).saturating_sub(first);
        self.first_time = again == 0;
        self.figures.resent += again;
        self.sent = self.sent.max(end);
        if again > 0 {
            self.echoes_to = self.sent;
        }
        self.sent_at = now;
        self.suspects_a_gap = false;
        Step { emit: Emit::Blocks(first..=end), then: Then::WakeAt(self.deadline()) }
    }

    /// Lets the window slide without going back in it.
    fn send_new(&mut self, now: Duration) -> Step {
        let first = self.sent + 1;
        self.sent = self.sent.max((self.acked + self.window).min(self.last));
        self.first_time = false;
        self.sent_at = now;
        self.suspects_a_gap = true;
        let emit = if first <= self.sent { Emit::Blocks(first..=self.sent) } else { Emit::Nothing };
        Step { emit, then: Then::WakeAt(self.deadline()) }
    }

    /// Once a block beyond those is acknowledged, the wire carries no more answers to them.
    fn expects_echoes(&self) -> bool {
        self.echoes_to > 0 && self.acked <= self.echoes_to
    }

    fn lost_patience(&self, now: Duration) -> Option<End> {
        if !self.answered {
            return (self.resends >= MAX_OPENING_RESENDS).then_some(End::NeverAnswered);
        }
        let silent = now.saturating_sub(self.progress_at);
        if self.awaits_last_ack() {
            return (self.dallies() && silent >= FINAL_PATIENCE).then_some(End::Unconfirmed);
        }
        (silent >= PATIENCE).then_some(End::FellSilent { after: self.acked })
    }

    fn end_by_error(&self, code: ErrorCode, message: &str) -> End {
        if code == ErrorCode::UNKNOWN_TID && self.awaits_last_ack() {
            return End::Unconfirmed;
        }
        if !self.answered && self.asked_size {
            return End::SizeProbe;
        }
        End::Refused { code, message: message.to_owned() }
    }

    /// Whether the last window was resent as often as it is, and only a client that asks gets it again.
    fn dallies(&self) -> bool {
        self.awaits_last_ack() && self.resends >= FINAL_RESENDS
    }

    fn deadline(&self) -> Duration {
        let wait = if self.suspects_a_gap { self.rtt.estimate() } else { self.rtt.timeout };
        let deadline = self.sent_at + wait;
        if self.dallies() { deadline.max(self.progress_at + FINAL_PATIENCE) } else { deadline }
    }

    /// No change: wait on, as the step before said.
    pub fn wait(&self) -> Step {
        Step { emit: Emit::Nothing, then: Then::WakeAt(self.deadline()) }
    }
}

fn over(end: End) -> Step {
    Step { emit: Emit::Nothing, then: Then::Over(end) }
}
