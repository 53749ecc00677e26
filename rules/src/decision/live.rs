//! State that a restart may forget.

use super::{
    Vetted, Volatile,
    boots::Boots,
    limits::{Declines, Exhausted, Strangers},
    offers::{Offer, Offers},
};
use crate::{
    MacAddress, Timestamp,
    boot::{Boot, Token},
    dhcp::standby::{Peer, Post},
    journey::Observation,
    lease::LeaseKey,
    notice::{Notice, Noticed, Notices},
    time::ClockStep,
};
use ipnet::Ipv4Net;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
};

/// Addresses of which the wire's answer is remembered; the one that counts no more first gives way.
pub const MAX_VETTED: usize = 4096;

/// Addresses that one card may be seen with before it is believed no more: a host has a few, while one that answers for
/// all (proxy ARP, RFC 1027, or malice) would leave none for newcomers.
pub const MAX_CLAIMS: u32 = 16;

/// State that a restart may forget: offers, the boots that are going on, what the wire told, and how much strangers
/// asked for. Everything in it is bounded, and costs as good as nothing to add to when it is full.
#[derive(Debug, Clone, Default)]
pub struct Live {
    offers: Offers,
    boots: Boots,
    vetted: BTreeMap<Ipv4Addr, Vetted>,
    vetted_order: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// Vetted as nobody's, and not offered to anybody since.
    vetted_free: BTreeSet<Ipv4Addr>,
    /// With how many vetted addresses each card was seen.
    claims: BTreeMap<MacAddress, u32>,
    strangers: Strangers,
    declines: Declines,
    exhausted: Exhausted,
    notices: Notices,
    /// The interfaces on which another Bennu answers in our place.
    stands_by: BTreeMap<String, Peer>,
}

impl Live {
    /// Performs one change.
    pub fn apply(&mut self, change: Volatile) {
        match change {
            Volatile::PutOffer(offer) => {
                self.vetted_free.remove(&offer.address);
                self.offers.put(offer);
            }
            Volatile::DropOffer(key) => self.offers.remove(&key),
            Volatile::PutBoot(boot) => self.boots.put(boot),
            Volatile::DropBoot(machine) => self.boots.remove(machine),
            Volatile::Vet(vetted) => self.vet(vetted),
            Volatile::Admit(now) => self.strangers.admit(now),
            Volatile::CountDecline { subnet, client, at } => self.declines.count(subnet, client, at),
            Volatile::Exhausted { subnet, is_known, at } => self.exhausted.note(subnet, is_known, at),
            Volatile::PutPost { interface, post: Post::StandsBy(peer) } => {
                self.stands_by.insert(interface, peer);
            }
            Volatile::PutPost { interface, post: Post::Serves } => {
                self.stands_by.remove(&interface);
            }
        }
    }

    /// What is offered to a client, if it still holds at `now`.
    pub fn offer(&self, key: &LeaseKey, now: Timestamp) -> Option<&Offer> {
        self.offers.get(key).filter(|offer| now < offer.until)
    }

    /// The offer of an address that holds at `now`.
    pub fn offer_of(&self, address: Ipv4Addr, now: Timestamp) -> Option<&Offer> {
        self.offers.at(address).filter(|offer| now < offer.until)
    }

    /// To whom an address is offered at `now`.
    pub fn offered_to(&self, address: Ipv4Addr, now: Timestamp) -> Option<&LeaseKey> {
        self.offer_of(address, now).map(|offer| &offer.key)
    }

    /// How many offers are held.
    pub fn offers_held(&self) -> usize {
        self.offers.len()
    }

    /// The open boot of a machine, by the machine's id.
    pub fn boot(&self, machine: MacAddress) -> Option<&Boot> {
        self.boots.of(machine)
    }

    /// The open boot that a token belongs to.
    pub fn boot_by_token(&self, token: &Token) -> Option<&Boot> {
        self.boots.by_token(token)
    }

    /// Every boot that is remembered, by machine id.
    pub fn boots(&self) -> impl Iterator<Item = &Boot> {
        self.boots.all()
    }

    /// The boots that a newer one replaced since this was last asked.
    pub fn take_ended(&mut self) -> Vec<Boot> {
        self.boots.take_ended()
    }

    /// Takes up a boot that a newer one replaced and that could not be stored when it was asked for.
    pub fn keep_ended(&mut self, boot: Boot) {
        self.boots.keep_ended(boot);
    }

    /// Puts a machine's open boot back as it was, when what replaced it could not be made durable.
    pub fn restore_boot(&mut self, machine: MacAddress, boot: Option<Boot>) {
        self.boots.remove(machine);
        if let Some(boot) = boot {
            self.boots.insert(boot);
        }
    }

    /// The clock was set: what is held for a while is held as long as it would have been.
    pub fn step_clock(&mut self, step: ClockStep) {
        self.offers.step_clock(step);
        self.vetted.values_mut().for_each(|vetted| vetted.until = step.moved(vetted.until));
        self.vetted_order = self.vetted.values().map(|vetted| (vetted.until, vetted.address)).collect();
    }

    /// Adds an observation to a machine's open boot; returns the boot, or `None` when none is open.
    pub fn observe(&mut self, machine: MacAddress, observation: Observation) -> Option<&Boot> {
        self.boots.observe(machine, observation)
    }

    /// What is known of an address on its wire, if that still counts at `now`.
    pub fn vetted(&self, address: Ipv4Addr, now: Timestamp) -> Option<&Vetted> {
        self.vetted.get(&address).filter(|vetted| now < vetted.until)
    }

    /// The card that uses an address, by what is known of its wire at `now`.
    pub fn user_of(&self, address: Ipv4Addr, now: Timestamp) -> Option<MacAddress> {
        let card = self.vetted(address, now)?.taken_by?;
        (self.claims.get(&card).is_none_or(|claims| *claims <= MAX_CLAIMS)).then_some(card)
    }

    /// Addresses of a range of which the wire said that nobody uses them, and that nobody was offered since.
    pub fn vetted_free(&self, range: RangeInclusive<Ipv4Addr>, now: Timestamp) -> impl Iterator<Item = Ipv4Addr> {
        let range = (!range.is_empty()).then(|| self.vetted_free.range(range));
        range.into_iter().flatten().copied().filter(move |address| self.vetted(*address, now).is_some())
    }

    /// Whether one more card that nobody knows is answered at `now`.
    pub fn admits_strangers(&self, now: Timestamp) -> bool {
        self.strangers.admits(now)
    }

    /// Whether a client's word that an address is taken puts that address into quarantine.
    pub fn admits_decline(&self, subnet: Ipv4Net, client: MacAddress, now: Timestamp) -> bool {
        self.declines.admits(subnet, client, now)
    }

    /// Whether a range was searched a moment ago and had nothing for clients on record, or for strangers.
    pub fn is_exhausted(&self, subnet: Ipv4Net, is_known: bool, now: Timestamp) -> bool {
        self.exhausted.is(subnet, is_known, now)
    }

    /// Takes note of something a person should know. Gives back what followers should hear.
    pub fn notice(&mut self, notice: Notice, now: Timestamp) -> Option<&Noticed> {
        self.notices.add(notice, now)
    }

    /// What a person should know, the latest last.
    pub fn notices(&self) -> &[Noticed] {
        self.notices.all()
    }

    /// The Bennu that answers DHCP on an interface in our place, if one does.
    pub fn stands_by(&self, interface: &str) -> Option<&Peer> {
        self.stands_by.get(interface)
    }

    fn vet(&mut self, vetted: Vetted) {
        self.forget_vetted(vetted.address);
        if self.vetted.len() >= MAX_VETTED
            && let Some((_, first)) = self.vetted_order.first().copied()
        {
            self.forget_vetted(first);
        }
        if vetted.taken_by.is_none() && self.offers.at(vetted.address).is_none() {
            self.vetted_free.insert(vetted.address);
        }
        if let Some(card) = vetted.taken_by {
            *self.claims.entry(card).or_default() += 1;
        }
        self.vetted_order.insert((vetted.until, vetted.address));
        self.vetted.insert(vetted.address, vetted);
    }

    fn forget_vetted(&mut self, address: Ipv4Addr) {
        if let Some(old) = self.vetted.remove(&address) {
            self.vetted_order.remove(&(old.until, address));
            self.vetted_free.remove(&address);
            let claims = old.taken_by.and_then(|card| Some((card, self.claims.get_mut(&card)?)));
            if let Some((card, claims)) = claims {
                *claims -= 1;
                if *claims == 0 {
                    self.claims.remove(&card);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Moment, View,
        decision::{MAX_OFFERS, MAX_OPEN_BOOTS, lease_key},
        memory::Memory,
    };

    fn client(number: u32) -> MacAddress {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([2, 0, a, b, c, d])
    }

    fn offer(number: u32, is_known: bool) -> Offer {
        let key = lease_key("10.0.0.0/8".parse().unwrap(), client(number));
        Offer { key, address: Ipv4Addr::from(0x0a00_0000 + number), until: Timestamp(u64::from(number) + 1), is_known }
    }

    #[test]
    fn a_flood_pushes_out_no_offer_of_a_client_on_record() {
        let mut live = Live::default();
        live.apply(Volatile::PutOffer(offer(0, true)));
        (1..50_000).for_each(|number| live.apply(Volatile::PutOffer(offer(number, false))));
        assert_eq!(live.offers_held(), MAX_OFFERS);
        assert!(live.offer(&offer(0, true).key, Timestamp(0)).is_some());
        assert!(live.offer(&offer(49_999, false).key, Timestamp(0)).is_some(), "the newest stranger is there");
        assert!(live.offered_to(offer(1, false).address, Timestamp(0)).is_none(), "the oldest is gone");
    }

    #[test]
    fn an_address_is_offered_to_one_client() {
        let mut live = Live::default();
        let (first, mut second) = (offer(1, false), offer(2, true));
        second.address = first.address;
        live.apply(Volatile::PutOffer(first.clone()));
        live.apply(Volatile::PutOffer(second.clone()));
        assert_eq!(live.offered_to(first.address, Timestamp(0)), Some(&second.key));
        assert!(live.offer(&first.key, Timestamp(0)).is_none());
        live.apply(Volatile::DropOffer(first.key));
        assert_eq!(live.offered_to(first.address, Timestamp(0)), Some(&second.key));
    }

    fn boot(number: u32, is_a_strangers: bool) -> Boot {
        let (records, live) = (Memory::default(), Live::default());
        let at = Moment { now: Timestamp(1000 + u64::from(number)), entropy: [7; 32], settings: Default::default() };
        let boot = Boot::open(client(number), None, &View { records: &records, live: &live }, &at);
        Boot { is_a_strangers, ..boot }
    }

    #[test]
    fn a_flood_pushes_out_no_boot_of_a_machine_on_record() {
        let mut live = Live::default();
        live.apply(Volatile::PutBoot(boot(0, false)));
        let scripted = Boot { token: Some(Token("t".into())), ..boot(1, true) };
        live.apply(Volatile::PutBoot(scripted));
        (2..20_000).for_each(|number| live.apply(Volatile::PutBoot(boot(number, true))));
        assert_eq!(live.boots().count(), MAX_OPEN_BOOTS);
        assert!(live.boot(client(0)).is_some() && live.boot(client(19_999)).is_some());
        assert!(live.boot_by_token(&Token("t".into())).is_some(), "who was given a script is no stranger");
        assert!(live.boot(client(2)).is_none());
    }

    #[test]
    fn a_boot_that_is_over_gives_way_before_one_that_goes_on() {
        let mut live = Live::default();
        (0..MAX_OPEN_BOOTS as u32).for_each(|number| live.apply(Volatile::PutBoot(boot(number, false))));
        let local =
            crate::journey::Seen::ScriptRead { script: crate::journey::ScriptKind::Local, detail: String::new() };
        live.observe(client(77), Observation::new(Timestamp(9999), local));
        live.apply(Volatile::PutBoot(boot(90_000, false)));
        assert!(live.boot(client(77)).is_none() && live.boot(client(0)).is_some());
    }

    #[test]
    fn what_the_wire_told_is_bounded_and_ends() {
        let mut live = Live::default();
        let at = |number: u32| Ipv4Addr::from(0x0a00_0000 + number);
        for number in 0..10_000 {
            let until = Timestamp(1000 + u64::from(number));
            live.apply(Volatile::Vet(Vetted { address: at(number), taken_by: None, until }));
        }
        let free = |live: &Live, now| live.vetted_free(at(0)..=at(20_000), Timestamp(now)).count();
        assert_eq!(free(&live, 0), MAX_VETTED);
        assert_eq!(free(&live, 10_000), 999, "what counts no more is no answer");
        live.apply(Volatile::PutOffer(Offer { address: at(9999), ..offer(5, false) }));
        assert_eq!(free(&live, 10_000), 998, "what is offered is not offered again");
        assert!(live.vetted(at(9999), Timestamp(10_000)).is_some(), "and still known to be nobody's");
    }

    #[test]
    fn a_card_that_answers_for_everything_is_not_believed() {
        let mut live = Live::default();
        let vet = |number: u32, taken_by| {
            let address = Ipv4Addr::from(0x0a00_0000 + number);
            Volatile::Vet(Vetted { address, taken_by, until: Timestamp(1000) })
        };
        let user = |live: &Live| live.user_of(Ipv4Addr::from(0x0a00_0000), Timestamp(0));
        (0..MAX_CLAIMS).for_each(|number| live.apply(vet(number, Some(client(7)))));
        live.apply(vet(0, Some(client(7))));
        assert_eq!(user(&live), Some(client(7)), "the same word again is no further claim");
        live.apply(vet(MAX_CLAIMS, Some(client(7))));
        assert_eq!(user(&live), None);
        live.apply(vet(MAX_CLAIMS, None));
        assert_eq!(user(&live), Some(client(7)));
        (0..10_000).for_each(|number| live.apply(vet(100 + number, Some(client(number)))));
        assert!(live.claims.len() <= MAX_VETTED);
    }
}
