//! What holds for every packet.

use crate::{captured, kit::*};
use bennu_rules::{
    MacAddress, Records,
    dhcp::{Reason, Request},
    settings::DhcpMode,
};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, net::Ipv4Addr};

fn any_mode() -> impl Strategy<Value = DhcpMode> {
    prop_oneof![Just(DhcpMode::Full), Just(DhcpMode::Proxy)]
}

/// Parses, decides and, where there is an answer, reads it back: `Got::read` refuses what is no reply.
fn survive(bytes: &[u8], wire: &mut Wire, port: u16) -> Option<Result<Got, Reason>> {
    let mut received = received();
    received.port = port;
    let request = Request::parse(bytes, &received).ok()?;
    let answer = wire.ask_parsed(&request);
    if let Ok(got) = &answer {
        assert!((300..=1472).contains(&got.packet.len()));
        assert_eq!((got.xid, &got.chaddr[..]), (request.xid, &request.mac.0[..]));
        assert_eq!(got.packet.iter().rposition(|byte| *byte != 0).map(|at| got.packet[at]), Some(255), "END is last");
    }
    Some(answer)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..700), mode in any_mode()) {
        survive(&bytes, &mut Wire::new(mode), 67);
    }

    #[test]
    fn random_options_never_panic(
        options in vec((any::<u8>(), vec(any::<u8>(), 0..255)), 0..12),
        fields in (any::<u32>(), any::<u16>(), any::<[u8; 4]>(), any::<[u8; 4]>()),
        mode in any_mode(),
        port in prop_oneof![Just(67), Just(4011)],
        kind in prop_oneof![Just(DISCOVER), Just(REQUEST), Just(DECLINE), Just(RELEASE), Just(INFORM)],
    ) {
        let mut ask = Ask::new(kind, 1);
        ask.options.extend(options.into_iter().filter(|(code, _)| !matches!(code, 0 | 53 | 255)));
        (ask.xid, ask.flags) = (fields.0, fields.1);
        (ask.ciaddr, ask.giaddr) = (Ipv4Addr::from(fields.2), Ipv4Addr::from(fields.3));
        survive(&ask.bytes(), &mut Wire::new(mode), port);
    }

    #[test]
    fn mutated_packets_of_real_clients_never_panic(
        which in 0..captured::PACKETS.len(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
        mode in any_mode(),
    ) {
        let mut bytes = captured::read(captured::PACKETS[which]);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        survive(&bytes, &mut Wire::new(mode), 67);
    }
}

/// One step of one client among many on a small wire.
#[derive(Debug, Clone)]
enum Act {
    Discover(Option<u8>),
    Select,
    SelectAny(u8),
    Reboot(u8),
    Renew,
    Release,
    Decline,
    Wait(u16),
    Restart,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => proptest::option::of(any::<u8>()).prop_map(Act::Discover),
        4 => Just(Act::Select),
        1 => any::<u8>().prop_map(Act::SelectAny),
        1 => any::<u8>().prop_map(Act::Reboot),
        2 => Just(Act::Renew),
        1 => Just(Act::Release),
        1 => Just(Act::Decline),
        2 => (0..3000_u16).prop_map(Act::Wait),
        1 => Just(Act::Restart),
    ]
}

/// What the clients believe: who holds what, until when.
#[derive(Default)]
struct Beliefs {
    offered: BTreeMap<MacAddress, Ipv4Addr>,
    held: BTreeMap<MacAddress, (Ipv4Addr, u64)>,
}

impl Beliefs {
    fn play(&mut self, wire: &mut Wire, number: u16, act: &Act) {
        let who = mac(number);
        let some = |last: u8| Ipv4Addr::new(10, 88, 0, 45 + last % 20);
        let now = wire.now.0;
        let held = self.held.get(&who).filter(|(_, until)| now < *until).map(|(address, _)| *address);
        let ask = match act {
            Act::Wait(seconds) => return wire.wait((*seconds).into()),
            Act::Restart => return wire.restart(),
            Act::Discover(wish) => {
                let ask = Ask::new(DISCOVER, number).relayed();
                wish.map_or(ask.clone(), |last| ask.address(50, some(last)))
            }
            Act::Select => {
                let Some(address) = self.offered.remove(&who) else { return };
                Ask::new(REQUEST, number).relayed().address(50, address).address(54, OURS)
            }
            Act::SelectAny(last) => Ask::new(REQUEST, number).relayed().address(50, some(*last)).address(54, OURS),
            Act::Reboot(last) => Ask::new(REQUEST, number).relayed().address(50, held.unwrap_or(some(*last))),
            Act::Renew => {
                let Some(address) = held else { return };
                Ask::new(REQUEST, number).ciaddr(address).unicast()
            }
            Act::Release | Act::Decline => {
                let Some(address) = held else { return };
                self.held.remove(&who);
                match act {
                    Act::Release => Ask::new(RELEASE, number).relayed().ciaddr(address),
                    _ => Ask::new(DECLINE, number).relayed().address(50, address).address(54, OURS),
                }
            }
        };
        match wire.ask(&ask) {
            Ok(got) if got.kind == 2 => drop(self.offered.insert(who, got.yiaddr)),
            Ok(got) if got.kind == 5 => {
                let until = wire.now.plus_seconds(got.number(51).into());
                assert!(until <= wire.records.lease_at(got.yiaddr).unwrap().expires, "promised more than was stored");
                self.held.insert(who, (got.yiaddr, until.0));
            }
            Ok(got) if got.kind == 6 => drop(self.held.remove(&who)),
            _ => {}
        }
    }

    fn check(&self, now: u64) {
        let mut holders: BTreeMap<Ipv4Addr, MacAddress> = BTreeMap::new();
        for (who, (address, _)) in self.held.iter().filter(|(_, (_, until))| now < *until) {
            if let Some(other) = holders.insert(*address, *who) {
                panic!("{address} is held by {who} and {other}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_two_clients_ever_hold_one_address(acts in vec((0..16_u16, any_act()), 1..200)) {
        let mut wire = Wire::full();
        let mut beliefs = Beliefs::default();
        for (number, act) in &acts {
            beliefs.play(&mut wire, *number, act);
            beliefs.check(wire.now.0);
        }
    }
}
