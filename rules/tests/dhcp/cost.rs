//! What a packet costs, without sockets and disk: `cargo test --release -p bennu-rules --test dhcp cost -- --ignored --nocapture`.

use crate::kit::*;
use bennu_rules::{
    Decision, Live, MacAddress, Moment, View,
    dhcp::{DhcpAnswer, Request, decide},
    memory::Memory,
};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

/// The ledger's part, without its disk.
struct Bare {
    records: Memory,
    live: Live,
    at: Moment,
}

impl Bare {
    fn new(mut wire: Wire) -> Self {
        wire.settings.subnets = vec![subnet("10.64.0.0/10", Some(("10.77.0.50", "10.79.255.0")))];
        wire.settings.probe_addresses = false;
        Self { records: Memory::default(), live: Live::default(), at: wire.moment() }
    }

    fn decide(&self, request: &Request) -> Decision<DhcpAnswer> {
        decide(request, &View { records: &self.records, live: &self.live }, &self.at)
    }

    fn settle(&mut self, decision: Decision<DhcpAnswer>) -> Option<Vec<u8>> {
        decision.changes.into_iter().for_each(|change| self.records.apply(change));
        decision.volatile.into_iter().for_each(|change| self.live.apply(change));
        for (machine, observation) in decision.observed {
            self.live.observe(machine, observation);
        }
        match decision.answer {
            DhcpAnswer::Reply { packet, .. } => Some(packet),
            DhcpAnswer::Silence(_) => None,
        }
    }
}

#[allow(clippy::disallowed_methods)] // A measurement needs a clock: the ban is for rules.
fn timed<T>(spent: &mut Duration, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let value = black_box(run());
    *spent += began.elapsed();
    value
}

fn invented(number: u32) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([0x06, 0xee, a, b, c, d])
}

fn ask(kind: u8, number: u32, boots: bool) -> Ask {
    let ask = Ask::new(kind, 0).with(55, [1, 3, 6, 15, 28, 42]).with(61, [&[1][..], &invented(number).0].concat());
    let ask = Ask { mac: invented(number), ..ask };
    if boots { ask.pxe(7) } else { ask }
}

/// Microseconds of one conversation: parse and decide the DISCOVER, parse the REQUEST and decide it twice, as the ledger does.
fn lease(boots: bool) -> f64 {
    const LEASES: u32 = 10_000;
    let mut bare = Bare::new(Wire::full());
    let mut spent = Duration::ZERO;
    for number in 0..LEASES {
        let discover = ask(DISCOVER, number, boots);
        let (bytes, received) = (discover.bytes(), discover.received);
        let decision = timed(&mut spent, || bare.decide(&Request::parse(&bytes, &received).unwrap()));
        let offer = bare.settle(decision).unwrap();
        let yiaddr = std::net::Ipv4Addr::new(offer[16], offer[17], offer[18], offer[19]);
        let bytes = ask(REQUEST, number, boots).address(50, yiaddr).address(54, OURS).bytes();
        let decision = timed(&mut spent, || {
            let request = Request::parse(&bytes, &received).unwrap();
            black_box(bare.decide(&request));
            bare.decide(&request)
        });
        assert_eq!(decision.changes.len(), 1);
        bare.settle(decision).unwrap();
    }
    spent.as_secs_f64() * 1e6 / f64::from(LEASES)
}

#[test]
#[ignore = "a measurement, of a release build"]
fn cost_of_a_new_lease() {
    for boots in [false, true] {
        let cost = lease(boots);
        println!("new lease, boots {boots}: {cost:.1} µs");
        assert!(cfg!(debug_assertions) || cost <= 30.0, "{cost:.1} µs");
    }
}

#[test]
#[ignore = "a measurement, of a release build"]
fn cost_of_a_flood() {
    for (range, boots) in [(None, false), (None, true), (Some(("10.77.0.50", "10.77.15.199")), true)] {
        let mut bare = Bare::new(Wire::full());
        if range.is_some() {
            let mut settings = (*bare.at.settings).clone();
            settings.subnets = vec![subnet("10.77.0.0/16", range)];
            bare.at.settings = Arc::new(settings);
        }
        let (mut spent, mut answered, mut worst) = (Duration::ZERO, 0, Duration::ZERO);
        for number in 0..50_000 {
            let discover = ask(DISCOVER, number, boots);
            let (bytes, received) = (discover.bytes(), discover.received);
            let mut once = Duration::ZERO;
            let reply = timed(&mut once, || {
                let decision = bare.decide(&Request::parse(&bytes, &received).unwrap());
                bare.settle(decision)
            });
            answered += u32::from(reply.is_some());
            (spent, worst) = (spent + once, worst.max(once));
            if number % 5 == 0 {
                bare.at.now.0 += 1;
            }
        }
        let cost = spent.as_secs_f64() * 1e6 / 50_000.0;
        println!(
            "flood, boots {boots}, range {range:?}: {cost:.1} µs a packet, worst {worst:?}, {answered} answered, {} offers, {} boots",
            bare.live.offers_held(),
            bare.live.boots().count(),
        );
    }
}
