//! Who is connected, and who has to leave when too many are.

use super::{connection::Limits, deadline::Busy};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// A connection that kept up with its work until so long ago is not ended for another.
const GRACE: Duration = Duration::from_secs(1);

/// The connections of one listener.
#[derive(Debug, Clone, Default)]
pub struct Guests(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    places: HashMap<u64, Place>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Place {
    address: Option<IpAddr>,
    busy: Arc<Busy>,
    leave: Arc<Notify>,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub struct Guest {
    guests: Guests,
    key: u64,
    leave: Arc<Notify>,
}

impl Guest {
    /// Waits until this connection has to leave.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Guests {
    /// A place for a newcomer. With three quarters of all places taken, or with all that its address may have, the
    /// connection that is furthest behind its work leaves for it; `None` where there is none.
    pub fn admit(&self, address: Option<IpAddr>, busy: Arc<Busy>, limits: &Limits) -> Option<Guest> {
        let mut table = self.lock();
        let of_address = address.and_then(|address| table.by_address.get(&address)).copied().unwrap_or(0);
        if of_address >= limits.per_address {
            table.end_slowest(|place| place.address == address).then_some(())?;
        } else if table.places.len() >= limits.total / 4 * 3 {
            let ended = table.end_slowest(|_| true);
            (ended || table.places.len() < limits.total).then_some(())?;
        }
        let leave = Arc::<Notify>::default();
        let key = table.next;
        table.next += 1;
        table.places.insert(key, Place { address, busy, leave: leave.clone() });
        if let Some(address) = address {
            *table.by_address.entry(address).or_default() += 1;
        }
        Some(Guest { guests: self.clone(), key, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn end_slowest(&mut self, among: impl Fn(&Place) -> bool) -> bool {
        let arrears =
            self.places.iter().filter(|(_, place)| among(place)).map(|(key, place)| (place.busy.arrears(), *key));
        let Some((_, key)) = arrears.max().filter(|(arrears, _)| *arrears > GRACE) else { return false };
        if let Some(place) = self.remove(key) {
            place.leave.notify_one();
        }
        true
    }

    fn remove(&mut self, key: u64) -> Option<Place> {
        let place = self.places.remove(&key)?;
        if let Some(address) = place.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some(place)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.lock().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::time::{advance, timeout};

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::new(10, 77, 0, last)))
    }

    async fn leaves(guest: &Guest) -> bool {
        timeout(Duration::ZERO, guest.asked_to_leave()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_leaves_when_places_run_short() {
        let limits = Limits { total: 8, ..Limits::provisioning() };
        let guests = Guests::default();
        let admit = |last: u8| {
            let busy = Arc::<Busy>::default();
            guests.admit(address(last), busy.clone(), &limits).map(|guest| (guest, busy))
        };
        let mut held: Vec<_> = (0..6).map(|last| admit(last).unwrap()).collect();
        advance(Duration::from_secs(5)).await;
        // All wait for a head but one, whose answer goes out well, and one whose answer drips.
        held[0].1.begin();
        held[1].1.begin();
        advance(Duration::from_secs(2)).await;
        held[0].1.moved(1 << 20);
        held[1].1.moved(10);
        let (newcomer, _busy) = admit(9).unwrap();
        assert!(!leaves(&newcomer).await);
        let mut gone = Vec::new();
        for (number, (guest, _)) in held.iter().enumerate() {
            if leaves(guest).await {
                gone.push(number);
            }
        }
        assert!(matches!(gone[..], [2..=5]), "{gone:?}");
        let more: Vec<_> = (10..14).map(|last| admit(last).unwrap()).collect();
        assert!(leaves(&held[1].0).await, "after those without a request the one that drips");
        assert!(!leaves(&held[0].0).await, "never the one that takes its bytes");
        // Nobody left is slow: the places there are fill up, and then it is over.
        let rest: Vec<_> = (20..30).map_while(&admit).collect();
        assert_eq!(1 + 1 + more.len() + rest.len(), limits.total);
        held.clear();
        assert!(admit(40).is_some(), "who leaves makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_takes_from_itself() {
        let limits = Limits { per_address: 2, ..Limits::provisioning() };
        let guests = Guests::default();
        let admit = |last: u8| guests.admit(address(last), Arc::default(), &limits);
        let (other, first) = (admit(1).unwrap(), admit(2).unwrap());
        let second = admit(2).unwrap();
        assert!(admit(2).is_none(), "both are young");
        advance(Duration::from_secs(3)).await;
        let third = admit(2).unwrap();
        assert!(leaves(&first).await ^ leaves(&second).await);
        assert!(!leaves(&other).await && !leaves(&third).await);
    }
}
