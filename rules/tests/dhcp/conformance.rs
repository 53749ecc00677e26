//! RFC 2131: who gets which address, and when nobody gets an answer. Numbers are the checklist's lines.

use crate::kit::*;
use bennu_rules::{
    Machine, Records,
    decision::lease_key,
    dhcp::{Reason, Request, SendTo, request::Kind},
    journey::Seen,
    settings::DhcpMode,
};

#[test]
fn line_01_an_ack_writes_its_lease_and_an_offer_writes_nothing() {
    let mut wire = Wire::full();
    let discover = Ask::new(DISCOVER, 1);
    let offer = wire.ask(&discover).unwrap();
    assert_eq!((offer.kind, wire.writes), (2, 0));
    let ack = wire.boot(discover);
    assert_eq!((ack.kind, wire.writes), (5, 1));
    let lease = wire.records.lease_at(ack.yiaddr).unwrap();
    assert_eq!(lease.expires, wire.now.plus_seconds(LEASE.into()));
    assert_eq!(lease.key, lease_key("10.77.0.0/24".parse().unwrap(), mac(1)));
}

#[test]
fn line_01_what_is_promised_never_ends_after_what_is_stored() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    for pause in [0, 1, 59, 1000, 700, 3000] {
        wire.wait(pause);
        wire.now.0 += 333;
        let ack = wire.ask(&Ask::new(REQUEST, 1).ciaddr(address).unicast()).unwrap();
        let stored = wire.records.lease_at(address).unwrap().expires;
        assert!(wire.now.plus_seconds(ack.number(51).into()) <= stored, "after {pause} s");
        assert!(ack.number(51) > LEASE / 2);
    }
}

#[test]
fn line_01_the_steps_of_one_boot_write_one_lease() {
    let mut wire = Wire::full();
    let first = wire.boot(Ask::new(DISCOVER, 1).pxe(7));
    wire.wait(20);
    let second = wire.boot(Ask::new(DISCOVER, 1).ipxe(7, HTTP_FEATURE));
    wire.wait(20);
    let third = wire.boot(Ask::new(DISCOVER, 1));
    assert_eq!((first.yiaddr, second.yiaddr), (second.yiaddr, third.yiaddr));
    assert_eq!(wire.writes, 1);
    assert_eq!((first.number(51), third.number(51)), (LEASE, LEASE - 40));
}

#[test]
fn line_01_an_address_is_held_while_its_lease_is_being_written() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    wire.wait(59);
    let before = wire.records.clone();
    wire.ask(&Ask::new(REQUEST, 1).address(50, offer.yiaddr).address(54, OURS)).unwrap();
    wire.wait(2);
    wire.records = before;
    let other = wire.ask(&Ask::new(DISCOVER, 2).address(50, offer.yiaddr)).unwrap();
    assert_ne!(other.yiaddr, offer.yiaddr, "a reader whose snapshot is older than the commit sees the hold");
}

#[test]
fn line_02_leases_survive_a_restart() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.restart();
    let ack = wire.ask(&Ask::new(REQUEST, 1).address(50, address)).unwrap();
    assert_eq!((ack.kind, ack.yiaddr), (5, address));
}

#[test]
fn line_02_an_offer_stands_although_a_restart_forgot_it() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    wire.restart();
    let ack = wire.ask(&Ask::new(REQUEST, 1).address(50, offer.yiaddr).address(54, OURS)).unwrap();
    assert_eq!((ack.kind, ack.yiaddr), (5, offer.yiaddr));
}

#[test]
fn line_07_the_fields_of_the_request_come_back() {
    let mut wire = Wire::full();
    let got = wire.ask(&Ask::new(DISCOVER, 1).xid(0xdead_beef).flags(0x8000).relayed()).unwrap();
    assert_eq!((got.xid, got.flags, got.giaddr), (0xdead_beef, 0x8000, RELAY));
    assert_eq!(got.chaddr, mac(1).0);
    assert_eq!(got.ciaddr, NONE);
}

#[test]
fn line_08_offers_and_acks_name_server_and_lease() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    let ack = wire.lease(1);
    assert_eq!((offer.address(54), offer.number(51)), (OURS, LEASE));
    let inform = wire.ask(&Ask::new(INFORM, 1).ciaddr(ack)).unwrap();
    assert_eq!(inform.address(54), OURS);
    assert!(!inform.options.contains_key(&51));
}

#[test]
fn line_11_one_machine_one_address_though_its_client_id_changes() {
    let mut wire = Wire::full();
    let addresses = [&[1, 2][..], &[0xff, 9, 9, 9], &[0xff, 1, 2, 3]].map(|id| {
        wire.wait(10);
        wire.boot(Ask::new(DISCOVER, 1).with(61, id)).yiaddr
    });
    assert_eq!(addresses, [addresses[0]; 3]);
}

#[test]
fn line_12_the_current_address_comes_first() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    let offer = wire.ask(&Ask::new(DISCOVER, 1).address(50, ip("10.77.0.99"))).unwrap();
    assert_eq!(offer.yiaddr, address);
}

#[test]
fn line_12_then_the_previous_one() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.wait(u64::from(LEASE) * 10);
    let offer = wire.ask(&Ask::new(DISCOVER, 1).address(50, ip("10.77.0.99"))).unwrap();
    assert_eq!(offer.yiaddr, address);
}

#[test]
fn line_12_then_the_requested_one() {
    let mut wire = Wire::full();
    let asked = |number, address| Ask::new(DISCOVER, number).address(50, ip(address));
    assert_eq!(wire.ask(&asked(1, "10.77.0.99")).unwrap().yiaddr, ip("10.77.0.99"));
    for outside in ["10.77.0.200", "10.77.0.1", "10.77.0.255", "192.168.0.1", "0.0.0.0"] {
        let got = wire.ask(&asked(2, outside)).unwrap().yiaddr;
        assert!((ip("10.77.0.50")..=ip("10.77.0.199")).contains(&got), "{outside} gave {got}");
    }
    assert_ne!(wire.ask(&asked(3, "10.77.0.99")).unwrap().yiaddr, ip("10.77.0.99"), "offered to another");
}

#[test]
fn line_12_then_any_free_one_until_none_is_left() {
    let mut wire = Wire::full();
    let mut taken: Vec<_> = (0..150).map(|number| wire.lease(number)).collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 150, "the whole range was given out, nothing twice");
    let reason = wire.ask(&Ask::new(DISCOVER, 500)).unwrap_err();
    assert_eq!(reason, Reason::PoolExhausted("10.77.0.0/24".parse().unwrap()));
    assert!(reason.to_string().contains("widen its range"));
    wire.wait(u64::from(LEASE) + 1);
    assert!(wire.ask(&Ask::new(DISCOVER, 500)).is_ok(), "ended leases are free");
}

#[test]
fn line_12_a_reservation_comes_before_everything_even_outside_the_range() {
    let mut wire = Wire::full();
    let earlier = wire.lease(1);
    let mut machine = Machine::new(mac(1), wire.now);
    machine.reservation = Some(ip("10.77.0.20"));
    wire.add(machine);
    assert_ne!(earlier, ip("10.77.0.20"));
    assert_eq!(wire.lease(1), ip("10.77.0.20"));
}

#[test]
fn a_reservation_is_nobody_elses() {
    let mut wire = Wire::full();
    let mut machine = Machine::new(mac(1), wire.now);
    machine.reservation = Some(ip("10.77.0.60"));
    wire.add(machine);
    let offer = wire.ask(&Ask::new(DISCOVER, 2).address(50, ip("10.77.0.60"))).unwrap();
    assert_ne!(offer.yiaddr, ip("10.77.0.60"));
    let nak = wire.ask(&Ask::new(REQUEST, 2).address(50, ip("10.77.0.60")).address(54, OURS)).unwrap();
    assert_eq!(nak.kind, 6);
    let relayed = wire.ask(&Ask::new(DISCOVER, 1).relayed()).unwrap();
    assert!(relayed.yiaddr.octets().starts_with(&[10, 88]), "the reservation is of another subnet");
}

#[test]
fn a_reservation_made_too_late_waits_until_its_address_is_free() {
    let mut wire = Wire::full();
    let taken = wire.lease(2);
    let mut machine = Machine::new(mac(1), wire.now);
    machine.reservation = Some(taken);
    wire.add(machine);
    assert_ne!(wire.lease(1), taken);
    wire.wait(u64::from(LEASE) + 1);
    assert_eq!(wire.lease(1), taken);
}

#[test]
fn line_14_offer_not_selected_is_dropped() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    assert!(wire.live.offered_to(offer.yiaddr, wire.now).is_some());
    let other = ip("10.77.0.2");
    let reason = wire.ask(&Ask::new(REQUEST, 1).address(50, offer.yiaddr).address(54, other)).unwrap_err();
    assert_eq!(reason, Reason::TookAnotherOffer(other));
    assert!(wire.live.offered_to(offer.yiaddr, wire.now).is_none());
    assert_eq!(wire.writes, 0);
}

#[test]
fn offers_end_by_themselves() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    wire.wait(61);
    let other = wire.ask(&Ask::new(DISCOVER, 2).address(50, offer.yiaddr)).unwrap();
    assert_eq!(other.yiaddr, offer.yiaddr);
}

#[test]
fn line_15_init_reboot_of_an_unknown_client_gets_silence() {
    let mut wire = Wire::full();
    let reason = wire.ask(&Ask::new(REQUEST, 1).address(50, ip("10.77.0.70"))).unwrap_err();
    assert_eq!(reason, Reason::UnknownLease(ip("10.77.0.70")));
}

#[test]
fn line_16_an_address_of_another_network_gets_a_nak() {
    let mut wire = Wire::full();
    let ask = Ask::new(REQUEST, 1).address(50, ip("192.168.1.5"));
    let nak = wire.ask(&ask).unwrap();
    assert_eq!(nak.kind, 6);
    assert_eq!(wire.ask(&ask.relayed()).unwrap().kind, 6);
    assert!(matches!(&wire.seen[0].1, Seen::DhcpNak { reason } if reason.contains("192.168.1.5")));
}

#[test]
fn line_16_an_address_that_is_not_the_clients_gets_a_nak() {
    let mut wire = Wire::full();
    let mine = wire.lease(1);
    let other = wire.lease(2);
    let init_reboot = wire.ask(&Ask::new(REQUEST, 2).address(50, mine)).unwrap();
    assert_eq!(init_reboot.kind, 6);
    let unused = wire.ask(&Ask::new(REQUEST, 2).address(50, ip("10.77.0.199"))).unwrap();
    assert_eq!(unused.kind, 6, "the client is known, and the address is not its own");
    let renewal = wire.ask(&Ask::new(REQUEST, 3).ciaddr(other)).unwrap();
    assert_eq!(renewal.kind, 6, "the address is certainly somebody else's");
    assert_eq!(wire.records.lease_at(mine).unwrap().key.mac, mac(1));
}

#[test]
fn line_17_a_nak_is_broadcast_even_without_the_flag() {
    let mut wire = Wire::full();
    let nak = wire.ask(&Ask::new(REQUEST, 1).ciaddr(ip("192.168.1.5")).address(50, ip("192.168.1.5"))).unwrap();
    assert_eq!((nak.kind, nak.to.to_string().as_str()), (6, "255.255.255.255:68"));
}

#[test]
fn line_18_a_relayed_nak_goes_to_the_relay_with_the_flag_set() {
    let mut wire = Wire::full();
    let nak = wire.ask(&Ask::new(REQUEST, 1).address(50, ip("192.168.1.5")).relayed()).unwrap();
    assert_eq!((nak.kind, nak.to.to_string().as_str(), nak.flags), (6, "10.88.0.1:67", 0x8000));
}

#[test]
fn line_19_a_nak_carries_nothing_else() {
    let mut wire = Wire::full();
    let nak = wire.ask(&Ask::new(REQUEST, 1).pxe(7).with(61, [1, 2, 3]).address(50, ip("192.168.1.5"))).unwrap();
    assert_eq!((nak.ciaddr, nak.yiaddr, nak.siaddr, nak.file.as_str()), (NONE, NONE, NONE, ""));
    assert_eq!(nak.options.keys().copied().collect::<Vec<_>>(), [53, 54, 56, 61]);
}

#[test]
fn line_20_a_renewal_needs_its_own_address_alone() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.wait(u64::from(LEASE) / 2 + 1);
    let ack = wire.ask(&Ask::new(REQUEST, 1).ciaddr(address).unicast()).unwrap();
    assert_eq!((ack.kind, ack.yiaddr, ack.ciaddr, ack.number(51)), (5, address, address, LEASE));
    assert_eq!(ack.to.to_string(), format!("{address}:68"));
    assert_eq!(wire.records.lease_at(address).unwrap().expires, wire.now.plus_seconds(LEASE.into()));
}

#[test]
fn line_20_a_renewal_before_its_time_is_granted_in_full() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.wait(u64::from(LEASE) / 10);
    let ack = wire.ask(&Ask::new(REQUEST, 1).ciaddr(address).unicast()).unwrap();
    assert_eq!((ack.number(51), wire.writes), (LEASE, 2));
}

#[test]
fn line_20_a_renewal_from_behind_a_router_is_of_its_own_subnet() {
    let mut wire = Wire::full();
    let address = wire.boot(Ask::new(DISCOVER, 1).relayed()).yiaddr;
    let ack = wire.ask(&Ask::new(REQUEST, 1).ciaddr(address).unicast()).unwrap();
    assert_eq!((ack.kind, ack.yiaddr), (5, address));
}

#[test]
fn line_21_where_answers_go() {
    let mut wire = Wire::full();
    let mut to = |ask: &Ask| wire.ask(ask).unwrap().send_to;
    let unicast = |text: &str| SendTo::Unicast(text.parse().unwrap());
    assert_eq!(to(&Ask::new(DISCOVER, 1).relayed().flags(0x8000)), unicast("10.88.0.1:67"));
    assert_eq!(to(&Ask::new(DISCOVER, 1).relayed()), unicast("10.88.0.1:67"));
    assert_eq!(to(&Ask::new(DISCOVER, 1).flags(0x8000)), SendTo::Broadcast);
    assert_eq!(to(&Ask::new(INFORM, 2).ciaddr(ip("10.77.0.222"))), unicast("10.77.0.222:68"));
}

#[test]
fn line_21_a_client_without_an_address_gets_frames_to_its_card() {
    let mut wire = Wire::full();
    let ask = Ask::new(DISCOVER, 1).flags(0x7fff);
    let offer = wire.ask(&ask).unwrap();
    let hardware = SendTo::Hardware { mac: mac(1), address: offer.yiaddr };
    assert_eq!(offer.send_to, hardware);
    let ack = wire.boot(ask);
    assert_eq!(ack.send_to, hardware);
    let reboot = wire.ask(&Ask::new(REQUEST, 1).address(50, ack.yiaddr)).unwrap();
    assert_eq!(reboot.send_to, hardware);
    let renewal = wire.ask(&Ask::new(REQUEST, 1).ciaddr(ack.yiaddr)).unwrap();
    assert_eq!(renewal.send_to, SendTo::Unicast(format!("{}:68", ack.yiaddr).parse().unwrap()));
}

#[test]
fn line_21_a_proxy_gives_no_address_and_so_broadcasts() {
    let offer = Wire::proxy().ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap();
    assert_eq!((offer.yiaddr, offer.send_to), (NONE, SendTo::Broadcast));
}

#[test]
fn line_22_a_declined_address_is_nobodys_for_a_while() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    let decline = Ask::new(DECLINE, 1).address(50, address).address(54, OURS);
    assert_eq!(wire.ask(&decline).unwrap_err(), Reason::Declined(address));
    assert!(
        matches!(&wire.seen.last().unwrap().1, Seen::DhcpIgnored { reason } if reason.contains("somebody else uses"))
    );
    for number in [1, 2] {
        let offer = wire.ask(&Ask::new(DISCOVER, number).address(50, address)).unwrap();
        assert_ne!(offer.yiaddr, address, "client {number}");
    }
    let next = wire.lease(1);
    assert!(wire.records.lease_at(address).unwrap().declined, "the new lease leaves the mark in place");
    assert_ne!(next, address);
    wire.wait(2 * 3600);
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 3).address(50, address)).unwrap().yiaddr, address);
}

#[test]
fn line_22_only_its_holder_can_decline_an_address() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    let other = Ask::new(DECLINE, 2).address(50, address).address(54, OURS);
    assert_eq!(wire.ask(&other).unwrap_err(), Reason::NotItsAddress(Kind::Decline));
    let elsewhere = Ask::new(DECLINE, 1).address(50, address).address(54, ip("10.77.0.2"));
    assert_eq!(wire.ask(&elsewhere).unwrap_err(), Reason::NotItsAddress(Kind::Decline));
    assert!(!wire.records.lease_at(address).unwrap().declined);
}

#[test]
fn line_23_release_frees_the_address_and_keeps_the_record() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.wait(5);
    assert_eq!(wire.ask(&Ask::new(RELEASE, 2).ciaddr(address)).unwrap_err(), Reason::NotItsAddress(Kind::Release));
    assert!(wire.records.lease_at(address).unwrap().is_active(wire.now));
    assert_eq!(wire.ask(&Ask::new(RELEASE, 1).ciaddr(address)).unwrap_err(), Reason::Released(address));
    assert!(!wire.records.lease_at(address).unwrap().is_active(wire.now));
    assert_eq!(wire.lease(1), address, "its client gets it again");
    wire.ask(&Ask::new(RELEASE, 1).ciaddr(address)).unwrap_err();
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 2).address(50, address)).unwrap().yiaddr, address, "and others may");
}

#[test]
fn line_24_inform_gets_configuration_without_an_address() {
    let mut wire = Wire::full();
    let got = wire.ask(&Ask::new(INFORM, 1).ciaddr(ip("10.77.0.222"))).unwrap();
    assert_eq!((got.kind, got.yiaddr), (5, NONE));
    assert_eq!(got.address(3), ip("10.77.0.254"));
    assert!([51, 58, 59].iter().all(|code| !got.options.contains_key(code)));
    assert_eq!(wire.writes, 0);
    assert_eq!(wire.ask(&Ask::new(INFORM, 1)).unwrap_err(), Reason::NamesNoAddress(Kind::Inform));
}

#[test]
fn line_25_t1_before_t2_before_the_end() {
    for seconds in [8, 9, 60, 3600, u32::MAX - 1] {
        let mut wire = Wire::full();
        wire.settings.subnets[0].lease_seconds = seconds;
        let ack = wire.boot(Ask::new(DISCOVER, 1));
        assert!(ack.number(58) < ack.number(59) && ack.number(59) < ack.number(51), "{seconds}");
    }
    for seconds in [1, 7, u32::MAX] {
        let mut wire = Wire::full();
        wire.settings.subnets[0].lease_seconds = seconds;
        let ack = wire.boot(Ask::new(DISCOVER, 1));
        assert_eq!((ack.number(51), ack.options.contains_key(&58)), (seconds, false));
    }
}

#[test]
fn line_32_a_relay_names_the_link_and_the_server() {
    let mut wire = Wire::full();
    let sub_options = [&[5, 4][..], &ip("10.88.0.9").octets(), &[11, 4], &ip("10.88.0.7").octets()].concat();
    let mut ask = Ask::new(DISCOVER, 1).relayed().with(82, &sub_options);
    ask.giaddr = ip("172.16.0.1");
    let offer = wire.ask(&ask).unwrap();
    assert!(offer.yiaddr.octets().starts_with(&[10, 88]));
    assert_eq!((offer.address(54), offer.to.to_string().as_str()), (ip("10.88.0.7"), "172.16.0.1:67"));
    let mut request = ask.address(50, offer.yiaddr).address(54, ip("10.88.0.7"));
    request.options[0] = (53, vec![REQUEST]);
    assert_eq!(wire.ask(&request).unwrap().kind, 5);
    let direct = wire.ask(&Ask::new(DISCOVER, 2).with(82, &sub_options)).unwrap();
    assert_eq!(direct.address(54), OURS, "what a client says in a relay's name is not believed");
    assert!(direct.yiaddr.octets().starts_with(&[10, 77]));
}

#[test]
fn line_33_bootp_clients_are_refused() {
    let mut wire = Wire::full();
    let mut ask = Ask::new(DISCOVER, 1);
    ask.options.clear();
    let request: Request = ask.parse().unwrap();
    assert_eq!(request.kind, Kind::Bootp);
    assert_eq!(wire.ask_parsed(&request).unwrap_err(), Reason::Bootp);
}

#[test]
fn a_wire_without_a_subnet_says_so() {
    let mut wire = Wire::full();
    let mut ask = Ask::new(DISCOVER, 1).relayed();
    ask.giaddr = ip("172.16.0.1");
    assert_eq!(wire.ask(&ask).unwrap_err(), Reason::NoSubnet(ip("172.16.0.1")));
}

#[test]
fn off_answers_nobody() {
    let mut wire = Wire::new(DhcpMode::Off);
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap_err(), Reason::Off);
    assert!(wire.seen.is_empty());
}
