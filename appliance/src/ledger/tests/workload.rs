//! What an appliance stores in a day, through the real rules.

use super::{super::*, image, mac, simulated_disk::Chance, stage1};
use bennu_rules::{
    assignment::Assignment,
    boot::script::{self, Script, ScriptRequest},
    commands::{
        images::{AddImages, add_images},
        machines::{Assign, Edit, EditMachine, assign, edit},
    },
    dhcp::{DhcpAnswer, Received, Request, decide},
    image::{Digest, Image, ImageReference},
    settings::{DhcpMode, Subnet, UnknownPolicy},
};
use std::net::{Ipv4Addr, SocketAddrV4};

pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A wide subnet in full mode.
pub fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        subnets: vec![subnet()],
        dhcp: DhcpMode::Full,
        unknown: UnknownPolicy::Discover,
        ..(*super::settings()).clone()
    })
}

pub fn subnet() -> Subnet {
    Subnet {
        range: Some(Ipv4Addr::new(10, 76, 1, 0)..=Ipv4Addr::new(10, 77, 250, 0)),
        ..Subnet::new("10.77.0.0/15".parse().unwrap())
    }
}

/// A plain client's packet, of a type (option 53) and with these other options.
pub fn packet(kind: u8, mac: MacAddress, options: &[(u8, Ipv4Addr)]) -> Request {
    let received = Received {
        interface: "eno2".into(),
        interface_index: 3,
        interface_address: OURS,
        mtu: 1500,
        port: 67,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        destination: Ipv4Addr::BROADCAST,
    };
    let mut bytes = vec![1, 1, 6, 0];
    bytes.resize(28, 0);
    bytes.extend(mac.0);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    for (code, address) in options {
        bytes.extend([*code, 4]);
        bytes.extend(address.octets());
    }
    let name = format!("client-{}", mac.hyphened());
    bytes.extend([12, name.len() as u8]);
    bytes.extend(name.as_bytes());
    bytes.push(255);
    Request::parse(&bytes, &received).unwrap()
}

fn address_in(answer: &DhcpAnswer) -> Option<Ipv4Addr> {
    let DhcpAnswer::Reply { packet, .. } = answer else { return None };
    Some(Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]))
}

/// DISCOVER: the address offered.
pub async fn discover(ledger: &Ledger, mac: MacAddress) -> Result<Ipv4Addr, Fault> {
    let answer = ledger.decide(packet(1, mac, &[]), decide).await?;
    Ok(address_in(&answer).expect("the pool is wide"))
}

/// REQUEST of what was offered: the address acknowledged.
pub async fn request(ledger: &Ledger, mac: MacAddress, address: Ipv4Addr) -> Result<Ipv4Addr, Fault> {
    let asks = packet(3, mac, &[(50, address), (54, OURS)]);
    let answer = ledger.decide(asks, decide).await?;
    Ok(address_in(&answer).expect("what was offered is granted"))
}

/// Something that was acknowledged, and must be there ever after.
#[derive(Debug, Clone)]
pub enum Promise {
    Lease(MacAddress, Ipv4Addr),
    Assigned(MacAddress),
    Labelled(MacAddress, String),
    Imported(Digest),
    Boot(BootId),
}

impl Promise {
    /// Whether `records` keep it.
    pub fn is_kept(&self, records: &Stored<'_>) -> bool {
        match self {
            Self::Lease(mac, address) => {
                let key = bennu_rules::decision::lease_key(subnet().network, *mac);
                let by_client = records.lease(&key).map(|lease| lease.address);
                let by_address = records.lease_at(*address).map(|lease| lease.key);
                (by_client, by_address) == (Some(*address), Some(key))
            }
            Self::Assigned(mac) => records.machine(*mac).is_some_and(|machine| machine.assignment.is_some()),
            Self::Labelled(mac, label) => {
                records.machine(*mac).is_some_and(|machine| machine.labels.contains_key(label))
            }
            Self::Imported(digest) => {
                records.image(digest).is_some() && records.tags().iter().any(|tag| tag.digest == *digest)
            }
            Self::Boot(id) => records.boot(id).is_some_and(|boot| {
                boot.token.is_some()
                    && records.machine(boot.machine).is_some()
                    && records.boots(Some(boot.machine)).contains(&boot)
            }),
        }
    }
}

fn image_numbered(n: u8) -> Image {
    Image { digest: Digest([n; 32]), ..image() }
}

/// One operation on machine number `n`, by chance; what it promises once it is answered.
pub async fn operate(ledger: &Ledger, n: u32, mut chance: Chance) -> Result<Option<Promise>, Fault> {
    let mac = mac(n);
    match chance.below(10) {
        0 => {
            let number = 100 + chance.below(100) as u8;
            let request = AddImages {
                images: vec![image_numbered(number)],
                name: format!("web:v{number}").parse().unwrap(),
                source: Vec::new(),
                signatures: Vec::new(),
            };
            ledger.decide(request, add_images).await?;
            Ok(Some(Promise::Imported(Digest([number; 32]))))
        }
        1 => {
            // A label of its own, so that no later promise overtakes this one.
            let label = format!("l{:x}", chance.next());
            let labels = [(label.clone(), Some("yes".to_owned()))].into();
            let labels = Edit { labels, ..Edit::default() };
            let request = EditMachine { mac, edit: labels, own_addresses: Vec::new(), expected: None };
            ledger.decide(request, edit).await?.unwrap();
            Ok(Some(Promise::Labelled(mac, label)))
        }
        2 | 3 => {
            ledger
                .decide(
                    AddImages {
                        images: vec![image_numbered(1)],
                        name: "base:v1".parse().unwrap(),
                        source: Vec::new(),
                        signatures: Vec::new(),
                    },
                    add_images,
                )
                .await?;
            let assignment = Some(Assignment::Image(ImageReference::Digest(Digest([1; 32]))));
            ledger.decide(Assign { mac, assignment, expected: None }, assign).await?.unwrap();
            if chance.percent(30) {
                return Ok(Some(Promise::Assigned(mac)));
            }
            let origin = format!("http://{OURS}");
            let facts = bennu_rules::facts::Facts { serial: Some(format!("{n}")), ..Default::default() };
            let asks = ScriptRequest { mac, facts, origin, stage1: stage1(), starts: true, vouched: true, tftp: None };
            let Script::Boot(boot) = ledger.decide(asks, script::decide).await? else { return Ok(None) };
            ledger.observe(mac, Seen::DhcpNak { reason: "something to flush".into() });
            Ok(Some(Promise::Boot(boot.boot)))
        }
        4 => ledger.flush(true).await.map(|()| None),
        _ => {
            let offered = discover(ledger, mac).await?;
            let address = request(ledger, mac, offered).await?;
            Ok(Some(Promise::Lease(mac, address)))
        }
    }
}
