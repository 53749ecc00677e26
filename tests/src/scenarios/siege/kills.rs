//! SIGKILL at any moment, again and again, under load.

use anyhow::{Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};

use super::{FAR, leaser::Leaser, writer::Writer};
use crate::{appliance::Config, conformance::place::Bench, harness::Life, scenarios::bad_input::Chance};

/// Fifty kills; the long tests live it twenty times.
pub const KILLS: Life =
    Life { name: "kills", shows: &["kills_lose_nothing"], live: |story| story.show("kills_lose_nothing", kills) };

const KILLS_EACH: u32 = 50;
const CARDS: usize = 2000;
const LEASES_PER_SECOND: u32 = 200;
const WRITES_PER_SECOND: u32 = 20;
/// Of the load asked for, this much must have been served while the appliance lived, or the test has shown nothing.
const FLOOR: f64 = 0.7;

fn kills() -> Result<String> {
    let (mut chance, seed) = Chance::of_now();
    let mut bench = Bench::new(Config::full().more(FAR), &["10.78.0.0/16"])?;
    let leaser = Leaser::start(&bench.place, CARDS, LEASES_PER_SECOND)?;
    let writer = Writer::start(&bench.place, WRITES_PER_SECOND)?;
    let (mut lived, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for kill in 1..=KILLS_EACH {
        let began = Instant::now();
        thread::sleep(Duration::from_millis(100 + chance.below(500) as u64));
        bench.bennu.kill()?;
        lived += began.elapsed();
        let died = Instant::now();
        bench.bennu.start()?;
        slowest = slowest.max(died.elapsed());
        let check = leaser.check(&bench.place).and_then(|_| writer.check(&bench.place));
        check.map_err(|error| error.context(format!("after kill {kill} (seed {seed})")))?;
    }
    let (leases, writes) = (leaser.acks(), writer.done());
    let floor = |rate: u32| (f64::from(rate) * lived.as_secs_f64() * FLOOR) as u64;
    ensure!(leases >= floor(LEASES_PER_SECOND), "only {leases} leases in {lived:?}: the load was too small");
    ensure!(writes >= floor(WRITES_PER_SECOND), "only {writes} writes in {lived:?}: the load was too small");
    Ok(format!(
        "{KILLS_EACH} kills, {leases} leases and {writes} writes acknowledged, none lost, no address twice; slowest start {} ms (seed {seed})",
        slowest.as_millis()
    ))
}
