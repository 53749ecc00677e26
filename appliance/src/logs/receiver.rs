//! The ear: syslog over UDP (RFC 5426) and TCP (RFC 6587) on an interface of the provisioning plane.
//!
//! Whose a message is, its sender's address tells, by lease or neighbour; what it says of itself is not believed, but a
//! proof that only the boot's own session could make. Who sends too much loses lines of its own, never another's, and what
//! proves nothing takes no room from what does.

use super::{Kept, Said};
use crate::{appliance::Appliance, http::connection, interfaces::Interface, privileges, secrets::SessionSecret};
use bennu_plan::LogClaim;
use bennu_rules::{
    MacAddress, Records,
    boot::{Boot, BootId},
    syslog::{Framer, MAX_MESSAGE, Message},
    tftp::limit::{Bucket, Rate},
};
use socket2::{Domain, SockAddr};
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Lines of one machine: a boot says some thousand at once, and a service in trouble a few a second.
const OF_A_MACHINE: Rate = Rate { every: Duration::from_millis(5), burst: 5000 };
/// Lines without a proof of a machine whose stage 1 could give them one: whoever takes its address sends such lines.
const UNPROVEN: Rate = Rate { every: Duration::from_millis(20), burst: 1000 };
/// Looks for who has an address that is not remembered, on one interface: a flood with invented senders costs no more.
const LOOKS: Rate = Rate { every: Duration::from_millis(2), burst: 1000 };
/// Machines that are remembered.
const SPEAKERS: usize = 16_384;
/// Addresses whose machine is remembered, and for how long.
const KNOWN: usize = 8192;
const FOR: Duration = Duration::from_secs(1);
/// Connections of one address; a newer one ends the oldest, which a machine left behind when it started anew.
const CONNECTIONS_OF_ONE: usize = 4;
const CONNECTIONS: usize = 4096;
/// Nothing is said for so long: whoever comes back connects again.
const IDLE: Duration = Duration::from_secs(3600);
/// A socket that fails is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Both ports of an interface, bound.
pub struct Listener {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// Binds them; `None` where nobody is to listen.
    pub fn bind(interface: &Interface, port: Option<u16>) -> io::Result<Option<Self>> {
        let Some(port) = port else { return Ok(None) };
        let local = SocketAddr::from((interface.address, port));
        let udp = privileges::receiver(Domain::IPV4, |socket| {
            socket.set_nonblocking(true)?;
            socket.bind_device(Some(interface.name.as_bytes()))?;
            socket.bind(&SockAddr::from(local))
        })?;
        let tcp = connection::bind_tcp(local, &interface.name).map_err(io::Error::other)?;
        Ok(Some(Self { udp: UdpSocket::from_std(udp.into())?, tcp }))
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept.
    Kept,
    /// Nobody known has that address.
    Unknown,
    /// The address is leased to another card than the one that has it.
    Forged,
    /// No boot of the machine is known.
    NoBoot,
    /// The machine says too much.
    Limited,
    /// There is nothing in it.
    Empty,
    /// The disk is behind.
    Busy,
    /// It was heard before: sent again after a broken connection, or by somebody who overheard it.
    Repeated,
}

impl Outcome {
    /// Every [`Outcome::name`].
    pub const NAMES: [&'static str; 8] =
        ["kept", "unknown", "forged", "no_boot", "limited", "empty", "busy", "repeated"];

    /// One word for it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// A machine that is known, and the boot that it is in.
#[derive(Clone)]
struct Known {
    machine: MacAddress,
    boot: BootId,
    /// What its lines are proved with, where a session owns the boot.
    secret: Option<Arc<SessionSecret>>,
}

/// What is remembered of a machine.
#[derive(Default)]
struct Speaker {
    pace: Bucket,
    unproven: Bucket,
    /// The last line that was proved, and of which boot.
    last: Option<(BootId, u64)>,
}

impl Speaker {
    fn is_idle(&self, now: Duration) -> bool {
        self.pace.is_full(now) && self.unproven.is_full(now)
    }
}

/// What is remembered between messages.
#[derive(Default)]
struct Memory {
    known: HashMap<IpAddr, (Instant, Known)>,
    strangers: HashMap<IpAddr, (Instant, Outcome)>,
    looks: Bucket,
    speakers: HashMap<MacAddress, Speaker>,
    connections: HashMap<IpAddr, VecDeque<AbortHandle>>,
}

/// Takes messages of one interface.
#[derive(Clone)]
pub struct Ear {
    appliance: Arc<Appliance>,
    began: Instant,
    memory: Arc<Mutex<Memory>>,
}

impl Ear {
    /// One that has heard nothing yet.
    pub fn new(appliance: Arc<Appliance>) -> Self {
        Self { appliance, began: Instant::now(), memory: Arc::default() }
    }

    /// Takes one message, and says what became of it.
    pub fn hear(&self, from: IpAddr, bytes: &[u8]) -> Outcome {
        let outcome = self.take(from.to_canonical(), bytes);
        self.appliance.metrics.log_line(outcome.name());
        outcome
    }

    fn take(&self, from: IpAddr, bytes: &[u8]) -> Outcome {
        let known = match self.whose(from) {
            Ok(known) => known,
            Err(unknown) => return unknown,
        };
        let claim = LogClaim::of(bytes);
        let is_proven = |known: &Known| match (&known.secret, &claim) {
            (Some(secret), Some(claim)) => secret.verifies(&claim.proved, &claim.mac),
            _ => false,
        };
        let sequence = claim.as_ref().filter(|_| is_proven(&known)).map(|claim| claim.sequence);
        let last = sequence.and_then(|_| self.last_of(&known));
        if let Err(refused) = self.admit(&known, sequence, last) {
            return refused;
        }
        let Some(message) = Message::parse(bytes) else { return Outcome::Empty };
        let line = Kept::new(self.appliance.ledger.now(), sequence, message);
        let Known { machine, boot, .. } = known;
        if self.appliance.logs.keep(Said { machine, boot, line }) { Outcome::Kept } else { Outcome::Busy }
    }

    fn whose(&self, from: IpAddr) -> Result<Known, Outcome> {
        let now = Instant::now();
        let mut memory = self.memory();
        if let Some((until, outcome)) = memory.strangers.get(&from)
            && now < *until
        {
            return Err(*outcome);
        }
        let known = memory.known.get(&from).cloned();
        if let Some((until, known)) = &known
            && now < *until
        {
            return Ok(known.clone());
        }
        if !memory.looks.take(LOOKS, self.began.elapsed()) {
            // A flood of strangers makes no stranger of whom we know.
            return known.map(|(_, known)| known).ok_or(Outcome::Limited);
        }
        drop(memory);
        let found = self.find(from);
        let mut memory = self.memory();
        match &found {
            Ok(known) => {
                if memory.known.len() >= KNOWN {
                    memory.known.retain(|_, (until, _)| now < *until);
                }
                // A session may begin in the next moment, and its first line come with it.
                let lasts = if known.secret.is_none() { FOR / 10 } else { FOR };
                memory.known.insert(from, (now + lasts, known.clone()));
            }
            Err(outcome) => {
                if memory.strangers.len() >= KNOWN {
                    memory.strangers.clear();
                }
                memory.known.remove(&from);
                memory.strangers.insert(from, (now + FOR, *outcome));
            }
        }
        found
    }

    fn find(&self, from: IpAddr) -> Result<Known, Outcome> {
        let IpAddr::V4(address) = from else { return Err(Outcome::Unknown) };
        let mac = self.appliance.machine_at(from).ok_or(Outcome::Unknown)?;
        let seen = self.appliance.neighbour(address);
        let secret = |boot: &Boot| {
            let session = boot.session.as_ref()?;
            Some(Arc::new(self.appliance.keyring.session(&boot.id, &session.key)))
        };
        let look = self.appliance.ledger.read(|records, live| {
            let owner = |mac| records.machine(mac).map_or(mac, |machine| machine.id);
            let id = owner(mac);
            if seen.is_some_and(|seen| owner(seen) != id) {
                return Err(Outcome::Forged);
            }
            let boot = live.boot(id).ok_or(Outcome::NoBoot)?;
            Ok(Known { machine: boot.machine, boot: boot.id.clone(), secret: secret(boot) })
        });
        look.unwrap_or(Err(Outcome::Busy))
    }

    /// Where a boot's lines stood when they were last heard, which may be before this program started.
    fn last_of(&self, known: &Known) -> Option<u64> {
        if let Some((boot, last)) = self.memory().speakers.get(&known.machine).and_then(|speaker| speaker.last.as_ref())
            && *boot == known.boot
        {
            return Some(*last);
        }
        self.appliance.logs.last_sequence(known.machine, &known.boot).ok().flatten()
    }

    /// Whether a line may come now; `sequence` is that of a line which is proved, and `last` that of the one before it.
    fn admit(&self, known: &Known, sequence: Option<u64>, last: Option<u64>) -> Result<(), Outcome> {
        let now = self.began.elapsed();
        let mut memory = self.memory();
        if memory.speakers.len() >= SPEAKERS && !memory.speakers.contains_key(&known.machine) {
            memory.speakers.retain(|_, speaker| !speaker.is_idle(now));
            if memory.speakers.len() >= SPEAKERS {
                return Err(Outcome::Limited);
            }
        }
        let speaker = memory.speakers.entry(known.machine).or_default();
        let Some(sequence) = sequence else {
            let rate = if known.secret.is_some() { UNPROVEN } else { OF_A_MACHINE };
            return speaker.unproven.take(rate, now).then_some(()).ok_or(Outcome::Limited);
        };
        let heard = speaker.last.as_ref().filter(|(boot, _)| *boot == known.boot).map(|(_, last)| *last);
        if heard.max(last).is_some_and(|last| last >= sequence) {
            return Err(Outcome::Repeated);
        }
        if !speaker.pace.take(OF_A_MACHINE, now) {
            return Err(Outcome::Limited);
        }
        speaker.last = Some((known.boot.clone(), sequence));
        Ok(())
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a connection of `peer`.
    fn connected(&self, peer: IpAddr, connection: AbortHandle) {
        let mut memory = self.memory();
        memory.connections.retain(|_, all| {
            all.retain(|one| !one.is_finished());
            !all.is_empty()
        });
        let all = memory.connections.entry(peer).or_default();
        all.push_back(connection);
        if all.len() > CONNECTIONS_OF_ONE
            && let Some(oldest) = all.pop_front()
        {
            oldest.abort();
        }
    }
}

/// Listens until it is stopped.
pub async fn serve(listener: Listener, appliance: Arc<Appliance>, stop: CancellationToken) {
    let Listener { udp, tcp } = listener;
    let ear = Ear::new(appliance);
    let mut connections = JoinSet::new();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            received = udp.recv_from(&mut buffer) => match received {
                Ok((length, peer)) => {
                    ear.hear(peer.ip(), &buffer[..length]);
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            accepted = tcp.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    // Whoever nobody knows is not listened to.
                    if let Err(outcome) = ear.whose(peer.ip().to_canonical()) {
                        ear.appliance.metrics.log_line(outcome.name());
                        continue;
                    }
                    let handle = connections.spawn(listen(stream, peer.ip(), ear.clone()));
                    ear.connected(peer.ip(), handle);
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

async fn listen(mut stream: TcpStream, peer: IpAddr, ear: Ear) {
    let (mut framer, mut buffer) = (Framer::default(), vec![0; 4096]);
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(IDLE, stream.read(&mut buffer)).await {
        framer.push(&buffer[..length], |frame| {
            ear.hear(peer, frame);
        });
    }
    framer.finish(|frame| {
        ear.hear(peer, frame);
    });
}
