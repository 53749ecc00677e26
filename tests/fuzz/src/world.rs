//! A small site in memory that targets talk to.

use bennu_rules::{
    Change, Decision, Live, MacAddress, Machine, Moment, Timestamp, View, Volatile,
    boot::{Boot, Token},
    journey::{Observation, ScriptKind, Seen},
    memory::Memory,
    settings::{DhcpMode, Settings, Subnet},
};
use std::{net::Ipv4Addr, sync::Arc};

/// A machine on record, with a reservation.
pub const KNOWN: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// Opens the boot of [`KNOWN`].
pub const TOKEN: &str = "00112233445566778899aabbccddeeff";
/// Our address.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// State and clock.
pub struct World {
    pub memory: Memory,
    pub live: Live,
    settings: Arc<Settings>,
    now: Timestamp,
}

impl World {
    /// Two subnets, one of them behind relays; one machine on record whose boot is open.
    pub fn new(dhcp: DhcpMode) -> Self {
        let mut near = Subnet::new("10.77.0.0/24".parse().expect("a network"));
        near.range = Some(Ipv4Addr::new(10, 77, 0, 50)..=Ipv4Addr::new(10, 77, 0, 59));
        near.router = Some(Ipv4Addr::new(10, 77, 0, 254));
        near.dns = vec![Ipv4Addr::new(10, 77, 0, 253)];
        near.domain = Some("rack.example".into());
        let mut far = Subnet::new("10.88.0.0/24".parse().expect("a network"));
        far.range = Some(Ipv4Addr::new(10, 88, 0, 50)..=Ipv4Addr::new(10, 88, 0, 51));
        let settings = Arc::new(Settings { dhcp, subnets: vec![near, far], ..Settings::default() });
        let mut world =
            Self { memory: Memory::default(), live: Live::default(), settings, now: Timestamp(1_000_000_000) };
        let mut machine = Machine::new(KNOWN, world.now);
        machine.reservation = Some(Ipv4Addr::new(10, 77, 0, 7));
        world.memory.apply(Change::PutMachine(machine.clone()));
        let view = View { records: &world.memory, live: &world.live };
        let mut boot = Boot::open(KNOWN, Some(&machine), &view, &world.moment());
        boot.token = Some(Token(TOKEN.into()));
        let script = Seen::ScriptRead { script: ScriptKind::Discover, detail: String::new() };
        boot.observe(Observation::new(world.now, script));
        world.memory.apply(Change::PutBoot(boot.clone()));
        world.live.apply(Volatile::PutBoot(boot));
        world
    }

    /// Now, with chance that is no chance.
    pub fn moment(&self) -> Moment {
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&self.now.0.to_le_bytes());
        Moment { now: self.now, entropy, settings: self.settings.clone() }
    }

    /// Lets time pass.
    pub fn wait(&mut self, ms: u64) {
        self.now = Timestamp(self.now.0 + ms);
    }

    /// Asks a rule and performs what it decided.
    pub fn decide<R, A>(&mut self, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>) -> A {
        let moment = self.moment();
        let decision = rule(request, &View { records: &self.memory, live: &self.live }, &moment);
        decision.changes.into_iter().for_each(|change| self.memory.apply(change));
        decision.volatile.into_iter().for_each(|change| self.live.apply(change));
        for (machine, observation) in decision.observed {
            self.live.observe(machine, observation);
        }
        for notice in decision.noticed {
            self.live.notice(notice, moment.now);
        }
        decision.answer
    }
}
