//! Looks for addresses on a wire by ARP before they are offered (RFC 2131 §3.1 step 2), as RFC 5227 §2.1.1 has it: who
//! asks says no address of its own, so nobody's cache learns anything from it.

use super::{Card, PacketSocket};
use crate::{appliance::Appliance, interfaces::Interface, ledger::Rule};
use bennu_rules::{
    Decision, MacAddress,
    dhcp::{Probed, probe_ahead, probed},
    notice::Notice,
};
use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacketSlice};
use futures_util::{StreamExt, stream};
use socket2::SockFilter;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long an answer is waited for where nobody waits for an offer.
const AHEAD_PATIENCE: Duration = Duration::from_millis(600);
/// Requests per address: one may be lost.
const REQUESTS: u32 = 3;
/// Addresses looked for at once ahead.
const AT_ONCE: usize = 32;
/// How often it is asked whether more is to be looked for.
const PACE: Duration = Duration::from_secs(1);
/// At least this long between two such looks at the state.
const BREATH: Duration = Duration::from_millis(100);
/// Without a newcomer for so long nothing is looked for ahead: a wire is left in peace.
const IDLE: Duration = Duration::from_secs(600);
/// Addresses being looked for at once. More offers at once than that go out unlooked for.
const MOST: usize = 4096;

/// What looking for an address found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nobody answered.
    Nobody,
    /// This card has it, or is about to take it.
    Card(MacAddress),
    /// It could not be looked for.
    Unknown,
}

/// The prober of one wire.
pub struct Prober {
    socket: PacketSocket,
    interface: String,
    own: Ipv4Addr,
    /// Who waits for an address, and which card answered for it.
    waiting: Mutex<BTreeMap<Ipv4Addr, watch::Sender<Option<MacAddress>>>>,
    newcomer: Notify,
}

impl Prober {
    /// On the wire of an interface; `None` where it is no Ethernet.
    pub fn open(interface: &Interface) -> io::Result<Option<Self>> {
        let Some(card) = Card::of(&interface.name) else { return Ok(None) };
        let all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX);
        let socket = PacketSocket::listener(card, libc::ETH_P_ARP, &[all])?;
        let (interface, own) = (interface.name.clone(), interface.address);
        Ok(Some(Self { socket, interface, own, waiting: Mutex::default(), newcomer: Notify::new() }))
    }

    /// Somebody asked for an address: more may be wanted soon.
    pub fn newcomer(&self) {
        self.newcomer.notify_one();
    }

    /// Looks for an address, for as long as an answer may take.
    pub async fn look_for(&self, address: Ipv4Addr, patience: Duration) -> Found {
        let Some(mut answer) = self.wait_for(address) else { return Found::Unknown };
        let began = Instant::now();
        for round in 1..=REQUESTS {
            if let Err(error) = self.request(address).await {
                tracing::debug!(%address, %error, "an address could not be looked for");
                drop(answer);
                self.forget(address);
                return Found::Unknown;
            }
            let until = began + patience * round / REQUESTS;
            if let Ok(Ok(found)) = timeout_at(until, answer.wait_for(Option::is_some)).await {
                return found.map_or(Found::Unknown, Found::Card);
            }
        }
        drop(answer);
        self.forget(address);
        Found::Nobody
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, watch::Sender<Option<MacAddress>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, address: Ipv4Addr) -> Option<watch::Receiver<Option<MacAddress>>> {
        let mut waiting = self.waiting();
        let has_room = waiting.len() < MOST;
        match waiting.entry(address) {
            Entry::Occupied(known) => Some(known.get().subscribe()),
            Entry::Vacant(place) => has_room.then(|| place.insert(watch::Sender::new(None)).subscribe()),
        }
    }

    fn forget(&self, address: Ipv4Addr) {
        let mut waiting = self.waiting();
        if waiting.get(&address).is_some_and(|sender| sender.receiver_count() == 0) {
            waiting.remove(&address);
        }
    }

    async fn request(&self, address: Ipv4Addr) -> io::Result<()> {
        let request = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: self.socket.card().mac.0,
            sender_ipv4: [0; 4],
            target_mac: [0; 6],
            target_ipv4: address.octets(),
        };
        self.socket.send(MacAddress([0xff; 6]), &request.to_bytes()).await
    }

    /// Listens, and keeps a pool of addresses looked for ahead, until it is stopped.
    pub async fn keep(self: Arc<Self>, appliance: Arc<Appliance>, stop: CancellationToken) {
        let listening = async {
            loop {
                match self.claim().await {
                    Ok(claim) => self.claimed(claim, &appliance).await,
                    Err(error) => {
                        tracing::debug!(%error, "ARP cannot be listened to");
                        tokio::time::sleep(PACE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = listening => {}
            () = self.look_ahead(&appliance) => {}
        }
    }

    /// Waits for a card that says or is about to say that an address is its own.
    async fn claim(&self) -> io::Result<Claim> {
        let mut buffer = [0; 64];
        loop {
            let (length, _) = self.socket.receive(&mut buffer).await?;
            let own = self.socket.card().mac;
            if let Some(claim) = Claim::read(&buffer[..length]).filter(|claim| claim.card != own) {
                return Ok(claim);
            }
        }
    }

    /// What is heard without having been asked for counts too: an address that was free until it was announced.
    async fn claimed(&self, claim: Claim, appliance: &Appliance) {
        let Claim { address, card, .. } = claim;
        if let Some(waiting) = self.waiting().remove(&address) {
            waiting.send_replace(Some(card));
            return;
        }
        if !claim.is_announced {
            return;
        }
        if address == self.own {
            let notice = Notice::AddressTaken { address, by: Some(card), found_by: None };
            appliance.ledger.notice(notice);
            return;
        }
        let in_range = |range: &std::ops::RangeInclusive<Ipv4Addr>| range.contains(&address);
        let is_of_a_range =
            appliance.settings().subnet_of(address).and_then(|subnet| subnet.range.as_ref()).is_some_and(in_range);
        let now = appliance.ledger.now();
        let was_free =
            |live: &bennu_rules::Live| live.vetted(address, now).is_some_and(|known| known.taken_by.is_none());
        if is_of_a_range && appliance.ledger.read(|_, live| was_free(live)).unwrap_or(false) {
            note(address, Found::Card(card), appliance).await;
        }
    }

    async fn look_ahead(&self, appliance: &Appliance) {
        let mut asked = Instant::now();
        loop {
            tokio::select! {
                () = self.newcomer.notified() => asked = Instant::now(),
                () = tokio::time::sleep(PACE), if asked.elapsed() < IDLE => {}
            }
            // However many newcomers there are.
            tokio::time::sleep(BREATH).await;
            // Who stands by offers none, and two that look for one address at a time think that the other takes it.
            if appliance.stands_by(&self.interface).is_some() {
                continue;
            }
            let ahead: Rule<Ipv4Addr, Vec<Ipv4Addr>> = |own, view, at| Decision::just(probe_ahead(view, at, *own));
            let wanted = appliance.ledger.ponder(&self.own, ahead).map(|decision| decision.answer).unwrap_or_default();
            stream::iter(wanted)
                .for_each_concurrent(AT_ONCE, |address| async move {
                    let found = self.look_for(address, AHEAD_PATIENCE).await;
                    note(address, found, appliance).await;
                })
                .await;
        }
    }
}

/// Tells the rules what the wire said of an address.
pub async fn note(address: Ipv4Addr, found: Found, appliance: &Appliance) {
    let taken_by = match found {
        Found::Nobody => None,
        Found::Card(card) => Some(card),
        Found::Unknown => return,
    };
    if let Err(fault) = appliance.ledger.decide(Probed { address, taken_by }, probed).await {
        tracing::debug!(%fault, %address, "what the wire said of an address could not be noted");
    }
}

/// A card that has an address, or is about to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    address: Ipv4Addr,
    card: MacAddress,
    /// It has it; else it looks whether somebody does, to take it then (RFC 5227 §2.1.1).
    is_announced: bool,
}

impl Claim {
    fn read(packet: &[u8]) -> Option<Self> {
        let packet = ArpPacketSlice::from_slice(packet).ok()?.to_packet().try_eth_ipv4().ok()?;
        let (sender, target) = (Ipv4Addr::from(packet.sender_ipv4), Ipv4Addr::from(packet.target_ipv4));
        let is_announced = !sender.is_unspecified();
        let address = if is_announced { sender } else { target };
        Some(Self { address, card: MacAddress(packet.sender_mac), is_announced })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let packet = ArpEthIpv4Packet {
            operation,
            sender_mac: [2, 0, 0, 0, 0, 7],
            sender_ipv4: sender,
            target_mac: [0; 6],
            target_ipv4: target,
        };
        packet.to_bytes().to_vec()
    }

    #[test]
    fn answers_announcements_and_probes_claim_an_address() {
        let (host, other) = ([10, 77, 0, 60], [10, 77, 0, 1]);
        let read = |operation, sender, target| {
            let claim = Claim::read(&packet(operation, sender, target)).unwrap();
            (claim.address.octets(), claim.is_announced)
        };
        assert_eq!(read(ArpOperation::REPLY, host, other), (host, true));
        assert_eq!(read(ArpOperation::REQUEST, host, host), (host, true), "gratuitous");
        assert_eq!(read(ArpOperation::REQUEST, host, other), (host, true), "who asks has an address, too");
        assert_eq!(read(ArpOperation::REQUEST, [0; 4], host), (host, false));
    }

    #[test]
    fn what_is_no_arp_claims_nothing() {
        let whole = packet(ArpOperation::REPLY, [10, 77, 0, 60], [10, 77, 0, 1]);
        for length in 0..whole.len() {
            assert_eq!(Claim::read(&whole[..length]), None);
        }
        let mut token_ring = whole.clone();
        token_ring[1] = 6;
        assert_eq!(Claim::read(&token_ring), None);
    }
}
