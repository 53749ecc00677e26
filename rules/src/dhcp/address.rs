//! Which address a client gets.

use crate::{
    MacAddress, Machine, Moment, Timestamp, View, Volatile,
    boot::{Boot, State},
    decision::lease_key,
    lease::{Lease, LeaseKey},
    settings::Subnet,
};
use ipnet::Ipv4Net;
use std::{net::Ipv4Addr, ops::RangeInclusive};

/// Addresses looked at before a range counts as exhausted. A range of this size is searched whole; in a larger one,
/// with one address in a hundred free, a search fails once in 10⁸ times, and a flood of requests costs a
/// bounded time each.
const MAX_PROBES: usize = 2048;

/// Addresses that the wire said to be free, looked at before the whole range: most of them are.
const MAX_VETTED_LOOKS: usize = 64;

/// A machine that was sent to wait, and was not heard of for this long, is gone.
const WAITING_MS: u64 = 3_600_000;

/// The addresses of one wire as one client sees them.
pub struct Wire<'a> {
    /// The client's card.
    pub mac: MacAddress,
    /// Its machine, where that is on record.
    pub record: Option<&'a Machine>,
    /// Our own address where the request came in.
    pub own: Ipv4Addr,
    /// Whether a new address is looked for on the wire before it is offered.
    pub is_probed: bool,
    /// The subnets of the wire, that of the request first.
    pools: Vec<Pool<'a>>,
    view: &'a View<'a>,
    now: Timestamp,
}

/// One subnet of a wire, and the client's lease in it.
pub struct Pool<'a> {
    /// The subnet.
    pub subnet: &'a Subnet,
    /// The client's key in it.
    pub key: LeaseKey,
    /// Its lease in it, ended or not.
    pub lease: Option<Lease>,
}

/// An address to offer.
pub struct Choice<'w, 'a> {
    /// Which.
    pub address: Ipv4Addr,
    /// Of which subnet.
    pub pool: &'w Pool<'a>,
    /// Whether the wire has to be asked first.
    pub must_probe: bool,
}

/// How an address stands to a client that may have it; the first is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Nobody ever had it.
    Untouched,
    /// Somebody's lease has ended. Loaders that wait, and systems without a DHCP client, use theirs on.
    Ended,
    /// It is offered to a stranger, and the client is none.
    OfferedToAStranger,
}

impl<'a> Wire<'a> {
    /// The wire that holds `location`, as `mac` sees it. `None`: no configured subnet does.
    pub fn at(
        location: Ipv4Addr,
        mac: MacAddress,
        record: Option<&'a Machine>,
        own: Ipv4Addr,
        view: &'a View<'a>,
        at: &'a Moment,
    ) -> Option<Self> {
        let pool = |subnet: &'a Subnet| {
            let key = lease_key(subnet.network, mac);
            Pool { subnet, key, lease: view.records.lease(&key) }
        };
        let pools: Vec<Pool<'a>> = at.settings.wire_of(location).map(pool).collect();
        (!pools.is_empty()).then_some(Self {
            mac,
            record,
            own,
            is_probed: at.settings.probe_addresses && pools.iter().any(|pool| pool.subnet.network.contains(&own)),
            pools,
            view,
            now: at.now,
        })
    }

    /// The subnet that the request came from.
    pub fn first(&self) -> &Pool<'a> {
        &self.pools[0]
    }

    /// The subnet of an address, if it is of this wire.
    pub fn pool_of(&self, address: Ipv4Addr) -> Option<&Pool<'a>> {
        self.pools.iter().find(|pool| pool.subnet.network.contains(&address))
    }

    /// The subnets of the wire, the first first.
    pub fn pools(&self) -> &[Pool<'a>] {
        &self.pools
    }

    /// Whether the client is on record, or had a lease here.
    pub fn is_known(&self) -> bool {
        self.record.is_some() || self.pools.iter().any(|pool| pool.lease.is_some())
    }

    /// Whether something is held for the client already.
    pub fn holds_an_offer(&self) -> bool {
        self.pools.iter().any(|pool| self.view.live.offer(&pool.key, self.now).is_some())
    }

    /// The address held for the client's machine alone.
    pub fn reservation(&self) -> Option<Ipv4Addr> {
        self.record.and_then(|machine| machine.reservation)
    }

    /// The address to offer: the reservation, else in the order of RFC 2131 §4.3.1 the current, the previous, the
    /// requested (what was offered a moment ago counts as that), and a free one.
    pub fn choose(&self, requested: Option<Ipv4Addr>) -> Option<Choice<'_, 'a>> {
        let mut leases: Vec<&Lease> = self.pools.iter().filter_map(|pool| pool.lease.as_ref()).collect();
        leases.sort_by_key(|lease| std::cmp::Reverse((lease.is_active(self.now), lease.granted)));
        let held = leases.into_iter().map(|lease| lease.address);
        let offered = self.pools.iter().filter_map(|pool| self.view.live.offer(&pool.key, self.now));
        let wanted = self.reservation().into_iter().chain(held).chain(offered.map(|offer| offer.address));
        let found = wanted.chain(requested).find(|address| self.may_have(*address));
        let address = found.or_else(|| self.pools.iter().find_map(|pool| self.free(pool)))?;
        let pool = self.pool_of(address)?;
        let is_new = pool.lease.as_ref().is_none_or(|lease| lease.address != address);
        let is_vetted = self.view.live.vetted(address, self.now).is_some();
        let must_probe = self.is_probed && is_new && !is_vetted && self.reservation() != Some(address);
        Some(Choice { address, pool, must_probe })
    }

    /// Whether the client may have `address`: a usable one of the wire, of a range or reserved for it, and nobody else's.
    pub fn may_have(&self, address: Ipv4Addr) -> bool {
        self.standing(address).is_some_and(|standing| standing != Standing::OfferedToAStranger)
    }

    /// How an address stands to the client; `None` where it cannot have it. What is in memory is asked first.
    fn standing(&self, address: Ipv4Addr) -> Option<Standing> {
        let pool = self.pool_of(address).filter(|pool| self.is_a_host(pool.subnet, address))?;
        let offer = self.view.live.offer_of(address, self.now).filter(|offer| offer.key != pool.key);
        if offer.is_some_and(|offer| offer.is_known || !self.is_known()) {
            return None;
        }
        let free = if offer.is_some() { Standing::OfferedToAStranger } else { Standing::Untouched };
        let held_for = self.view.records.reservation(address);
        let in_range = pool.subnet.range.as_ref().is_some_and(|range| range.contains(&address));
        let is_for_us = held_for.map_or(in_range, |id| self.record.is_some_and(|machine| machine.id == id));
        if !is_for_us {
            return None;
        }
        if pool.lease.as_ref().is_some_and(|lease| lease.address == address && lease.is_active(self.now)) {
            return Some(free);
        }
        if held_for.is_none() && self.is_seen_with_another(address) {
            return None;
        }
        match self.view.records.lease_at(address) {
            None => Some(free),
            Some(lease) if lease.is_active(self.now) => None,
            Some(lease) if lease.key == pool.key => Some(free),
            Some(lease) if self.is_used_on(&lease) => None,
            Some(_) => Some(free.max(Standing::Ended)),
        }
    }

    /// Whether a client can use the address at all: neither the network's first nor its last, and not one that the
    /// configuration knows to be taken.
    fn is_a_host(&self, subnet: &Subnet, address: Ipv4Addr) -> bool {
        subnet.is_a_host(address) && address != self.own && !subnet.dns.contains(&address)
    }

    /// Whether the wire said that another card uses an address.
    fn is_seen_with_another(&self, address: Ipv4Addr) -> bool {
        let user = self.view.live.user_of(address, self.now);
        user.is_some_and(|card| card != self.mac && !self.record.is_some_and(|machine| machine.macs.contains(&card)))
    }

    /// Whether the holder of a lease that has ended uses its address on: a loader that waits for its assignment asks for
    /// its script every few seconds, and never renews.
    fn is_used_on(&self, lease: &Lease) -> bool {
        if lease.declined {
            return false;
        }
        let boot_of = |id| self.view.live.boot(id).filter(|boot| boot.is_open());
        let of_machine = || boot_of(self.view.records.machine(lease.key.mac)?.id);
        boot_of(lease.key.mac).or_else(of_machine).is_some_and(|boot| waits(boot, self.now))
    }

    /// A free address of one subnet: where the wire is asked one that it said to be free, else one that nobody ever
    /// had before one whose lease has ended, and for a client on record at last one that is only offered to a stranger.
    /// The start and the step come from the client's MAC, so that a client finds the same address again even when its
    /// record is lost.
    fn free(&self, pool: &Pool<'a>) -> Option<Ipv4Addr> {
        let range = pool.subnet.range.clone()?;
        if self.is_exhausted(pool) {
            return None;
        }
        let seed = seed(self.mac);
        if let Some(vetted) = self.is_probed.then(|| self.free_by_the_wire(&range, seed)).flatten() {
            return Some(vetted);
        }
        let mut best = None;
        for address in walk(&range, seed).take(MAX_PROBES) {
            match self.standing(address) {
                Some(Standing::Untouched) => return Some(address),
                Some(standing) if best.is_none_or(|(known, _)| standing < known) => best = Some((standing, address)),
                _ => {}
            }
        }
        best.map(|(_, address)| address)
    }

    fn free_by_the_wire(&self, range: &RangeInclusive<Ipv4Addr>, seed: u64) -> Option<Ipv4Addr> {
        let start = walk(range, seed).next()?;
        let from = |range| self.view.live.vetted_free(range, self.now);
        let around = from(start..=*range.end()).chain(from(*range.start()..=start)).take(MAX_VETTED_LOOKS);
        around.into_iter().find(|address| self.may_have(*address))
    }

    fn is_exhausted(&self, pool: &Pool<'a>) -> bool {
        self.view.live.is_exhausted(pool.subnet.network, self.is_known(), self.now)
    }

    /// What to remember of a search that found nothing.
    pub fn exhausted(&self) -> Vec<Volatile> {
        let (is_known, at) = (self.is_known(), self.now);
        let searched = self.pools.iter().filter(|pool| pool.subnet.range.is_some() && !self.is_exhausted(pool));
        searched.map(|pool| Volatile::Exhausted { subnet: pool.subnet.network, is_known, at }).collect()
    }
}

/// Whether a boot is one of a machine that asks nobody for more time: its firmware, its loader, or the discovery in
/// which it waits.
fn waits(boot: &Boot, now: Timestamp) -> bool {
    let heard = boot.timeline.last().map_or(boot.opened, |last| last.until.unwrap_or(last.at));
    matches!(boot.state, State::Loader | State::Waiting | State::Script | State::Stage1)
        && now.since(heard) < WAITING_MS
}

/// Every address of a range once, from a place and in steps that the seed says.
pub(super) fn walk(range: &RangeInclusive<Ipv4Addr>, seed: u64) -> impl Iterator<Item = Ipv4Addr> {
    let first = u64::from(u32::from(*range.start()));
    let size = (u64::from(u32::from(*range.end())) + 1).saturating_sub(first);
    let (start, step) = if size == 0 { (0, 0) } else { (seed % size, coprime_step(seed >> 32, size)) };
    (0..size).map(move |place| Ipv4Addr::from((first + (start + place * step) % size) as u32))
}

/// A step that visits every one of `size` places before it comes back.
fn coprime_step(seed: u64, size: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let seed = seed % size + 1;
    (seed..).find(|step| gcd(*step, size) == 1).unwrap_or(1)
}

/// Where a client's search begins, and how it goes on. The cards of a rack were often made one after the other: they
/// begin one after the other, and go on by the same steps, so that none meets another. Their leases also lie beside each
/// other in the ledger, and are written with fewer pages.
fn seed(mac: MacAddress) -> u64 {
    let [batch @ .., high, low] = mac.0;
    fnv1a(&batch).wrapping_add(u64::from(u16::from_be_bytes([high, low])))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let mixed = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    // FNV's high bits know little of the last byte.
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The key of the record that keeps a declined address from everybody: a locally administered address made of the
/// address itself, so that the client who declined it can have a lease of its own beside it.
pub fn quarantine(subnet: Ipv4Net, address: Ipv4Addr) -> LeaseKey {
    let [a, b, c, d] = address.octets();
    LeaseKey { subnet, mac: MacAddress([0x02, 0xde, a, b, c, d]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_visits_every_place_once() {
        for size in 1..200 {
            for seed in [0, 1, 7, u64::from(u32::MAX)] {
                let step = coprime_step(seed, size);
                let mut places: Vec<u64> = (0..size).map(|probe| (probe * step) % size).collect();
                places.sort_unstable();
                assert!(places.into_iter().eq(0..size), "size {size}, step {step}");
            }
        }
    }

    #[test]
    fn neighbouring_macs_start_beside_each_other_and_never_meet() {
        let range = "10.0.0.10".parse().unwrap()..="10.0.3.250".parse().unwrap();
        let card = |number: u16| {
            let [high, low] = number.to_be_bytes();
            MacAddress([0x52, 0x54, 0, 0x12, high, low])
        };
        let searches: Vec<Vec<Ipv4Addr>> =
            (0x34c0..0x3540).map(|number| walk(&range, seed(card(number))).take(20).collect()).collect();
        for round in 0..20 {
            let met: std::collections::BTreeSet<Ipv4Addr> = searches.iter().map(|search| search[round]).collect();
            assert_eq!(met.len(), searches.len(), "in round {round}");
        }
        let neighbours = searches.windows(2).filter(|pair| u32::from(pair[0][0]) + 1 == u32::from(pair[1][0])).count();
        assert!(neighbours >= 126, "only {neighbours} of 127 are neighbours");
        assert_ne!(seed(card(1)), seed(MacAddress([0x52, 0x54, 0, 0x13, 0, 1])), "another batch begins elsewhere");
    }
}
