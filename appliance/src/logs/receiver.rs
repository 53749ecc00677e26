//! The ear: syslog over UDP (RFC 5426) and TCP (RFC 6587) on an interface of the provisioning plane.
//!
//! Whose a message is, its sender's address tells, by lease or neighbour; what it says of itself is not believed. Who sends
//! too much loses lines of its own, never another's.

use super::Kept;
use crate::{appliance::Appliance, http::connection, interfaces::Interface, privileges};
use bennu_rules::{
    MacAddress, Records,
    boot::BootId,
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
/// Machines whose pace is remembered.
const PACES: usize = 16_384;
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
}

impl Outcome {
    /// Every [`Outcome::name`].
    pub const NAMES: [&'static str; 7] = ["kept", "unknown", "forged", "no_boot", "limited", "empty", "busy"];

    /// One word for it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Which machine, and which boot of it.
type Whose = Result<(MacAddress, BootId), Outcome>;

/// What is remembered between messages.
#[derive(Default)]
struct Memory {
    known: HashMap<IpAddr, (Instant, Whose)>,
    paces: HashMap<MacAddress, Bucket>,
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
        let (machine, boot) = match self.whose(from) {
            Ok(known) => known,
            Err(unknown) => return unknown,
        };
        if !self.admits(machine) {
            return Outcome::Limited;
        }
        let Some(message) = Message::parse(bytes) else { return Outcome::Empty };
        let line = Kept { at: self.appliance.ledger.now(), message };
        if self.appliance.logs.keep(boot, line) { Outcome::Kept } else { Outcome::Busy }
    }

    fn whose(&self, from: IpAddr) -> Whose {
        let now = Instant::now();
        if let Some((until, known)) = self.memory().known.get(&from)
            && now < *until
        {
            return known.clone();
        }
        let found = self.find(from);
        let mut memory = self.memory();
        if memory.known.len() >= KNOWN {
            memory.known.clear();
        }
        memory.known.insert(from, (now + FOR, found.clone()));
        found
    }

    fn find(&self, from: IpAddr) -> Whose {
        let IpAddr::V4(address) = from else { return Err(Outcome::Unknown) };
        let mac = self.appliance.machine_at(from).ok_or(Outcome::Unknown)?;
        let seen = self.appliance.neighbour(address);
        let look = self.appliance.ledger.read(|records, live| {
            let owner = |mac| records.machine(mac).map_or(mac, |machine| machine.id);
            let id = owner(mac);
            if seen.is_some_and(|seen| owner(seen) != id) {
                return Err(Outcome::Forged);
            }
            live.boot(id).map(|boot| (id, boot.id.clone())).ok_or(Outcome::NoBoot)
        });
        look.unwrap_or(Err(Outcome::Busy))
    }

    fn admits(&self, machine: MacAddress) -> bool {
        let now = self.began.elapsed();
        let mut memory = self.memory();
        if memory.paces.len() >= PACES {
            memory.paces.retain(|_, bucket| !bucket.is_full(now));
        }
        memory.paces.entry(machine).or_default().take(OF_A_MACHINE, now)
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
