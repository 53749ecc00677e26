//! A wire without wires: packets in, answers out, the ledger in memory.

use bennu_rules::{
    Live, MacAddress, Machine, Moment, Timestamp, View,
    dhcp::{DhcpAnswer, Malformed, Reason, Received, Request, SendTo, decide},
    journey::Seen,
    memory::Memory,
    notice::Notice,
    settings::{DhcpMode, Settings, Subnet},
};
use dhcproto::v4::borrowed;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
pub const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub const LEASE: u32 = 3600;
pub const EXAMPLE_START: u64 = 1_790_000_000_000;

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// A MAC by number.
pub fn mac(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([0x52, 0x54, 0x00, 0x12, high, low])
}

/// A packet in the making.
#[derive(Debug, Clone)]
pub struct Ask {
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub mac: MacAddress,
    pub options: Vec<(u8, Vec<u8>)>,
    pub received: Received,
}

pub const DISCOVER: u8 = 1;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const RELEASE: u8 = 7;
pub const INFORM: u8 = 8;

impl Ask {
    pub fn new(kind: u8, number: u16) -> Self {
        Self {
            xid: 0x1122_3344,
            flags: 0,
            ciaddr: NONE,
            giaddr: NONE,
            mac: mac(number),
            options: vec![(53, vec![kind])],
            received: received(),
        }
    }

    pub fn with(mut self, code: u8, value: impl AsRef<[u8]>) -> Self {
        self.options.push((code, value.as_ref().to_vec()));
        self
    }

    pub fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.with(code, address.octets())
    }

    pub fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.ciaddr = address;
        self
    }

    pub fn xid(mut self, xid: u32) -> Self {
        self.xid = xid;
        self
    }

    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub fn relayed(mut self) -> Self {
        self.giaddr = RELAY;
        self.received.source = SocketAddrV4::new(RELAY, 67);
        self.received.destination = OURS;
        self
    }

    /// Sent to us alone, from its own address.
    pub fn unicast(mut self) -> Self {
        self.received.destination = OURS;
        self.received.source = SocketAddrV4::new(self.ciaddr, 68);
        self
    }

    pub fn at_port(mut self, port: u16) -> Self {
        self.received.port = port;
        self
    }

    /// As OVMF asks.
    pub fn pxe(self, arch: u16) -> Self {
        self.with(60, format!("PXEClient:Arch:{arch:05}:UNDI:003000"))
            .with(93, arch.to_be_bytes())
            .with(94, [1, 3, 0])
            .with(97, [&[0][..], &[7; 16]].concat())
    }

    pub fn http(self, arch: u16) -> Self {
        self.with(60, format!("HTTPClient:Arch:{arch:05}:UNDI:003000"))
            .with(93, arch.to_be_bytes())
            .with(94, [1, 3, 0])
            .with(97, [&[0][..], &[7; 16]].concat())
    }

    /// As iPXE asks, with these features in option 175.
    pub fn ipxe(self, arch: u16, features: &[u8]) -> Self {
        self.pxe(arch).with(77, b"iPXE").with(175, features)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 3];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend([0, 9]);
        bytes.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, NONE, NONE, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.mac.0);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99]);
        for (code, value) in &self.options {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }

    pub fn parse(&self) -> Result<Request, Malformed> {
        Request::parse(&self.bytes(), &self.received)
    }
}

pub const HTTP_FEATURE: &[u8] = &[19, 1, 1, 21, 1, 1];
pub const NO_HTTP: &[u8] = &[21, 1, 1];

pub fn received() -> Received {
    Received {
        interface: "eno2".into(),
        interface_index: 3,
        interface_address: OURS,
        mtu: 1500,
        port: 67,
        source: SocketAddrV4::new(NONE, 68),
        destination: Ipv4Addr::BROADCAST,
    }
}

/// A reply, read back by dhcproto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub packet: Vec<u8>,
    pub to: SocketAddrV4,
    pub send_to: SendTo,
    pub kind: u8,
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: Vec<u8>,
    pub file: String,
    /// In the order of the packet.
    pub order: Vec<u8>,
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Got {
    pub fn read(packet: Vec<u8>, send_to: SendTo) -> Self {
        let message = borrowed::Message::new(&packet).unwrap();
        let mut pairs: Vec<(u8, Vec<u8>)> = message.opts().map(|o| (u8::from(o.code()), o.data().to_vec())).collect();
        // RFC 2131 §4.1: `file` is read after the options, then `sname`.
        let overload = pairs.iter().find(|(code, _)| *code == 52).map_or(0, |(_, value)| value[0]);
        let file = if overload & 1 != 0 { &[][..] } else { message.fname() };
        for (bit, field) in [(1, &packet[108..236]), (2, &packet[44..108])] {
            if overload & bit != 0 {
                pairs.extend(spilt(field));
            }
        }
        let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        // RFC 3396 §7: an option may come in parts, none of which but the last is shorter than it can be.
        for (code, value) in &pairs {
            let whole = options.entry(*code).or_default();
            assert!(whole.len().is_multiple_of(255), "option {code} came twice");
            whole.extend(value);
        }
        assert_eq!((packet[0], packet[3], &packet[8..10]), (2, 0, &[0, 0][..]), "op, hops, secs");
        Self {
            to: send_to.address(),
            send_to,
            kind: options.get(&53).map_or(0, |value| value[0]),
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            yiaddr: message.yiaddr(),
            siaddr: message.siaddr(),
            giaddr: message.giaddr(),
            chaddr: message.chaddr().to_vec(),
            file: String::from_utf8(file.to_vec()).unwrap(),
            order: pairs.into_iter().map(|(code, _)| code).collect(),
            options,
            packet,
        }
    }

    pub fn number(&self, code: u8) -> u32 {
        u32::from_be_bytes(self.options[&code].clone().try_into().unwrap())
    }

    pub fn address(&self, code: u8) -> Ipv4Addr {
        self.number(code).into()
    }

    pub fn text(&self, code: u8) -> Option<String> {
        self.options.get(&code).map(|bytes| String::from_utf8(bytes.clone()).unwrap())
    }
}

/// The options in a field that they spilt into.
fn spilt(field: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while field[at] != 255 {
        let end = at + 2 + usize::from(field[at + 1]);
        found.push((field[at], field[at + 2..end].to_vec()));
        at = end;
    }
    assert!(field[at + 1..].iter().all(|byte| *byte == 0), "END and pads");
    found
}

/// The appliance, as far as rules see it.
pub struct Wire {
    pub settings: Settings,
    pub records: Memory,
    pub live: Live,
    pub now: Timestamp,
    /// What a person was told, oldest first.
    pub noticed: Vec<Notice>,
    /// The address that the last answer waits for the wire's word on.
    pub probe: Option<Ipv4Addr>,
    /// Everything observed, oldest first.
    pub seen: Vec<(MacAddress, Seen)>,
    /// Durable changes performed.
    pub writes: usize,
}

pub fn subnet(network: &str, range: Option<(&str, &str)>) -> Subnet {
    let network: ipnet::Ipv4Net = network.parse().unwrap();
    let mut subnet = Subnet::new(network);
    subnet.range = range.map(|(first, last)| ip(first)..=ip(last));
    subnet.router = Some(u32::from(network.network()).saturating_add(254).into());
    subnet.dns = vec![ip("10.77.0.253")];
    subnet.domain = Some("rack.example".into());
    subnet.lease_seconds = LEASE;
    subnet
}

impl Wire {
    pub fn new(dhcp: DhcpMode) -> Self {
        let subnets = vec![
            subnet("10.77.0.0/24", Some(("10.77.0.50", "10.77.0.199"))),
            subnet("10.88.0.0/24", Some(("10.88.0.50", "10.88.0.60"))),
        ];
        let settings = Settings {
            dhcp,
            subnets,
            discovery_image: "bennu/discovery:latest".parse().unwrap(),
            ..Settings::default()
        };
        Self {
            settings,
            records: Memory::default(),
            live: Live::default(),
            now: Timestamp(EXAMPLE_START),
            noticed: Vec::new(),
            probe: None,
            seen: Vec::new(),
            writes: 0,
        }
    }

    pub fn full() -> Self {
        Self::new(DhcpMode::Full)
    }

    pub fn proxy() -> Self {
        Self::new(DhcpMode::Proxy)
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus_seconds(seconds);
    }

    /// The appliance starts again: what was volatile is gone.
    pub fn restart(&mut self) {
        self.live = Live::default();
    }

    pub fn add(&mut self, machine: Machine) {
        self.records.apply(bennu_rules::Change::PutMachine(machine));
    }

    pub fn ask_parsed(&mut self, request: &Request) -> Result<Got, Reason> {
        let at = Moment { now: self.now, entropy: [7; 32], settings: Arc::new(self.settings.clone()) };
        let decision = decide(request, &View { records: &self.records, live: &self.live }, &at);
        self.writes += decision.changes.len();
        decision.changes.into_iter().for_each(|change| self.records.apply(change));
        decision.volatile.into_iter().for_each(|change| self.live.apply(change));
        for (machine, observation) in decision.observed {
            self.seen.push((machine, observation.seen.clone()));
            self.live.observe(machine, observation);
        }
        self.noticed.extend(decision.noticed);
        self.probe = None;
        match decision.answer {
            DhcpAnswer::Reply { packet, send_to, probe } => {
                self.probe = probe;
                Ok(Got::read(packet, send_to))
            }
            DhcpAnswer::Silence(reason) => Err(reason),
        }
    }

    pub fn moment(&self) -> Moment {
        Moment { now: self.now, entropy: [7; 32], settings: Arc::new(self.settings.clone()) }
    }

    pub fn view(&self) -> View<'_> {
        View { records: &self.records, live: &self.live }
    }

    pub fn ask(&mut self, ask: &Ask) -> Result<Got, Reason> {
        self.ask_parsed(&ask.parse().unwrap())
    }

    /// The address that a client was offered or holds.
    pub fn address_of(&self, mac: MacAddress) -> Option<Ipv4Addr> {
        let key = bennu_rules::decision::lease_key(self.settings.subnets[0].network, mac);
        let leased = bennu_rules::Records::lease(&self.records, &key).map(|lease| lease.address);
        leased.or_else(|| self.live.offer(&key, self.now).map(|offer| offer.address))
    }

    /// DISCOVER and the REQUEST for what was offered, with the same other options.
    pub fn boot(&mut self, discover: Ask) -> Got {
        let offer = self.ask(&discover).unwrap();
        assert_eq!(offer.kind, 2);
        let mut request = discover;
        request.options.retain(|(code, _)| *code != 50);
        request = request.address(50, offer.yiaddr).address(54, offer.address(54));
        request.options[0] = (53, vec![REQUEST]);
        let ack = self.ask(&request).unwrap();
        assert_eq!((ack.kind, ack.yiaddr), (5, offer.yiaddr));
        assert_eq!(ack.file, offer.file);
        ack
    }

    /// A plain client's address.
    pub fn lease(&mut self, number: u16) -> Ipv4Addr {
        self.boot(Ask::new(DISCOVER, number)).yiaddr
    }
}
