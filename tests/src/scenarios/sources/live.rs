//! Discs of live systems.

use anyhow::{Context, Result, ensure};
use std::{fs, path::PathBuf, process::Command};

use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    images::{script, short_digest},
    machine::{Firmware, Machine},
    workshop,
};

/// A live system of Debian's kind fetches its root from the appliance and comes up.
pub const LIVE_ISO: Life = Life {
    name: "live iso",
    shows: &["live_iso"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let machine = rack.machine(Firmware::Bios).memory(1536).install()?;
        story.show("live_iso", || boots(&bennu, machine))
    },
};

fn boots(bennu: &Appliance, mut machine: Machine) -> Result<String> {
    let said = bennu.bennu(["image", "import", &format!("iso:{}", disc()?.display()), "live:12"])?;
    let shown = bennu.bennu(["image", "show", "live:12"])?;
    ensure!(shown.contains("a live disc of the rack"), "the disc's own name is not shown: {shown}");
    bennu.assign(&machine.mac(), "live:12")?;
    machine.power_on()?;
    let login = machine.login()?;
    let version = machine.run("cat /etc/bennu-demo-version")?;
    ensure!(version == "a live disc", "{version} runs");
    let mounts = machine.run("cat /proc/mounts")?;
    ensure!(mounts.contains("/filesystem.squashfs squashfs ro,"), "its root is not the disc's squashfs: {mounts}");
    let arguments = machine.run("cat /proc/cmdline")?;
    ensure!(arguments.contains("fetch=http://10.77.0.1/blobs/sha256/"), "the arguments are: {arguments}");
    let boot = bennu.last_boot(&machine.mac())?;
    let timeline = boot["timeline"].as_array().context("the boot has no timeline")?;
    let fetched = |entry: &&serde_json::Value| entry["part"] == "file" && entry["complete"] == true;
    ensure!(timeline.iter().any(|entry| fetched(&entry)), "the appliance does not tell that the root was fetched");
    Ok(format!("{}; login after {:.1} s", said.lines().last().unwrap_or_default().trim(), login.as_secs_f64()))
}

/// The disc, made once and kept beside the images that the machines boot. Takes a minute the first time.
fn disc() -> Result<PathBuf> {
    let _held = workshop::hold("live")?;
    let recipe = script("live");
    let disc = workshop::cache("images")?.join(format!("live-{}.iso", short_digest(&fs::read(&recipe)?)));
    if !disc.exists() {
        eprintln!("rack: making the live disc (once; kept as {})", disc.display());
        let mirror = command::run(&mut Command::new(workshop::checkout().join("scripts/debian-mirror")))?;
        let new = disc.with_extension("new");
        command::run(Command::new(&recipe).arg(&new).args(mirror.split_whitespace()))
            .context("cannot make a live disc")?;
        fs::rename(new, &disc)?;
    }
    Ok(disc)
}
