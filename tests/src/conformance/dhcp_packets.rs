//! Lines 3 to 10 and 26 to 31: the packet itself.

use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;

use super::{
    Places,
    ask::{Ask, kind::*, option},
    client::relay,
    place::SERVER,
};

pub fn line_03_a_bad_cookie_gets_silence(places: &Places) -> Result<()> {
    let mut client = places.full.client(3, 1)?;
    let mut ask = client.ask(DISCOVER);
    ask.cookie[3] = 98;
    client.ignored(&ask)?;
    ask.cookie[3] = 99;
    client.answered(&ask, OFFER).map(drop)
}

pub fn line_04_exactly_one_valid_message_type(places: &Places) -> Result<()> {
    let mut client = places.full.client(4, 1)?;
    let ask = client.ask(DISCOVER);
    let types = |values: &[&[u8]]| {
        let mut ask = ask.clone();
        ask.options = values.iter().map(|value| (53, value.to_vec())).collect();
        ask
    };
    let bad: [&[&[u8]]; 8] = [&[&[0]], &[&[2]], &[&[5]], &[&[9]], &[&[255]], &[&[1], &[3]], &[&[]], &[&[1, 3]]];
    for values in bad {
        client.send(&types(values))?;
    }
    client.ignored(&types(&[&[13]]))?;
    client.answered(&ask, OFFER).map(drop)
}

pub fn line_05_pads_pass_and_a_cut_option_does_not(places: &Places) -> Result<()> {
    let mut client = places.full.client(5, 1)?;
    let ask = client.ask(DISCOVER);
    for tail in [&[12, 5, b'a'][..], &[12], &[82, 200, 1, 1]] {
        let mut cut = ask.clone();
        cut.tail = tail.to_vec();
        client.send(&cut)?;
    }
    let whole = ask.bytes();
    // Where END alone is missing, the packet is still a DISCOVER; behind the cookie alone it is a BOOTP request.
    for length in (0..whole.len() - 1).filter(|length| *length != 240) {
        client.send_bytes(&ask, whole[..length].to_vec())?;
    }
    client.ignored(&Ask { tail: vec![50, 4, 10, 77], ..ask.clone() })?;
    let padded =
        Ask { options: vec![], tail: [&[0; 9][..], &option(53, &[DISCOVER]), &[0, 0, 255, 0, 7]].concat(), ..ask };
    client.answered(&padded, OFFER).map(drop)
}

pub fn line_06_reserved_flag_bits_mean_nothing(places: &Places) -> Result<()> {
    let mut client = places.full.client(6, 1)?;
    let ask = client.ask(DISCOVER).flags(0x7fff);
    let offer = client.answered(&ask, OFFER)?;
    ensure!(offer.flags == 0x7fff, "the flags come back as {:#06x}", offer.flags);
    Ok(())
}

pub fn line_07_fields_of_the_request_come_back(places: &Places) -> Result<()> {
    let mut client = places.full.client(7, 1)?;
    let ask = Ask { secs: 9, flags: 0x8000, ..client.ask(DISCOVER).relayed(relay(88), SERVER) };
    let ask = Ask { hops: 3, xid: 0xdead_beef, ..ask };
    let offer = client.answered(&ask, OFFER)?;
    ensure!((offer.xid, offer.flags, offer.giaddr) == (0xdead_beef, 0x8000, relay(88)), "{offer:?}");
    ensure!((offer.hops, offer.secs) == (0, 0), "hops {}, secs {}", offer.hops, offer.secs);
    ensure!(offer.chaddr[..6] == client.mac && offer.chaddr[6..] == [0; 10], "chaddr {:?}", offer.chaddr);
    ensure!(offer.ciaddr.is_unspecified(), "ciaddr {}", offer.ciaddr);
    Ok(())
}

pub fn line_08_offer_and_ack_name_server_and_lease(places: &Places) -> Result<()> {
    let mut client = places.full.client(8, 1)?;
    let discover = client.ask(DISCOVER);
    let (offer, ack) = client.boot(&discover)?;
    for got in [&offer, &ack] {
        ensure!(got.address(54)? == SERVER && got.number(51)? == 3600, "{got:?}");
    }
    let inform = client.ask(INFORM).unicast(ack.yiaddr, SERVER);
    let informed = client.answered(&inform, ACK)?;
    ensure!(informed.address(54)? == SERVER && !informed.has(51), "{informed:?}");
    Ok(())
}

pub fn line_09_never_sends_what_only_clients_send(places: &Places) -> Result<()> {
    let mut client = places.full.client(9, 1)?;
    let discover = client.ask(DISCOVER).pxe(7).with(55, [1, 3, 6, 50, 55, 57, 61]).with(57, [5, 0]);
    let (offer, ack) = client.boot(&discover)?;
    let nak = client.ask(REQUEST).address(50, Ipv4Addr::new(192, 168, 1, 5)).with(55, [50, 55, 57]);
    let nak = client.answered(&nak, NAK)?;
    for got in [offer, ack, nak] {
        ensure!(![50, 55, 57].iter().any(|code| got.has(*code)), "options {:?}", got.order);
    }
    Ok(())
}

pub fn line_10_the_client_id_comes_back_if_sent(places: &Places) -> Result<()> {
    let mut client = places.full.client(10, 1)?;
    let id = [&[0xff][..], &[7; 18]].concat();
    let ask = client.ask(DISCOVER);
    let (offer, ack) = client.boot(&ask)?;
    ensure!(!offer.has(61) && !ack.has(61), "a client id that was not sent");
    let ask = client.ask(DISCOVER).with(61, &id);
    let (offer, ack) = client.boot(&ask)?;
    let nak = client.ask(REQUEST).with(61, &id).address(50, Ipv4Addr::new(192, 168, 1, 5));
    for got in [offer, ack, client.answered(&nak, NAK)?] {
        ensure!(got.bytes(61)? == id, "{got:?}");
    }
    Ok(())
}

pub fn line_26_overloaded_fields_are_read(places: &Places) -> Result<()> {
    let mut client = places.full.client(26, 1)?;
    for (value, in_file, in_sname) in [(1, true, false), (2, false, true), (3, true, true)] {
        let mut ask = client.ask(DISCOVER).with(52, [value]);
        ask.file = [&option(61, b"in-file")[..], &[255, 0xaa]].concat();
        ask.sname = [&option(60, b"PXEClient:Arch:00007:UNDI:003000")[..], &[255]].concat();
        let offer = client.answered(&ask, OFFER)?;
        let id = offer.options.get(&61).map(Vec::as_slice);
        ensure!((id == Some(b"in-file")) == in_file, "52 = {value}: {offer:?}");
        ensure!((offer.file == "snponly.efi") == in_sname, "52 = {value}: {offer:?}");
        ensure!(!offer.has(52), "an answer needs no overload");
    }
    let mut split = client.ask(DISCOVER).with(52, [3]).with(61, b"one-");
    split.file = [&option(61, b"two-")[..], &[255]].concat();
    split.sname = [&option(61, b"three")[..], &[255]].concat();
    let offer = client.answered(&split, OFFER)?;
    ensure!(offer.bytes(61)? == b"one-two-three", "options, then file, then sname: {:?}", offer.bytes(61)?);
    for bad in [0, 4] {
        let ask = client.ask(DISCOVER).with(52, [bad]);
        client.ignored(&ask)?;
    }
    Ok(())
}

pub fn line_27_split_options_are_joined(places: &Places) -> Result<()> {
    let mut client = places.full.client(27, 1)?;
    let boots = client.ask(REQUEST).pxe(7).unicast(Ipv4Addr::new(10, 77, 0, 30), SERVER).at_port(4011);
    client.own = Some(boots.ciaddr);
    // Option 43 holds the boot item 71, cut in its middle, with another option between the parts.
    let parts = boots.with(43, [71, 4, 0]).with(12, b"name").with(43, [5, 0, 9, 255]);
    let ack = client.answered(&parts, ACK)?;
    ensure!(ack.bytes(43)? == [6, 1, 8, 71, 4, 0, 5, 0, 9, 255], "43 is {:?}", ack.bytes(43)?);
    let long = client.ask(DISCOVER).with(61, [1; 100]).with(60, b"x").with(61, [2; 100]);
    let offer = client.answered(&long, OFFER)?;
    ensure!(offer.bytes(61)? == [[1; 100], [2; 100]].concat(), "{:?}", offer.bytes(61)?);
    Ok(())
}

pub fn line_28_answers_fit_their_receiver(places: &Places) -> Result<()> {
    // This subnet has 60 name servers and a long domain name.
    for (number, asked, most) in
        [(1, None, 576), (2, Some(300_u16), 576), (3, Some(576), 576), (4, Some(1472), 1472), (5, Some(65280), 1500)]
    {
        let mut client = places.full.client(28, number)?;
        let mut ask = client.ask(DISCOVER).pxe(7).with(61, [7; 200]).relayed(relay(90), SERVER);
        ask.options.extend(asked.map(|size| (57, size.to_be_bytes().to_vec())));
        let (offer, ack) = client.boot(&ask)?;
        for got in [offer, ack] {
            let length = got.wire.ip_length();
            ensure!(length <= most, "option 57 {asked:?}: {length} bytes");
            ensure!(got.text(67)? == "snponly.efi", "option 57 {asked:?}: what it boots comes first");
            ensure!(got.has(6) == (most > 576), "option 57 {asked:?}: {length} bytes, options {:?}", got.order);
        }
    }
    Ok(())
}

pub fn line_29_answers_have_300_bytes(places: &Places) -> Result<()> {
    let mut client = places.full.client(29, 1)?;
    let discover = client.ask(DISCOVER);
    let (offer, ack) = client.boot(&discover)?;
    let nak = client.ask(REQUEST).address(50, Ipv4Addr::new(192, 168, 1, 5));
    let inform = client.ask(INFORM).unicast(ack.yiaddr, SERVER);
    let (nak, inform) = (client.answered(&nak, NAK)?, client.answered(&inform, ACK)?);
    for got in [offer, ack, nak, inform] {
        ensure!(got.wire.payload.len() >= 300, "message type {}: {} bytes", got.kind, got.wire.payload.len());
    }
    Ok(())
}

pub fn line_30_a_trailing_nul_changes_nothing(places: &Places) -> Result<()> {
    for (number, end) in [(1, ""), (2, "\0")] {
        let mut client = places.full.client(30, number)?;
        let name = format!("rack30-{number}");
        let ask = client.ask(DISCOVER).with(60, format!("PXEClient:Arch:00007:UNDI:003000{end}"));
        let (offer, _) = client.boot(&ask.with(77, format!("anaconda{end}")).with(12, format!("{name}{end}")))?;
        ensure!(offer.file == "snponly.efi", "the class was not read: {offer:?}");
        ensure!(offer.text(67)? == "snponly.efi", "an answer's text has no NUL: {:?}", offer.bytes(67)?);
        let leases = places.full.json(&["lease", "list"])?.to_string();
        ensure!(leases.contains(&format!("\"{name}\"")), "no host name {name} in {leases}");
    }
    Ok(())
}

pub fn line_31_option_82_comes_back_whole_and_last(places: &Places) -> Result<()> {
    let mut client = places.full.client(31, 1)?;
    let circuit = [&[1, 4][..], b"gi12", &[2, 3], b"sw1", &[151, 3, 0], b"ab"].concat();
    let ask = client.ask(DISCOVER).pxe(7).with(82, &circuit).relayed(relay(88), SERVER);
    let (offer, ack) = client.boot(&ask)?;
    let wrong = client.ask(REQUEST).address(50, Ipv4Addr::new(192, 168, 1, 5)).with(82, &circuit);
    let nak = client.answered(&wrong.relayed(relay(88), SERVER), NAK)?;
    for got in [offer, ack, nak] {
        ensure!(got.bytes(82)? == circuit, "message type {}: {:?}", got.kind, got.bytes(82)?);
        ensure!(got.order.last() == Some(&82), "it is not the last option of {:?}", got.order);
    }
    let huge = [&[1, 250][..], &[b'x'; 250]].concat();
    let ask = client.ask(DISCOVER).with(61, [7; 200]).with(82, huge).relayed(relay(88), SERVER);
    let offer = client.answered(&ask, OFFER).context("with an option 82 that leaves no room")?;
    ensure!(!offer.has(82) && offer.wire.ip_length() <= 576, "no room, so it is left out, not cut: {offer:?}");
    Ok(())
}

pub fn line_35_option_150_is_a_list_of_addresses(places: &Places) -> Result<()> {
    let mut client = places.full.client(35, 1)?;
    let discover = client.ask(DISCOVER).pxe(7).with(55, [1, 3, 150]).relayed(relay(132), SERVER);
    let (offer, ack) = client.boot(&discover)?;
    for got in [offer, ack] {
        let list = [SERVER.octets(), [10, 77, 0, 2]].concat();
        ensure!(got.bytes(150)? == list, "150 is {:?}", got.bytes(150)?);
    }
    let elsewhere = client.ask(DISCOVER).pxe(7).with(55, [150]);
    ensure!(!client.answered(&elsewhere, OFFER)?.has(150), "it was not configured for this subnet");
    Ok(())
}
