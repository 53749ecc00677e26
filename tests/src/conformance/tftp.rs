//! Lines 56 to 67: reads by TFTP.

use anyhow::{Context, Result, bail, ensure};
use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use super::{
    Places,
    files::{self, BIG, EXACT, SOME, TEXT},
    frames::{Datagram, EVERYBODY},
    link::Link,
    place::{HOST, SERVER},
    tftp_client::{Packet, Tftp},
};

pub fn line_56_every_transfer_has_its_own_identifier(places: &Places) -> Result<()> {
    let (mut first, mut second) = (Tftp::new(&places.loaders)?, Tftp::new(&places.loaders)?);
    for transfer in [&mut first, &mut second] {
        transfer.ask(SOME, "octet", &[])?;
        transfer.block(1)?;
    }
    let (one, two) = (first.peer.context("no port")?, second.peer.context("no port")?);
    ensure!(one != two && one.port() != 69 && two.port() != 69, "{one} and {two}");
    // The second transfer's client speaks to the first one's port.
    let mut stranger = Tftp::new(&places.loaders)?;
    stranger.peer = Some(one);
    stranger.ack(1)?;
    let answer = stranger.next()?;
    ensure!(matches!(answer, Packet::Error(5, _)), "a stranger gets {answer:?}");
    first.ack(1)?;
    first.block(2).context("after a stranger")?;
    second.ack(1)?;
    second.block(2).map(drop)
}

pub fn line_57_a_repeated_ack_brings_no_second_block(places: &Places) -> Result<String> {
    let mut remark = Vec::new();
    for (window, every) in [(1, 10), (1, 1), (4, 10), (16, 10)] {
        let mut transfer = Tftp::new(&places.loaders)?;
        let (size, in_words) = ("64", window.to_string());
        let options = [("blksize", size), ("windowsize", in_words.as_str())];
        let is_doubled = |block: u64| (block / window).is_multiple_of(every);
        let blocks = transfer.read_blocks(SOME, &options, |block, _| if is_doubled(block) { 2 } else { 1 })?;
        let ratio = transfer.data as f64 / blocks as f64;
        ensure!(ratio <= 1.15, "window {window}: {} packets for {blocks} blocks", transfer.data);
        remark.push(format!("window {window}, every {every}. ACK twice: {ratio:.2}"));
    }
    Ok(remark.join("; "))
}

pub fn line_58_the_timeout_follows_the_path(places: &Places) -> Result<String> {
    let paths = [1, 50, 300].map(Duration::from_millis);
    let measured: Vec<Result<Duration>> = thread::scope(|scope| {
        let running: Vec<_> = paths.iter().map(|delay| scope.spawn(|| resent_after(places, *delay))).collect();
        running.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("panicked"))).collect()
    });
    let mut remark = Vec::new();
    for (delay, waited) in paths.iter().zip(measured) {
        let waited = waited.with_context(|| format!("a path of {delay:?}"))?;
        let most = *delay * 3 + Duration::from_millis(250);
        ensure!(waited > *delay && waited < most, "a path of {delay:?} has a block sent again after {waited:?}");
        remark.push(format!("{} ms: {} ms", delay.as_millis(), waited.as_millis()));
    }
    Ok(remark.join("; "))
}

/// How long the server waits for an ACK, once a dozen came after `delay` each.
fn resent_after(places: &Places, delay: Duration) -> Result<Duration> {
    let mut transfer = Tftp::new(&places.loaders)?;
    transfer.ask(SOME, "octet", &[("blksize", "512")])?;
    transfer.oack()?;
    for block in 0..12 {
        thread::sleep(delay);
        transfer.ack(block)?;
        transfer.block(block + 1)?;
    }
    // A path slower than the first guess costs a block or two.
    ensure!(transfer.data <= 12 + 3, "{} packets for 12 blocks", transfer.data);
    let begun = Instant::now();
    transfer.block(12)?;
    let waited = begun.elapsed();
    transfer.error(0, "enough")?;
    Ok(waited)
}

pub fn line_59_a_broadcast_request_is_ignored(places: &Places) -> Result<()> {
    for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 77, 0, 255)] {
        let mut transfer = Tftp::new(&places.loaders)?;
        let link = Link::open(&places.loaders.host, "net0")?;
        let request = |link_to, to| Datagram {
            link_from: [0x52, 0x54, 0x0c, 59, 0, 1],
            link_to,
            from: SocketAddrV4::new(HOST, transfer.port()),
            to: SocketAddrV4::new(to, 69),
            payload: [b"\0\x01", SOME.as_bytes(), b"\0octet\0"].concat(),
        };
        let (everybody, ours) = (request(EVERYBODY, to), request(places.loaders.server_mac, SERVER));
        link.send(&everybody.frame())?;
        transfer.silent(Duration::from_secs(1)).with_context(|| format!("a request to {to}"))?;
        link.send(&ours.frame())?;
        transfer.block(1).context("the same request to the server alone")?;
        transfer.error(0, "only asking")?;
    }
    Ok(())
}

/// The OACK's options, or none where DATA 1 comes at once.
fn agreed(places: &Places, options: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let mut transfer = Tftp::new(&places.loaders)?;
    transfer.ask(SOME, "octet", options)?;
    let agreed = match transfer.next()? {
        Packet::Oack(options) => options,
        Packet::Data(1, data) if data.len() == 512 => Vec::new(),
        other => bail!("{options:?} got {other:?}"),
    };
    transfer.error(0, "only asking")?;
    Ok(agreed)
}

fn agrees(places: &Places, asked: &[(&str, &str)], expected: &[(&str, &str)]) -> Result<()> {
    let found = agreed(places, asked)?;
    let lower: Vec<(String, &str)> = found.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    let same = lower.len() == expected.len()
        && lower.iter().zip(expected).all(|(found, expected)| (found.0.as_str(), found.1) == *expected);
    ensure!(same, "{asked:?} got {found:?}, not {expected:?}");
    Ok(())
}

pub fn line_60_only_asked_options_are_acknowledged(places: &Places) -> Result<()> {
    agrees(places, &[], &[])?;
    agrees(places, &[("multicast", ""), ("x", "y")], &[])?;
    agrees(places, &[("x", "y"), ("blksize", "1024")], &[("blksize", "1024")])?;
    agrees(places, &[("BlkSize", "1024"), ("TSIZE", "0")], &[("blksize", "1024"), ("tsize", "100003")])?;
    agrees(places, &[("windowsize", "4"), ("blksize", "600")], &[("windowsize", "4"), ("blksize", "600")])
}

pub fn line_61_blocks_fit_the_wish_and_the_path(places: &Places) -> Result<()> {
    for (asked, given) in [("8", "8"), ("512", "512"), ("1468", "1468"), ("1469", "1468"), ("65464", "1468")] {
        agrees(places, &[("blksize", asked)], &[("blksize", given)])?;
    }
    for bad in ["7", "0", "-1", "x", ""] {
        agrees(places, &[("blksize", bad)], &[])?;
    }
    for size in ["8", "1468"] {
        let name = if size == "8" { EXACT } else { SOME };
        let file = Tftp::new(&places.loaders)?.read(name, &[("blksize", size)])?;
        ensure!(file == files::content(name), "{name} is another file at blksize {size}");
    }
    Ok(())
}

pub fn line_62_timeout_and_size_are_told(places: &Places) -> Result<()> {
    for good in ["1", "255"] {
        agrees(places, &[("timeout", good)], &[("timeout", good)])?;
    }
    for bad in ["0", "256", "x"] {
        agrees(places, &[("timeout", bad)], &[])?;
    }
    agrees(places, &[("tsize", "0")], &[("tsize", "100003")])
}

pub fn line_63_windows_resume_behind_the_last_ack(places: &Places) -> Result<()> {
    for (asked, most) in [("1", 1), ("4", 4), ("16", 16), ("65535", 65535)] {
        let found = agreed(places, &[("windowsize", asked)])?;
        let given: u32 = found.first().context("no window was agreed")?.1.parse()?;
        ensure!(given >= 1 && given <= most, "{asked} was asked, {given} given");
    }
    ensure!(agreed(places, &[("windowsize", "0")])?.is_empty(), "a window of nothing");
    let mut transfer = Tftp::new(&places.loaders)?;
    transfer.ask(SOME, "octet", &[("blksize", "512"), ("windowsize", "4")])?;
    transfer.oack()?;
    transfer.ack(0)?;
    for block in 1..=4 {
        transfer.block(block)?;
    }
    // Blocks 3 and 4 were lost.
    transfer.ack(2)?;
    for block in 3..=6 {
        transfer.block(block).context("behind an ACK in mid-window")?;
    }
    transfer.ack(6)?;
    transfer.block(7)?;
    transfer.error(0, "enough")?;
    // A client that loses every tenth block still gets the file.
    let mut lossy = Tftp::new(&places.loaders)?;
    let mut file = Vec::new();
    lossy.read_blocks(SOME, &[("blksize", "1024"), ("windowsize", "8")], |_, data| {
        file.extend_from_slice(data);
        1
    })?;
    ensure!(file == files::content(SOME), "another file came");
    Ok(())
}

pub fn line_64_a_size_probe_frees_its_session(places: &Places) -> Result<()> {
    let mut probe = Tftp::new(&places.loaders)?;
    let options = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
    probe.ask(SOME, "octet", &options)?;
    let oack = probe.oack()?;
    ensure!(oack.iter().any(|(name, value)| name == "tsize" && value == "100003"), "{oack:?}");
    probe.error(8, "User aborted")?;
    let second = Tftp::new(&places.loaders)?.read(SOME, &options[1..])?;
    ensure!(second == files::content(SOME), "the second request brought another file");
    probe.silent(Duration::from_secs(2)).context("after ERROR 8")?;
    // The same port may ask again at once: nothing is left of the probe.
    probe.ask(SOME, "octet", &options)?;
    probe.oack()?;
    probe.error(8, "User aborted")?;
    // It goes to another port than the request, and may be overtaken.
    thread::sleep(Duration::from_millis(20));
    probe.ask(SOME, "octet", &options)?;
    probe.oack().context("the same request from the same port right after ERROR 8")?;
    probe.error(8, "User aborted")
}

pub fn line_65_block_numbers_wrap(places: &Places) -> Result<String> {
    let begun = Instant::now();
    let mut transfer = Tftp::new(&places.loaders)?;
    let mut wrong = None;
    let blocks = transfer.read_blocks(BIG, &[("blksize", "512"), ("windowsize", "64")], |block, data| {
        if data != files::big_block(block - 1) && wrong.is_none() {
            wrong = Some(block);
        }
        1
    })?;
    ensure!(wrong.is_none(), "block {wrong:?} of {blocks} holds other bytes");
    ensure!(blocks == files::BIG_LENGTH / 512 + 1, "{blocks} blocks came");
    let took = begun.elapsed().as_secs_f64();
    let mut exact = Vec::new();
    let mut sizes = Vec::new();
    Tftp::new(&places.loaders)?.read_blocks(EXACT, &[], |_, data| {
        sizes.push(data.len());
        exact.extend_from_slice(data);
        1
    })?;
    ensure!(
        exact == files::content(EXACT) && sizes.last() == Some(&0),
        "an exact multiple ends with {:?}",
        sizes.last()
    );
    Ok(format!("{blocks} blocks in {took:.1} s"))
}

pub fn line_66_modes_are_case_blind_and_nobody_writes(places: &Places) -> Result<()> {
    let netascii = b"a\r\nb\r\0c\r\0\r\nd";
    for (mode, expected) in
        [("octet", files::content(TEXT)), ("OcTeT", files::content(TEXT)), ("NETASCII", netascii.to_vec())]
    {
        let mut transfer = Tftp::new(&places.loaders)?;
        transfer.ask(TEXT, mode, &[])?;
        let data = transfer.block(1)?;
        transfer.ack(1)?;
        ensure!(data == expected, "mode {mode}: {:?}", String::from_utf8_lossy(&data));
    }
    let refused = |opcode, name: &str, mode: &str| {
        let mut transfer = Tftp::new(&places.loaders)?;
        transfer.ask_at(SocketAddr::from((SERVER, 69)), opcode, name, mode, &[("blksize", "512")])?;
        match transfer.next()? {
            Packet::Error(code, _) => Ok(code),
            other => bail!("{other:?} came"),
        }
    };
    ensure!(refused(2, "new", "octet")? == 2, "a write request");
    ensure!(refused(2, SOME, "octet")? == 2, "a write request for a file that is there");
    ensure!(refused(1, SOME, "mail")? == 4, "mode mail");
    Ok(())
}

pub fn line_67_a_lost_last_ack_is_waited_for(places: &Places) -> Result<String> {
    let last = (100_003 / 1468 + 1) as u16;
    let to_the_last = || -> Result<Tftp> {
        let mut transfer = Tftp::new(&places.loaders)?;
        transfer.ask(SOME, "octet", &[("blksize", "1468")])?;
        transfer.oack()?;
        for block in 0..last {
            transfer.ack(block)?;
            transfer.block(block + 1)?;
        }
        Ok(transfer)
    };
    // The last ACK was lost: the block comes again, and its ACK ends the transfer.
    let mut transfer = to_the_last()?;
    transfer.block(last).context("the last block, again")?;
    transfer.ack(last)?;
    transfer.silent(Duration::from_secs(1)).context("after the last ACK")?;
    // A client that is gone without a word is not waited for without end.
    let mut gone = to_the_last()?;
    let (begun, mut copies) = (Instant::now(), 0);
    while gone.hear(Duration::from_secs(5))?.is_some() {
        copies += 1;
    }
    ensure!((1..=6).contains(&copies), "{copies} copies of the last block");
    gone.ask(SOME, "octet", &[("blksize", "1468")])?;
    gone.oack().context("a new request from the same port")?;
    gone.error(0, "enough")?;
    Ok(format!("{copies} copies to a client that is gone, within {:.1} s", begun.elapsed().as_secs_f64() - 5.0))
}
