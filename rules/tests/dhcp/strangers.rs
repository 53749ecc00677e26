//! Cards that nobody knows: a flood of them keeps no machine from its address.

use crate::kit::*;
use bennu_rules::{
    Change, MacAddress, Machine,
    decision::{MAX_OFFERS, MAX_OPEN_BOOTS, STRANGERS_AT_ONCE},
    dhcp::{Reason, decide, takes_up_an_offer},
    notice::Notice,
    settings::DhcpMode,
};

fn invented(number: u32) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([0x06, 0xee, a, b, c, d])
}

fn stranger(number: u32) -> Ask {
    Ask { mac: invented(number), ..Ask::new(DISCOVER, 0).pxe(7) }
}

fn wide(mode: DhcpMode) -> Wire {
    let mut wire = Wire::new(mode);
    wire.settings.subnets = vec![subnet("10.64.0.0/10", Some(("10.80.0.0", "10.96.0.0")))];
    wire
}

#[test]
fn strangers_beyond_the_limit_get_silence_and_a_person_is_told() {
    for mode in [DhcpMode::Full, DhcpMode::Proxy] {
        let mut wire = wide(mode);
        let first = STRANGERS_AT_ONCE as u32;
        assert!((0..first).all(|number| wire.ask(&stranger(number)).is_ok()), "{mode:?}: racks that start at once");
        assert!(wire.noticed.is_empty());
        assert_eq!(wire.ask(&stranger(first)), Err(Reason::TooManyUnknown));
        assert_eq!(wire.noticed, [Notice::TooManyUnknown { interface: "eno2".into() }]);
        assert!(wire.ask(&stranger(first - 1)).is_ok(), "a card that was answered may repeat itself");
        wire.wait(1);
        assert!((first..first + 500).all(|number| wire.ask(&stranger(number)).is_ok()), "and then at a pace");
        assert_eq!(wire.ask(&stranger(first + 500)), Err(Reason::TooManyUnknown));
    }
}

#[test]
fn a_rack_of_ten_thousand_new_machines_is_not_slowed() {
    let mut wire = wide(DhcpMode::Full);
    wire.settings.probe_addresses = false;
    for number in 0..10_000 {
        let offer = wire.ask(&stranger(number)).unwrap();
        let mut request = stranger(number).address(50, offer.yiaddr).address(54, OURS);
        request.options[0] = (53, vec![REQUEST]);
        assert_eq!(wire.ask(&request).unwrap().kind, 5, "machine {number}");
    }
    assert!(wire.noticed.is_empty());
}

#[test]
fn only_what_ends_in_a_lease_is_stored_without_a_look() {
    let mut wire = Wire::full();
    let takes_up = |wire: &Wire, ask: &Ask| takes_up_an_offer(&ask.parse().unwrap(), &wire.live, wire.now);
    let asking = |number: u16, address| Ask::new(REQUEST, number).address(50, address).address(54, OURS);
    let offered = wire.ask(&Ask::new(DISCOVER, 1)).unwrap().yiaddr;
    assert!(!takes_up(&wire, &Ask::new(DISCOVER, 1)));
    assert!(!takes_up(&wire, &asking(2, offered)), "another's offer");
    assert!(!takes_up(&wire, &asking(1, offered).address(54, ip("10.1.0.77"))), "another server's offer");
    assert!(!takes_up(&wire, &Ask::new(REQUEST, 1).address(50, offered)), "INIT-REBOOT");
    let takes = asking(1, offered);
    assert!(takes_up(&wire, &takes));
    let decision = decide(&takes.parse().unwrap(), &wire.view(), &wire.moment());
    assert!(matches!(decision.changes[..], [Change::PutLease(_)]));
    wire.ask(&takes).unwrap();
    let again = wire.ask(&Ask::new(DISCOVER, 1)).unwrap().yiaddr;
    assert!(!takes_up(&wire, &asking(1, again)), "a lease that stands is promised again, and not stored");
    let late = wire.ask(&Ask::new(DISCOVER, 3)).unwrap().yiaddr;
    wire.wait(120);
    assert!(!takes_up(&wire, &asking(3, late)), "an offer that ended");
}

#[test]
fn a_flood_keeps_no_reserved_machine_from_its_offer_and_no_boot_from_going_on() {
    let mut wire = wide(DhcpMode::Full);
    for number in 0..100 {
        let mut machine = Machine::new(mac(number), wire.now);
        machine.reservation = Some(std::net::Ipv4Addr::new(10, 77, 1, number as u8 + 2));
        wire.add(machine);
    }
    let waiting = Machine::new(mac(500), wire.now);
    wire.add(waiting);
    wire.ask(&Ask::new(DISCOVER, 500).pxe(7)).unwrap();
    let boot = wire.live.boot(mac(500)).unwrap().id.clone();
    for number in 0..50_000 {
        let _ = wire.ask(&stranger(number));
        if number % 5 == 0 {
            wire.now.0 += 1;
        }
        if number % 500 == 0 {
            let machine = (number / 500) as u16;
            let offer = wire.ask(&Ask::new(DISCOVER, machine).pxe(7)).unwrap();
            assert_eq!(offer.yiaddr, std::net::Ipv4Addr::new(10, 77, 1, machine as u8 + 2));
        }
    }
    assert_eq!(wire.live.boot(mac(500)).unwrap().id, boot);
    assert!((0..100).all(|number| wire.live.boot(mac(number)).is_some()), "nor any of the others");
    assert!(wire.live.offers_held() <= MAX_OFFERS && wire.live.boots().count() <= MAX_OPEN_BOOTS);
    assert_eq!(wire.writes, 0);
}

#[test]
fn what_is_offered_to_strangers_is_taken_over_by_machines_on_record() {
    let mut wire = Wire::full();
    let mut offers: Vec<_> = (0..150).map(|number| wire.ask(&stranger(number)).unwrap().yiaddr).collect();
    offers.sort();
    offers.dedup();
    assert_eq!(offers.len(), 150, "the whole range is offered");
    assert_eq!(wire.ask(&stranger(999)), Err(Reason::PoolExhausted("10.77.0.0/24".parse().unwrap())));
    wire.add(Machine::new(mac(1), wire.now));
    wire.add(Machine::new(mac(2), wire.now));
    let ack = wire.boot(Ask::new(DISCOVER, 1));
    let robbed = (0..150).find(|number| {
        let key = bennu_rules::decision::lease_key("10.77.0.0/24".parse().unwrap(), invented(*number));
        wire.live.offer(&key, wire.now).is_none()
    });
    let mut request = stranger(robbed.unwrap()).address(50, ack.yiaddr).address(54, OURS);
    request.options[0] = (53, vec![REQUEST]);
    assert_eq!(wire.ask(&request).unwrap().kind, 6, "its first holder starts anew");
    let other = wire.ask(&Ask::new(DISCOVER, 2)).unwrap();
    assert_ne!(other.yiaddr, ack.yiaddr, "an offer to a machine on record stands");
    assert!(wire.ask(&stranger(149)).is_ok() || wire.ask(&stranger(148)).is_ok(), "the others' offers stand");
}

#[test]
fn a_machine_that_had_a_lease_is_no_stranger() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.wait(u64::from(LEASE) * 24);
    wire.restart();
    for number in 0..STRANGERS_AT_ONCE as u32 {
        let _ = wire.ask(&stranger(number));
    }
    assert_eq!(wire.ask(&stranger(99_999)), Err(Reason::TooManyUnknown));
    assert_eq!(wire.ask(&Ask::new(REQUEST, 1).address(50, address)).map(|got| got.kind).unwrap_or(6), 6);
    assert!(wire.ask(&Ask::new(DISCOVER, 1)).is_ok());
}

#[test]
fn a_flood_of_requests_for_offers_that_never_were_counts_too() {
    let mut wire = wide(DhcpMode::Full);
    let request = |number: u32| {
        let address = std::net::Ipv4Addr::from(u32::from(ip("10.80.0.0")) + number);
        let mut ask = Ask { mac: invented(number), ..Ask::new(REQUEST, 0) }.address(50, address).address(54, OURS);
        ask.xid = number;
        ask
    };
    let mut acknowledged = 0;
    for number in 0..20_000 {
        match wire.ask(&request(number)) {
            Ok(got) => acknowledged += u64::from(got.kind == 5),
            Err(reason) => assert_eq!(reason, Reason::TooManyUnknown),
        }
    }
    assert_eq!(acknowledged, STRANGERS_AT_ONCE);
}
