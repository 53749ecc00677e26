//! The disk of the ledger fills up under load, and has room again.

use anyhow::{Context, Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};

use super::{FAR, leaser::Leaser};
use crate::{
    appliance::Config,
    conformance::place::{Bench, Place},
    harness::Life,
    scenarios::bad_input::Chance,
};

/// Five points; the long tests live it twenty times.
pub const FULL_DISK: Life =
    Life { name: "full disk", shows: &["full_disk_heals"], live: |story| story.show("full_disk_heals", full_disk) };

const POINTS: u32 = 5;
/// More cards than come to their turn: every one is new, so that the ledger has to grow.
const CARDS: usize = 9000;
const PER_SECOND: u32 = 400;
const PATIENCE: Duration = Duration::from_secs(20);
/// Service is back this soon after there is room.
const HEALED: Duration = Duration::from_secs(5);

fn full_disk() -> Result<String> {
    let (mut chance, seed) = Chance::of_now();
    let mut bench = Bench::new(Config::full().more(FAR).state_on("32m"), &["10.78.0.0/16"])?;
    let leaser = Leaser::start(&bench.place, CARDS, PER_SECOND)?;
    let mut slowest = Duration::ZERO;
    for point in 1..=POINTS {
        let told = || format!("point {point}, seed {seed}, {} leases so far", leaser.acks());
        let before = leaser.acks();
        wait("leases on a disk with room", || Ok(leaser.acks() > before + 50)).with_context(told)?;
        let room = chance.below(64_000) as u64;
        let disk = bench.bennu.small_state().context("the state is on no small disk")?;
        disk.fill(room)?;
        wait("word of the full disk", || is_full(&bench.place))
            .with_context(|| format!("{}; its log ends with:\n{}", told(), bench.bennu.log_tail(15)))?;
        let full = leaser.acks();
        thread::sleep(Duration::from_millis(500 + chance.below(1000) as u64));
        ensure!(leaser.acks() == full, "{} leases were acknowledged on a full disk ({})", leaser.acks() - full, told());
        disk.empty()?;
        let began = Instant::now();
        wait("leases after there was room", || Ok(leaser.acks() > full)).with_context(told)?;
        slowest = slowest.max(began.elapsed());
        ensure!(began.elapsed() <= HEALED, "healing took {:?} ({})", began.elapsed(), told());
        bench.bennu.kill()?;
        bench.bennu.start()?;
        leaser.check(&bench.place).with_context(told)?;
    }
    Ok(format!(
        "{POINTS} times full, {} leases acknowledged, none lost; back after {} ms at most (seed {seed})",
        leaser.acks(),
        slowest.as_millis()
    ))
}

/// Whether the appliance says now that its disk is full.
fn is_full(place: &Place) -> Result<bool> {
    let status = place.json(&["status"])?;
    let last = status["notices"].as_array().and_then(|notices| {
        let of_disk =
            |notice: &&serde_json::Value| notice["notice"].as_str().is_some_and(|name| name.starts_with("storage"));
        notices.iter().rfind(of_disk).cloned()
    });
    Ok(last.is_some_and(|last| last["notice"] == "storage_full"))
}

fn wait(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
