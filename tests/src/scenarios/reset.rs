//! The disc's appliance becomes as it was when it came, also when its power is cut on the way.

use anyhow::{Result, ensure};
use std::process::Command;

use crate::{
    command,
    disc::Host,
    harness::{Life, Story},
    machine::{Firmware, Medium},
};

const STATE_BYTES: u64 = 1 << 30;

/// Set up, used, and emptied: its set-up asks again, and nothing of before is there.
pub const RESET: Life = Life { name: "iso reset", shows: &["iso_reset_refused", "iso_reset"], live: resets };

fn resets(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    let spec = rack.machine(Firmware::Bios).scratch(STATE_BYTES).scratch_prepared(|file| {
        command::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", "BENNU-STATE"]).arg(file)).map(drop)
    });
    let (mut host, _) = Host::set_up(&rack, spec, Medium::Cd)?;
    host.introduce()?;
    story.show("iso_reset_refused", || {
        for arguments in [&["appliance", "reset", "--confirm", "another"][..], &["appliance", "reset"]] {
            let refused = host.bennu(arguments);
            ensure!(refused.is_err(), "{arguments:?} is done: {refused:?}");
        }
        host.bennu(["token", "list"]).map(|_| String::new())
    })?;
    story.show("iso_reset", || {
        host.bennu(["appliance", "reset", "--confirm", "bennu1"])?;
        // Whatever it has come to by then.
        host.machine.power_cycle()?;
        let console = host.machine.console()?;
        console.wait_for("set-up: answer", 240)?;
        let shown = console.text();
        ensure!(!shown.contains("configuration: /state"), "a configuration is still there");
        host.machine.power_off()?;
        let disk = host.machine.scratch_file();
        // Replays the journal; it ends with 1 where it had something to do.
        let _ = Command::new("e2fsck").arg("-p").arg(&disk).output()?;
        let mut debugfs = Command::new("debugfs");
        let listed = command::run(debugfs.args(["-R", "ls -p /bennu"]).arg(&disk))?;
        ensure!(!listed.contains("ledger") && !listed.contains("images"), "the service's directory holds:\n{listed}");
        let top = command::run(Command::new("debugfs").args(["-R", "ls -p /"]).arg(&disk))?;
        ensure!(!top.contains("bennu.toml") && !top.contains("reset.json"), "the state disk holds:\n{top}");
        Ok(String::new())
    })
}
