//! What people configure: shared networks, options of subnets and machines, BOOTP.

use crate::kit::*;
use bennu_rules::{
    Change, Machine, Records, Volatile,
    decision::lease_key,
    dhcp::{Reason, SendTo, SiteOptions},
    settings::BootpPolicy,
};
use std::net::Ipv4Addr;

fn options(pairs: &[(&str, &str)]) -> SiteOptions {
    pairs.iter().map(|(code, value)| (code.parse().unwrap(), value.parse().unwrap())).collect()
}

fn on_record(number: u16, reservation: Option<&str>) -> Machine {
    let mut machine = Machine::new(mac(number), bennu_rules::Timestamp(EXAMPLE_START));
    machine.reservation = reservation.map(ip);
    machine
}

/// 10.77.0.0/24 with two addresses and 10.99.0.0/24 with three, on one wire.
fn shared() -> Wire {
    let mut wire = Wire::full();
    wire.settings.subnets = vec![
        subnet("10.77.0.0/24", Some(("10.77.0.50", "10.77.0.51"))),
        subnet("10.88.0.0/24", Some(("10.88.0.50", "10.88.0.60"))),
        subnet("10.99.0.0/24", Some(("10.99.0.50", "10.99.0.52"))),
    ];
    for at in [0, 2] {
        wire.settings.subnets[at].shared_network = Some("hall".into());
    }
    wire
}

#[test]
fn shared_networks_are_filled_one_subnet_after_the_other() {
    let mut wire = shared();
    let nets: Vec<u8> = (0..5).map(|number| wire.lease(number).octets()[1]).collect();
    assert_eq!(nets, [77, 77, 99, 99, 99]);
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 9)), Err(Reason::PoolExhausted("10.77.0.0/24".parse().unwrap())));
    let last = wire.ask(&Ask::new(DISCOVER, 4)).unwrap();
    assert_eq!((last.address(3), last.address(1)), (ip("10.99.0.254"), ip("255.255.255.0")), "its own subnet's router");
}

#[test]
fn line_12_in_a_shared_network_the_lease_of_any_of_its_subnets_comes_first() {
    let mut wire = shared();
    let ask = Ask::new(DISCOVER, 1).address(50, ip("10.99.0.51"));
    assert_eq!(wire.boot(ask).yiaddr, ip("10.99.0.51"), "then the requested one");
    wire.restart();
    assert_eq!(wire.lease(1), ip("10.99.0.51"), "the current one");
    wire.wait(u64::from(LEASE) * 3);
    assert_eq!(wire.lease(1), ip("10.99.0.51"), "the previous one");
    wire.add(on_record(1, Some("10.99.0.9")));
    assert_eq!(wire.lease(1), ip("10.99.0.9"), "and the reservation before all");
}

#[test]
fn line_16_an_address_of_any_subnet_of_the_wire_is_no_wrong_net() {
    let mut wire = shared();
    let address = wire.boot(Ask::new(DISCOVER, 1).address(50, ip("10.99.0.51"))).yiaddr;
    let reboot = wire.ask(&Ask::new(REQUEST, 1).address(50, address)).unwrap();
    assert_eq!((reboot.kind, reboot.yiaddr, reboot.address(3)), (5, address, ip("10.99.0.254")));
    let renewal = wire.ask(&Ask::new(REQUEST, 1).ciaddr(address)).unwrap();
    assert_eq!((renewal.kind, renewal.yiaddr), (5, address));
    let elsewhere = wire.ask(&Ask::new(REQUEST, 1).address(50, ip("10.88.0.51"))).unwrap();
    assert_eq!(elsewhere.kind, 6, "10.88.0.0/24 is another wire");
    let silence = wire.ask(&Ask::new(REQUEST, 2).address(50, ip("10.99.0.52")));
    assert_eq!(silence, Err(Reason::UnknownLease(ip("10.99.0.52"))));
    assert_eq!(wire.ask(&Ask::new(RELEASE, 1).ciaddr(address)), Err(Reason::Released(address)));
}

#[test]
fn each_interface_has_its_own_wire() {
    let mut wire = Wire::full();
    let on = |number, interface: &str, own: &str| {
        let mut ask = Ask::new(DISCOVER, number);
        ask.received.interface = interface.into();
        ask.received.interface_address = ip(own);
        ask
    };
    let first = wire.ask(&on(1, "eno2", "10.77.0.1")).unwrap();
    let second = wire.ask(&on(1, "eno3", "10.88.0.1").pxe(7)).unwrap();
    assert_eq!((first.address(54), first.yiaddr.octets()[1]), (ip("10.77.0.1"), 77));
    assert_eq!((second.address(54), second.yiaddr.octets()[1]), (ip("10.88.0.1"), 88));
    assert_eq!((second.siaddr, second.text(66).as_deref()), (ip("10.88.0.1"), Some("10.88.0.1")));
    let mut select = on(1, "eno3", "10.88.0.1").address(50, first.yiaddr).address(54, ip("10.88.0.1"));
    select.options[0] = (53, vec![REQUEST]);
    assert_eq!(wire.ask(&select).unwrap().kind, 6, "an address of the other wire");
    assert_eq!(wire.ask(&on(2, "eno4", "10.66.0.1")), Err(Reason::NoSubnet(ip("10.66.0.1"))));
}

#[test]
fn ntp_search_list_and_mtu_go_to_those_who_ask() {
    let mut wire = Wire::full();
    let subnet = &mut wire.settings.subnets[0];
    subnet.ntp = vec![ip("10.77.0.3"), ip("10.77.0.4")];
    subnet.domain_search = vec!["rack.example".into(), "example".into()];
    subnet.mtu = Some(9000);
    let silent = wire.boot(Ask::new(DISCOVER, 1));
    assert!([26, 42, 119].iter().all(|code| !silent.options.contains_key(code)));
    let got = wire.boot(Ask::new(DISCOVER, 2).with(55, [1, 26, 42, 119]));
    assert_eq!(got.options[&26], 9000_u16.to_be_bytes());
    assert_eq!(got.options[&42], [10, 77, 0, 3, 10, 77, 0, 4]);
    assert_eq!(got.options[&119], [&b"\x04rack\x07example\x00"[..], &[0xc0, 5]].concat());
}

#[test]
fn we_are_the_log_server_of_who_asks_unless_the_site_names_one() {
    let mut wire = Wire::full();
    let asks = |number| Ask::new(DISCOVER, number).with(55, [1, 7]);
    assert!(!wire.boot(Ask::new(DISCOVER, 1)).options.contains_key(&7));
    assert_eq!(wire.boot(asks(2)).address(7), ip("10.77.0.1"));
    // A relay that puts itself in our place (RFC 5107) hears no logs.
    let through = asks(3).with(82, [11, 4, 10, 88, 0, 254]).relayed();
    let offer = wire.ask(&through).unwrap();
    assert_eq!((offer.address(54), offer.address(7)), (ip("10.88.0.254"), ip("10.77.0.1")));
    wire.settings.subnets[0].options = options(&[("7", "addresses:10.0.0.7")]);
    assert_eq!(wire.boot(asks(4)).address(7), ip("10.0.0.7"));
    wire.settings.subnets[0].options.clear();
    wire.settings.hears_logs = false;
    assert!(!wire.boot(asks(5)).options.contains_key(&7));
}

#[test]
fn options_by_number_go_to_all_and_the_machines_own_win() {
    let mut wire = Wire::full();
    wire.settings.subnets[0].options =
        options(&[("100", "text:UTC"), ("12", "text:subnet"), ("150", "addresses:10.0.0.9")]);
    let mut machine = on_record(1, None);
    machine.options = options(&[("12", "text:web1"), ("3", "addresses:10.77.0.7"), ("42", "addresses:10.0.0.8")]);
    wire.add(machine);
    let own = wire.boot(Ask::new(DISCOVER, 1));
    assert_eq!((own.text(12).as_deref(), own.text(100).as_deref()), (Some("web1"), Some("UTC")));
    assert_eq!((own.address(3), own.address(42), own.address(150)), (ip("10.77.0.7"), ip("10.0.0.8"), ip("10.0.0.9")));
    let other = wire.boot(Ask::new(DISCOVER, 2));
    assert_eq!((other.text(12).as_deref(), other.address(3)), (Some("subnet"), ip("10.77.0.254")));
    let inform = wire.ask(&Ask::new(INFORM, 1).ciaddr(own.yiaddr)).unwrap();
    assert_eq!(inform.text(12).as_deref(), Some("web1"));
    let nak = wire.ask(&Ask::new(REQUEST, 1).address(50, ip("192.168.1.1"))).unwrap();
    assert!(!nak.options.contains_key(&12), "a NAK carries no configuration");
}

#[test]
fn line_27_a_long_option_goes_in_parts() {
    let mut wire = Wire::full();
    let long = "x".repeat(400);
    wire.settings.subnets[0].options = options(&[("100", &format!("text:{long}"))]);
    let got = wire.boot(Ask::new(DISCOVER, 1).with(57, 1472_u16.to_be_bytes()));
    assert_eq!(got.text(100).as_deref(), Some(long.as_str()));
    assert!([[100, 255], [100, 145]].iter().all(|part| got.packet.windows(2).any(|bytes| bytes == part)));
    let small = wire.boot(Ask::new(DISCOVER, 2));
    assert!(!small.options.contains_key(&100) && small.packet.len() <= 548, "no part of it where there is no room");
}

#[test]
fn line_26_options_spill_into_the_fields_where_nothing_boots() {
    let mut wire = Wire::full();
    let text = |length| format!("text:{}", "x".repeat(length));
    let long =
        [("100", &text(200)[..]), ("101", &text(90)), ("102", &text(50)), ("103", &text(30)), ("104", &text(99))];
    wire.settings.subnets[0].options = options(&long);
    let got = wire.boot(Ask::new(DISCOVER, 1));
    assert_eq!(got.options[&52], [3], "file and sname");
    assert!([100, 101, 102, 103].iter().all(|code| got.options.contains_key(code)), "{:?}", got.order);
    assert!(!got.options.contains_key(&104), "what fits nowhere is left out");
    assert!(got.packet.len() <= 548);
    let roomy = wire.boot(Ask::new(DISCOVER, 2).with(57, 1472_u16.to_be_bytes()));
    assert!(!roomy.options.contains_key(&52) && roomy.options.contains_key(&104));
    let pxe = wire.boot(Ask::new(DISCOVER, 3).pxe(7));
    assert!(!pxe.options.contains_key(&52), "firmware reads the file from its field");
    assert_eq!((pxe.file.as_str(), pxe.text(67).as_deref()), ("snponly.efi", Some("snponly.efi")));
    let relayed = Ask::new(DISCOVER, 4).with(82, [1, 4, b'g', b'i', b'1', b'2']).relayed();
    wire.settings.subnets[1].options = wire.settings.subnets[0].options.clone();
    let got = wire.ask(&relayed).unwrap();
    assert_eq!(got.options[&82], [1, 4, b'g', b'i', b'1', b'2']);
    let after_relay = &got.order[got.order.iter().position(|code| *code == 82).unwrap() + 1..];
    assert!(after_relay.iter().all(|code| *code >= 100), "82 is the last of its field: {:?}", got.order);
}

fn bootp(number: u16) -> Ask {
    let mut ask = Ask::new(DISCOVER, number);
    ask.options.clear();
    ask
}

#[test]
fn line_33_bootp_clients_get_what_is_reserved_for_them_where_people_want_that() {
    let mut wire = Wire::full();
    wire.add(on_record(1, Some("10.77.0.20")));
    assert_eq!(wire.ask(&bootp(1)), Err(Reason::Bootp), "refused unless configured");
    wire.settings.bootp = BootpPolicy::Reserved;
    wire.settings.subnets[0].options = options(&[("100", &format!("text:{}", "x".repeat(60)))]);
    let got = wire.ask(&bootp(1)).unwrap();
    assert_eq!((got.yiaddr, got.kind, got.packet.len()), (ip("10.77.0.20"), 0, 300));
    assert_eq!(got.options.keys().copied().collect::<Vec<_>>(), [1, 3, 6, 15], "RFC 1534 §2: no option of DHCP's own");
    assert_eq!(got.send_to, SendTo::Hardware { mac: mac(1), address: ip("10.77.0.20") });
    assert_eq!(wire.writes, 0, "the reservation is on record already");
    assert_eq!(wire.ask(&bootp(2)), Err(Reason::BootpUnreserved));
    let elsewhere = wire.ask(&bootp(1).relayed());
    assert_eq!(elsewhere, Err(Reason::BootpUnreserved), "the reservation is of another wire");
}

#[test]
fn the_address_of_a_loader_that_waits_is_held_although_its_lease_has_ended() {
    let mut wire = Wire::full();
    wire.settings.subnets[0].range = Some(ip("10.77.0.50")..=ip("10.77.0.50"));
    wire.boot(Ask::new(DISCOVER, 1).ipxe(7, HTTP_FEATURE));
    let hear = |wire: &mut Wire| {
        let seen = bennu_rules::journey::Seen::ScriptRead {
            script: bennu_rules::journey::ScriptKind::Wait,
            detail: String::new(),
        };
        let now = wire.now;
        wire.live.observe(mac(1), bennu_rules::journey::Observation::new(now, seen));
    };
    wire.wait(u64::from(LEASE) * 2);
    hear(&mut wire);
    wire.wait(600);
    let full = Err(Reason::PoolExhausted("10.77.0.0/24".parse().unwrap()));
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 2)), full, "it asked for its script ten minutes ago");
    assert_eq!(wire.lease(1), ip("10.77.0.50"), "its own it is still");
    wire.wait(u64::from(LEASE) * 2);
    assert!(wire.ask(&Ask::new(DISCOVER, 2)).is_ok(), "a machine that was not heard of for so long is gone");
}

#[test]
fn line_22_one_client_cannot_decline_the_range_away() {
    let mut wire = Wire::full();
    let mut quarantined: Vec<Ipv4Addr> = Vec::new();
    for _ in 0..20 {
        let address = wire.lease(1);
        let answer = wire.ask(&Ask::new(DECLINE, 1).address(50, address).address(54, OURS));
        if answer == Err(Reason::Declined(address)) {
            quarantined.push(address);
        } else {
            assert_eq!(answer, Err(Reason::TooManyDeclines(address)));
            assert!(!wire.records.lease_at(address).unwrap().is_active(wire.now), "the client has lost it");
        }
    }
    assert_eq!(quarantined.len(), 4);
    assert_eq!(wire.noticed.len(), 4);
    wire.wait(3600);
    let address = wire.lease(1);
    let decline = Ask::new(DECLINE, 1).address(50, address).address(54, OURS);
    assert_eq!(wire.ask(&decline), Err(Reason::Declined(address)), "an hour later it is believed again");
}

#[test]
fn a_lease_that_was_stored_before_goes_with_its_subnet() {
    let mut wire = shared();
    let address = wire.lease(1);
    let key = lease_key("10.99.0.0/24".parse().unwrap(), mac(1));
    assert!(wire.records.lease(&key).is_none());
    let lease = bennu_rules::lease::Lease { key, address: ip("10.99.0.52"), ..wire.records.lease_at(address).unwrap() };
    wire.wait(10);
    wire.records.apply(Change::PutLease(bennu_rules::lease::Lease { granted: wire.now, ..lease }));
    wire.live.apply(Volatile::DropOffer(key));
    assert_eq!(wire.lease(1), ip("10.99.0.52"), "of two leases the one granted last is the current one");
}
