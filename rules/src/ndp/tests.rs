use super::*;
use crate::{
    Live, Machine, Records, Volatile,
    journey::{Observation, ScriptKind, Seen},
    memory::Memory,
    settings::Settings,
};
use proptest::prelude::*;
use std::sync::Arc;

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
const OTHER_CARD: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 2]);
const OPENED: Timestamp = Timestamp(1_000_000);

/// `fe80::5054:ff:fe00:1`, which is `MAC`'s EUI-64.
fn link_local() -> Ipv6Addr {
    "fe80::5054:ff:fe00:1".parse().unwrap()
}

/// What iPXE sends: an empty solicitation and its hardware address.
fn ipxe() -> Vec<u8> {
    let mut message = vec![133, 0, 0x12, 0x34, 0, 0, 0, 0, 1, 1];
    message.extend(MAC.0);
    message
}

fn moment(now: Timestamp) -> Moment {
    let settings = Settings::default();
    Moment { now, entropy: [7; 32], settings: Arc::new(settings) }
}

/// A boot of `MAC` that came this far.
fn booting(memory: &Memory, seen: Vec<Seen>) -> Live {
    let mut live = Live::default();
    let boot = Boot::open(MAC, None, &View { records: memory, live: &live }, &moment(OPENED));
    live.apply(Volatile::PutBoot(boot));
    for seen in seen {
        live.observe(MAC, Observation::new(OPENED.plus_seconds(10), seen));
    }
    live
}

fn answer(asked: &Solicitation, memory: &Memory, live: &Live, seconds: u64) -> NdpAnswer {
    let decision = decide(asked, &View { records: memory, live }, &moment(OPENED.plus_seconds(seconds)));
    assert!(decision.changes.is_empty() && decision.volatile.is_empty() && decision.observed.is_empty());
    decision.answer
}

fn discover(asker: &str) -> Seen {
    Seen::DhcpDiscover { asker: asker.into(), arch: None }
}

fn script() -> Seen {
    Seen::ScriptRead { script: ScriptKind::Boot, detail: String::new() }
}

#[test]
fn a_machine_in_its_firmware_or_loader_hears_of_no_router() {
    let memory = Memory::default();
    let asked = Solicitation::parse(&ipxe(), link_local()).unwrap();
    for seen in [vec![discover("pxe")], vec![discover("pxe"), discover("ipxe")]] {
        let NdpAnswer::Advertise { message, to } = answer(&asked, &memory, &booting(&memory, seen), 20) else {
            panic!("no answer")
        };
        assert_eq!(to, link_local());
        let [kind, code, _, _, _, flags, lifetime_high, lifetime_low, ..] = message;
        assert_eq!((kind, code, flags & 0xc0, lifetime_high, lifetime_low), (134, 0, 0, 0, 0));
        assert_eq!(message.len(), 16, "no options");
    }
}

#[test]
fn any_card_of_a_machine_may_ask() {
    let mut memory = Memory::default();
    let machine = Machine { macs: vec![MAC, OTHER_CARD], ..Machine::new(MAC, OPENED) };
    memory.apply(crate::Change::PutMachine(machine));
    assert!(memory.machine(OTHER_CARD).is_some());
    let asked = Solicitation { source: link_local(), mac: Some(OTHER_CARD) };
    let live = booting(&memory, vec![discover("ipxe")]);
    assert!(matches!(answer(&asked, &memory, &live, 20), NdpAnswer::Advertise { .. }));
}

#[test]
fn everybody_else_is_left_to_the_sites_routers() {
    let memory = Memory::default();
    let live = booting(&memory, vec![discover("ipxe")]);
    let asked = Solicitation { source: link_local(), mac: Some(MAC) };
    let stranger = Solicitation { mac: Some(OTHER_CARD), ..asked };
    assert_eq!(answer(&stranger, &memory, &live, 20), NdpAnswer::Silence(Reason::NotBooting));
    let nameless = Solicitation { mac: None, ..asked };
    assert_eq!(answer(&nameless, &memory, &live, 20), NdpAnswer::Silence(Reason::NoMac));
    for source in ["::", "2001:db8::1", "ff02::1"] {
        let elsewhere = Solicitation { source: source.parse().unwrap(), ..asked };
        assert_eq!(answer(&elsewhere, &memory, &live, 20), NdpAnswer::Silence(Reason::NoAddress), "{source}");
    }
    let booted = booting(&memory, vec![discover("ipxe"), script()]);
    assert_eq!(answer(&asked, &memory, &booted, 20), NdpAnswer::Silence(Reason::PastTheLoader(State::Script)));
    let ended = booting(&memory, vec![discover("ipxe"), Seen::Superseded]);
    assert_eq!(answer(&asked, &memory, &ended, 20), NdpAnswer::Silence(Reason::PastTheLoader(State::Superseded)));
}

#[test]
fn a_boot_that_fell_silent_is_over_for_its_loader() {
    let memory = Memory::default();
    let live = booting(&memory, vec![discover("ipxe")]);
    let asked = Solicitation { source: link_local(), mac: Some(MAC) };
    assert!(matches!(answer(&asked, &memory, &live, 10 + 300), NdpAnswer::Advertise { .. }));
    assert_eq!(answer(&asked, &memory, &live, 10 + 301), NdpAnswer::Silence(Reason::Stale));
}

#[test]
fn the_card_is_in_the_option_or_else_in_the_address() {
    let mac = |message: &[u8], source: &str| Solicitation::parse(message, source.parse().unwrap()).unwrap().mac;
    assert_eq!(mac(&ipxe(), "fe80::1"), Some(MAC));
    assert_eq!(mac(&ipxe()[..8], "fe80::5054:ff:fe00:1"), Some(MAC));
    assert_eq!(mac(&ipxe()[..8], "fe80::1"), None);
    assert_eq!(mac(&ipxe()[..8], "::"), None);
    // An option that is unknown comes first, and is passed over.
    let mut nonce = ipxe()[..8].to_vec();
    nonce.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    nonce.extend(&ipxe()[8..]);
    assert_eq!(mac(&nonce, "fe80::1"), Some(MAC));
    // InfiniBand's addresses take twenty bytes: no Ethernet card asks.
    let mut infiniband = ipxe()[..8].to_vec();
    infiniband.extend([1, 3]);
    infiniband.extend([9; 22]);
    assert_eq!(mac(&infiniband, "fe80::1"), None);
    let mut group = ipxe();
    group[10] = 0x01;
    assert_eq!(mac(&group, "fe80::1"), None);
}

#[test]
fn malformed_packets_are_told_from_solicitations() {
    let parse = |message: &[u8]| Solicitation::parse(message, link_local()).unwrap_err();
    assert_eq!(parse(&[]), Malformed::Short(0));
    assert_eq!(parse(&ipxe()[..7]), Malformed::Short(7));
    assert_eq!(parse(&NO_ROUTER), Malformed::Other { kind: 134, code: 0 });
    assert_eq!(parse(&[133, 1, 0, 0, 0, 0, 0, 0]), Malformed::Other { kind: 133, code: 1 });
    assert_eq!(parse(&ipxe()[..15]), Malformed::Option(8), "cut");
    assert_eq!(parse(&ipxe()[..9]), Malformed::Option(8), "cut within its head");
    let mut endless = ipxe();
    endless[9] = 0;
    assert_eq!(parse(&endless), Malformed::Option(8));
    let mut second = ipxe();
    second.extend([14, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(parse(&second), Malformed::Option(16));
    assert_eq!(Solicitation::parse(&ipxe(), Ipv6Addr::UNSPECIFIED), Err(Malformed::Unspecified));
}

proptest! {
    #[test]
    fn no_packet_is_too_odd(
        tail in proptest::collection::vec(any::<u8>(), 0..64), source: u128, link: bool, whole: bool, now: u64,
    ) {
        let mut message = if whole { ipxe()[..8].to_vec() } else { Vec::new() };
        message.extend(tail);
        let memory = Memory::default();
        let live = booting(&memory, vec![discover("ipxe")]);
        if let Ok(asked) = Solicitation::parse(&message, if link { link_local() } else { source.into() }) {
            let answered = decide(&asked, &View { records: &memory, live: &live }, &moment(Timestamp(now))).answer;
            if let NdpAnswer::Advertise { to, .. } = answered {
                prop_assert!(to.is_unicast_link_local());
                prop_assert_eq!(asked.mac, Some(MAC));
            }
        }
    }
}
