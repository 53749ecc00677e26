//! A bad cable: firmware fetches a loader of a megabyte over a wire that loses frames both ways.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, path::PathBuf};

use super::checks::{seen, told};
use crate::{
    appliance::Config,
    harness::{Life, Story},
    machine::Firmware,
    rack::Rack,
    workshop,
};

/// EDK2 resends a DHCP packet after 4, 8, 16 and 32 s.
const FETCHED_SECONDS: u64 = 240;
/// From the loader's start to the fetch of its script, over a wire that is whole again.
const RUNS_SECONDS: u64 = 120;

/// Each frame is lost with a chance of a tenth.
pub const TENTH: Life = Life {
    name: "loss of a tenth",
    shows: &["a_tenth_of_the_frames_lost"],
    live: |story| lossy(story, "a_tenth_of_the_frames_lost", 100, 60_000),
};

/// Each frame is lost with a chance of a fiftieth; among the long tests alone.
pub const FIFTIETH: Life = Life {
    name: "loss of a fiftieth",
    shows: &["a_fiftieth_of_the_frames_lost"],
    live: |story| lossy(story, "a_fiftieth_of_the_frames_lost", 20, 20_000),
};

/// How firmware got its loader.
#[derive(Debug)]
pub struct Fetched {
    /// From the request that succeeded to the last block.
    pub transfer_ms: u64,
    /// From the DHCP ack to the last block, earlier attempts included.
    pub since_ack_ms: u64,
    /// What the appliance tells of the transfer.
    pub detail: String,
    timeline: String,
}

fn lossy(story: &mut Story, name: &'static str, per_mille: u32, at_most: u64) -> Result<()> {
    let rack = story.rack()?;
    story.show(name, || {
        let Fetched { transfer_ms, since_ack_ms, detail, timeline } = fetch(&rack, per_mille)?;
        ensure!(transfer_ms <= at_most, "the transfer took {transfer_ms} ms: {timeline}");
        let (transfer, since_ack) = (transfer_ms as f64 / 1e3, since_ack_ms as f64 / 1e3);
        Ok(format!("transfer {transfer:.1} s ({detail}), {since_ack:.1} s after the DHCP ack"))
    })
}

/// Loses so many frames in a thousand until the loader has arrived. That it then runs and asks for its script shows that
/// it arrived whole.
pub fn fetch(rack: &Rack, per_mille: u32) -> Result<Fetched> {
    let directory = large_loader(rack.home().dir().join("loaders"))?;
    let config = Config::full().boot(&format!("loaders_dir = {directory:?}"));
    let bennu = rack.appliance(config)?;
    let mut machine = rack.machine(Firmware::UefiPxe).install()?;
    rack.wire().lose(per_mille)?;
    machine.power_on()?;
    let fetched = |boot: &Value| last_read(boot).is_some_and(|read| read["complete"] == true);
    let boot = bennu.wait_for_boot(&machine.mac(), FETCHED_SECONDS, "whole loader", fetched)?;
    rack.wire().lose(0)?;
    let read = last_read(&boot).context("no read of the loader is told")?;
    let transfer_ms = read["took_ms"].as_u64().context("a read without its time")?;
    let runs = |boot: &Value| seen(boot, "a script", |line| line["seen"] == "script_read").is_ok();
    bennu.wait_for_boot(&machine.mac(), RUNS_SECONDS, "script", runs)?;
    let ack = seen(&boot, "a DHCP ack", |line| line["seen"] == "dhcp_ack")?;
    let whole = read["after_ms"].as_u64().zip(ack["after_ms"].as_u64()).map(|(end, from)| end.saturating_sub(from));
    let detail = read["detail"].as_str().unwrap_or_default().to_owned();
    Ok(Fetched { transfer_ms, since_ack_ms: whole.unwrap_or_default(), detail, timeline: timeline(&boot) })
}

/// iPXE with all its drivers in the name of the loader that firmware is sent to: 1.05 MB, as large as a shim.
fn large_loader(directory: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&directory)?;
    let from = workshop::cache("loaders")?.join("ipxe.efi");
    let size = fs::copy(&from, directory.join("snponly.efi")).with_context(|| format!("no {}", from.display()))?;
    ensure!(size > 1_000_000, "{} has {size} bytes, too few for this test", from.display());
    Ok(directory)
}

fn last_read(boot: &Value) -> Option<&Value> {
    let is_read =
        |line: &&Value| line["seen"] == "loader_read" && line["by"] == "tftp" && line["file"] == "snponly.efi";
    boot["timeline"].as_array()?.iter().rfind(is_read)
}

fn timeline(boot: &Value) -> String {
    boot["timeline"].as_array().map(|lines| told(lines)).unwrap_or_default()
}
