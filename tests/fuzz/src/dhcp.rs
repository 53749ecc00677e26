//! DHCP: a conversation of packets (options 43 and 82 among what they carry), in full and proxy mode, by port 67 and
//! 4011, direct and relayed.

use crate::{
    parts,
    world::{OURS, World},
};
use bennu_rules::{
    dhcp::{BOOT_SERVER_PORT, DhcpAnswer, Received, Request, SERVER_PORT, SendTo, decide},
    settings::DhcpMode,
};
use dhcproto::v4::borrowed::Message;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
};

/// The first byte chooses mode and port; then come packets, each led by its length.
pub fn run(data: &[u8]) {
    let Some((&choice, conversation)) = data.split_first() else { return };
    let mode = if choice & 1 == 0 { DhcpMode::Full } else { DhcpMode::Proxy };
    let mut world = World::new(mode);
    for packet in parts(conversation).take(16) {
        let received = received(if choice & 2 == 0 { SERVER_PORT } else { BOOT_SERVER_PORT });
        world.wait(u64::from(choice) * 1000);
        let Ok(request) = Request::parse(packet, &received) else { continue };
        if let DhcpAnswer::Reply { packet, send_to, .. } = world.decide(&request, decide) {
            check(&request, &packet, &send_to);
        }
    }
}

fn received(port: u16) -> Received {
    Received {
        interface: "prov0".into(),
        interface_index: 2,
        interface_address: OURS,
        mtu: 1500,
        port,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        destination: Ipv4Addr::BROADCAST,
    }
}

/// What holds of every answer (RFC 2131 table 3, RFC 1542 §2.1, RFC 3046 §2.2).
fn check(request: &Request, packet: &[u8], send_to: &SendTo) {
    assert!((300..=1472).contains(&packet.len()), "{} bytes", packet.len());
    let message = Message::new(packet).expect("an answer is a packet");
    assert_eq!((packet[0], packet[3], &packet[8..10]), (2, 0, &[0, 0][..]), "operation, hops and secs");
    assert_eq!((message.xid(), message.giaddr()), (request.xid, request.giaddr));
    assert_eq!(message.chaddr(), request.mac.0);
    assert_eq!(packet.iter().rposition(|byte| *byte != 0).map(|at| packet[at]), Some(255), "END is last");
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for option in message.opts() {
        options.entry(option.code().into()).or_default().extend_from_slice(option.data());
    }
    let kind = options.get(&53).expect("every answer has a type")[0];
    assert!(matches!(kind, 2 | 5 | 6), "type {kind}");
    assert!([50, 55, 57].iter().all(|code| !options.contains_key(code)), "options of clients");
    if let Some(relay) = options.get(&82) {
        assert_eq!(Some(relay), request.relay.as_ref(), "option 82 comes back as it was");
    }
    if kind == 6 {
        assert!(message.yiaddr().is_unspecified() && !options.contains_key(&51), "a NAK gives nothing");
    }
    if request.is_relayed() {
        assert_eq!(send_to.address(), SocketAddrV4::new(request.giaddr, 67), "answers go to the relay");
    }
}
