//! Lines 2, 11 to 16, 20 and 22 to 25: who gets which address.

use anyhow::{Result, ensure};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    Places,
    ask::{Ask, kind::*},
    client::{Client, relay},
    place::{Bench, SERVER},
};
use crate::appliance::Config;

/// An address of the subnet that belongs to one line: 10.(100 + line).0.0/24.
fn of(line: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 100 + line, 0, host)
}

/// A packet from that subnet.
fn on(line: u8, ask: Ask) -> Ask {
    ask.relayed(relay(100 + line), SERVER)
}

/// A packet of a client that has its address there, to the server alone.
fn from_there(client: &mut Client, kind: u8, own: Ipv4Addr) -> Ask {
    client.ask(kind).unicast(own, SERVER)
}

pub fn line_02_leases_survive_a_restart(_: &Places) -> Result<()> {
    let mut bench = Bench::new(Config::full(), &[])?;
    let mut client = bench.place.client(2, 1)?;
    let address = client.lease()?;
    let mut undecided = bench.place.client(2, 2)?;
    let discover = undecided.ask(DISCOVER);
    let offer = undecided.answered(&discover, OFFER)?;
    bench.bennu.kill()?;
    bench.bennu.start()?;
    let reboot = client.ask(REQUEST).address(50, address);
    let ack = client.answered(&reboot, ACK)?;
    ensure!(ack.yiaddr == address, "{address} before, {} after", ack.yiaddr);
    let request = undecided.request_for(&discover, &offer)?;
    let ack = undecided.answered(&request, ACK)?;
    ensure!(ack.yiaddr == offer.yiaddr, "an offer from before the restart stands");
    Ok(())
}

pub fn line_11_a_machine_keeps_its_address_though_its_client_id_changes(places: &Places) -> Result<()> {
    let mut client = places.full.client(11, 1)?;
    let mut addresses = Vec::new();
    for id in [&[1, 2, 3][..], &[0xff, 9, 9, 9, 0, 1], &[0xff, 1, 2, 3, 0, 2]] {
        let discover = client.ask(DISCOVER).with(61, id);
        addresses.push(client.boot(&discover)?.1.yiaddr);
    }
    addresses.push(client.lease()?);
    ensure!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    let renewal = client.renewal(addresses[0]).with(61, [0xff, 4, 4, 4]);
    client.answered(&renewal, ACK)?;
    // Another machine with the same client id, as a cloned disk has it, is another machine.
    let mut twin = places.full.client(11, 2)?;
    let discover = twin.ask(DISCOVER).with(61, [0xff, 1, 2, 3, 0, 2]);
    let other = twin.boot(&discover)?.1.yiaddr;
    ensure!(other != addresses[0], "two cards share {other}");
    Ok(())
}

pub fn line_12_addresses_come_in_order(places: &Places) -> Result<()> {
    let mut first = places.full.client(12, 1)?;
    let wish = on(12, first.ask(DISCOVER).address(50, of(12, 99)));
    let (_, ack) = first.boot(&wish)?;
    ensure!(ack.yiaddr == of(12, 99), "the requested address: {}", ack.yiaddr);
    let again = on(12, first.ask(DISCOVER).address(50, of(12, 98)));
    ensure!(first.answered(&again, OFFER)?.yiaddr == of(12, 99), "the current address comes first");
    let release = from_there(&mut first, RELEASE, of(12, 99));
    first.ignored_for(&release, Duration::from_millis(300))?;
    let again = on(12, first.ask(DISCOVER).address(50, of(12, 98)));
    ensure!(first.answered(&again, OFFER)?.yiaddr == of(12, 99), "then the previous one");

    let mut second = places.full.client(12, 2)?;
    for taken in [of(12, 99), of(12, 1), of(12, 255), of(12, 0), of(12, 20), Ipv4Addr::new(192, 168, 0, 1)] {
        let wish = on(12, second.ask(DISCOVER).address(50, taken));
        let given = second.answered(&wish, OFFER)?.yiaddr;
        ensure!(given != taken && (of(12, 50)..=of(12, 199)).contains(&given), "for {taken} came {given}");
    }
    Ok(())
}

pub fn line_14_an_offer_not_taken_is_free_again(places: &Places) -> Result<()> {
    let mut client = places.full.client(14, 1)?;
    let wish = on(14, client.ask(DISCOVER).address(50, of(14, 70)));
    ensure!(client.answered(&wish, OFFER)?.yiaddr == of(14, 70), "not the address that was asked for");
    let mut other = places.full.client(14, 2)?;
    let wish_too = on(14, other.ask(DISCOVER).address(50, of(14, 70)));
    ensure!(other.answered(&wish_too, OFFER)?.yiaddr != of(14, 70), "one address was offered to two");
    let elsewhere = wish.of_kind(REQUEST).address(54, Ipv4Addr::new(10, 77, 0, 2));
    client.ignored(&elsewhere)?;
    let mut third = places.full.client(14, 3)?;
    let wish_too = on(14, third.ask(DISCOVER).address(50, of(14, 70)));
    ensure!(third.answered(&wish_too, OFFER)?.yiaddr == of(14, 70), "the offer was not dropped");
    Ok(())
}

pub fn line_15_an_unknown_client_that_reboots_gets_silence(places: &Places) -> Result<()> {
    let mut client = places.full.client(15, 1)?;
    let reboot = on(15, client.ask(REQUEST).address(50, of(15, 70)));
    client.ignored_for(&reboot, Duration::from_secs(5))
}

pub fn line_16_a_wrong_network_gets_a_nak(places: &Places) -> Result<()> {
    let mut client = places.full.client(16, 1)?;
    let elsewhere = Ipv4Addr::new(192, 168, 1, 5);
    let reboot = client.ask(REQUEST).address(50, elsewhere);
    client.answered(&reboot, NAK)?;
    client.answered(&on(16, reboot), NAK)?;
    let rebinding = client.ask(REQUEST).ciaddr(elsewhere);
    client.answered(&rebinding, NAK)?;
    // An address that is certainly another client's is refused too, by every way of asking for it.
    let mut holder = places.full.client(16, 2)?;
    let held = holder.lease()?;
    let selecting = client.ask(REQUEST).address(50, held).address(54, SERVER);
    client.answered(&selecting, NAK)?;
    let reboot = client.ask(REQUEST).address(50, held);
    client.answered(&reboot, NAK)?;
    let renewal = holder.renewal(held);
    holder.answered(&renewal, ACK).map(drop)
}

pub fn line_20_a_renewal_needs_its_own_address_alone(places: &Places) -> Result<()> {
    let mut client = places.full.client(20, 1)?;
    let address = client.lease()?;
    let renewal = client.renewal(address);
    let ack = client.answered(&renewal, ACK)?;
    ensure!((ack.yiaddr, ack.ciaddr, ack.number(51)?) == (address, address, 3600), "{ack:?}");
    ensure!((*ack.wire.to.ip(), ack.wire.to.port()) == (address, 68), "it went to {}", ack.wire.to);
    ensure!(ack.wire.link_to == client.mac, "it went to the card {:?}", ack.wire.link_to);
    let mut rebinding = client.ask(REQUEST).ciaddr(address);
    rebinding.from.set_ip(address);
    client.answered(&rebinding, ACK)?;
    // From behind a router: the client's subnet is that of its address.
    let mut far = places.full.client(20, 2)?;
    let discover = on(20, far.ask(DISCOVER));
    let address = far.boot(&discover)?.1.yiaddr;
    let renewal = far.renewal(address);
    let ack = far.answered(&renewal, ACK)?;
    ensure!(ack.yiaddr == address && ack.giaddr.is_unspecified(), "{ack:?}");
    ensure!(*ack.wire.to.ip() == address, "it went to {}", ack.wire.to);
    Ok(())
}

pub fn line_22_a_declined_address_is_nobodys(places: &Places) -> Result<()> {
    let mut client = places.full.client(22, 1)?;
    let wish = on(22, client.ask(DISCOVER).address(50, of(22, 50)));
    let declined = client.boot(&wish)?.1.yiaddr;
    let mut other = places.full.client(22, 2)?;
    let not_his = on(22, other.ask(DECLINE).address(50, declined).address(54, SERVER));
    other.ignored_for(&not_his, Duration::from_millis(300))?;
    let decline = on(22, client.ask(DECLINE).address(50, declined).address(54, SERVER));
    client.ignored(&decline)?;
    // The subnet has two addresses: the other one goes to whoever asks first, and then there is none.
    let next = on(22, client.ask(DISCOVER).address(50, declined));
    let next = client.boot(&next)?.1.yiaddr;
    ensure!(next != declined, "{declined} was declined, and given again");
    let none = on(22, other.ask(DISCOVER).address(50, declined));
    other.ignored(&none)?;
    let leases = places.full.json(&["lease", "list"])?;
    let known = leases.to_string();
    ensure!(known.contains(&declined.to_string()) && known.contains("declined"), "no word of it in {known}");
    let notices = places.full.json(&["status"])?["notices"].to_string();
    ensure!(notices.contains(&declined.to_string()), "nobody is told: {notices}");
    Ok(())
}

pub fn line_23_a_released_address_comes_back_to_its_client(places: &Places) -> Result<()> {
    let mut client = places.full.client(23, 1)?;
    let discover = on(23, client.ask(DISCOVER));
    let address = client.boot(&discover)?.1.yiaddr;
    let mut other = places.full.client(23, 2)?;
    let not_his = from_there(&mut other, RELEASE, address);
    other.ignored_for(&not_his, Duration::from_millis(300))?;
    let wish = on(23, other.ask(DISCOVER).address(50, address));
    ensure!(other.answered(&wish, OFFER)?.yiaddr != address, "somebody else released {address}");
    let release = from_there(&mut client, RELEASE, address);
    client.ignored_for(&release, Duration::from_millis(300))?;
    let again = on(23, client.ask(DISCOVER));
    ensure!(client.answered(&again, OFFER)?.yiaddr == address, "its client gets it again");
    let elsewhere = on(23, client.ask(REQUEST).address(50, address).address(54, Ipv4Addr::new(10, 9, 9, 9)));
    client.ignored_for(&elsewhere, Duration::from_millis(300))?;
    let mut third = places.full.client(23, 3)?;
    let wish = on(23, third.ask(DISCOVER).address(50, address));
    ensure!(third.answered(&wish, OFFER)?.yiaddr == address, "it is not free for others");
    Ok(())
}

pub fn line_24_inform_gets_configuration_alone(places: &Places) -> Result<()> {
    let mut client = places.full.client(24, 1)?;
    let own = Ipv4Addr::new(10, 77, 0, 12);
    client.own = Some(own);
    let inform = client.ask(INFORM).unicast(own, SERVER).with(55, [1, 3, 6, 15]);
    let ack = client.answered(&inform, ACK)?;
    ensure!(ack.yiaddr.is_unspecified() && ack.ciaddr == own, "{ack:?}");
    ensure!(![51, 58, 59].iter().any(|code| ack.has(*code)), "a lease in {:?}", ack.order);
    ensure!(ack.address(3)? == SERVER && ack.text(15)? == "rack.example", "{ack:?}");
    ensure!(*ack.wire.to.ip() == own && ack.wire.link_to == client.mac, "it went to {}", ack.wire.to);
    let leases = places.full.json(&["lease", "list"])?.to_string();
    ensure!(!leases.contains("10.77.0.12\""), "INFORM made a lease");
    Ok(())
}

pub fn line_25_t1_before_t2_before_the_end(places: &Places) -> Result<()> {
    // 10.88.0.0/24 has leases of a minute, the wire those of an hour.
    for (number, network, lease) in [(1, 77, 3600), (2, 88, 60)] {
        let mut client = places.full.client(25, number)?;
        let discover = client.ask(DISCOVER);
        let discover = if network == 77 { discover } else { discover.relayed(relay(network), SERVER) };
        let (offer, ack) = client.boot(&discover)?;
        for got in [offer, ack] {
            let (t1, t2, end) = (got.number(58)?, got.number(59)?, got.number(51)?);
            ensure!(t1 < t2 && t2 < end && end == lease, "T1 {t1}, T2 {t2}, lease {end}");
        }
    }
    // What is left of a lease when its client asks again has its own times.
    let mut client = places.full.client(25, 3)?;
    client.lease()?;
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(1200));
    let again = client.ask(DISCOVER);
    let (_, ack) = client.boot(&again)?;
    let (t1, t2, end) = (ack.number(58)?, ack.number(59)?, ack.number(51)?);
    ensure!(t1 < t2 && t2 < end && end <= 3600, "after {:?}: T1 {t1}, T2 {t2}, lease {end}", begun.elapsed());
    Ok(())
}
