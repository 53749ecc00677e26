//! The appliance under load while it is killed, while its disk is full, and while strangers flood it.

mod flood;
mod full_disk;
mod kills;
mod leaser;
mod writer;

pub use self::{flood::FLOOD, full_disk::FULL_DISK, kills::KILLS};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// The subnet behind the relay that the load comes through, with room for every card.
pub const FAR: &str = "[[boot.subnet]]\nnetwork = \"10.78.0.0/16\"\nrange = \"10.78.1.0-10.78.40.255\"";
/// The relay.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// What a client was told, and what it asked last: a record must lie between the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// The number of the last write that was acknowledged; 0: none.
    pub acked: u64,
    /// The number of the last write that was asked for.
    pub asked: u64,
}

/// Everything acknowledged is there, in its order; `before` was noted before the record was read, `after` behind it.
fn check_numbers(
    what: &str,
    before: &BTreeMap<String, Told>,
    record: &BTreeMap<String, u64>,
    after: &BTreeMap<String, Told>,
) -> Result<usize> {
    let mut checked = 0;
    for (key, told) in before.iter().filter(|(_, told)| told.acked > 0) {
        let found = record.get(key).with_context(|| {
            format!("{what} of {key}: number {} was acknowledged, and no record is left", told.acked)
        })?;
        let last = after.get(key).map_or(told.asked, |told| told.asked);
        ensure!(
            (told.acked..=last).contains(found),
            "{what} of {key}: number {} was acknowledged and {last} asked for last, and the record has {found}",
            told.acked
        );
        checked += 1;
    }
    Ok(checked)
}

/// The number in a text such as `n17`.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.strip_prefix('n')?.parse().ok()).unwrap_or_default()
}

/// The items of a listing, whole or in pages.
fn items(listing: &Value) -> Result<&[Value]> {
    let items = listing.as_array().or_else(|| listing["items"].as_array());
    items.map(Vec::as_slice).context("no listing")
}

/// No address is in two active leases.
fn no_address_twice(leases: &[Value]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for lease in leases.iter().filter(|lease| lease["active"] == true) {
        let address = lease["address"].as_str().context("a lease without an address")?;
        ensure!(seen.insert(address), "{address} is leased twice");
    }
    Ok(())
}
