//! Secure Boot: an unsigned loader is refused, and the next boot goes through shim and GRUB.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::checks::{arrives, recognised, seen, told};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    machine::{Firmware, Machine},
};

/// OVMF with Microsoft's keys, and an appliance that nobody told of it: neither of the machine nor of Secure Boot.
pub const SECURE_BOOT: Life = Life {
    name: "secure boot",
    shows: &["unsigned_loader_refused", "secure_boot_to_login", "refusal_is_told"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images().unknown("debian:v1"))?;
        let mut machine = rack.machine(Firmware::UefiSecureBoot).install()?;
        story.show("unsigned_loader_refused", || refused(&bennu, &mut machine))?;
        let refused = bennu.last_boot(&machine.mac())?;
        story.show("secure_boot_to_login", || mended(&bennu, &mut machine))?;
        story.show("refusal_is_told", || is_told(&bennu, &machine, &refused))
    },
};

/// The plain loader arrives whole, and the firmware does not run it.
fn refused(bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    machine.power_on()?;
    let took = machine.console()?.wait_for("Access Denied", 120)?;
    let boot = bennu.last_boot(&machine.mac())?;
    seen(&boot, "the whole of snponly.efi", |line| line["file"] == "snponly.efi" && line["complete"] == true)?;
    ensure!(boot["state"] == "loader", "the boot is in state {}", boot["state"]);
    Ok(format!("refused after {:.1} s", took.as_secs_f64()))
}

/// The next start goes through shim, GRUB and a signed kernel, whose lockdown stage 1 and the image stand.
fn mended(bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    machine.power_cycle()?;
    let remark = arrives(bennu, machine, "debian:v1")?;
    let boot = bennu.last_boot(&machine.mac())?;
    recognised(&boot, "uefi", "tftp")?;
    for file in ["shimx64.efi", "grubx64.efi", "grub/grub.cfg"] {
        seen(&boot, file, |line| line["file"] == file && line["by"] == "tftp" && line["complete"] == true)?;
    }
    let lockdown = machine.run(
        "mountpoint -q /sys/kernel/security || mount -t securityfs none /sys/kernel/security; \
                                cat /sys/kernel/security/lockdown",
    )?;
    ensure!(lockdown.contains("[integrity]"), "the kernel's lockdown is {lockdown}");
    let arguments = machine.run("cat /proc/cmdline")?;
    ensure!(!arguments.contains("bennu.ip="), "GRUB has no address to hand on: {arguments}");
    Ok(remark)
}

/// What happened, and what the next boot does, in the timeline, the diagnosis and the machine's record.
fn is_told(bennu: &Appliance, machine: &Machine, refused: &Value) -> Result<String> {
    let mac = machine.mac();
    let id = refused["id"].as_str().context("the refused boot has no id")?;
    let refused = bennu.json(["boot", "show", id])?;
    let why = "the firmware fetched snponly.efi and did not run it: Secure Boot refuses unsigned loaders";
    ensure!(refused["state"] == "superseded", "the refused boot is in state {}", refused["state"]);
    ensure!(refused["diagnosis"]["reason"] == why, "the diagnosis is {}", refused["diagnosis"]);
    let line = seen(&refused, "the refusal", |line| line["seen"] == "loader_not_run")?;
    ensure!(line["text"].as_str().is_some_and(|text| text.contains("the next boot is given shim and GRUB")), "{line}");
    let shown = bennu.bennu(["boot", "show", id])?;
    ensure!(shown.contains(why), "'{why}' is not in what 'bennu boot show' prints:\n{shown}");

    let boot = bennu.last_boot(&mac)?;
    let timeline = boot["timeline"].as_array().context("the boot has no timeline")?;
    let chosen = told(timeline).contains("given shim and GRUB: its firmware did not run the unsigned loader");
    ensure!(chosen, "the choice is not told: {}", told(timeline));
    let shown = bennu.bennu(["machine", "show", &mac])?;
    ensure!(shown.contains("refused an unsigned loader"), "the machine's record does not tell:\n{shown}");
    let explained = bennu.bennu(["machine", "explain", &mac])?;
    for expected in ["UEFI loader: shim and GRUB", "if linux (tftp,10.77.0.1)/blobs/sha256/"] {
        ensure!(
            explained.contains(expected),
            "'{expected}' is not in what 'bennu machine explain' prints:\n{explained}"
        );
    }
    Ok(String::new())
}
