//! Machines that nobody assigned, and machines that run from their own disk.

use anyhow::{Context, Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};

use super::checks::{arrives, seen};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    images::{self, DISK_SAYS},
    machine::{Firmware, Machine},
};

/// Discovery: an inventory, a wait, and on within ten seconds of the assignment.
pub const UNASSIGNED: Life = Life {
    name: "unassigned",
    shows: &["unassigned_waits_then_boots"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::UefiPxe).start()?;
        story.show("unassigned_waits_then_boots", || {
            let boot = bennu.wait_for_state(&machine.mac(), "waiting", 180)?;
            seen(&boot, "an inventory", |entry| entry["step"] == "inventory")?;
            knows_the_hardware(&bennu, &machine)?;
            thread::sleep(Duration::from_secs(12));
            ensure!(bennu.last_boot(&machine.mac())?["state"] == "waiting", "it does not wait");
            let took = goes_on(&bennu, &machine)?;
            let remark = arrives(&bennu, &mut machine, "debian:v1")?;
            Ok(format!("on its way {:.1} s after its assignment; {remark}", took.as_secs_f64()))
        })
    },
};

fn goes_on(bennu: &Appliance, machine: &Machine) -> Result<Duration> {
    let assigned = Instant::now();
    bennu.assign(&machine.mac(), "debian:v1")?;
    let fetches = |boot: &serde_json::Value| {
        boot["timeline"].as_array().is_some_and(|timeline| timeline.iter().any(|entry| entry["step"] == "downloading"))
    };
    bennu.wait_for_boot(&machine.mac(), 10, "start of the assigned image", fetches)?;
    Ok(assigned.elapsed())
}

fn knows_the_hardware(bennu: &Appliance, machine: &Machine) -> Result<()> {
    let shown = bennu.json(["machine", "show", &machine.mac()])?;
    let inventory = &shown["facts"]["inventory"];
    ensure!(inventory["product"] == "VR-200", "the inventory's product is {}", inventory["product"]);
    ensure!(inventory["cpus"] == 1, "the inventory's processors are {}", inventory["cpus"]);
    let memory = inventory["memory"].as_u64().context("an inventory without memory")?;
    ensure!((800 << 20..=1024 << 20).contains(&memory), "the inventory has {memory} bytes of memory");
    let nics = inventory["nics"].as_array().context("an inventory without network cards")?;
    let ours = nics
        .iter()
        .find(|nic| nic["mac"] == machine.mac().as_str())
        .context("the boot card is not in the inventory")?;
    ensure!(ours["driver"] == "virtio_net" && ours["link"] == true, "the boot card is {ours}");
    Ok(())
}

/// `local` leaves a machine to its own disk.
pub const LOCAL: Life = Life {
    name: "local disk",
    shows: &["local_disk"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let mut machine = rack.machine(Firmware::Bios).disk(&images::images()?.disk()).install()?;
        story.show("local_disk", || {
            bennu.assign(&machine.mac(), "local")?;
            machine.power_on()?;
            let took = machine.console()?.wait_for(DISK_SAYS, 120)?;
            bennu.wait_for_state(&machine.mac(), "local", 10)?;
            // A reset, unlike a power cycle, leaves the hardware as the last system set it.
            machine.reset()?;
            machine.console()?.wait_for(DISK_SAYS, 120)?;
            ensure!(bennu.boots(&machine.mac())?.len() == 2, "the reset is not a boot of its own");
            Ok(format!("its own disk after {:.1} s", took.as_secs_f64()))
        })
    },
};
