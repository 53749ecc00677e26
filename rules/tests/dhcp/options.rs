//! The packet itself: what is read, what is refused, what is written.

use crate::kit::*;
use bennu_rules::{
    MacAddress,
    dhcp::{Malformed, Request},
};

fn parse(bytes: &[u8]) -> Result<Request, Malformed> {
    Request::parse(bytes, &received())
}

#[test]
fn line_03_a_bad_cookie_is_refused() {
    let mut bytes = Ask::new(DISCOVER, 1).bytes();
    bytes[239] = 98;
    assert_eq!(parse(&bytes), Err(Malformed::Cookie));
}

#[test]
fn line_04_exactly_one_message_type_that_clients_send() {
    let with = |values: &[&[u8]]| {
        let mut ask = Ask::new(DISCOVER, 1);
        ask.options = values.iter().map(|value| (53, value.to_vec())).collect();
        ask.parse()
    };
    for valid in [1, 3, 4, 7, 8] {
        assert!(with(&[&[valid]]).is_ok());
    }
    for other in [0, 2, 5, 6, 9, 13, 255] {
        assert_eq!(with(&[&[other]]), Err(Malformed::NotForServers(other)));
    }
    assert_eq!(with(&[&[1], &[3]]), Err(Malformed::MessageType));
    assert_eq!(with(&[&[]]), Err(Malformed::MessageType));
    assert_eq!(with(&[&[1, 3]]), Err(Malformed::MessageType));
}

#[test]
fn line_05_an_option_cut_at_the_end_is_refused() {
    let whole = Ask::new(DISCOVER, 1).with(12, "name").bytes();
    for length in 0..whole.len() {
        match parse(&whole[..length]) {
            Err(Malformed::TooShort(n)) => assert!(n < 240),
            Err(Malformed::CutShort(code)) => assert!(code == 53 || code == 12),
            Ok(request) => assert!(request.hostname.is_none() || length + 1 == whole.len()),
            Err(other) => panic!("{length}: {other}"),
        }
    }
}

#[test]
fn line_06_reserved_flags_mean_nothing() {
    let mut wire = Wire::full();
    let got = wire.ask(&Ask::new(DISCOVER, 1).flags(0x7fff)).unwrap();
    assert_eq!((got.kind, got.flags), (2, 0x7fff));
}

#[test]
fn replies_and_foreign_hardware_are_refused() {
    let whole = Ask::new(DISCOVER, 1).bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        parse(&bytes)
    };
    assert_eq!(with(0, 2), Err(Malformed::NotARequest(2)));
    assert_eq!(with(1, 32), Err(Malformed::Hardware { kind: 32, length: 6 }));
    for length in [0, 5, 7, 16, 17, 255] {
        assert_eq!(with(2, length), Err(Malformed::Hardware { kind: 1, length }));
    }
    assert!(matches!(with(28, 0x53), Err(Malformed::NotAStation(MacAddress([0x53, ..])))));
}

#[test]
fn line_09_never_sends_what_only_clients_send() {
    let mut wire = Wire::full();
    let ask = Ask::new(DISCOVER, 1).pxe(7).with(55, [1, 3, 6, 50, 55, 57]).with(57, [5, 0]);
    let got = wire.boot(ask);
    assert!([50, 55, 57].iter().all(|code| !got.options.contains_key(code)));
}

#[test]
fn line_10_the_client_id_comes_back_if_and_only_if_it_was_sent() {
    let mut wire = Wire::full();
    assert!(!wire.ask(&Ask::new(DISCOVER, 1)).unwrap().options.contains_key(&61));
    let id = [1, 0x52, 0x54, 0, 0x12, 0, 1];
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).with(61, id)).unwrap().options[&61], id);
    let nak = wire.ask(&Ask::new(REQUEST, 1).with(61, id).address(50, ip("192.168.0.1"))).unwrap();
    assert_eq!((nak.kind, &nak.options[&61][..]), (6, &id[..]));
}

#[test]
fn line_28_no_reply_is_larger_than_its_receiver_takes() {
    for (asked, most) in [(None, 576), (Some(300), 576), (Some(576), 576), (Some(1472), 1472), (Some(65280), 1500)] {
        let mut wire = Wire::full();
        wire.settings.subnets[0].dns = (0..60).map(|n| std::net::Ipv4Addr::new(10, 1, 1, n)).collect();
        wire.settings.subnets[0].domain = Some("x".repeat(200));
        let mut ask = Ask::new(DISCOVER, 1).pxe(7).with(61, [7; 200]).with(97, [0; 17]);
        if let Some(asked) = asked {
            ask = ask.with(57, u16::to_be_bytes(asked));
        }
        let got = wire.ask(&ask).unwrap();
        assert!(got.packet.len() + 28 <= most, "{asked:?}: {} bytes", got.packet.len());
        assert_eq!(got.text(67).as_deref(), Some("snponly.efi"), "{asked:?}: the boot file comes first");
        assert_eq!(got.options.contains_key(&6), most > 576, "{asked:?}: the rest as room allows");
    }
}

#[test]
fn line_29_no_reply_is_shorter_than_bootp() {
    let mut wire = Wire::full();
    wire.settings.subnets[0].dns.clear();
    wire.settings.subnets[0].domain = None;
    for ask in [Ask::new(DISCOVER, 1), Ask::new(REQUEST, 1).address(50, ip("192.168.0.1"))] {
        let got = wire.ask(&ask).unwrap();
        assert_eq!(got.packet.len(), 300);
    }
}

#[test]
fn line_31_option_82_comes_back_whole_and_last() {
    let mut wire = Wire::full();
    let relay = [&[1, 4][..], b"gi12", &[2, 3], b"sw1"].concat();
    let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(7).with(82, &relay).relayed()).unwrap();
    assert_eq!(got.options[&82], relay);
    assert_eq!(got.order.last(), Some(&82));
    let huge = [&[1, 250][..], &[b'x'; 250]].concat();
    let got = wire.ask(&Ask::new(DISCOVER, 1).with(61, [7; 200]).with(82, &huge).relayed()).unwrap();
    assert!(!got.options.contains_key(&82), "no room, so it is left out, not cut");
}

#[test]
fn a_subnet_is_told_as_configured() {
    let mut wire = Wire::full();
    let got = wire.boot(Ask::new(DISCOVER, 1).with(55, [1, 3, 6, 15, 28]));
    assert_eq!(got.address(1), ip("255.255.255.0"));
    assert_eq!(got.address(3), ip("10.77.0.254"));
    assert_eq!(got.address(6), ip("10.77.0.253"));
    assert_eq!(got.address(28), ip("10.77.0.255"));
    assert_eq!(got.text(15).as_deref(), Some("rack.example"));
    assert!([43, 60, 66, 67].iter().all(|code| !got.options.contains_key(code)), "a system boots nothing");
}
