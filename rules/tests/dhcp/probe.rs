//! Line 13: an address is looked for on its wire before it is first offered.

use crate::kit::*;
use bennu_rules::{
    Machine, Volatile,
    dhcp::{Probed, probe_ahead, probed, vetted},
    notice::Notice,
    settings::DhcpMode,
};
use std::net::Ipv4Addr;

impl Wire {
    /// The wire's word on an address, as the prober brings it.
    fn hear(&mut self, address: Ipv4Addr, taken_by: Option<bennu_rules::MacAddress>) {
        let decision = probed(&Probed { address, taken_by }, &self.view(), &self.moment());
        decision.volatile.into_iter().for_each(|change| self.live.apply(change));
        self.noticed.extend(decision.noticed);
    }

    fn ahead(&self) -> Vec<Ipv4Addr> {
        probe_ahead(&self.view(), &self.moment(), OURS)
    }
}

#[test]
fn line_13_a_new_address_is_offered_once_the_wire_was_asked() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    assert_eq!(wire.probe, Some(offer.yiaddr));
    wire.hear(offer.yiaddr, None);
    let again = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    assert_eq!((again.yiaddr, wire.probe), (offer.yiaddr, None), "it was asked a moment ago");
    wire.boot(Ask::new(DISCOVER, 1));
    wire.wait(1000);
    wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    assert_eq!(wire.probe, None, "its own address is not looked for");
}

#[test]
fn line_13_an_address_in_use_is_not_offered() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    wire.hear(offer.yiaddr, Some(mac(99)));
    assert_eq!(wire.noticed, [Notice::AddressTaken { address: offer.yiaddr, by: Some(mac(99)), found_by: None }]);
    let other = wire.ask(&Ask::new(DISCOVER, 1).address(50, offer.yiaddr)).unwrap();
    assert_ne!(other.yiaddr, offer.yiaddr);
    let select = wire.ask(&Ask::new(REQUEST, 2).address(50, offer.yiaddr).address(54, OURS)).unwrap();
    assert_eq!(select.kind, 6);
    wire.wait(301);
    let later = wire.ask(&Ask::new(DISCOVER, 3).address(50, offer.yiaddr)).unwrap();
    assert_eq!((later.yiaddr, wire.probe), (offer.yiaddr, Some(offer.yiaddr)), "the word counts for a while");
}

#[test]
fn line_13_a_client_that_uses_the_address_itself_may_have_it() {
    let mut wire = Wire::full();
    wire.hear(ip("10.77.0.99"), Some(mac(1)));
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).address(50, ip("10.77.0.99"))).unwrap().yiaddr, ip("10.77.0.99"));
    let address = wire.lease(2);
    wire.noticed.clear();
    wire.hear(address, Some(mac(2)));
    assert!(wire.noticed.is_empty(), "our own client is no stranger");
    wire.hear(address, Some(mac(99)));
    assert_eq!(wire.ask(&Ask::new(REQUEST, 2).ciaddr(address)).unwrap().kind, 5, "a forged ARP takes no lease away");
}

#[test]
fn line_13_what_was_looked_for_ahead_needs_no_wait() {
    let mut wire = Wire::full();
    let ahead = wire.ahead();
    assert_eq!(ahead.len(), 16);
    assert!(ahead.iter().all(|address| (ip("10.77.0.50")..=ip("10.77.0.199")).contains(address)));
    for address in &ahead[1..] {
        wire.hear(*address, None);
    }
    wire.hear(ahead[0], Some(mac(99)));
    assert_eq!(wire.ahead().len(), 1, "one is missing");
    for number in 0..15 {
        let offer = wire.ask(&Ask::new(DISCOVER, number)).unwrap();
        assert!(ahead[1..].contains(&offer.yiaddr), "{}", offer.yiaddr);
        assert_eq!(wire.probe, None);
    }
    let next = wire.ask(&Ask::new(DISCOVER, 20)).unwrap();
    assert_eq!(wire.probe, Some(next.yiaddr), "more than were looked for");
    let more = wire.ahead();
    assert_eq!(more.len(), 16 + 16, "where many ask, more are looked for");
    assert!(more.iter().all(|address| !ahead.contains(address) && *address != next.yiaddr));
}

#[test]
fn line_13_relayed_reserved_or_switched_off_is_not_probed() {
    let mut wire = Wire::full();
    wire.ask(&Ask::new(DISCOVER, 1).relayed()).unwrap();
    assert_eq!(wire.probe, None, "nothing answers ARP beyond a relay");
    let mut machine = Machine::new(mac(2), wire.now);
    machine.reservation = Some(ip("10.77.0.20"));
    wire.add(machine);
    wire.hear(ip("10.77.0.20"), Some(mac(99)));
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 2)).unwrap().yiaddr, ip("10.77.0.20"), "people said so");
    assert_eq!(wire.probe, None);
    wire.settings.probe_addresses = false;
    wire.ask(&Ask::new(DISCOVER, 3)).unwrap();
    assert_eq!((wire.probe, wire.ahead().len()), (None, 0));
    let mut proxy = Wire::new(DhcpMode::Proxy);
    proxy.settings.probe_addresses = true;
    assert!(proxy.ahead().is_empty());
}

#[test]
fn line_13_a_full_range_has_nothing_to_look_for() {
    let mut wire = Wire::full();
    for number in 0..150 {
        wire.lease(number);
    }
    assert!(wire.ahead().is_empty());
    wire.wait(u64::from(LEASE) + 1);
    assert!(!wire.ahead().is_empty(), "ended leases may be offered, and so are looked for");
}

#[test]
fn line_13_a_host_that_answers_for_every_address_keeps_nobody_from_one() {
    let mut wire = Wire::full();
    let mut tries = 0;
    let offer = loop {
        let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
        let Some(address) = wire.probe else { break offer };
        wire.hear(address, Some(mac(99)));
        tries += 1;
    };
    assert!(tries == 17 && offer.kind == 2, "{tries} tries");
    assert_eq!(wire.boot(Ask::new(DISCOVER, 1)).yiaddr, offer.yiaddr);
    assert_eq!(wire.noticed.len(), 17, "and a person is told");
}

#[test]
fn line_22_a_decline_is_told() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.ask(&Ask::new(DECLINE, 1).address(50, address).address(54, OURS)).unwrap_err();
    assert_eq!(wire.noticed, [Notice::AddressTaken { address, by: None, found_by: Some(mac(1)) }]);
}

#[test]
fn the_word_of_the_wire_ends() {
    let wire = Wire::full();
    let Volatile::Vet(word) = vetted(ip("10.77.0.50"), None, wire.now) else { panic!("another change") };
    assert_eq!(word.until, wire.now.plus_seconds(300));
}
