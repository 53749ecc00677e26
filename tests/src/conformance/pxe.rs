//! Lines 36 to 50: what firmware and loaders are told to boot.

use anyhow::{Context, Result, ensure};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    Places,
    ask::{Ask, kind::*},
    client::Client,
    got::Got,
    place::{Place, SERVER},
};

/// iPXE waits two seconds for a proxy's offer, and this is half of it.
const PROMPT: Duration = Duration::from_secs(1);

/// The address that the site's own server gave to a client, in proxy mode.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 30);

/// A packet to the boot server's port, from where EDK2 sends it.
fn to_4011(client: &mut Client, kind: u8) -> Ask {
    client.own = Some(OWN);
    client.ask(kind).unicast(OWN, SERVER).at_port(4011)
}

fn offered(place: &Place, line: u8, number: u16, with: impl Fn(Ask) -> Ask) -> Result<Got> {
    let mut client = place.client(line, number)?;
    let discover = with(client.ask(DISCOVER));
    client.answered(&discover, OFFER)
}

pub fn line_36_pxe_options_come_back(places: &Places) -> Result<()> {
    for (number, place) in [(1, &places.full), (2, &places.proxy)] {
        let mut client = place.client(36, number)?;
        let discover = client.ask(DISCOVER).pxe(7);
        let offer = client.answered(&discover, OFFER)?;
        for code in [93, 94, 97] {
            let asked = discover.options.iter().find(|option| option.0 == code).map(|option| option.1.as_slice());
            ensure!(Some(offer.bytes(code)?) == asked, "option {code} came back as {:?}", offer.bytes(code)?);
        }
        let bare = offered(place, 36, number + 10, |ask| ask.with(60, "PXEClient:Arch:00007:UNDI:003000"))?;
        ensure!(bare.file == "snponly.efi", "a client without them gets {:?}", bare.file);
        ensure!(![93, 94, 97].iter().any(|code| bare.has(*code)), "options {:?}", bare.order);
    }
    Ok(())
}

pub fn line_37_an_odd_architecture_list_is_ignored(places: &Places) -> Result<()> {
    let class = "PXEClient:Arch:00007:UNDI:003000";
    let odd = offered(&places.full, 37, 1, |ask| ask.with(60, class).with(93, [0, 0, 0]))?;
    ensure!(odd.file == "snponly.efi" && !odd.has(93), "the class tells the architecture: {odd:?}");
    let list = offered(&places.full, 37, 2, |ask| ask.with(60, "PXEClient").with(93, [0x12, 0x34, 0, 7]))?;
    ensure!(list.file == "snponly.efi", "the first type that is known counts: {list:?}");
    Ok(())
}

pub fn line_38_an_empty_or_doubled_machine_id_is_no_identity(places: &Places) -> Result<()> {
    let same = [&[0][..], &[0xab; 16]].concat();
    let mut addresses = Vec::new();
    for (number, id) in [&[0; 17][..], &[0; 17], &[0xff; 17], &[0xff; 17], &same, &same].into_iter().enumerate() {
        let mut client = places.full.client(38, number as u16)?;
        let discover = client.ask(DISCOVER).pxe(7).without(97).with(97, id);
        let (offer, ack) = client.boot(&discover)?;
        ensure!(offer.bytes(97)? == id && ack.bytes(97)? == id, "97 comes back as it was sent");
        addresses.push(ack.yiaddr);
    }
    let count = addresses.len();
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(addresses.len() == count, "six cards got {addresses:?}");
    Ok(())
}

pub fn line_39_each_architecture_gets_its_loader(places: &Places) -> Result<()> {
    const WITH: [(u16, &str); 5] =
        [(0, "undionly.kpxe"), (7, "snponly.efi"), (9, "snponly.efi"), (16, "snponly.efi"), (20, "undionly.kpxe")];
    const HTTP: [u16; 9] = [15, 16, 18, 19, 20, 26, 28, 38, 40];
    for arch in (0..=41).chain([0x1234]) {
        let offer =
            offered(&places.full, 39, arch, |ask| if HTTP.contains(&arch) { ask.http(arch) } else { ask.pxe(arch) })?;
        let name = WITH.iter().find(|row| row.0 == arch).map_or("", |row| row.1);
        let told = offer.text(67).unwrap_or_default();
        let expected = if HTTP.contains(&arch) && !name.is_empty() {
            format!("http://{SERVER}/loader/{name}")
        } else {
            name.to_owned()
        };
        ensure!(told == expected, "architecture {arch} gets {told:?}, not {expected:?}");
        ensure!(!offer.yiaddr.is_unspecified(), "architecture {arch} gets no address");
        ensure!(offer.has(60) != name.is_empty(), "architecture {arch}: options {:?}", offer.order);
    }
    // For people it is in the machine's timeline.
    let mac = places.full.client(39, 0x1234)?.mac.map(|byte| format!("{byte:02x}")).join(":");
    let boots = places.full.json(&["boot", "list"])?;
    let items = boots.as_array().or_else(|| boots["items"].as_array()).context("no list of boots")?;
    let boot = items.iter().find(|boot| boot["machine"] == mac.as_str()).context("no boot of that machine")?;
    let shown = places.full.bennu(&["boot", "show", boot["id"].as_str().context("no id")?])?;
    ensure!(shown.contains("4660"), "no word of architecture 4660 in:\n{shown}");
    Ok(())
}

pub fn line_40_a_proxy_offers_no_address(places: &Places) -> Result<()> {
    let offer = offered(&places.proxy, 40, 1, |ask| ask.pxe(7))?;
    ensure!(offer.yiaddr.is_unspecified() && offer.siaddr == SERVER, "{offer:?}");
    ensure!(offer.text(60)? == "PXEClient" && offer.address(54)? == SERVER, "{offer:?}");
    ensure!(![1, 3, 6, 51, 58, 59].iter().any(|code| offer.has(*code)), "options {:?}", offer.order);
    ensure!(offer.file == "snponly.efi", "{offer:?}");
    Ok(())
}

pub fn line_41_a_proxy_answers_network_boots_alone(places: &Places) -> Result<()> {
    let mut client = places.proxy.client(41, 1)?;
    let plain = client.ask(DISCOVER);
    let system = client.ask(DISCOVER).with(60, "udhcp 1.35").with(93, [0, 7]);
    let leasing = client.ask(REQUEST).pxe(7).address(50, OWN).address(54, Ipv4Addr::new(10, 77, 0, 2));
    for ask in [&plain, &system, &leasing] {
        client.ignored_for(ask, Duration::from_millis(700))?;
    }
    let pxe = client.ask(DISCOVER).pxe(7);
    client.answered(&pxe, OFFER)?;
    let http = client.ask(DISCOVER).http(16);
    client.answered(&http, OFFER).map(drop)
}

pub fn line_42_answers_come_in_time(places: &Places) -> Result<String> {
    let mut slowest = Duration::ZERO;
    for number in 0..60 {
        let place = if number % 2 == 0 { &places.full } else { &places.proxy };
        let mut client = place.client(42, number)?;
        let discover = client.ask(DISCOVER).pxe(7);
        let begun = Instant::now();
        client.send(&discover)?;
        client.hear(&discover, begun + PROMPT)?.with_context(|| format!("no offer within {PROMPT:?}"))?;
        slowest = slowest.max(begun.elapsed());
    }
    Ok(format!("the slowest of 60 offers took {:.0} ms", slowest.as_secs_f64() * 1e3))
}

pub fn line_43_firmware_boots_the_file_without_discovery(places: &Places) -> Result<()> {
    for (number, place) in [(1, &places.full), (2, &places.proxy)] {
        let offer = offered(place, 43, number, |ask| ask.pxe(0))?;
        ensure!(offer.bytes(43)? == [6, 1, 8, 255], "43 is {:?}", offer.bytes(43)?);
        ensure!(offer.text(60)? == "PXEClient" && offer.file == "undionly.kpxe", "{offer:?}");
    }
    Ok(())
}

pub fn line_44_port_4011_names_the_file(places: &Places) -> Result<()> {
    for (number, place) in [(1, &places.full), (2, &places.proxy)] {
        for (more, port) in [(0, 4011), (10, 68)] {
            let mut client = place.client(44, number + more)?;
            let mut ask = to_4011(&mut client, REQUEST).pxe(7);
            ask.from.set_port(port);
            let ack = client.answered(&ask, ACK)?;
            ensure!(ack.yiaddr.is_unspecified() && ack.ciaddr == OWN && !ack.has(51), "{ack:?}");
            ensure!(ack.file == "snponly.efi" && ack.siaddr == SERVER && ack.address(54)? == SERVER, "{ack:?}");
            ensure!(ack.wire.from.port() == 4011 && ack.wire.to.port() == port, "{} to {}", ack.wire.from, ack.wire.to);
        }
    }
    Ok(())
}

pub fn line_45_the_class_never_goes_without_option_43(places: &Places) -> Result<()> {
    for (base, place) in [(0, &places.full), (100, &places.proxy)] {
        for arch in [0, 7, 9] {
            let offer = offered(place, 45, base + arch, |ask| ask.pxe(arch))?;
            ensure!(offer.has(60) && offer.has(43), "architecture {arch}: options {:?}", offer.order);
        }
    }
    let plain = offered(&places.full, 45, 200, |ask| ask)?;
    ensure!(!plain.has(60) && !plain.has(43), "a system gets {:?}", plain.order);
    Ok(())
}

pub fn line_46_port_4011_ignores_strangers(places: &Places) -> Result<()> {
    let mut client = places.proxy.client(46, 1)?;
    let stranger = to_4011(&mut client, REQUEST);
    client.ignored_for(&stranger, Duration::from_millis(700))?;
    let release = to_4011(&mut client, RELEASE).pxe(7);
    client.ignored_for(&release, Duration::from_millis(700))?;
    let item = to_4011(&mut client, REQUEST).pxe(7).with(43, [71, 4, 0, 0, 0, 0, 255]);
    let ack = client.answered(&item, ACK)?;
    ensure!(ack.bytes(43)? == [6, 1, 8, 71, 4, 0, 0, 0, 0, 255], "43 is {:?}", ack.bytes(43)?);
    Ok(())
}

pub fn line_47_http_boot_gets_its_class_and_a_url(places: &Places) -> Result<()> {
    for (number, place) in [(1, &places.full), (2, &places.proxy)] {
        let offer = offered(place, 47, number, |ask| ask.http(16))?;
        ensure!(offer.text(60)? == "HTTPClient", "60 is {:?}", offer.text(60)?);
        let url = offer.text(67)?;
        ensure!(!offer.has(43) && !offer.has(66), "options {:?}", offer.order);
        let path = url.strip_prefix(&format!("http://{SERVER}")).with_context(|| format!("67 is {url}"))?;
        let page = place.fetch("HEAD", path, &[])?;
        ensure!(page.status == 200, "{url} answers {}", page.status);
    }
    Ok(())
}

pub fn line_48_urls_name_addresses(places: &Places) -> Result<()> {
    for (number, place) in [(1, &places.full), (2, &places.proxy)] {
        let http = offered(place, 48, number, |ask| ask.http(16))?;
        let ipxe = offered(place, 48, number + 10, |ask| ask.ipxe(7))?;
        for offer in [http, ipxe] {
            let url = offer.text(67)?;
            let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).context("no URL")?;
            ensure!(host.parse::<Ipv4Addr>().is_ok(), "{url} needs a resolver");
        }
    }
    Ok(())
}

pub fn line_49_field_and_option_both_name_the_file(places: &Places) -> Result<()> {
    for (number, place) in [(1, &places.full), (2, &places.proxy)] {
        let offer = offered(place, 49, number, |ask| ask.pxe(0))?;
        ensure!(offer.file == "undionly.kpxe" && offer.siaddr == SERVER, "{offer:?}");
        ensure!(offer.text(67)? == "undionly.kpxe" && offer.text(66)? == SERVER.to_string(), "{offer:?}");
        let ipxe = offered(place, 49, number + 10, |ask| ask.ipxe(0))?;
        ensure!(ipxe.file == ipxe.text(67)?, "field {:?}, option {:?}", ipxe.file, ipxe.text(67)?);
    }
    Ok(())
}

pub fn line_50_ipxe_gets_the_script(places: &Places) -> Result<()> {
    let script = format!("http://{SERVER}/boot.ipxe");
    for (base, place) in [(0, &places.full), (100, &places.proxy)] {
        let asks: [fn(Ask) -> Ask; 4] = [
            |ask| ask.ipxe(0),
            |ask| ask.pxe(7).with(77, b"\x04iPXE").with(175, super::ask::IPXE_WITH_HTTP),
            |ask| ask.pxe(7).with(175, super::ask::IPXE_WITH_HTTP),
            |ask| ask.pxe(7).with(77, b"iPXE"),
        ];
        for (number, with) in asks.into_iter().enumerate() {
            let offer = offered(place, 50, base + number as u16, with)?;
            ensure!(offer.text(67)? == script, "variant {number}: {:?}", offer.text(67)?);
        }
        let other = offered(place, 50, base + 50, |ask| ask.pxe(7).with(77, b"anaconda"))?;
        ensure!(other.text(67)? == "snponly.efi", "another user class changes nothing");
        // No loop: a machine whose loader never learns HTTP gets the script in the end.
        let mut rom = place.client(50, base + 60)?;
        let mut files = Vec::new();
        for _ in 0..5 {
            let ask = rom.ask(DISCOVER).pxe(0).with(77, b"iPXE").with(175, [21, 1, 1]);
            files.push(rom.answered(&ask, OFFER)?.file);
        }
        ensure!(
            files.first().is_some_and(|file| file == "undionly.kpxe") && files.last() == Some(&script),
            "{files:?}"
        );
    }
    let page = places.full.fetch("GET", "/boot.ipxe", &[])?;
    ensure!(page.status == 200 && page.body.starts_with(b"#!ipxe\n"), "the script: {}", page.status);
    Ok(())
}
