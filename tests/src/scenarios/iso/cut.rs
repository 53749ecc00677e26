//! The appliance's power is cut while it is in use.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use crate::{
    disc::Host,
    machine::Machine,
    rack::Rack,
    scenarios::bad_input::source::{Chance, Tree},
};

/// As much as takes longer to import than the power stays on.
const IMPORT: usize = 120 << 20;

/// What is going on when the power goes.
enum Use {
    /// A write was acknowledged, and nothing is going on.
    Acknowledged,
    /// An image is being imported.
    Import(Child),
    /// A machine is booting.
    Boot,
}

/// Cuts the power so many times, each time in the middle of something else. What was acknowledged is there, and the rack
/// boots again.
pub fn while_in_use(rack: &Rack, host: &mut Host, machine: &mut Machine, cuts: u32) -> Result<String> {
    let tree = Tree::new(rack.home(), "noise")?;
    tree.file("srv/noise", &Chance::new(7).bytes(IMPORT))?;
    let before = digest(host)?;
    let mut boots = 0;
    for number in 1..=cuts {
        let began = begin(host, machine, &tree, number)?;
        // Whatever it was about to write when the power went: a label, at each cut another.
        host.bennu(["machine", "label", &machine.mac(), &format!("cut=n{number}")])?;
        host.machine.power_cycle()?;
        host.ready()?;
        let labels = host.bennu(["machine", "show", &machine.mac(), "--json"])?;
        ensure!(labels.contains(&format!("n{number}")), "after cut {number} the label is gone: {labels}");
        ensure!(digest(host)? == before, "after cut {number} the image is another");
        match began {
            Use::Acknowledged => {}
            Use::Import(mut import) => {
                let _ = import.kill();
                import.wait()?;
            }
            Use::Boot => {
                machine.login().with_context(|| format!("the boot that cut {number} fell into"))?;
                host.wait_for_state(&machine.mac(), "up", 120)?;
                machine.power_off()?;
                boots += 1;
            }
        }
    }
    let verified = host.bennu(["image", "verify"])?;
    ensure!(verified.contains("all are whole"), "after {cuts} cuts: {verified}");
    ensure!(!host.machine.console()?.has_shown("shown this once"), "a first token is shown again");
    Ok(format!("{cuts} times; {boots} boots went on when it was back"))
}

fn digest(host: &Host) -> Result<String> {
    let shown: Value = serde_json::from_str(&host.bennu(["image", "show", "debian:v1", "--json"])?)?;
    shown["digest"].as_str().map(str::to_owned).with_context(|| format!("no digest: {shown}"))
}

fn begin(host: &Host, machine: &mut Machine, tree: &Tree, number: u32) -> Result<Use> {
    match number % 3 {
        1 => Ok(Use::Acknowledged),
        2 => {
            let name = format!("cut:v{number}");
            let mut import = host.command(["image", "import", &tree.source(), &name])?;
            let import = import.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            thread::sleep(Duration::from_secs(1));
            Ok(Use::Import(import))
        }
        _ => {
            machine.power_on()?;
            host.wait_for_state(&machine.mac(), "stage1", 120)?;
            Ok(Use::Boot)
        }
    }
}
