//! Addresses: new leases a second, a burst, known machines, and how soon a full server answers after its start.

use anyhow::{Result, bail};
use std::fs;

use super::Run;
use crate::{
    contenders::{self, KEA, OURS, Ours},
    disk,
    lab::{LARGE_POOL, Lab, POOL, RELAY, ROUTER, SERVER},
    load::{Exchanges, Figures, FirstOffer, Load},
    servers::{Running, Serves, Spec, exchanges},
};

/// New machines, with few in flight.
pub const NEW_32: &str = "10,000 new machines, 32 in flight";
/// New machines, with many in flight.
pub const NEW_256: &str = "10,000 new machines, 256 in flight";
/// A rack row at once.
pub const BURST: &str = "1,000 DISCOVERs at once";
/// Machines that come again.
pub const KNOWN: &str = "5,000 known machines, 32 in flight";
/// After an orderly end.
pub const START: &str = "start with 100,000 leases";
/// After SIGKILL.
pub const RESTART: &str = "start after SIGKILL, 100,000 leases";
/// The disk.
pub const DISK: &str = "4 KiB writes with fdatasync";

/// Leases of a full ledger.
const MANY: usize = 100_000;
/// They come in parts, with a start before each: Bennu admits 16,384 unknown machines at once, then 500 a second.
const BATCH: usize = 12_500;
/// Number of a machine that is in no measurement.
const STRANGERS: u32 = 0xff_0000;

fn ours(lab: &Lab, home: &str) -> Result<Spec> {
    let pool = if home == "full" { LARGE_POOL } else { POOL };
    Ours { home, pool, loaders: None, unknown: "discover", serves: &[Serves::Dhcp] }.spec(lab)
}

/// A server with an empty state.
fn fresh(lab: &Lab, name: &str) -> Result<Spec> {
    let dir = lab.home().dir().join("dhcp");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    if name == OURS { ours(lab, "dhcp") } else { contenders::kea(lab, "dhcp", false) }
}

/// A round of all servers.
pub fn round(run: &mut Run<'_>, round: u32) -> Result<()> {
    let lab = run.lab;
    note_disk(run, round)?;
    let count = if run.quick { 2_000 } else { 10_000 };
    let order = if round % 2 == 1 { [OURS, KEA] } else { [KEA, OURS] };
    for (test, in_flight) in [(NEW_32, 32), (NEW_256, 256)] {
        for name in order {
            let servers = Running::start(lab, &[fresh(lab, name)?])?;
            run.measure(round, test, &servers, &Load::Exchanges(exchanges(0, count, in_flight)))?;
            if in_flight == 32 {
                let known = Exchanges { patience_ms: 2000, ..exchanges(0, count / 2, 32) };
                run.measure(round, KNOWN, &servers, &Load::Exchanges(known))?;
            } else {
                run.measure(round, BURST, &servers, &Load::Exchanges(exchanges(10_000, 1_000, 1_000)))?;
            }
        }
    }
    Ok(())
}

fn note_disk(run: &mut Run<'_>, round: u32) -> Result<()> {
    let mut figures = Figures::default();
    figures.set("per_s", disk::syncs_per_second(run.lab.home().dir())?);
    run.samples.add(round, DISK, "disk", figures);
    Ok(())
}

/// Fills each server once, then starts it again and again.
pub fn starts(run: &mut Run<'_>) -> Result<()> {
    let lab = run.lab;
    let count = if run.quick { 2 * BATCH } else { MANY };
    for name in [OURS, KEA] {
        println!("{name}: filling it with {count} leases");
        for first in (0..count).step_by(BATCH) {
            let servers = Running::start(lab, &[full(lab, name)?])?;
            fill(lab, first, BATCH.min(count - first))?;
            if name == OURS {
                // Bennu looks for other servers at every start on a wire where it never gave an address (4 s).
                let on_wire = Exchanges { relay: ROUTER, ..exchanges(STRANGERS, 1, 1) };
                lab.run(&Load::Exchanges(on_wire))?;
            }
            servers.stop()?;
        }
        for round in 1..=run.rounds.min(3) {
            first_offer(run, round, START, name)?.stop()?;
        }
        drop(Running::start(lab, &[full(lab, name)?])?);
        for round in 1..=run.rounds.min(3) {
            drop(first_offer(run, round, RESTART, name)?);
        }
        fs::remove_dir_all(full(lab, name)?.dir)?;
    }
    Ok(())
}

fn full(lab: &Lab, name: &str) -> Result<Spec> {
    if name == OURS { ours(lab, "full") } else { contenders::kea(lab, "full-kea", true) }
}

/// Kea's receive buffer loses some of what comes at once; those machines come again, with fewer at a time.
fn fill(lab: &Lab, first: usize, count: usize) -> Result<()> {
    let mut figures = Figures::default();
    for in_flight in [256, 32] {
        let load = Exchanges { patience_ms: 5000, ..exchanges(first as u32, count, in_flight) };
        figures = lab.run(&Load::Exchanges(load))?;
        if figures.get("done") == Some(count as f64) {
            return Ok(());
        }
    }
    bail!("{count} leases were wanted: {figures:?}")
}

fn first_offer<'a>(run: &mut Run<'a>, round: u32, test: &str, name: &str) -> Result<Running<'a>> {
    let asks = Load::FirstOffer(FirstOffer { server: SERVER, relay: RELAY, machine: 77, most_s: 60.0 });
    let asking =
        run.lab.command(&asks)?.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    let servers = Running::launch(run.lab, &[full(run.lab, name)?])?;
    let mut figures = crate::lab::figures(asking.wait_with_output()?)?;
    if let Some(offered) = figures.values.remove("offered_at_s") {
        figures.set("first_offer_s", offered - servers.started_at);
    }
    figures.set("rss_mib", servers.resident() / 1_048_576.0);
    run.samples.add(round, test, servers.name(), figures);
    Ok(servers)
}
