//! Line 1: the order of the system calls between a REQUEST and its ACK.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Places, ask::kind::*, place::Bench};
use crate::{appliance::Config, command};

/// What receives a packet, what sends one, and what makes a write durable.
const CALLS: &str = "recvfrom,recvmsg,recvmmsg,sendto,sendmsg,sendmmsg,fsync,fdatasync,sync_file_range,msync";

pub fn line_01_a_lease_is_durable_before_its_ack(_: &Places) -> Result<String> {
    let bench = Bench::new(Config::full(), &[])?;
    let trace = bench.rack.home().dir().join("strace.txt");
    let pid = bench.bennu.pid().context("the appliance does not run")?.to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "800", "-e", &format!("trace={CALLS}"), "-p", &pid, "-o"])
        .arg(&trace)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start strace")?;
    bench.rack.home().note_process(strace.id())?;
    let outcome = watched(&bench, &trace);
    end(&mut strace)?;
    bench.rack.home().forget_process(strace.id());
    let requests = outcome?;
    let text = fs::read_to_string(&trace)?;
    let mut synced = Vec::new();
    for xid in &requests {
        synced.push(syncs_between(&text, *xid).with_context(|| format!("the calls are:\n{}", without_bytes(&text)))?);
    }
    Ok(format!("syncs between REQUEST and ACK: {synced:?}"))
}

/// A few clients get their leases, one after another; the transaction of each.
fn watched(bench: &Bench, trace: &std::path::Path) -> Result<Vec<u32>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // strace has attached as soon as it has seen any call: a client that asks for nothing makes some.
    let mut knocker = bench.place.client(1, 99)?;
    while fs::read_to_string(trace).unwrap_or_default().lines().count() < 2 {
        ensure!(Instant::now() < deadline, "strace sees no system call of the appliance");
        let knock = knocker.ask(DISCOVER);
        knocker.ignored_for(&knock, Duration::from_millis(100)).ok();
        thread::sleep(Duration::from_millis(50));
    }
    let mut requests = Vec::new();
    for number in 1..=3 {
        let mut client = bench.place.client(1, number)?;
        let discover = client.ask(DISCOVER);
        client.boot(&discover)?;
        requests.push(discover.xid);
    }
    Ok(requests)
}

/// SIGINT: strace lets go of the appliance, and its file is whole.
fn end(strace: &mut Child) -> Result<()> {
    command::call("kill", ["-INT", &strace.id().to_string()])?;
    strace.wait()?;
    Ok(())
}

/// Syncs of the ledger that ended well after the packet with this transaction's REQUEST came and before its ACK left.
fn syncs_between(trace: &str, xid: u32) -> Result<usize> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let (xid, request, ack) = (hex(&xid.to_be_bytes()), hex(&[53, 1, REQUEST]), hex(&[53, 1, ACK]));
    let lines: Vec<&str> = trace.lines().collect();
    let is = |line: &str, call: &str, kind: &str| line.contains(call) && line.contains(&xid) && line.contains(kind);
    let came = lines.iter().position(|line| is(line, "recv", &request)).context("no REQUEST came in")?;
    let left = lines.iter().position(|line| is(line, "send", &ack)).context("no ACK left")?;
    ensure!(came < left, "the ACK left before the REQUEST came");
    let ended = |line: &&&str| (line.contains("fdatasync") || line.contains("fsync")) && line.ends_with("= 0");
    let synced = lines[came..left].iter().filter(ended).count();
    ensure!(synced > 0, "the ACK left before anything was made durable");
    // strace may write the name of a descriptor's file in the same way as data.
    let is_ledger = |line: &str| line.contains("ledger") || line.contains(&hex(b"ledger"));
    let begun = lines[came..left].iter().any(|line| line.contains("sync(") && is_ledger(line));
    ensure!(begun, "no sync of the ledger began after the REQUEST came");
    Ok(synced)
}

/// The calls without what they carry.
fn without_bytes(trace: &str) -> String {
    let lines = trace.lines().map(|line| line.chars().take(70).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}
