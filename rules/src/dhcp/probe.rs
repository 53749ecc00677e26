//! Addresses looked for on their wire before they are first offered (RFC 2131 §3.1 step 2): which, and what an answer
//! means.

use super::address::{Wire, walk};
use crate::{
    Decision, MacAddress, Moment, Timestamp, View, Volatile,
    decision::Vetted,
    notice::Notice,
    settings::{DhcpMode, Subnet},
};
use std::net::Ipv4Addr;

/// How long what the wire told of an address counts: long enough that a small pool is enough for a quiet wire, and short
/// against the time in which a person gives a host a fixed address.
const VETTED_SECONDS: u64 = 300;

/// Free addresses that are looked for ahead on a quiet wire.
const AHEAD: usize = 16;

/// Free addresses looked for ahead at most, on a wire where a rack starts.
const MOST_AHEAD: usize = 256;

/// Addresses looked at in one go, so that a full range costs a bounded time.
const MAX_LOOKS: usize = 1024;

/// What a look at the wire told of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Which.
    pub address: Ipv4Addr,
    /// The card that answered for it; `None`: nobody did.
    pub taken_by: Option<MacAddress>,
}

/// Takes note of what a look at the wire told. Somebody who uses an address that he did not get here is worth a notice.
pub fn probed(found: &Probed, view: &View<'_>, at: &Moment) -> Decision<()> {
    let mut decision = Decision::just(());
    decision.volatile.push(vetted(found.address, found.taken_by, at.now));
    if let Some(by) = found.taken_by.filter(|by| !got_it_here(found.address, *by, view)) {
        decision.noticed.push(Notice::AddressTaken { address: found.address, by: Some(by), found_by: None });
    }
    decision
}

/// What is known of an address from now on.
pub fn vetted(address: Ipv4Addr, taken_by: Option<MacAddress>, now: Timestamp) -> Volatile {
    Volatile::Vet(Vetted { address, taken_by, until: now.plus_seconds(VETTED_SECONDS) })
}

/// Whether a card has an address from us, now or from before: loaders that wait and systems without a DHCP client use
/// theirs on.
fn got_it_here(address: Ipv4Addr, card: MacAddress, view: &View<'_>) -> bool {
    let leased = view.records.lease_at(address).is_some_and(|lease| lease.key.mac == card);
    leased || view.records.reservation(address).is_some_and(|id| view.records.machine(card).is_some_and(|m| m.id == id))
}

/// The addresses to look for next on the wire of one interface: free ones, as many as are missing of a small pool, so
/// that a newcomer's offer needs not wait.
pub fn probe_ahead(view: &View<'_>, at: &Moment, interface_address: Ipv4Addr) -> Vec<Ipv4Addr> {
    if !at.settings.probe_addresses || at.settings.dhcp != DhcpMode::Full {
        return Vec::new();
    }
    // Nobody's: an address that is free for a card that does not exist is free for anybody.
    let wire = Wire::at(interface_address, MacAddress([0; 6]), None, interface_address, view, at);
    let Some(wire) = wire else { return Vec::new() };
    wire.pools().iter().flat_map(|pool| ahead(pool.subnet, &wire, view, at)).collect()
}

fn ahead(subnet: &Subnet, wire: &Wire<'_>, view: &View<'_>, at: &Moment) -> Vec<Ipv4Addr> {
    let Some(range) = &subnet.range else { return Vec::new() };
    let known = view.live.vetted_free(range.clone(), at.now).take(MOST_AHEAD).count();
    let wanted = (AHEAD + view.live.offers_held()).min(MOST_AHEAD).saturating_sub(known);
    if wanted == 0 {
        return Vec::new();
    }
    let seed = at.entropy[..8].try_into().map_or(0, u64::from_le_bytes);
    let unknown = |address: &Ipv4Addr| view.live.vetted(*address, at.now).is_none();
    let free = walk(range, seed).take(MAX_LOOKS).filter(|address| unknown(address) && wire.may_have(*address));
    // An address whose lease has ended may still be used; what nobody ever had comes first, as it is offered first.
    let (mut untouched, ended): (Vec<_>, Vec<_>) =
        free.take(2 * wanted).partition(|address| view.records.lease_at(*address).is_none());
    untouched.extend(ended);
    untouched.truncate(wanted);
    untouched
}
