//! One machine over several power cycles: each is a fresh start of the image it is assigned.

use anyhow::{Result, ensure};
use std::collections::BTreeSet;

use super::checks::{arrives, boots, recognised, seen, told};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    images::{self, Images},
    machine::{Firmware, Machine},
};

/// The first boot, a look at it from all sides, a cycle, another version and back.
pub const CYCLES: Life = Life {
    name: "power cycles",
    shows: &[
        "uefi_pxe",
        "boot_show_tells",
        "explain_prints_script",
        "manifest_equals_source",
        "power_cycle_forgets",
        "v2_then_v1",
    ],
    live: |story| {
        let rack = story.rack()?;
        let images = images::images()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::UefiPxe).scratch(64 << 20).install()?;
        story.show("uefi_pxe", || {
            let remark = boots(&bennu, &mut machine, "debian:v1")?;
            recognised(&bennu.last_boot(&machine.mac())?, "uefi", "tftp")?;
            Ok(remark)
        })?;
        story.show("boot_show_tells", || show_tells(&bennu, &machine))?;
        story.show("explain_prints_script", || explains(&bennu, &machine))?;
        story.show("manifest_equals_source", || equals_source(&images, &mut machine))?;
        story.show("power_cycle_forgets", || forgets(&bennu, &mut machine))?;
        story.show("v2_then_v1", || {
            let mut remarks = Vec::new();
            for image in ["debian:v2", "debian:v1"] {
                machine.power_off()?;
                remarks.push(boots(&bennu, &mut machine, image)?);
            }
            Ok(remarks.join("; "))
        })
    },
};

/// What happened before the script is told too: DHCP answers with addresses, the loader and its bytes.
fn show_tells(bennu: &Appliance, machine: &Machine) -> Result<String> {
    let boot = bennu.last_boot(&machine.mac())?;
    let offer = seen(&boot, "an offer", |entry| entry["seen"] == "dhcp_offer")?;
    ensure!(
        offer["address"].as_str().is_some_and(|a| a.starts_with("10.77.0.")),
        "the offer tells no address: {offer}"
    );
    let read = seen(&boot, "the loader", |entry| entry["seen"] == "loader_read" && entry["complete"] == true)?;
    ensure!(read["file"] == "snponly.efi" && read["by"] == "tftp", "the loader was: {read}");
    ensure!(read["bytes"].as_u64() > Some(100_000), "the loader has few bytes: {read}");
    let timeline = boot["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id = boot["id"].as_str().unwrap_or_default();
    let shown = bennu.bennu(["boot", "show", id])?;
    for entry in timeline {
        let text = entry["text"].as_str().unwrap_or("?");
        ensure!(shown.contains(text), "'{text}' is not in what 'bennu boot show' prints:\n{shown}");
    }
    ensure!(!told(timeline).contains("token"), "a token is told:{}", told(timeline));
    Ok(format!("{} lines", timeline.len()))
}

/// `bennu machine explain` prints the script and the plan that the machine would get, and does nothing else.
fn explains(bennu: &Appliance, machine: &Machine) -> Result<String> {
    let mac = machine.mac();
    let before = bennu.boots(&mac)?;
    let said = bennu.bennu(["machine", "explain", &mac])?;
    let json = bennu.json(["machine", "explain", &mac])?;
    let image = bennu.json(["image", "show", "debian:v1"])?.to_string();
    let script = json["script"].as_str().unwrap_or_default();
    ensure!(script.starts_with("#!ipxe") && script.contains("\nboot"), "no script: {script}");
    let root = json["plan"]["action"]["root"]["digest"].as_str().unwrap_or_default();
    ensure!(root.starts_with("sha256:") && image.contains(root), "the plan's root is '{root}', the image is {image}");
    for line in script.lines().filter(|line| line.starts_with("kernel ") || line.starts_with("initrd ")) {
        ensure!(said.contains(line.trim_end()), "'{line}' is not in what 'bennu machine explain' prints:\n{said}");
    }
    ensure!(said.contains(root), "the root's digest is not in what 'bennu machine explain' prints:\n{said}");
    ensure!(bennu.boots(&mac)? == before, "to explain has changed what is known of boots");
    Ok(format!("{} lines of script", script.lines().count()))
}

/// The root filesystem that the machine runs from is the source, to the last attribute.
fn equals_source(images: &Images, machine: &mut Machine) -> Result<String> {
    let script = std::fs::read_to_string(images::script("manifest"))?;
    machine.run("mkdir -p /tmp/root && mount -o ro /dev/dm-0 /tmp/root")?;
    machine.put("/tmp/manifest", &script)?;
    machine.run("chmod +x /tmp/manifest")?;
    let ran = machine.try_run("/tmp/manifest /tmp/root >/tmp/list && gzip -c /tmp/list | dd of=/dev/disk/by-id/virtio-scratch conv=fsync status=none", 600)?;
    ensure!(ran.status == 0, "the manifest cannot be made on the machine: {}", ran.output);
    let listed = gunzip(&machine.scratch()?)?;
    let source = images.manifest_v1()?;
    differ_not(&source, &listed)?;
    let lines = source.split(|byte| *byte == b'\n').count();
    ensure!(lines > 10_000, "the source's manifest has only {lines} lines");
    // What the machine sees at / is that same tree: odd files included.
    let capable =
        machine.run("getfattr --absolute-names -n security.capability -e hex /odd/capable; stat -c %a /odd/setuid")?;
    ensure!(capable.contains("security.capability=0x") && capable.ends_with("4755"), "at / there is: {capable}");
    Ok(format!("{lines} lines equal"))
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut child = std::process::Command::new("gzip")
        .arg("-dcq")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take();
    let bytes = bytes.to_vec();
    // The disk's zeros follow the archive; gzip ends at them with a warning.
    let feeder = std::thread::spawn(move || input.as_mut().map(|input| input.write_all(&bytes)));
    let output = child.wait_with_output()?;
    let _ = feeder.join();
    ensure!(!output.stdout.is_empty(), "the machine wrote no manifest");
    Ok(output.stdout)
}

fn differ_not(source: &[u8], found: &[u8]) -> Result<()> {
    if source == found {
        return Ok(());
    }
    let lines = |list: &[u8]| -> BTreeSet<Vec<u8>> { list.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() };
    let (ours, theirs) = (lines(source), lines(found));
    let first = |from: &BTreeSet<Vec<u8>>, but: &BTreeSet<Vec<u8>>| -> String {
        from.difference(but).take(12).map(|line| format!("\n    {}", line.escape_ascii())).collect()
    };
    let (gone, new) = (first(&ours, &theirs), first(&theirs, &ours));
    anyhow::bail!(
        "the root on the machine is not the source.\n  only in the source:{gone}\n  only on the machine:{new}"
    )
}

/// What was written is gone after a power cycle.
fn forgets(bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    machine.run("echo kept >/written && echo changed >/etc/bennu-demo-version && rm -r /odd && sync")?;
    ensure!(machine.run("cat /written")? == "kept", "the machine cannot write to /");
    let before = bennu.last_boot(&machine.mac())?;
    machine.power_cycle()?;
    let remark = arrives(bennu, machine, "debian:v1")?;
    let left = machine.run("ls -d /written /odd 2>&1 || true")?;
    ensure!(
        left.ends_with("/odd") && left.contains("cannot access '/written'"),
        "after the power cycle there is: {left}"
    );
    ensure!(bennu.last_boot(&machine.mac())?["id"] != before["id"], "the power cycle is not a boot of its own");
    Ok(remark)
}
