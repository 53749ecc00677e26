//! The wall clock is set forward and back while leases are held.

use crate::kit::*;
use bennu_rules::{Change, MacAddress, Timestamp, lease::Lease, time::ClockStep};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, net::Ipv4Addr};

const DAY: i64 = 86_400_000;

#[derive(Debug, Clone)]
enum Act {
    Discover,
    Select,
    Reboot,
    Renew,
    Release,
    Decline,
    Wait(u16),
    Restart,
    /// The clock is set by this much.
    Step(i64),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => Just(Act::Discover),
        5 => Just(Act::Select),
        2 => Just(Act::Reboot),
        2 => Just(Act::Renew),
        1 => Just(Act::Release),
        1 => Just(Act::Decline),
        2 => (0..3000_u16).prop_map(Act::Wait),
        1 => Just(Act::Restart),
        3 => prop_oneof![Just(DAY), Just(-DAY), -5_000_000_i64..5_000_000, Just(-2 * EXAMPLE_START as i64)]
            .prop_map(Act::Step),
    ]
}

/// The wire, and time as it passes for clients.
struct Play {
    wire: Wire,
    /// Seconds that passed.
    passed: u64,
    offered: BTreeMap<MacAddress, Ipv4Addr>,
    held: BTreeMap<MacAddress, (Ipv4Addr, u64)>,
}

impl Play {
    /// As the ledger does when it sees that the clock was set.
    fn step(&mut self, by: i64) {
        let from = self.wire.now;
        let step = ClockStep { from, to: Timestamp(from.0.saturating_add_signed(by)) };
        let moved: Vec<Lease> = self.wire.records.leases().filter_map(|lease| lease.after(step)).collect();
        moved.into_iter().for_each(|lease| self.wire.records.apply(Change::PutLease(lease)));
        self.wire.live.step_clock(step);
        self.wire.now = step.to;
    }

    fn act(&mut self, number: u16, act: &Act) {
        let who = mac(number);
        let held = self.held.get(&who).filter(|(_, until)| self.passed < *until).map(|(address, _)| *address);
        let ask = match act {
            Act::Wait(seconds) => {
                self.passed += u64::from(*seconds);
                return self.wire.wait((*seconds).into());
            }
            Act::Restart => return self.wire.restart(),
            Act::Step(by) => return self.step(*by),
            Act::Discover => Ask::new(DISCOVER, number).relayed(),
            Act::Select => {
                let Some(address) = self.offered.remove(&who) else { return };
                Ask::new(REQUEST, number).relayed().address(50, address).address(54, OURS)
            }
            Act::Reboot | Act::Renew | Act::Release | Act::Decline => {
                let Some(address) = held else { return };
                if matches!(act, Act::Release | Act::Decline) {
                    self.held.remove(&who);
                }
                match act {
                    Act::Reboot => Ask::new(REQUEST, number).relayed().address(50, address),
                    Act::Renew => Ask::new(REQUEST, number).ciaddr(address).unicast(),
                    Act::Release => Ask::new(RELEASE, number).relayed().ciaddr(address),
                    _ => Ask::new(DECLINE, number).relayed().address(50, address).address(54, OURS),
                }
            }
        };
        match self.wire.ask(&ask) {
            Ok(got) if got.kind == 2 => drop(self.offered.insert(who, got.yiaddr)),
            Ok(got) if got.kind == 5 => {
                let until = self.passed + u64::from(got.number(51));
                self.held.insert(who, (got.yiaddr, until));
            }
            Ok(got) if got.kind == 6 => {
                assert!(held.is_none(), "{act:?}: a client that holds {held:?} is refused it");
                self.held.remove(&who);
            }
            _ => {}
        }
    }

    fn check(&self) {
        let mut holders: BTreeMap<Ipv4Addr, MacAddress> = BTreeMap::new();
        for (who, (address, _)) in self.held.iter().filter(|(_, (_, until))| self.passed < *until) {
            if let Some(other) = holders.insert(*address, *who) {
                panic!("{address} is held by {who} and {other}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The pool has eleven addresses for sixteen clients, so that one is taken as soon as it seems free.
    #[test]
    fn a_clock_that_is_set_never_gives_one_address_to_two(acts in vec((0..16_u16, any_act()), 1..200)) {
        let mut play = Play { wire: Wire::full(), passed: 0, offered: BTreeMap::new(), held: BTreeMap::new() };
        for (number, act) in &acts {
            play.act(*number, act);
            play.check();
        }
    }
}

#[test]
fn a_lease_ends_when_its_client_thinks_it_does() {
    let mut wire = Wire::full();
    wire.lease(1);
    let lease = wire.records.leases().next().unwrap().clone();
    let at = lease.granted.plus_seconds(600);
    for to in [at.plus_seconds(86_400), Timestamp(at.0 - 86_400_000), Timestamp(5_000)] {
        let moved = lease.after(ClockStep { from: at, to }).unwrap();
        assert_eq!(moved.expires.since(to), lease.expires.since(at));
        let ended = Lease { expires: at, ..lease.clone() };
        assert!(ended.after(ClockStep { from: at, to }).is_none_or(|moved| !moved.is_active(to)));
    }
    // Granted by a clock that was a year ahead, and set right while nobody ran to see it.
    let (now, year) = (lease.granted, 31_536_000);
    let ahead = Lease { granted: now.plus_seconds(year), expires: now.plus_seconds(year + 3600), ..lease.clone() };
    let moved = ahead.after(ClockStep { from: now, to: now.plus_seconds(60) }).unwrap();
    assert_eq!(moved.expires.since(now.plus_seconds(60)), 3_600_000);
}
