//! Secure Boot: an unsigned loader is refused, and the next boot goes through shim and GRUB.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::checks::{arrives, recognised, seen, told};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    images::DISK_SAYS,
    machine::{Firmware, Machine},
    workshop,
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

/// A machine with Secure Boot on waits in GRUB for its assignment, which is its own disk.
pub const OWN_DISK: Life = Life {
    name: "secure boot own disk",
    shows: &["waits_in_grub", "own_disk_with_secure_boot"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().boot("secure_boot = \"always\""))?;
        // QEMU shows a directory as a disk with one FAT partition.
        let disk = format!("fat:rw:{}", installed_system(rack.home().dir())?.display());
        let mut machine = rack.machine(Firmware::UefiSecureBoot).disk(Path::new(&disk)).install()?;
        story.show("waits_in_grub", || {
            machine.power_on()?;
            let console = machine.console()?;
            let waits = console.wait_for("waits for an assignment", 120)?;
            console.wait_for("waits for an assignment", 30)?;
            let boot = bennu.wait_for_state(&machine.mac(), "waiting", 10)?;
            let waited = seen(&boot, "the wait", |line| line["script"] == "wait")?;
            ensure!(waited["repeated"].as_u64() > Some(0), "each look is a line of its own: {waited}");
            Ok(format!("after {:.1} s", waits.as_secs_f64()))
        })?;
        story.show("own_disk_with_secure_boot", || {
            bennu.assign(&machine.mac(), "local")?;
            machine.console()?.wait_for(DISK_SAYS, 60)?;
            bennu.wait_for_state(&machine.mac(), "local", 10)?;
            Ok(String::new())
        })
    },
};

/// What a system with Secure Boot has on its system partition: shim, GRUB, and what GRUB does.
fn installed_system(home: &Path) -> Result<PathBuf> {
    let (partition, loaders) = (home.join("partition"), workshop::cache("loaders")?.join("signed"));
    for directory in ["EFI/debian", "grub"] {
        fs::create_dir_all(partition.join(directory))?;
    }
    for file in ["shimx64.efi", "grubx64.efi"] {
        fs::copy(loaders.join(file), partition.join("EFI/debian").join(file)).context("run `make setup`")?;
    }
    fs::write(partition.join("grub/grub.cfg"), format!("echo '{DISK_SAYS}'\nsleep 600\n"))?;
    Ok(partition)
}

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
