//! Which transfers go on, so that no address and no flood takes more than its share.

use bennu_rules::tftp::Request;
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Transfers at once on one listener; each holds a socket.
const MAX_TRANSFERS: usize = 4096;
/// Transfers at once of one address. A firmware has one or two, a rack behind one relaying address some hundred.
const MAX_PER_ADDRESS: usize = 256;
/// A request that comes again within this time is a doubled packet or an impatient firmware, not a restarted one.
const REPEATED_WITHIN: Duration = Duration::from_secs(3);

/// The transfers of one listener.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    transfers: HashMap<SocketAddr, Entry>,
    per_address: HashMap<IpAddr, usize>,
    /// Transfers whose peer has not answered, oldest first: they give way.
    half_open: BTreeMap<u64, SocketAddr>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    request: Request,
    started: Instant,
    stop: CancellationToken,
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
    /// Told when the transfer has to give way.
    pub stop: CancellationToken,
}

impl Registry {
    /// Decides about a request of `peer` that deserves a transfer.
    pub fn admit(&self, peer: SocketAddr, request: &Request, now: Instant) -> Admission {
        let mut inner = self.lock();
        if let Some(known) = inner.transfers.get(&peer) {
            let young = now.saturating_duration_since(known.started) < REPEATED_WITHIN;
            if known.request == *request && (young || inner.half_open.contains_key(&known.id)) {
                return Admission::Repeated;
            }
            // Some ROMs always use one port: the machine was restarted, and the old transfer talks to nobody.
            inner.evict(peer);
        }
        if !inner.make_room(peer.ip()) {
            return Admission::Busy;
        }
        let (id, stop) = (inner.next, CancellationToken::new());
        inner.next += 1;
        inner.transfers.insert(peer, Entry { id, request: request.clone(), started: now, stop: stop.clone() });
        *inner.per_address.entry(peer.ip()).or_default() += 1;
        inner.half_open.insert(id, peer);
        Admission::Start(Place { registry: self.clone(), peer, id, stop })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes room for one more of this address, at the cost of the oldest whose peer never answered.
    fn make_room(&mut self, address: IpAddr) -> bool {
        if self.per_address.get(&address).is_some_and(|&count| count >= MAX_PER_ADDRESS) {
            let Some(peer) = self.half_open.values().copied().find(|peer| peer.ip() == address) else { return false };
            self.evict(peer);
        }
        if self.transfers.len() >= MAX_TRANSFERS {
            let Some(&peer) = self.half_open.values().next() else { return false };
            self.evict(peer);
        }
        true
    }

    fn evict(&mut self, peer: SocketAddr) {
        if let Some(entry) = self.transfers.get(&peer) {
            entry.stop.cancel();
            let id = entry.id;
            self.remove(peer, id);
        }
    }

    fn remove(&mut self, peer: SocketAddr, id: u64) {
        self.half_open.remove(&id);
        if self.transfers.get(&peer).is_none_or(|entry| entry.id != id) {
            return;
        }
        self.transfers.remove(&peer);
        if let Some(count) = self.per_address.get_mut(&peer.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&peer.ip());
            }
        }
    }
}

impl Place {
    /// The peer has answered: it is real, and no longer gives way.
    pub fn opened(&self) {
        self.registry.lock().half_open.remove(&self.id);
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

    fn request(name: &str) -> Request {
        Request { name: name.into(), mode: Mode::Octet, options: Vec::new() }
    }

    fn peer(host: u8, port: usize) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, host], port as u16 + 1))
    }

    fn start(registry: &Registry, peer: SocketAddr, now: Instant) -> Place {
        match registry.admit(peer, &request("a"), now) {
            Admission::Start(place) => place,
            other => panic!("{peer}: {other:?}"),
        }
    }

    #[test]
    fn a_repeated_request_starts_no_second_transfer_and_a_restarted_machine_does() {
        let (registry, now) = (Registry::default(), Instant::now());
        let first = start(&registry, peer(1, 0), now);
        assert!(matches!(registry.admit(peer(1, 0), &request("a"), now), Admission::Repeated));
        first.opened();
        assert!(matches!(registry.admit(peer(1, 0), &request("a"), now), Admission::Repeated));
        let second = start(&registry, peer(1, 0), now + REPEATED_WITHIN);
        assert!(first.stop.is_cancelled() && !second.stop.is_cancelled());
        drop(first);
        assert!(matches!(registry.admit(peer(1, 0), &request("a"), now + REPEATED_WITHIN), Admission::Repeated));
        assert!(matches!(registry.admit(peer(1, 0), &request("b"), now), Admission::Start(_)));
        assert!(second.stop.is_cancelled());
    }

    #[test]
    fn one_address_has_its_share() {
        let (registry, now) = (Registry::default(), Instant::now());
        let places: Vec<Place> = (0..MAX_PER_ADDRESS).map(|port| start(&registry, peer(1, port), now)).collect();
        places[0].opened();
        let _one_more = start(&registry, peer(1, MAX_PER_ADDRESS), now);
        assert!(!places[0].stop.is_cancelled() && places[1].stop.is_cancelled() && !places[2].stop.is_cancelled());
        places.iter().for_each(Place::opened);
        _one_more.opened();
        assert!(matches!(registry.admit(peer(1, 9999), &request("a"), now), Admission::Busy));
        let _another = start(&registry, peer(2, 0), now);
        drop(places);
        let _free_again = start(&registry, peer(1, 9999), now);
    }

    #[test]
    fn a_flood_of_forged_requests_gives_way_to_new_ones() {
        let (registry, now) = (Registry::default(), Instant::now());
        let forged: Vec<Place> =
            (0..MAX_TRANSFERS).map(|i| start(&registry, peer((i / 200) as u8, i % 200), now)).collect();
        let real = start(&registry, peer(250, 0), now);
        real.opened();
        assert!(forged[0].stop.is_cancelled() && !forged[1].stop.is_cancelled());
        drop(forged);
        drop(real);
        let inner = registry.lock();
        assert!(inner.transfers.is_empty() && inner.per_address.is_empty() && inner.half_open.is_empty());
    }
}
