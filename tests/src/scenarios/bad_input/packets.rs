//! What anybody on the wire may send to a service that runs.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    env,
    io::{Read, Write},
    net::{Shutdown, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    eventually, flood,
    probe::{Probe, SERVER, captures},
    source::Chance,
};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
};

/// Thousands of packets that are none.
pub const PACKETS: Life = Life {
    name: "bad packets",
    shows: &["bad_dhcp_packets", "bad_tftp_packets", "bad_http_requests"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let probe = Probe::new(&rack.host("stranger", "10.77.0.9/24")?)?;
        probe.serves(1).context("before any flood")?;
        let socket = rack.home().socket("bennu.sock");
        let target = Target { bennu, probe, socket };
        story.show("bad_dhcp_packets", || flooded(&target, 2, dhcp))?;
        story.show("bad_tftp_packets", || flooded(&target, 3, tftp))?;
        story.show("bad_http_requests", || flooded(&target, 4, http))
    },
};

const DHCP_PACKETS: u64 = 6000;
const TFTP_PACKETS: u64 = 6000;
const HTTP_REQUESTS: u64 = 3000;

/// So many packets at once fit into the receive buffers; then the service's counters are waited for.
const AT_ONCE: u64 = 200;

/// Memory that a flood may leave in use.
const MORE_MEMORY: u64 = 64 << 20;

/// What is flooded, and from where.
struct Target {
    bennu: Appliance,
    probe: Probe,
    socket: PathBuf,
}

type Counters = BTreeMap<String, u64>;

/// Lets a flood loose, whose own checks say what was counted; afterwards all is served as before.
fn flooded(
    target: &Target,
    machine: u8,
    flood: fn(&Appliance, &Probe, &mut Chance) -> Result<String>,
) -> Result<String> {
    let Target { bennu, probe, socket } = target;
    // What chance found once is found again with its seed.
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let seed = env::var("RACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
    let (pid, memory) = (bennu.json(["status"])?["pid"].clone(), bennu.memory()?);
    let told = || format!("with RACK_SEED={seed}");
    let remark = flood(bennu, probe, &mut Chance::new(seed)).with_context(told)?;
    probe.serves(machine).with_context(told)?;
    ensure!(bennu.json(["status"])?["pid"] == pid, "the service was started anew, {}", told());
    let log = std::fs::read_to_string(bennu.log())?;
    ensure!(!log.contains("panicked"), "something panicked, {}:\n{}", told(), bennu.log_tail(20));
    let more = bennu.memory()?.saturating_sub(memory);
    ensure!(more < MORE_MEMORY, "the flood left {more} bytes in use, {}", told());
    same_in_metrics(bennu, socket)?;
    Ok(remark)
}

fn counters(bennu: &Appliance) -> Result<Counters> {
    let status = bennu.json(["status"])?;
    let counters = status["counters"].as_object().context("the status has no counters")?;
    Ok(counters.iter().filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect())
}

/// How much some counters grew together.
fn grown(before: &Counters, now: &Counters, names: &[&str]) -> Result<u64> {
    names.iter().try_fold(0, |sum, name| {
        let count = |counters: &Counters| counters.get(*name).copied().with_context(|| format!("no counter {name}"));
        Ok(sum + count(now)? - count(before)?)
    })
}

/// `/metrics` says what `bennu status` says.
fn same_in_metrics(bennu: &Appliance, socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics)?;
    for (name, count) in counters(bennu)? {
        // What a transfer's last packet moves is counted a moment later.
        let quiet = name.ends_with("_malformed") || name.ends_with("_refused") || name.ends_with("_received");
        let line = format!("bennu_{name}_total {count}\n");
        ensure!(!quiet || metrics.contains(&line), "/metrics has no line '{}':\n{metrics}", line.trim());
    }
    Ok(())
}

/// Sends datagrams as fast as they are counted: `one` sends one, and says whether it counts.
fn send(
    bennu: &Appliance,
    count: u64,
    counted: &[&str],
    mut one: impl FnMut() -> Result<bool>,
) -> Result<(Counters, Counters)> {
    let before = counters(bennu)?;
    let mut sent = 0;
    for number in 1..=count {
        sent += u64::from(one()?);
        if number % AT_ONCE == 0 || number == count {
            let mut arrived = 0;
            let all = eventually("every packet is counted", 10, || {
                arrived = grown(&before, &counters(bennu)?, counted)?;
                Ok(arrived >= sent)
            });
            all.with_context(|| format!("{sent} packets were sent, {arrived} are in {counted:?}"))?;
        }
    }
    let now = counters(bennu)?;
    let all = grown(&before, &now, counted)?;
    ensure!(all == sent, "{sent} packets were sent, and {all} are in {counted:?}");
    Ok((before, now))
}

fn dhcp(bennu: &Appliance, probe: &Probe, chance: &mut Chance) -> Result<String> {
    let captures: Vec<Vec<u8>> = captures()?.into_iter().map(|(_, packet)| packet).collect();
    let outcomes = ["dhcp_malformed", "dhcp_silent", "dhcp_answered", "dhcp_unsent"];
    let (before, now) = send(bennu, DHCP_PACKETS, &outcomes, || {
        let port = if chance.below(4) == 0 { 4011 } else { 67 };
        probe.dhcp().send_to(&flood::dhcp(chance, &captures), (SERVER, port))?;
        Ok(true)
    })?;
    let count = |name| grown(&before, &now, &[name]);
    ensure!(count("dhcp_received")? == DHCP_PACKETS, "{} packets were received", count("dhcp_received")?);
    for name in &outcomes[..3] {
        ensure!(count(name)? > DHCP_PACKETS / 50, "only {} of {DHCP_PACKETS} packets are in {name}", count(name)?);
    }
    let (malformed, silent, answered) = (count(outcomes[0])?, count(outcomes[1])?, count(outcomes[2])?);
    Ok(format!("of {DHCP_PACKETS} packets {malformed} were malformed, {silent} ignored, {answered} answered"))
}

fn tftp(bennu: &Appliance, probe: &Probe, chance: &mut Chance) -> Result<String> {
    let sockets: Vec<UdpSocket> = (0..32).map(|_| probe.udp()).collect::<Result<_>>()?;
    let outcomes = ["tftp_malformed", "tftp_ignored", "tftp_refused", "tftp_started"];
    let (before, now) = send(bennu, TFTP_PACKETS, &outcomes, || {
        let (socket, packet) = (&sockets[chance.below(sockets.len())], flood::tftp(chance));
        socket.send_to(&packet, (SERVER, 69))?;
        Ok(true)
    })?;
    let count = |name| grown(&before, &now, &[name]);
    for name in outcomes {
        ensure!(count(name)? > TFTP_PACKETS / 100, "only {} of {TFTP_PACKETS} packets are in {name}", count(name)?);
    }
    let (malformed, ignored, refused) = (count(outcomes[0])?, count(outcomes[1])?, count(outcomes[2])?);
    Ok(format!("of {TFTP_PACKETS} packets {malformed} were malformed, {ignored} ignored, {refused} refused"))
}

fn http(bennu: &Appliance, probe: &Probe, chance: &mut Chance) -> Result<String> {
    let before = counters(bennu)?;
    let (mut unreadable, mut refused, mut served) = (0, 0, 0);
    for _ in 0..HTTP_REQUESTS {
        let (request, certain) = flood::http(chance);
        let told = || String::from_utf8_lossy(&request).escape_default().to_string();
        let status = exchanged(probe, &request, certain).with_context(told)?;
        ensure!(!certain || status.is_none_or(|status| status >= 400), "{status:?} for {}", told());
        unreadable += u64::from(certain);
        refused += u64::from(status.is_some_and(|status| status >= 400));
        served += u64::from(status.is_some_and(|status| status < 400));
    }
    let mut now = Counters::new();
    eventually("every refusal is counted", 10, || {
        now = counters(bennu)?;
        let all = grown(&before, &now, &["http_malformed", "http_refused"])?;
        Ok(grown(&before, &now, &["http_malformed"])? >= unreadable && all >= refused)
    })
    .with_context(|| format!("{unreadable} unreadable, {refused} refused; before {before:?}, now {now:?}"))?;
    let malformed = grown(&before, &now, &["http_malformed"])?;
    ensure!(refused > HTTP_REQUESTS / 3, "{refused} of {HTTP_REQUESTS} requests were refused");
    Ok(format!("of {HTTP_REQUESTS} requests {malformed} were unreadable, {refused} refused, {served} served"))
}

/// Sends one request over a connection of its own; the status of the answer, if there was one.
fn exchanged(probe: &Probe, request: &[u8], unreadable: bool) -> Result<Option<u16>> {
    let mut stream = probe.tcp()?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    // Refused before it was all sent: then the rest finds nobody.
    let _ = stream.write_all(request);
    if unreadable {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while answer.len() < 12 {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    Ok(line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()))
}
