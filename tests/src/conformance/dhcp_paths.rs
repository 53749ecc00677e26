//! Lines 17 to 19, 21, 32 and 33: where answers go, and for whom relays speak.

use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;

use super::{
    Places,
    ask::{Ask, kind::*},
    client::relay,
    frames::EVERYBODY,
    got::Got,
    place::{Bench, SERVER},
};
use crate::appliance::Config;

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);

/// It was broadcast, on the link and above it.
fn is_broadcast(got: &Got) -> Result<()> {
    let to = got.wire.to;
    ensure!(to.ip().is_broadcast() && to.port() == 68, "it went to {to}");
    ensure!(got.wire.link_to == EVERYBODY, "it went to the card {:02x?}", got.wire.link_to);
    Ok(())
}

pub fn line_17_a_nak_is_broadcast(places: &Places) -> Result<()> {
    let mut client = places.full.client(17, 1)?;
    let reboot = client.ask(REQUEST).flags(0).address(50, ELSEWHERE);
    is_broadcast(&client.answered(&reboot, NAK)?)?;
    let rebinding = client.ask(REQUEST).flags(0).ciaddr(ELSEWHERE);
    is_broadcast(&client.answered(&rebinding, NAK)?)
}

pub fn line_18_a_relayed_nak_goes_to_the_relay(places: &Places) -> Result<()> {
    let mut client = places.full.client(18, 1)?;
    let reboot = client.ask(REQUEST).flags(0).address(50, ELSEWHERE).relayed(relay(88), SERVER);
    let nak = client.answered(&reboot, NAK)?;
    ensure!((*nak.wire.to.ip(), nak.wire.to.port()) == (relay(88), 67), "it went to {}", nak.wire.to);
    ensure!(nak.flags == 0x8000, "its flags are {:#06x}", nak.flags);
    Ok(())
}

pub fn line_19_a_nak_carries_nothing_else(places: &Places) -> Result<()> {
    let mut client = places.full.client(19, 1)?;
    let reboot = client.ask(REQUEST).pxe(7).with(61, [1, 2, 3]).with(55, [1, 3, 6]).address(50, ELSEWHERE);
    let nak = client.answered(&reboot, NAK)?;
    let addresses = [nak.ciaddr, nak.yiaddr, nak.siaddr];
    ensure!(addresses.iter().all(Ipv4Addr::is_unspecified) && nak.file.is_empty(), "{nak:?}");
    let mut codes = nak.order.clone();
    codes.sort_unstable();
    ensure!(codes == [53, 54, 56, 61], "options {codes:?}");
    Ok(())
}

pub fn line_21_answers_go_where_they_are_heard(places: &Places) -> Result<()> {
    let mut client = places.full.client(21, 1)?;
    let relayed = client.ask(DISCOVER).relayed(relay(88), SERVER);
    let offer = client.answered(&relayed, OFFER)?;
    ensure!((*offer.wire.to.ip(), offer.wire.to.port()) == (relay(88), 67), "relayed: to {}", offer.wire.to);

    let broadcast = client.ask(DISCOVER).flags(0x8000);
    let (offer, ack) = client.boot(&broadcast)?;
    is_broadcast(&offer)?;
    is_broadcast(&ack)?;

    let renewal = client.renewal(ack.yiaddr);
    let ack = client.answered(&renewal, ACK)?;
    ensure!(*ack.wire.to.ip() == ack.yiaddr && ack.wire.link_to == client.mac, "ciaddr: to {}", ack.wire.to);

    // Without an address and without the flag: to the client's card, and nobody has to answer ARP for it.
    let mut other = places.full.client(21, 2)?;
    let discover = other.ask(DISCOVER).flags(0);
    let (offer, ack) = other.boot(&discover)?;
    for got in [offer, ack] {
        ensure!(got.wire.link_to == other.mac, "chaddr: to the card {:02x?}", got.wire.link_to);
        ensure!((*got.wire.to.ip(), got.wire.to.port()) == (got.yiaddr, 68), "chaddr: to {}", got.wire.to);
        ensure!((*got.wire.from.ip(), got.wire.from.port()) == (SERVER, 67), "chaddr: from {}", got.wire.from);
        ensure!(got.wire.link_from == places.full.server_mac, "chaddr: from {:02x?}", got.wire.link_from);
    }
    Ok(())
}

pub fn line_32_a_relay_names_the_link_and_the_server(places: &Places) -> Result<()> {
    let (gateway, override_id) = (Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(10, 88, 0, 7));
    let link = [&[5, 4][..], &Ipv4Addr::new(10, 88, 0, 9).octets()].concat();
    let both = [&link[..], &[11, 4], &override_id.octets()].concat();

    let mut client = places.full.client(32, 1)?;
    let discover = client.ask(DISCOVER).with(82, &link).relayed(gateway, SERVER);
    let (offer, ack) = client.boot(&discover)?;
    for got in [offer, ack] {
        ensure!(got.yiaddr.octets()[..2] == [10, 88] && got.address(54)? == SERVER, "82.5: {got:?}");
        ensure!(*got.wire.to.ip() == gateway, "82.5: to {}", got.wire.to);
    }
    let mut client = places.full.client(32, 2)?;
    let discover = client.ask(DISCOVER).with(82, &both).relayed(gateway, SERVER);
    let (offer, ack) = client.boot(&discover)?;
    for got in [offer, ack] {
        ensure!(got.address(54)? == override_id && got.bytes(82)? == both, "82.11: {got:?}");
    }
    let nowhere = client.ask(DISCOVER).relayed(gateway, SERVER);
    client.ignored(&nowhere)?;
    // A client that speaks in a relay's name is not believed.
    let mut liar = places.full.client(32, 3)?;
    let discover = liar.ask(DISCOVER).with(82, &both);
    let offer = liar.answered(&discover, OFFER)?;
    ensure!(offer.yiaddr.octets()[..2] == [10, 77] && offer.address(54)? == SERVER, "{offer:?}");
    Ok(())
}

pub fn line_33_bootp_clients_are_refused_or_keep_their_address(places: &Places) -> Result<()> {
    let reserved = Ipv4Addr::new(10, 77, 0, 21);
    let refusing = Bench::new(Config::full(), &[])?;
    for (place, answers) in [(&refusing.place, false), (&places.full, true)] {
        let mut client = place.client(33, 1)?;
        let bootp = Ask { options: Vec::new(), flags: 0, ..client.ask(DISCOVER) };
        client.send(&Ask { tail: vec![0; 60], ..bootp.clone() })?;
        client.ignored(&bootp).context("without a reservation")?;
        let mac = client.mac.map(|byte| format!("{byte:02x}")).join(":");
        place.bennu(&["machine", "reserve", &mac, &reserved.to_string()])?;
        let bootp = Ask { options: Vec::new(), ..client.ask(DISCOVER) };
        if !answers {
            client.ignored(&bootp).context("refused is refused")?;
            continue;
        }
        let reply = client.answer(&bootp)?;
        ensure!(reply.yiaddr == reserved, "it got {}", reply.yiaddr);
        ensure!(![51, 53, 54, 58, 59].iter().any(|code| reply.has(*code)), "that is DHCP: {:?}", reply.order);
        ensure!(reply.address(1)? == Ipv4Addr::new(255, 255, 255, 0), "{reply:?}");
        ensure!(reply.wire.payload.len() >= 300, "{} bytes", reply.wire.payload.len());
    }
    Ok(())
}
