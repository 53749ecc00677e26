use super::*;
use crate::{
    Live, Moment, Timestamp, View,
    dhcp::{Malformed, Received, decide},
    memory::Memory,
};
use std::sync::Arc;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn asked(bytes: &[u8]) -> Result<Request, Malformed> {
    let received = Received {
        interface: "eno1".into(),
        interface_index: 1,
        interface_address: OURS,
        mtu: 1500,
        port: 67,
        source: "0.0.0.0:68".parse().unwrap(),
        destination: Ipv4Addr::BROADCAST,
    };
    Request::parse(bytes, &received)
}

fn ask(bytes: &[u8], dhcp: DhcpMode) -> Decision<DhcpAnswer> {
    let subnets = vec![crate::settings::Subnet::new("10.77.0.0/24".parse().unwrap())];
    let settings = Arc::new(Settings { dhcp, subnets, ..Settings::default() });
    let at = Moment { now: Timestamp(1), entropy: [0; 32], settings };
    let (records, live) = (Memory::default(), Live::default());
    decide(&asked(bytes).unwrap(), &View { records: &records, live: &live }, &at)
}

#[test]
fn a_bennu_knows_another_by_its_question_and_holds_nothing_for_it() {
    for (mode, appliance, who) in [
        (DhcpMode::Full, Appliance::Full, Looks::Only),
        (DhcpMode::Full, Appliance::Full, Looks::AndBegins),
        (DhcpMode::Proxy, Appliance::Proxy, Looks::Only),
    ] {
        let decision = ask(&question(MAC, 7, who), mode);
        assert!(decision.volatile.is_empty() && decision.changes.is_empty() && decision.observed.is_empty());
        let DhcpAnswer::Reply { packet, send_to: SendTo::Broadcast, probe: None } = decision.answer else {
            panic!("{decision:?}")
        };
        assert_eq!(packet[16..20], [0; 4], "no address");
        let heard = Heard::parse(&packet, Ipv4Addr::UNSPECIFIED).unwrap();
        assert_eq!(heard, Heard { server: OURS, said: Said::Offer, appliance: Some(appliance), xid: 7 });
    }
    assert_eq!(ask(&question(MAC, 7, Looks::Only), DhcpMode::Off).answer, DhcpAnswer::Silence(Reason::LooksForServers));
}

#[test]
fn a_question_that_a_relay_passed_on_stays_unanswered() {
    let mut relayed = question(MAC, 7, Looks::Only);
    relayed[24..28].copy_from_slice(&[10, 78, 0, 1]);
    assert_eq!(ask(&relayed, DhcpMode::Full).answer, DhcpAnswer::Silence(Reason::LooksForServers));
}

#[test]
fn servers_are_told_from_clients_and_noise() {
    let mut offer = question(MAC, 7, Looks::Only);
    assert_eq!(Heard::parse(&offer, OURS), None, "a client's");
    offer[0] = 2;
    assert_eq!(Heard::parse(&offer, OURS), None, "a DISCOVER in a reply");
    let at = offer.windows(3).position(|bytes| bytes == [53, 1, 1]).unwrap();
    for (kind, said) in [(2, Said::Offer), (5, Said::Ack), (6, Said::Nak)] {
        offer[at + 2] = kind;
        let heard = Heard { server: OURS, said, appliance: None, xid: 7 };
        assert_eq!(Heard::parse(&offer, OURS), Some(heard), "without option 54 the sender counts");
    }
    for length in 0..offer.len() {
        let _ = Heard::parse(&offer[..length], OURS);
    }
}

#[test]
fn an_allowed_server_is_nobodys_business() {
    let heard = Heard { server: OURS, said: Said::Offer, appliance: None, xid: 7 };
    let settings = Settings { allow_servers: vec![OURS], ..Settings::default() };
    assert_eq!(heard.notice("eno1", &settings), None);
    assert!(heard.notice("eno1", &Settings::default()).is_some());
    let stands_by = Heard { appliance: Some(Appliance::StandsBy), ..heard };
    assert_eq!(stands_by.notice("eno1", &Settings::default()), None, "no machine hears it");
}

#[test]
fn a_call_is_read_by_bennus_alone_and_answered_with_what_they_are() {
    let call = Call { xid: 0x0102_0304, card: MAC };
    let packet = call.packet();
    assert_eq!(Call::parse(&packet), Some(call));
    assert_eq!(Heard::parse(&packet, OURS), None, "no server speaks");
    assert_eq!(asked(&packet), Err(Malformed::NotARequest(2)), "no server is asked");
    for appliance in [Appliance::Full, Appliance::Proxy, Appliance::StandsBy] {
        let answer = call.answered(OURS, appliance);
        assert_eq!(Call::parse(&answer), None);
        let heard = Heard { server: OURS, said: Said::Offer, appliance: Some(appliance), xid: call.xid };
        assert_eq!(Heard::parse(&answer, Ipv4Addr::UNSPECIFIED), Some(heard));
    }
    for length in 0..packet.len() {
        let _ = Call::parse(&packet[..length]);
    }
}
