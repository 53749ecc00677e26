//! The one shape of a rule, and what it may see and say.

use crate::{
    MacAddress, Machine, Timestamp,
    boot::{Boot, BootId, Token},
    image::{Digest, Image, ImageName, Tag},
    journey::Observation,
    lease::{Lease, LeaseKey},
    notice::{Notice, Noticed, Notices},
    settings::Settings,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr, ops::RangeInclusive, sync::Arc};

/// When a decision is taken, with what chance and under which configuration.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// Fresh random bytes, for tokens and ids; never used twice.
    pub entropy: [u8; 32],
    /// The configuration.
    pub settings: Arc<Settings>,
}

/// The stored state. A database's read or write transaction implements it, and a plain struct in tests
/// ([`crate::memory::Memory`]).
pub trait Records {
    /// The machine that owns `mac`.
    fn machine(&self, mac: MacAddress) -> Option<Machine>;
    /// The machine for which `address` is held.
    fn reservation(&self, address: Ipv4Addr) -> Option<MacAddress>;
    /// A client's lease, ended or not.
    fn lease(&self, key: &LeaseKey) -> Option<Lease>;
    /// The latest lease of an address, ended or not.
    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease>;
    /// A tag.
    fn tag(&self, name: &ImageName) -> Option<Tag>;
    /// An image.
    fn image(&self, digest: &Digest) -> Option<Image>;
    /// A boot that was made durable.
    fn boot(&self, id: &BootId) -> Option<Boot>;
    /// Machines, ordered by id. For commands of people, not for packets.
    fn machines(&self) -> Vec<Machine>;
    /// Every tag, ordered by name. For commands of people, not for packets.
    fn tags(&self) -> Vec<Tag>;
}

/// An address offered and not yet asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// To whom.
    pub key: LeaseKey,
    /// What.
    pub address: Ipv4Addr,
    /// Until when nobody else is offered it.
    pub until: Timestamp,
}

/// What a look at the wire told of an address (RFC 2131 §3.1 step 2, RFC 5227).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vetted {
    /// Which.
    pub address: Ipv4Addr,
    /// The card that answers for it; `None`: nobody does.
    pub taken_by: Option<MacAddress>,
    /// Until when that counts.
    pub until: Timestamp,
}

/// State that a restart may forget: offers, and the boots that are going on.
#[derive(Debug, Clone, Default)]
pub struct Live {
    offers: BTreeMap<LeaseKey, Offer>,
    offered: BTreeMap<Ipv4Addr, LeaseKey>,
    boots: BTreeMap<MacAddress, Boot>,
    tokens: BTreeMap<Token, MacAddress>,
    ended: Vec<Boot>,
    vetted: BTreeMap<Ipv4Addr, Vetted>,
    notices: Notices,
}

/// What a rule may see.
pub struct View<'a> {
    /// Stored state.
    pub records: &'a dyn Records,
    /// Volatile state.
    pub live: &'a Live,
}

/// What a rule decided.
#[derive(Debug, Clone)]
pub struct Decision<A> {
    /// For the asker. Leaves only after every change is durable.
    pub answer: A,
    /// For the ledger.
    pub changes: Vec<Change>,
    /// For the volatile state.
    pub volatile: Vec<Volatile>,
    /// What was seen, by machine; delays no answer.
    pub observed: Vec<(MacAddress, Observation)>,
    /// What a person should know; delays no answer.
    pub noticed: Vec<Notice>,
}

impl<A> Decision<A> {
    /// An answer that changes nothing.
    pub fn just(answer: A) -> Self {
        Self { answer, changes: Vec::new(), volatile: Vec::new(), observed: Vec::new(), noticed: Vec::new() }
    }

    /// The same with another answer.
    pub fn map<B>(self, to: impl FnOnce(A) -> B) -> Decision<B> {
        Decision {
            answer: to(self.answer),
            changes: self.changes,
            volatile: self.volatile,
            observed: self.observed,
            noticed: self.noticed,
        }
    }
}

/// One change of the stored state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Adds or replaces a machine.
    PutMachine(Machine),
    /// Forgets a machine.
    RemoveMachine(MacAddress),
    /// Adds or replaces a lease. The record of the address's earlier holder goes.
    PutLease(Lease),
    /// Forgets a lease.
    RemoveLease(LeaseKey),
    /// Adds an image.
    PutImage(Image),
    /// Removes an image.
    RemoveImage(Digest),
    /// Adds or moves a tag.
    PutTag(Tag),
    /// Removes a tag.
    RemoveTag(ImageName),
    /// Writes a boot.
    PutBoot(Boot),
}

/// One change of the volatile state.
#[expect(clippy::large_enum_variant, reason = "a decision holds two or three of them for an instant")]
#[derive(Debug, Clone, PartialEq)]
pub enum Volatile {
    /// Holds an address for a while.
    PutOffer(Offer),
    /// Drops what was held for a client.
    DropOffer(LeaseKey),
    /// Opens a boot or replaces what is known of it.
    PutBoot(Boot),
    /// Forgets the open boot of a machine.
    DropBoot(MacAddress),
    /// Notes whether an address is in use on its wire.
    Vet(Vetted),
}

/// Boots remembered at once, so that a flood of invented addresses cannot fill the memory.
pub const MAX_OPEN_BOOTS: usize = 8192;

/// Addresses of which the wire's answer is remembered; the one that counts no more first gives way.
pub const MAX_VETTED: usize = 4096;

/// Offers held at once; the one that ends first gives way.
pub const MAX_OFFERS: usize = 16_384;

impl Live {
    /// What is offered to a client, if it still holds at `now`.
    pub fn offer(&self, key: &LeaseKey, now: Timestamp) -> Option<&Offer> {
        self.offers.get(key).filter(|offer| now < offer.until)
    }

    /// To whom an address is offered at `now`.
    pub fn offered_to(&self, address: Ipv4Addr, now: Timestamp) -> Option<&LeaseKey> {
        let key = self.offered.get(&address)?;
        self.offer(key, now).map(|offer| &offer.key)
    }

    /// The open boot of a machine, by the machine's id.
    pub fn boot(&self, machine: MacAddress) -> Option<&Boot> {
        self.boots.get(&machine)
    }

    /// The open boot that a token belongs to.
    pub fn boot_by_token(&self, token: &Token) -> Option<&Boot> {
        self.boots.get(self.tokens.get(token)?)
    }

    /// Every boot that is remembered, by machine id.
    pub fn boots(&self) -> impl Iterator<Item = &Boot> {
        self.boots.values()
    }

    /// Performs one change.
    pub fn apply(&mut self, change: Volatile) {
        match change {
            Volatile::PutOffer(offer) => self.put_offer(offer),
            Volatile::DropOffer(key) => self.drop_offer(&key),
            Volatile::PutBoot(boot) => self.put_boot(boot),
            Volatile::DropBoot(machine) => self.drop_boot(machine),
            Volatile::Vet(vetted) => self.vet(vetted),
        }
    }

    /// What is known of an address on its wire, if that still counts at `now`.
    pub fn vetted(&self, address: Ipv4Addr, now: Timestamp) -> Option<&Vetted> {
        self.vetted.get(&address).filter(|vetted| now < vetted.until)
    }

    /// Addresses of a range of which the wire said that nobody uses them.
    pub fn vetted_free(&self, range: RangeInclusive<Ipv4Addr>, now: Timestamp) -> impl Iterator<Item = Ipv4Addr> {
        let counts = move |vetted: &&Vetted| vetted.taken_by.is_none() && now < vetted.until;
        self.vetted.range(range).map(|(_, vetted)| vetted).filter(counts).map(|vetted| vetted.address)
    }

    /// How many offers are held.
    pub fn offers_held(&self) -> usize {
        self.offers.len()
    }

    /// Takes note of something a person should know. Gives back what followers should hear.
    pub fn notice(&mut self, notice: Notice, now: Timestamp) -> Option<&Noticed> {
        self.notices.add(notice, now)
    }

    /// What a person should know, the latest last.
    pub fn notices(&self) -> &[Noticed] {
        self.notices.all()
    }

    /// Adds an observation to a machine's open boot; returns the boot, or `None` when none is open.
    pub fn observe(&mut self, machine: MacAddress, observation: Observation) -> Option<&Boot> {
        let boot = self.boots.get_mut(&machine)?;
        boot.observe(observation);
        Some(boot)
    }

    fn put_offer(&mut self, offer: Offer) {
        self.drop_offer(&offer.key);
        if self.offers.len() >= MAX_OFFERS
            && let Some(first) = self.offers.values().min_by_key(|held| held.until).map(|held| held.key)
        {
            self.drop_offer(&first);
        }
        self.offered.insert(offer.address, offer.key);
        self.offers.insert(offer.key, offer);
    }

    fn drop_offer(&mut self, key: &LeaseKey) {
        if let Some(old) = self.offers.remove(key)
            && self.offered.get(&old.address) == Some(key)
        {
            self.offered.remove(&old.address);
        }
    }

    /// The boots that a newer one replaced since this was last asked.
    pub fn take_ended(&mut self) -> Vec<Boot> {
        std::mem::take(&mut self.ended)
    }

    /// Takes up a boot that a newer one replaced and that could not be stored when it was asked for.
    pub fn keep_ended(&mut self, boot: Boot) {
        if self.ended.len() < MAX_OPEN_BOOTS {
            self.ended.push(boot);
        }
    }

    /// Puts a machine's open boot back as it was, when what replaced it could not be made durable.
    pub fn restore_boot(&mut self, machine: MacAddress, boot: Option<Boot>) {
        self.drop_boot(machine);
        if let Some(boot) = boot {
            if let Some(token) = &boot.token {
                self.tokens.insert(token.clone(), machine);
            }
            self.boots.insert(machine, boot);
        }
    }

    fn put_boot(&mut self, boot: Boot) {
        if let Some(mut earlier) = self.boots.get(&boot.machine).filter(|earlier| earlier.id != boot.id).cloned() {
            earlier.give_way(&boot);
            self.keep_ended(earlier);
        }
        self.drop_boot(boot.machine);
        if self.boots.len() >= MAX_OPEN_BOOTS {
            // Boots that are over go first, then those that were given nothing yet, then the oldest.
            let worth = |held: &&Boot| (held.closed.is_none(), held.token.is_some(), held.opened);
            if let Some(machine) = self.boots.values().min_by_key(worth).map(|held| held.machine) {
                self.drop_boot(machine);
            }
        }
        if let Some(token) = &boot.token {
            self.tokens.insert(token.clone(), boot.machine);
        }
        self.boots.insert(boot.machine, boot);
    }

    fn vet(&mut self, vetted: Vetted) {
        if self.vetted.len() >= MAX_VETTED
            && let Some(first) = self.vetted.values().min_by_key(|known| known.until).map(|known| known.address)
        {
            self.vetted.remove(&first);
        }
        self.vetted.insert(vetted.address, vetted);
    }

    fn drop_boot(&mut self, machine: MacAddress) {
        if let Some(token) = self.boots.remove(&machine).and_then(|boot| boot.token) {
            self.tokens.remove(&token);
        }
    }
}

/// The key of a client's lease in a subnet.
pub fn lease_key(subnet: Ipv4Net, mac: MacAddress) -> LeaseKey {
    LeaseKey { subnet, mac }
}
