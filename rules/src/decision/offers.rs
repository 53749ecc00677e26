//! Addresses offered and not yet asked for.

use crate::{Timestamp, lease::LeaseKey, time::ClockStep};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// An address offered and not yet asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// To whom.
    pub key: LeaseKey,
    /// What.
    pub address: Ipv4Addr,
    /// Until when nobody else is offered it.
    pub until: Timestamp,
    /// Whether its client is on record or had a lease. An offer to a stranger gives way to one that is.
    pub is_known: bool,
}

/// Offers held at once; strangers' give way first, and then the one that ends first.
pub const MAX_OFFERS: usize = 16_384;

/// Offers, each found by its client, by its address, and by how soon it gives way.
#[derive(Debug, Clone, Default)]
pub(super) struct Offers {
    held: BTreeMap<LeaseKey, Offer>,
    by_address: BTreeMap<Ipv4Addr, LeaseKey>,
    order: BTreeSet<(bool, Timestamp, LeaseKey)>,
}

impl Offers {
    pub fn get(&self, key: &LeaseKey) -> Option<&Offer> {
        self.held.get(key)
    }

    pub fn at(&self, address: Ipv4Addr) -> Option<&Offer> {
        self.held.get(self.by_address.get(&address)?)
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn put(&mut self, offer: Offer) {
        self.remove(&offer.key);
        if let Some(earlier) = self.by_address.get(&offer.address).copied() {
            self.remove(&earlier);
        }
        if self.held.len() >= MAX_OFFERS
            && let Some((_, _, first)) = self.order.first().copied()
        {
            self.remove(&first);
        }
        self.order.insert((offer.is_known, offer.until, offer.key));
        self.by_address.insert(offer.address, offer.key);
        self.held.insert(offer.key, offer);
    }

    pub fn step_clock(&mut self, step: ClockStep) {
        self.held.values_mut().for_each(|offer| offer.until = step.moved(offer.until));
        self.order = self.held.values().map(|offer| (offer.is_known, offer.until, offer.key)).collect();
    }

    pub fn remove(&mut self, key: &LeaseKey) {
        if let Some(old) = self.held.remove(key) {
            self.order.remove(&(old.is_known, old.until, old.key));
            self.by_address.remove(&old.address);
        }
    }
}
