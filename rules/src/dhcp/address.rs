//! Which address a client gets.

use crate::{MacAddress, Timestamp, View, lease::LeaseKey, settings::Subnet};
use std::{net::Ipv4Addr, ops::RangeInclusive};

/// An address pool as one client sees it.
pub struct Pool<'a> {
    /// The subnet the client is on.
    pub subnet: &'a Subnet,
    /// The client.
    pub key: LeaseKey,
    /// The client's machine: reservations are per machine.
    pub machine: MacAddress,
    /// The address held for that machine.
    pub reservation: Option<Ipv4Addr>,
    /// Our own address on the wire.
    pub own: Ipv4Addr,
    /// What is known.
    pub view: &'a View<'a>,
    /// Now.
    pub now: Timestamp,
}

/// Addresses looked at before a pool counts as exhausted. A pool of this size is searched whole; in a larger one,
/// with one address in a hundred free, a search fails once in 10⁸ times, and a flood of requests costs a
/// bounded time each.
const MAX_PROBES: usize = 2048;

impl Pool<'_> {
    /// The address to offer: the reservation, else in the order of RFC 2131 §4.3.1 the current, the previous, the
    /// requested (what was offered a moment ago counts as that), and a free one.
    pub fn choose(&self, requested: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let held = self.view.records.lease(&self.key).map(|lease| lease.address);
        let offered = self.view.live.offer(&self.key, self.now).map(|offer| offer.address);
        [self.reservation, held, offered, requested]
            .into_iter()
            .flatten()
            .find(|address| self.may_have(*address))
            .or_else(|| self.free())
    }

    /// Whether the client may have `address`: a usable one of the subnet, of the range or reserved for it, and nobody else's.
    pub fn may_have(&self, address: Ipv4Addr) -> bool {
        let held_for = self.view.records.reservation(address);
        let in_range = self.subnet.range.as_ref().is_some_and(|range| range.contains(&address));
        let is_for_us = held_for.map_or(in_range, |machine| machine == self.machine);
        if !is_for_us || !self.is_a_host(address) {
            return false;
        }
        let leased = self
            .view
            .records
            .lease_at(address)
            .is_some_and(|lease| lease.is_active(self.now) && (lease.declined || lease.key != self.key));
        let offered = self.view.live.offered_to(address, self.now).is_some_and(|key| *key != self.key);
        !leased && !offered
    }

    /// Whether a client can use the address at all: in the network, neither its first nor its last address, and
    /// not one that the configuration knows to be taken.
    fn is_a_host(&self, address: Ipv4Addr) -> bool {
        let network = self.subnet.network;
        let is_an_end = network.prefix_len() < 31 && (address == network.network() || address == network.broadcast());
        let is_taken = address == self.own || self.subnet.router == Some(address) || self.subnet.dns.contains(&address);
        network.contains(&address) && !is_an_end && !is_taken
    }

    /// A free address, one that nobody ever had before one whose lease has ended: loaders that wait, and systems without
    /// a DHCP client, use theirs on without renewing it. The start and the step come from the client's MAC, so that a client finds the same address again
    /// even when its record is lost, and neighbours do not crowd each other.
    fn free(&self) -> Option<Ipv4Addr> {
        let range = self.subnet.range.as_ref()?;
        let probes = || walk(range, fnv1a(&self.key.mac.0)).take(MAX_PROBES);
        let untouched = |address: &Ipv4Addr| self.view.records.lease_at(*address).is_none();
        probes()
            .find(|address| untouched(address) && self.may_have(*address))
            .or_else(|| probes().find(|address| self.may_have(*address)))
    }
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

fn fnv1a(bytes: &[u8]) -> u64 {
    let mixed = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    // FNV's high bits know little of the last byte, and in a rack the last bytes are all that differ.
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The key of the record that keeps a declined address from everybody: a locally administered address made of the
/// address itself, so that the client who declined it can have a lease of its own beside it.
pub fn quarantine(subnet: &Subnet, address: Ipv4Addr) -> LeaseKey {
    let [a, b, c, d] = address.octets();
    LeaseKey { subnet: subnet.network, mac: MacAddress([0x02, 0xde, a, b, c, d]) }
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
    fn neighbouring_macs_start_far_apart() {
        let starts: std::collections::BTreeSet<u64> =
            (0..=99).map(|last| fnv1a(&[0x52, 0x54, 0, 0x12, 0x34, last]) % 1000).collect();
        assert!(starts.len() > 85, "{} different starts of 100", starts.len());
    }
}
