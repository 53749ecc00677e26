//! One transfer's life: its socket, its clock, its report. What to do is [`Transfer`]'s to say.
//!
//! The socket is not connected, since RFC 1350 §4 wants a stranger that hits its port to be told so (ERROR 5)
//! while the transfer lives; a connected one would never see the stranger. Only for the last ACK it is connected:
//! a client that has everything may be gone, and its host's "port unreachable" then tells.

use super::{content::Found, registry::Place, sender::Sender};
use bennu_rules::{
    journey::Seen,
    tftp::{Emit, End, ErrorCode, Packet, Terms, Then, Transfer},
};
use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Strangers that are told, for each transfer: the answer must not become a tool against them.
const MAX_STRANGERS: u32 = 8;
/// An ACK has 4 bytes, an ERROR a text.
const RECEIVE: usize = 600;

/// Everything one transfer needs.
pub struct Session {
    /// The client.
    pub peer: SocketAddr,
    /// The file's name.
    pub name: String,
    /// The file.
    pub found: Found,
    /// What was agreed.
    pub terms: Terms,
    /// Held while it goes on.
    pub place: Place,
    /// The appliance stops.
    pub shutdown: CancellationToken,
}

/// How the session ended.
enum Outcome {
    Ended(End),
    GaveWay,
    Stopped,
    Failed(io::Error),
}

impl Session {
    /// Runs the transfer to its end on a fresh socket; what was seen, and whether the whole file arrived.
    pub async fn run(self, socket: UdpSocket) -> (Seen, bool) {
        let started = Instant::now();
        let mut transfer = Transfer::new(self.found.content.len(), &self.terms);
        let sender = Sender::new(socket, self.peer, self.terms.blksize, self.terms.windowsize);
        let outcome = self.drive(&mut transfer, sender, started).await;
        self.report(&transfer, &outcome, started.elapsed())
    }

    async fn drive(&self, transfer: &mut Transfer, mut sender: Sender, started: Instant) -> Outcome {
        let mut step = transfer.start(Duration::ZERO);
        let mut strangers = 0;
        let mut half_open = true;
        loop {
            if let Err(error) = self.emit(transfer, &mut sender, step.emit).await {
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    return Outcome::Failed(error);
                }
                step = transfer.on_port_closed();
                step.emit = Emit::Nothing;
            }
            let wake_at = match step.then {
                Then::Over(end) => return Outcome::Ended(end),
                Then::WakeAt(at) => started + at,
            };
            let mut buffer = [0; RECEIVE];
            let received = tokio::select! {
                received = sender.socket().recv_from(&mut buffer) => Some(received),
                () = tokio::time::sleep_until(wake_at.into()) => None,
                () = self.place.stop.cancelled() => return Outcome::GaveWay,
                () = self.shutdown.cancelled() => return self.say_goodbye(&sender).await,
            };
            step = match received {
                None => {
                    if transfer.awaits_last_ack() {
                        let _ = sender.socket().connect(self.peer).await;
                    }
                    transfer.on_timeout(started.elapsed())
                }
                Some(Ok((length, from))) if from == self.peer => match Packet::parse(&buffer[..length]) {
                    Ok(packet) => transfer.on_packet(&packet, started.elapsed()),
                    Err(_) => transfer.wait(),
                },
                Some(Ok((_, from))) => {
                    strangers += 1;
                    if strangers <= MAX_STRANGERS {
                        let _ = sender.socket().send_to(&unknown_transfer().to_bytes(), from).await;
                    }
                    transfer.wait()
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => transfer.on_port_closed(),
                Some(Err(error)) => return Outcome::Failed(error),
            };
            if half_open && !transfer.is_half_open() {
                half_open = false;
                self.place.opened();
            }
        }
    }

    async fn emit(&self, transfer: &Transfer, sender: &mut Sender, emit: Emit) -> io::Result<()> {
        match emit {
            Emit::Nothing => Ok(()),
            Emit::OptionAck => sender.packet(&Packet::OptionAck(self.terms.answer.clone())).await,
            Emit::Blocks(blocks) => sender.blocks(transfer, &self.found.content, blocks).await,
        }
    }

    async fn say_goodbye(&self, sender: &Sender) -> Outcome {
        let message = "the server stops; try again".to_owned();
        let _ = sender.packet(&Packet::Error { code: ErrorCode::UNDEFINED, message }).await;
        Outcome::Stopped
    }

    fn report(&self, transfer: &Transfer, outcome: &Outcome, took: Duration) -> (Seen, bool) {
        let figures = transfer.figures();
        let complete = matches!(outcome, Outcome::Ended(end) if end.is_complete());
        let bytes = if complete { self.found.content.len() } else { figures.bytes };
        let took_ms = took.as_millis() as u64;
        if let Some(digest) = self.found.blob {
            return (Seen::BlobRead { digest, part: String::new(), bytes, complete, took_ms }, complete);
        }
        let mut detail = format!("block {}, window {}", self.terms.blksize, self.terms.windowsize);
        if figures.resent > 0 {
            detail += &format!(", {} resends", figures.resent);
        }
        match outcome {
            Outcome::Ended(End::Finished) => {}
            Outcome::Ended(End::SizeProbe) => detail = End::SizeProbe.to_string(),
            Outcome::Ended(end) => detail = format!("{end}; {detail}"),
            Outcome::GaveWay => detail = format!("gave way to a newer request; {detail}"),
            Outcome::Stopped => detail = format!("the appliance stopped; {detail}"),
            Outcome::Failed(error) => detail = format!("could not be sent: {error}; {detail}"),
        }
        let seen =
            Seen::LoaderRead { by: "tftp".to_owned(), file: self.name.clone(), bytes, complete, detail, took_ms };
        (seen, complete)
    }
}

fn unknown_transfer() -> Packet {
    Packet::Error { code: ErrorCode::UNKNOWN_TID, message: "this is not your transfer".to_owned() }
}
