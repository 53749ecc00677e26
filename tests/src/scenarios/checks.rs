//! What holds for every boot of an image of ours, whatever the firmware.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{appliance::Appliance, machine::Machine};

/// How long after the login prompt the machine may take to say that it is up.
const UP_SECONDS: u64 = 120;

/// Assigns an image, switches the machine on, waits for its login prompt, and checks what the appliance tells of
/// the boot; a remark for the report.
pub fn boots(bennu: &Appliance, machine: &mut Machine, image: &str) -> Result<String> {
    bennu.assign(&machine.mac(), image)?;
    machine.power_on()?;
    arrives(bennu, machine, image)
}

/// The rest of [`boots`] for a machine that is on its way.
pub fn arrives(bennu: &Appliance, machine: &mut Machine, image: &str) -> Result<String> {
    let login = machine.login()?;
    let version = image.rsplit_once(':').map_or(image, |(_, tag)| tag);
    let says = machine.run("cat /etc/bennu-demo-version")?;
    ensure!(says == format!("bennu-demo {version}"), "{image} was assigned, and {says} runs");
    runs_from_memory(machine)?;
    let boot = tells(bennu, machine, image)?;
    Ok(remark(login, &boot))
}

/// Seconds to the prompt and bytes moved.
pub fn remark(login: Duration, boot: &Value) -> String {
    let moved = boot["bytes"].as_f64().unwrap_or_default() / 1e6;
    format!("login after {:.1} s, {moved:.0} MB moved", login.as_secs_f64())
}

/// `/` is an overlay in memory on a read-only filesystem, whose blocks dm-verity checks.
fn runs_from_memory(machine: &mut Machine) -> Result<()> {
    let mounts = machine.run("cat /proc/mounts")?;
    let root = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/")).context("nothing is mounted on /")?;
    ensure!(root.contains(" / overlay rw,"), "the root is: {root}");
    let read_only = machine.run("blkid -o value -s TYPE /dev/loop0; cat /sys/block/loop0/ro")?;
    ensure!(read_only == "squashfs\n1", "below the overlay is: {read_only}");
    let checked = machine.run("cat /sys/block/dm-0/dm/name /sys/block/dm-0/ro; ls -1 /sys/block/dm-0/slaves")?;
    ensure!(checked == "bennu-root-0\n1\nloop0\nloop1", "under the root is no dm-verity but: {checked}");
    Ok(())
}

/// A few bytes of the root change in the machine's memory: the block that holds them is read no more, the boot has failed
/// and names it, and the machine starts again.
pub fn stops_at_a_damaged_block(bennu: &Appliance, machine: &mut Machine) -> Result<()> {
    let mac = machine.mac();
    let ran = bennu.last_boot(&mac)?;
    let blocks: u64 = machine.run("echo $(($(blockdev --getsize64 /dev/dm-0) / 4096))")?.trim().parse()?;
    let (block, root) = (blocks / 2, "/run/bennu/image/root.img");
    // Past all caches, so that the kernel reads anew.
    let read =
        format!("dd if=/dev/dm-0 of=/dev/null bs=4096 count=1 iflag=direct status=none skip={block} && echo came");
    let before = machine.run(&read)?;
    ensure!(before == "came", "block {block} of {blocks} is not readable to begin with: {before}");
    let damage =
        format!("dd if=/dev/zero of={root} bs=1 count=64 seek={} conv=notrunc status=none", block * 4096 + 100);
    machine.run(&damage)?;
    let after = machine.run(&format!("{read}; true"))?;
    ensure!(after.contains("Input/output error") && !after.contains("came"), "a damaged block was read: {after}");
    let failed = bennu.wait_for_state(&mac, "failed", 30)?;
    ensure!(failed["id"] == ran["id"], "another boot failed: {failed}");
    let reason = failed["diagnosis"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&format!("block {block} of the root (sha256:")), "the diagnosis says: {reason}");
    let next = bennu.wait_for_boot(&mac, 90, "start after the damage", |boot| boot["id"] != ran["id"])?;
    let before = bennu.boots(&mac)?.into_iter().find(|boot| boot["id"] == ran["id"]).context("the boot is gone")?;
    ensure!(before["state"] == "failed" && next["diagnosis"].is_null(), "before: {before}\nnow: {next}");
    Ok(())
}

/// `bennu boot show` and `bennu machine show` tell of the newest boot what was seen when, how many bytes moved,
/// and which digest ran.
pub fn tells(bennu: &Appliance, machine: &Machine, image: &str) -> Result<Value> {
    let mac = machine.mac();
    let boot = bennu.wait_for_state(&mac, "up", UP_SECONDS)?;
    let digest = bennu.digest(image)?;
    ensure!(
        boot["image"]["digest"] == digest.as_str(),
        "{digest} was assigned, and the boot tells of {}",
        boot["image"]
    );
    let timeline = boot["timeline"].as_array().context("the boot has no timeline")?;
    in_order(timeline)?;
    whole_parts(&boot, timeline)?;

    let id = boot["id"].as_str().context("the boot has no id")?;
    let shown = bennu.bennu(["boot", "show", id])?;
    for expected in [mac.as_str(), "up", &digest["sha256:".len()..][..12], "root verified"] {
        ensure!(shown.contains(expected), "'{expected}' is not in what 'bennu boot show' prints:\n{shown}");
    }
    let shown = bennu.bennu(["machine", "show", &mac])?;
    for expected in [mac.as_str(), id, "up"] {
        ensure!(shown.contains(expected), "'{expected}' is not in what 'bennu machine show' prints:\n{shown}");
    }
    Ok(boot)
}

/// The steps of a good boot, each seen after the one before.
fn in_order(timeline: &[Value]) -> Result<()> {
    let mut last = 0;
    for entry in timeline {
        let after = entry["after_ms"].as_u64().context("a line of the timeline without its time")?;
        ensure!(after >= last, "the timeline goes back in time at: {entry}");
        last = after;
    }
    let mut lines = timeline.iter();
    for step in ["dhcp_discover", "script_read", "started", "verified", "mounted", "handed_over", "up"] {
        let found = lines.any(|entry| entry["seen"] == step || entry["step"] == step);
        ensure!(found, "the timeline has no '{step}' in its place: {}", told(timeline));
    }
    Ok(())
}

/// Every part of the image went over the wire whole, and the boot's bytes are the sum of all that did.
fn whole_parts(boot: &Value, timeline: &[Value]) -> Result<()> {
    for part in ["kernel", "modules", "stage1", "root"] {
        let read = timeline.iter().any(|entry| entry["part"] == part && entry["bytes"].as_u64() > Some(0));
        ensure!(read, "the timeline does not tell that '{part}' was read: {}", told(timeline));
    }
    let seen = |entry: &&Value| entry["seen"] == "blob_read" || entry["seen"] == "loader_read";
    let sum: u64 = timeline.iter().filter(seen).filter_map(|entry| entry["bytes"].as_u64()).sum();
    ensure!(boot["bytes"] == sum, "{sum} bytes are in the timeline and {} in the boot", boot["bytes"]);
    Ok(())
}

/// The timeline as a person reads it.
pub fn told(timeline: &[Value]) -> String {
    let lines = timeline
        .iter()
        .map(|entry| format!("\n  {:>7} ms  {}", entry["after_ms"], entry["text"].as_str().unwrap_or("?")));
    lines.collect()
}

/// An entry of the boot's timeline that `wanted` picks.
pub fn seen(boot: &Value, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let timeline = boot["timeline"].as_array().context("the boot has no timeline")?;
    match timeline.iter().find(|entry| wanted(entry)) {
        Some(entry) => Ok(entry.clone()),
        None => bail!("{what} is not in the timeline: {}", told(timeline)),
    }
}

/// From the loader's address to its script without the 16 s in which a BIOS ROM of 2019 looks for an IPv6 router.
pub fn no_wait_for_ipv6(boot: &Value) -> Result<()> {
    const MOST_MS: u64 = 8000;
    let after = |entry: Value| entry["after_ms"].as_u64().context("a line of the timeline without its time");
    let script = after(seen(boot, "a script read", |entry| entry["seen"] == "script_read")?)?;
    let ack = after(seen(boot, "a DHCP ack", |entry| entry["seen"] == "dhcp_ack")?)?;
    let waited = script.saturating_sub(ack);
    ensure!(waited < MOST_MS, "the loader had its address for {waited} ms before it asked for its script");
    Ok(())
}

/// The firmware and transport that the boot was recognised as.
pub fn recognised(boot: &Value, firmware: &str, transport: &str) -> Result<()> {
    let system = &boot["system"];
    ensure!(
        system["firmware"] == firmware && system["transport"] == transport,
        "taken for {system}, not {firmware} by {transport}"
    );
    Ok(())
}

/// What the machine said in its latest boot, as soon as a line that `is_it` is among it.
pub fn said(bennu: &Appliance, mac: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let shown = bennu.json(["boot", "logs", mac, "--lines", "20000"])?;
        let lines = shown.as_array().context("the log is no list")?.clone();
        if lines.iter().any(&is_it) {
            return Ok(lines);
        }
        if Instant::now() > deadline {
            let last: Vec<String> = lines.iter().rev().take(20).map(Value::to_string).collect();
            anyhow::bail!("{what} never came; of {} lines the last are\n{}", lines.len(), last.join("\n"));
        }
        thread::sleep(Duration::from_millis(500));
    }
}
