//! Which transfers go on, so that no address and no flood takes more than its share.

use super::engine::Orders;
use bennu_rules::tftp::{
    Request,
    limit::{Bucket, Rate},
    peer::Standing,
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Transfers at once on one listener, if the limit of open files allows; each holds a socket.
const MAX_TRANSFERS: usize = 16_384;
/// Transfers at once of one address. A firmware has one or two, a rack behind one relaying address some hundred.
const MAX_PER_ADDRESS: usize = 256;
/// Half-open transfers of one address from which on none of them resends: clients ask again, forgers do not.
const CROWD: usize = 16;
/// Transfers that one thread drives as well as all: it stays awake for them.
const FEW: usize = 8;
/// A request that comes again within this time is a doubled packet or an impatient firmware, not a restarted one.
const REPEATED_WITHIN: Duration = Duration::from_secs(3);
/// Answers to addresses for which nothing speaks. Each costs the kernel an entry of its neighbour table for 3 s
/// while it asks for them in vain; the table has 1024 (`net.ipv4.neigh.default.gc_thresh3`) for everybody.
const UNPROVEN: Rate = Rate { every: Duration::from_millis(8), burst: 256 };
/// Errors to one address. shim and GRUB ask for a dozen files that may not be there.
const ERRORS: Rate = Rate { every: Duration::from_millis(100), burst: 64 };
/// Addresses whose errors are counted at once.
const MAX_ERRORED: usize = 4096;

/// The transfers of one listener.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    orders: Orders,
    capacity: usize,
    began: Instant,
    next: u64,
    hasher: RandomState,
    transfers: HashMap<SocketAddr, Entry>,
    addresses: HashMap<IpAddr, Share>,
    /// Transfers whose peer has not answered, oldest first: they give way.
    half_open: BTreeMap<u64, SocketAddr>,
    unproven: Bucket,
    errors: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// Tells a repeated request from another.
    fingerprint: u64,
    started: Instant,
    evicted: Arc<AtomicBool>,
}

/// What one address has.
#[derive(Debug, Default)]
struct Share {
    transfers: usize,
    half_open: BTreeMap<u64, u16>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Admission {
    /// Start a transfer, and hold this while it goes on.
    Start(Place),
    /// Nothing: its transfer has just begun, and resends by itself.
    Repeated,
    /// Nothing: too much goes on; the client asks again.
    Busy,
}

/// A transfer's place in the registry; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    registry: Registry,
    peer: SocketAddr,
    id: u64,
    evicted: Arc<AtomicBool>,
}

impl Registry {
    /// An empty one; transfers that have to give way are stopped by `orders`. Each takes one of `descriptors`, of
    /// which the other half is for everything else.
    pub fn new(orders: Orders, descriptors: usize) -> Self {
        let inner = Inner {
            orders,
            capacity: MAX_TRANSFERS.min(descriptors / 2).max(1),
            began: Instant::now(),
            next: 0,
            hasher: RandomState::new(),
            transfers: HashMap::new(),
            addresses: HashMap::new(),
            half_open: BTreeMap::new(),
            unproven: Bucket::default(),
            errors: HashMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Decides about a request of `peer` that deserves a transfer.
    pub fn admit(&self, peer: SocketAddr, request: &Request, standing: Standing, now: Instant) -> Admission {
        let mut inner = self.lock();
        let fingerprint = inner.hasher.hash_one(request);
        if let Some(known) = inner.transfers.get(&peer) {
            let young = now.saturating_duration_since(known.started) < REPEATED_WITHIN;
            if known.fingerprint == fingerprint && (young || inner.half_open.contains_key(&known.id)) {
                return Admission::Repeated;
            }
        }
        if !inner.may_answer(standing, now) {
            return Admission::Busy;
        }
        // Some ROMs always use one port: the machine was restarted, and the old transfer talks to nobody.
        inner.evict(peer);
        if !inner.make_room(peer.ip()) {
            return Admission::Busy;
        }
        let id = inner.next_id();
        let evicted = Arc::new(AtomicBool::new(false));
        inner.transfers.insert(peer, Entry { id, fingerprint, started: now, evicted: evicted.clone() });
        let share = inner.addresses.entry(peer.ip()).or_default();
        share.transfers += 1;
        share.half_open.insert(id, peer.port());
        inner.half_open.insert(id, peer);
        Admission::Start(Place { registry: self.clone(), peer, id, evicted })
    }

    /// Whether an ERROR may be sent there.
    pub fn may_refuse(&self, peer: IpAddr, standing: Standing, now: Instant) -> bool {
        let mut inner = self.lock();
        let since = now.saturating_duration_since(inner.began);
        if inner.errors.len() >= MAX_ERRORED {
            inner.errors.retain(|_, bucket| !bucket.is_full(since));
            if inner.errors.len() >= MAX_ERRORED {
                return false;
            }
        }
        inner.errors.entry(peer).or_default().take(ERRORS, since) && inner.may_answer(standing, now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Numbers rise, and tell which thread drives the transfer.
    fn next_id(&mut self) -> u64 {
        let mut id = self.next;
        if self.transfers.len() < FEW {
            id = id.next_multiple_of(self.orders.threads() as u64);
        }
        self.next = id + 1;
        id
    }

    fn may_answer(&mut self, standing: Standing, now: Instant) -> bool {
        match standing {
            Standing::Known => true,
            Standing::Unproven => self.unproven.take(UNPROVEN, now.saturating_duration_since(self.began)),
            Standing::Foreign | Standing::Impossible => false,
        }
    }

    /// Makes room for one more of this address, at the cost of the oldest whose peer never answered.
    fn make_room(&mut self, address: IpAddr) -> bool {
        if let Some(share) = self.addresses.get(&address).filter(|share| share.transfers >= MAX_PER_ADDRESS) {
            let Some(&port) = share.half_open.values().next() else { return false };
            self.evict(SocketAddr::new(address, port));
        }
        if self.transfers.len() >= self.capacity {
            let Some(&peer) = self.half_open.values().next() else { return false };
            self.evict(peer);
        }
        true
    }

    fn evict(&mut self, peer: SocketAddr) {
        let Some(entry) = self.transfers.get(&peer) else { return };
        let id = entry.id;
        entry.evicted.store(true, Ordering::Release);
        self.orders.stop(id);
        self.remove(peer, id);
    }

    fn open(&mut self, peer: IpAddr, id: u64) {
        self.half_open.remove(&id);
        if let Some(share) = self.addresses.get_mut(&peer) {
            share.half_open.remove(&id);
        }
    }

    fn remove(&mut self, peer: SocketAddr, id: u64) {
        self.open(peer.ip(), id);
        if self.transfers.get(&peer).is_none_or(|entry| entry.id != id) {
            return;
        }
        self.transfers.remove(&peer);
        if let Some(share) = self.addresses.get_mut(&peer.ip()) {
            share.transfers -= 1;
            if share.transfers == 0 {
                self.addresses.remove(&peer.ip());
            }
        }
    }
}

impl Place {
    /// The transfer's number on this listener.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it had to give way.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// Whether its address has so many half-open transfers that none of them deserves a resend.
    pub fn is_crowded(&self) -> bool {
        self.registry.lock().addresses.get(&self.peer.ip()).is_some_and(|share| share.half_open.len() >= CROWD)
    }

    /// The peer has answered: it is real, and no longer gives way.
    pub fn opened(&self) {
        self.registry.lock().open(self.peer.ip(), self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.lock().remove(self.peer, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::tftp::Mode;

    const DESCRIPTORS: usize = 2000;

    fn registry() -> Registry {
        Registry::new(Orders::new(2).unwrap(), DESCRIPTORS)
    }

    fn request(name: &str) -> Request {
        Request { name: name.into(), mode: Mode::Octet, options: Vec::new() }
    }

    fn peer(host: u8, port: usize) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, host], port as u16 + 1))
    }

    fn ask(registry: &Registry, peer: SocketAddr, name: &str, now: Instant) -> Admission {
        registry.admit(peer, &request(name), Standing::Known, now)
    }

    fn start(registry: &Registry, peer: SocketAddr, now: Instant) -> Place {
        match ask(registry, peer, "a", now) {
            Admission::Start(place) => place,
            other => panic!("{peer}: {other:?}"),
        }
    }

    #[test]
    fn a_repeated_request_starts_no_second_transfer_and_a_restarted_machine_does() {
        let (registry, now) = (registry(), Instant::now());
        let first = start(&registry, peer(1, 0), now);
        assert!(matches!(ask(&registry, peer(1, 0), "a", now), Admission::Repeated));
        first.opened();
        assert!(matches!(ask(&registry, peer(1, 0), "a", now), Admission::Repeated));
        let second = start(&registry, peer(1, 0), now + REPEATED_WITHIN);
        assert!(first.is_evicted() && !second.is_evicted());
        drop(first);
        assert!(matches!(ask(&registry, peer(1, 0), "a", now + REPEATED_WITHIN), Admission::Repeated));
        assert!(matches!(ask(&registry, peer(1, 0), "b", now), Admission::Start(_)));
        assert!(second.is_evicted());
    }

    #[test]
    fn one_address_has_its_share() {
        let (registry, now) = (registry(), Instant::now());
        let places: Vec<Place> = (0..MAX_PER_ADDRESS).map(|port| start(&registry, peer(1, port), now)).collect();
        places[0].opened();
        let one_more = start(&registry, peer(1, MAX_PER_ADDRESS), now);
        assert!(!places[0].is_evicted() && places[1].is_evicted() && !places[2].is_evicted());
        places.iter().for_each(Place::opened);
        one_more.opened();
        assert!(matches!(ask(&registry, peer(1, 9999), "a", now), Admission::Busy));
        let _another = start(&registry, peer(2, 0), now);
        drop(places);
        let _free_again = start(&registry, peer(1, 9999), now);
    }

    #[test]
    fn a_crowd_of_half_open_transfers_is_seen_until_they_open() {
        let (registry, now) = (registry(), Instant::now());
        let places: Vec<Place> = (0..CROWD).map(|port| start(&registry, peer(1, port), now)).collect();
        let alone = start(&registry, peer(2, 0), now);
        assert!(places[0].is_crowded() && !alone.is_crowded());
        places[1].opened();
        assert!(!places[0].is_crowded());
    }

    #[test]
    fn a_flood_of_forged_requests_gives_way_to_new_ones() {
        let (registry, now) = (registry(), Instant::now());
        let forged: Vec<Place> =
            (0..DESCRIPTORS / 2).map(|i| start(&registry, peer((i / 200) as u8, i % 200), now)).collect();
        let real = start(&registry, peer(250, 0), now);
        real.opened();
        assert!(forged[0].is_evicted() && !forged[1].is_evicted());
        drop(forged);
        drop(real);
        let inner = registry.lock();
        assert!(inner.transfers.is_empty() && inner.addresses.is_empty() && inner.half_open.is_empty());
    }

    #[test]
    fn addresses_for_which_nothing_speaks_share_a_rate_that_known_ones_do_not_need() {
        let (registry, now) = (registry(), Instant::now());
        let ask = |host: usize, standing| {
            let peer = peer((host % 250) as u8, host / 250);
            registry.admit(peer, &request("a"), standing, now)
        };
        let mut places: Vec<Admission> = (0..600).map(|host| ask(host, Standing::Unproven)).collect();
        places.retain(|admission| matches!(admission, Admission::Start(_)));
        assert_eq!(places.len(), UNPROVEN.burst as usize);
        assert!(matches!(ask(600, Standing::Known), Admission::Start(_)));
        for standing in [Standing::Foreign, Standing::Impossible] {
            assert!(matches!(ask(601, standing), Admission::Busy));
        }
    }

    #[test]
    fn errors_are_counted_for_each_address() {
        let (registry, now) = (registry(), Instant::now());
        let sent = |host: u8, at: Instant| {
            (0..500).filter(|_| registry.may_refuse([10, 77, 0, host].into(), Standing::Known, at)).count()
        };
        assert_eq!(sent(1, now), ERRORS.burst as usize);
        assert_eq!(sent(2, now), ERRORS.burst as usize);
        assert_eq!(sent(1, now + Duration::from_secs(1)), 10);
        let flood = (0..20_000u32)
            .filter(|host| registry.may_refuse((0x0a4e_0000 + host).to_be_bytes().into(), Standing::Known, now));
        assert!(flood.count() < MAX_ERRORED);
    }
}
