//! A Bennu that stands by for another: silence, but for what it has promised.

use crate::kit::*;
use bennu_rules::{
    Volatile,
    dhcp::{
        BOOT_SERVER_PORT, Reason, decide,
        others::{Appliance, Heard, Looks, question},
        standby::{Peer, Post, Posted, posted},
    },
    notice::Notice,
    settings::DhcpMode,
};
use std::net::Ipv4Addr;

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

fn other() -> Peer {
    Peer { gives: Appliance::Full, server: OTHER, card: mac(999) }
}

fn takes(wire: &mut Wire, post: Post) -> Vec<Notice> {
    let decision = posted(&Posted { interface: "eno2".into(), post }, &wire.view(), &wire.moment());
    decision.volatile.into_iter().for_each(|change| wire.live.apply(change));
    decision.noticed
}

fn stand_by(wire: &mut Wire) {
    takes(wire, Post::StandsBy(other()));
}

fn silent(wire: &mut Wire, ask: &Ask) {
    assert_eq!(wire.ask(ask), Err(Reason::StandsBy(OTHER)));
}

#[test]
fn it_answers_no_client_in_any_mode_and_writes_nothing() {
    for mode in [DhcpMode::Full, DhcpMode::Proxy] {
        let mut wire = Wire::new(mode);
        stand_by(&mut wire);
        for port in [67, BOOT_SERVER_PORT] {
            for kind in [DISCOVER, REQUEST, INFORM] {
                silent(&mut wire, &Ask::new(kind, 1).pxe(7).address(50, ip("10.77.0.60")).at_port(port));
            }
        }
        silent(&mut wire, &Ask::new(DISCOVER, 1).pxe(7).relayed());
        assert!((wire.writes, wire.live.offers_held(), wire.live.boots().count()) == (0, 0, 0));
        takes(&mut wire, Post::Serves);
        assert!(wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).is_ok());
    }
}

#[test]
fn only_the_interface_that_stands_by_is_silent() {
    let mut wire = Wire::full();
    wire.live.apply(Volatile::PutPost { interface: "eno1".into(), post: Post::StandsBy(other()) });
    assert!(wire.ask(&Ask::new(DISCOVER, 1)).is_ok());
}

#[test]
fn a_lease_of_its_own_is_renewed_by_who_asks_it_alone() {
    let mut wire = Wire::full();
    let address = wire.lease(1);
    wire.wait(60);
    stand_by(&mut wire);
    let renewing = Ask::new(REQUEST, 1).ciaddr(address).unicast();
    assert_eq!(wire.ask(&renewing).map(|ack| (ack.kind, ack.yiaddr)), Ok((5, address)));
    silent(&mut wire, &Ask::new(REQUEST, 1).ciaddr(address));
    silent(&mut wire, &Ask::new(REQUEST, 1).address(50, address));
    silent(&mut wire, &Ask::new(REQUEST, 2).ciaddr(address).unicast());
    silent(&mut wire, &Ask::new(REQUEST, 1).ciaddr(ip("10.77.0.9")).unicast());
    wire.wait(u64::from(LEASE) + 1);
    silent(&mut wire, &renewing);
}

#[test]
fn what_it_offered_may_still_be_taken_up_and_given_back() {
    let mut wire = Wire::full();
    let offer = wire.ask(&Ask::new(DISCOVER, 1)).unwrap();
    stand_by(&mut wire);
    let takes_up = |number: u16, server| Ask::new(REQUEST, number).address(50, offer.yiaddr).address(54, server);
    silent(&mut wire, &takes_up(2, OURS));
    silent(&mut wire, &takes_up(1, OTHER));
    for _ in 0..2 {
        assert_eq!(wire.ask(&takes_up(1, OURS)).unwrap().kind, 5, "a lost ACK is sent again");
    }
    let release = Ask::new(RELEASE, 1).ciaddr(offer.yiaddr).address(54, OURS).unicast();
    assert_eq!(wire.ask(&release), Err(Reason::Released(offer.yiaddr)));
}

#[test]
fn firmware_that_its_offer_sent_to_the_boot_server_gets_its_file() {
    let mut wire = Wire::proxy();
    let asks = Ask::new(REQUEST, 1).pxe(7).ciaddr(ip("10.77.0.60")).at_port(BOOT_SERVER_PORT).unicast();
    stand_by(&mut wire);
    assert!(wire.ask(&asks).unwrap().file.contains("efi"));
}

#[test]
fn who_looks_hears_that_it_stands_by() {
    let mut wire = Wire::full();
    stand_by(&mut wire);
    let request = bennu_rules::dhcp::Request::parse(&question(mac(7), 5, Looks::Only), &received()).unwrap();
    let bennu_rules::dhcp::DhcpAnswer::Reply { packet, .. } = decide(&request, &wire.view(), &wire.moment()).answer
    else {
        panic!("silence")
    };
    assert_eq!(Heard::parse(&packet, NONE).unwrap().appliance, Some(Appliance::StandsBy));
}

#[test]
fn a_person_is_told_of_both_turns() {
    let mut wire = Wire::full();
    assert_eq!(takes(&mut wire, Post::Serves), [], "nothing is new");
    let told = Notice::StandsBy { interface: "eno2".into(), server: OTHER, card: mac(999) };
    assert_eq!(takes(&mut wire, Post::StandsBy(other())), [told]);
    assert_eq!(takes(&mut wire, Post::Serves), [Notice::TakesOver { interface: "eno2".into(), server: OTHER }]);
    assert_eq!(wire.live.stands_by("eno2"), None);
}
