//! Hears the DHCP servers of a wire, and asks who they are. Through a packet socket: so no port has to be free, and
//! our own servers on this host do not hear the question.

use super::{Card, Datagram, PacketSocket};
use bennu_rules::{
    MacAddress,
    dhcp::{
        CLIENT_PORT, SERVER_PORT,
        others::{Appliance, Call, Heard, Looks, question},
    },
};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::SockFilter;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// A server may look for the address first that it is going to offer (RFC 2131 §2.2).
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Switches lose packets while they learn.
const QUESTIONS: u32 = 3;
/// Between two of them.
const PACE: Duration = Duration::from_secs(1);
/// How long a Bennu on the wire may take to answer a call; it answers at once.
const ANSWERED: Duration = Duration::from_millis(300);
/// Between two calls of a look.
const CALLS_PACE: Duration = Duration::from_millis(100);
/// A DHCP packet in its datagram.
const LARGEST: usize = 4096;

/// Listens to one wire.
pub struct Ear {
    socket: PacketSocket,
    ours: Vec<Card>,
}

/// A word that was heard on the wire.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    /// A server's.
    Server(Other),
    /// A Bennu's to others.
    Call(Call),
}

/// What was heard, and whose card sent it.
#[derive(Debug, Clone, Copy)]
pub struct Other {
    /// What.
    pub heard: Heard,
    /// Whose.
    pub card: MacAddress,
}

impl Ear {
    /// Listens; `None` where the interface is no Ethernet.
    pub fn open(interface: &str) -> io::Result<Option<Self>> {
        let Some(card) = Card::of(interface) else { return Ok(None) };
        let socket = PacketSocket::listener(card, libc::ETH_P_IP, &only_servers())?;
        Ok(Some(Self { socket, ours: Card::all() }))
    }

    /// The card that it listens with.
    pub fn card(&self) -> MacAddress {
        self.socket.card().mac
    }

    /// Asks as a card that does not exist.
    pub async fn ask(&self, who: Looks) -> io::Result<()> {
        let [a, b, c, d, e, xid @ ..] = chance::<9>()?;
        // Locally administered, so no machine has it (IEEE 802, clause 8.4). The frame itself is our card's, since
        // switches and hypervisors may shut out a port that speaks for another card.
        let message = question(MacAddress([0x02, a, b, c, d, e]), u32::from_be_bytes(xid), who);
        self.send(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT), SERVER_PORT, &message).await
    }

    /// Calls the Bennus of the wire, from our own address there. The transaction that they answer.
    pub async fn call(&self, own: Ipv4Addr) -> io::Result<u32> {
        let call = Call { xid: u32::from_be_bytes(chance()?), card: self.card() };
        self.send(SocketAddrV4::new(own, SERVER_PORT), CLIENT_PORT, &call.packet()).await.map(|()| call.xid)
    }

    /// Answers the call of another Bennu.
    pub async fn answer(&self, call: Call, own: Ipv4Addr, appliance: Appliance) -> io::Result<()> {
        self.send(SocketAddrV4::new(own, SERVER_PORT), CLIENT_PORT, &call.answered(own, appliance)).await
    }

    async fn send(&self, from: SocketAddrV4, to: u16, message: &[u8]) -> io::Result<()> {
        let packet = Datagram { from, to: SocketAddrV4::new(Ipv4Addr::BROADCAST, to), payload: message }.packet()?;
        self.socket.send(MacAddress([0xff; 6]), &packet).await
    }

    /// Waits until a server says something that is not ours.
    pub async fn hear(&self) -> io::Result<Other> {
        loop {
            if let Word::Server(other) = self.listen().await? {
                return Ok(other);
            }
        }
    }

    /// Waits for a word of a server, or of a Bennu to others.
    pub async fn listen(&self) -> io::Result<Word> {
        let mut buffer = [0; LARGEST];
        loop {
            let (length, card) = self.socket.receive(&mut buffer).await?;
            // By the card, for a twin may have our very address.
            if self.ours.iter().any(|own| own.mac == card) {
                continue;
            }
            let Some(datagram) = Datagram::read(&buffer[..length]) else { continue };
            if let Some(call) = Call::parse(datagram.payload) {
                return Ok(Word::Call(call));
            }
            if let Some(heard) = Heard::parse(datagram.payload, *datagram.from.ip()) {
                return Ok(Word::Server(Other { heard, card }));
            }
        }
    }

    /// Calls the Bennus of the wire a few times, and gathers what they answer meanwhile.
    pub async fn look_for_bennus(&self, own: Ipv4Addr) -> io::Result<Vec<Other>> {
        let (began, mut found) = (Instant::now(), Vec::new());
        for round in 1..=QUESTIONS {
            self.call(own).await?;
            let until = began + if round == QUESTIONS { ANSWERED } else { CALLS_PACE * round };
            while let Ok(other) = timeout_at(until, self.hear()).await {
                found.push(other?);
            }
        }
        Ok(found)
    }

    /// Asks a few times, and gathers the servers that are heard meanwhile, each once.
    pub async fn look(&self, who: Looks) -> io::Result<Vec<Other>> {
        let began = Instant::now();
        let mut found: BTreeMap<Ipv4Addr, Other> = BTreeMap::new();
        for round in 1..=QUESTIONS {
            self.ask(who).await?;
            let until = began + if round == QUESTIONS { PATIENCE } else { PACE * round };
            while let Ok(other) = timeout_at(until, self.hear()).await {
                let other = other?;
                let known = found.entry(other.heard.server).or_insert(other);
                if other.heard.appliance.is_some() {
                    *known = other;
                }
            }
        }
        Ok(found.into_values().collect())
    }
}

fn chance<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Lets nothing but BOOTP replies wake us: whole UDP packets from port 67 or to port 68 whose first byte is 2.
fn only_servers() -> [SockFilter; 13] {
    let load = |size: u32, mode: u32, at: u32| SockFilter::new((libc::BPF_LD | size | mode) as u16, 0, 0, at);
    let jump = |test: u32, value: u32, yes: u8, no: u8| {
        SockFilter::new((libc::BPF_JMP | test | libc::BPF_K) as u16, yes, no, value)
    };
    let finish = |length: u32| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, length);
    let header_length = SockFilter::new((libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16, 0, 0, 0);
    let (byte, half, absolute, indexed) = (libc::BPF_B, libc::BPF_H, libc::BPF_ABS, libc::BPF_IND);
    let (equal, any_bit) = (libc::BPF_JEQ, libc::BPF_JSET);
    [
        load(byte, absolute, 9),
        jump(equal, libc::IPPROTO_UDP as u32, 0, 10),
        load(half, absolute, 6),
        // A later fragment has no ports.
        jump(any_bit, 0x1fff, 8, 0),
        header_length,
        load(half, indexed, 0),
        jump(equal, u32::from(SERVER_PORT), 2, 0),
        load(half, indexed, 2),
        jump(equal, u32::from(CLIENT_PORT), 0, 3),
        load(byte, indexed, 8),
        jump(equal, 2, 0, 1),
        finish(u32::MAX),
        finish(0),
    ]
}
