//! The appliance's own disc: it starts on every firmware, and a rack boots from it alone.

mod cut;
mod odd;

pub use odd::{BROUGHT, ODD};

use anyhow::{Context, Result, ensure};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use super::bad_input::source;
use crate::{
    appliance::Config,
    command,
    disc::{self, Host},
    harness::{Life, Story},
    machine::{Firmware, Machine, Medium, Spec},
    rack::Rack,
    workshop,
};

const STATE_BYTES: u64 = 2 << 30;

/// With nothing but the disc, its set-up and an empty state disk: a rack boots, also after the appliance's power was cut in
/// use; and another host with another disk serves it when it is given a backup.
pub const RACK: Life = Life {
    name: "iso rack",
    shows: &[
        "iso_bios_cd",
        "iso_brings_images",
        "iso_boots_a_rack",
        "iso_power_cut",
        "iso_power_button",
        "iso_backup_on_a_fresh_disk",
    ],
    live: |story| boots_a_rack(story, 3),
};

/// The same with twenty power cuts.
pub const CUTS: Life = Life { name: "iso power cuts", shows: RACK.shows, live: |story| boots_a_rack(story, 20) };

fn boots_a_rack(story: &mut Story, cuts: u32) -> Result<()> {
    let image = exported(story.rack()?.home().dir())?;
    let rack = story.rack()?;
    let mut host = None;
    story.show("iso_bios_cd", || {
        let spec = with_state(rack.machine(Firmware::Bios));
        let (mut started, remark) = Host::set_up(&rack, spec, Medium::Cd)?;
        started.introduce()?;
        host = Some(started);
        Ok(remark)
    })?;
    let mut host = host.context("there is no host")?;
    let mut machine = rack.machine(Firmware::Bios).install()?;
    story.show("iso_brings_images", || {
        let began = Instant::now();
        for image in ["discovery:latest", "memtest86:latest", "rescue:latest"] {
            host.wait_for_image(image, 180)?;
        }
        Ok(format!("there {:.0} s after the first token", began.elapsed().as_secs_f64()))
    })?;
    story.show("iso_boots_a_rack", || {
        host.bennu(["image", "import", &format!("oci-archive:{}", image.display()), "debian:v1"])?;
        host.bennu(["machine", "assign", &machine.mac(), "debian:v1"])?;
        let arrived = arrives(&host, &mut machine)?;
        watched(&host)?;
        Ok(arrived)
    })?;
    story.show("iso_power_cut", || cut::while_in_use(&rack, &mut host, &mut machine, cuts))?;
    let backup = rack.home().dir().join("rack.tar");
    story.show("iso_power_button", || {
        host.bennu([Path::new("backup"), &backup])?;
        host.machine.press_power()?;
        host.machine.console()?.wait_for("the power button was pressed", 30)?;
        host.machine.console()?.wait_for("bennu: off", 30)?;
        clean(&host.machine.scratch_file())
    })?;
    story.show("iso_backup_on_a_fresh_disk", || {
        let theirs = host.credentials()?;
        host.replace(rack.machine(Firmware::Bios).scratch(STATE_BYTES), Medium::Cd)?;
        // Its own store has the disc's images already.
        host.bennu([Path::new("restore"), &backup, Path::new("--replace")])?;
        host.use_credentials(&theirs)?;
        host.answers(60)?;
        arrives(&host, &mut machine)
    })
}

/// An appliance takes up a later version over the API, goes back by itself from one that does not become ready, and takes up
/// nothing that its key has not signed.
pub const UPGRADE: Life = Life {
    name: "iso upgrade",
    shows: &["iso_upgrade_refused", "iso_upgrade", "iso_upgrade_falls_back"],
    live: |story| upgrades(story, Firmware::Bios),
};

/// The same with Secure Boot on.
pub const UPGRADE_UEFI: Life =
    Life { name: "iso upgrade uefi", shows: UPGRADE.shows, live: |story| upgrades(story, Firmware::UefiSecureBoot) };

/// A machine that is on record and never switched on.
const ASSIGNED: &str = "52:54:00:00:00:77";

fn upgrades(story: &mut Story, firmware: Firmware) -> Result<()> {
    let rack = story.rack()?;
    let discs = Discs::make(&rack.home().dir().join("discs"))?;
    let (mut host, _) = Host::start_from(&rack, with_state(rack.machine(firmware)), Medium::Cd, &discs.first)?;
    host.introduce()?;
    let (kernel, initrd) = (discs.place.join("kernel"), discs.place.join("initrd"));
    fs::write(&kernel, source::kernel("6.1.0-test"))?;
    fs::write(&initrd, "initrd")?;
    let (kernel, initrd) = (format!("kernel={}", kernel.display()), format!("initrd={}", initrd.display()));
    host.bennu(["image", "import", &kernel, &initrd, "cmdline=x", "installer:v1"])?;
    host.bennu(["machine", "assign", ASSIGNED, "installer:v1"])?;
    story.show("iso_upgrade_refused", || {
        refused(&host, &discs.second, &[], "there is no signature")?;
        discs.sign(&discs.second, "other.key")?;
        refused(&host, &discs.second, &[], "has not signed these bytes")?;
        discs.sign(&discs.second, "release.key")?;
        let short = discs.place.join("short.iso");
        let whole = fs::read(&discs.second)?;
        fs::write(&short, &whole[..whole.len() - (1 << 20)])?;
        let signature = format!("{}.sig", discs.second.display());
        refused(&host, &short, &["--signature", &signature], "has not signed these bytes")?;
        let shown = shown(&host)?;
        ensure!(shown["slots"].as_array().is_some_and(Vec::is_empty), "a slot holds something: {shown}");
        Ok(String::new())
    })?;
    story.show("iso_upgrade", || {
        let said = host.bennu(["appliance", "upgrade", &discs.second.display().to_string()])?;
        ensure!(said.contains("test2 runs"), "{said}");
        let shown = shown(&host)?;
        ensure!(shown["version"] == "test2" && shown["from"] == "slot_a", "{shown}");
        let machine = host.bennu(["machine", "show", ASSIGNED, "--json"])?;
        ensure!(machine.contains("installer:v1"), "the assignment is gone: {machine}");
        host.bennu(["image", "show", "installer:v1"])?;
        // The medium has this version, which is older by now.
        discs.sign(&discs.first, "release.key")?;
        refused(&host, &discs.first, &[], "was built before")?;
        Ok(String::new())
    })?;
    story.show("iso_upgrade_falls_back", || {
        discs.sign(&discs.broken, "release.key")?;
        refused(&host, &discs.broken, &[], "did not become ready, and test2 runs again")?;
        let after = shown(&host)?;
        ensure!(after["version"] == "test2" && after["failed"] == "broken", "{after}");
        ensure!(host.bennu(["status"])?.contains("the upgrade to broken did not become ready"), "nobody is told");
        host.machine.power_cycle()?;
        host.ready()?;
        ensure!(shown(&host)?["version"] == "test2", "a power cut changed what runs");
        Ok(String::new())
    })
}

/// Discs with one key, of three times: the first, a later one, and one whose service never becomes ready.
struct Discs {
    place: PathBuf,
    first: PathBuf,
    second: PathBuf,
    broken: PathBuf,
}

impl Discs {
    fn make(place: &Path) -> Result<Self> {
        fs::create_dir_all(place)?;
        for name in ["release", "other"] {
            let mut keys = Command::new(workshop::bennu_binary()?);
            command::run(keys.args(["image", "keys"]).arg(place.join(name)).env("COSIGN_PASSWORD", ""))?;
        }
        let public = place.join("release.pub");
        let make = |version: &str, built: &str, program: &Path| {
            let environment = [("ISO_KEY", public.as_os_str()), ("SOURCE_DATE_EPOCH", OsStr::new(built))];
            disc::make_with(&place.join(version), version, program, &environment)
        };
        let bennu = workshop::bennu_binary()?;
        Ok(Self {
            first: make("test1", "1767225600", &bennu)?,
            second: make("test2", "1767225700", &bennu)?,
            broken: make("broken", "1767225800", Path::new("/bin/false"))?,
            place: place.to_owned(),
        })
    }

    fn sign(&self, disc: &Path, key: &str) -> Result<()> {
        let mut sign = Command::new(workshop::bennu_binary()?);
        sign.args(["appliance", "sign"]).arg(disc).arg("--key").arg(self.place.join(key)).env("COSIGN_PASSWORD", "");
        command::run(&mut sign).map(drop)
    }
}

fn refused(host: &Host, disc: &Path, more: &[&str], why: &str) -> Result<()> {
    let disc = disc.display().to_string();
    let said = host.bennu(["appliance", "upgrade", &disc].iter().chain(more));
    let error = said.err().with_context(|| format!("{disc} was taken"))?;
    ensure!(format!("{error:#}").contains(why), "not '{why}': {error:#}");
    Ok(())
}

fn shown(host: &Host) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&host.bennu(["appliance", "show", "--json"])?)?)
}

/// OVMF starts the file as a USB disk, and as a disc with Secure Boot on. An empty disk becomes the state disk; without one it
/// says so.
pub const UEFI: Life = Life {
    name: "iso uefi",
    shows: &["iso_uefi_usb", "iso_secure_boot", "iso_same_bytes"],
    live: |story| {
        let rack = story.rack()?;
        story.show("iso_uefi_usb", || {
            let (host, remark) = Host::start(&rack, rack.machine(Firmware::UefiPxe).scratch(STATE_BYTES), Medium::Usb)?;
            let made = host.machine.console()?.has_shown("is empty, and becomes the state disk");
            ensure!(made, "the empty disk was not made a state disk");
            Ok(remark)
        })?;
        let other = Rack::new()?;
        story.show("iso_secure_boot", || {
            let (host, remark) = Host::start(&other, other.machine(Firmware::UefiSecureBoot), Medium::Cd)?;
            let console = host.machine.console()?;
            ensure!(console.has_shown("NO STATE DISK"), "memory mode is not told");
            ensure!(console.has_shown("Secure Boot is on"), "the console does not say that Secure Boot is on");
            Ok(remark)
        })?;
        story.show("iso_same_bytes", || same_bytes(&rack))
    },
};

/// A second build of the same inputs has the same digest; the bill of materials names what is on it.
fn same_bytes(rack: &Rack) -> Result<String> {
    let (first, again) = (disc::disc()?, disc::make(&rack.home().dir().join("again"))?);
    command::run(Command::new("cmp").args([&first, &again]))?;
    let bill = fs::read_to_string(again.with_extension("spdx.json"))?;
    for part in ["linux-image-", "memtest86+", "shim-signed", "squashfs-tools", "redb", "bennu-iso-init"] {
        ensure!(bill.contains(part), "the bill of materials lacks {part}");
    }
    ensure!(!bill.contains("\"bash\""), "the bill of materials names what is not on the disc");
    let size = fs::metadata(&again)?.len();
    ensure!(size < 120_000_000, "the disc has {size} bytes");
    fs::remove_dir_all(rack.home().dir().join("again"))?;
    Ok(format!("{:.0} MB", size as f64 / 1e6))
}

/// The rack's image, as an appliance elsewhere exports it.
fn exported(into: &Path) -> Result<std::path::PathBuf> {
    let elsewhere = Rack::new()?;
    let bennu = elsewhere.appliance(Config::full().with_images())?;
    let file = into.join("debian-v1.tar");
    bennu.bennu(["image", "export", "debian:v1", &format!("oci-archive:{}", file.display())])?;
    Ok(file)
}

/// A disk with an empty file system that is labelled for state.
fn with_state(spec: Spec) -> Spec {
    spec.scratch(STATE_BYTES).scratch_prepared(|file| {
        command::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", "BENNU-STATE"]).arg(file)).map(drop)
    })
}

fn arrives(host: &Host, machine: &mut Machine) -> Result<String> {
    machine.power_on()?;
    let login = machine.login()?;
    let says = machine.run("cat /etc/bennu-demo-version")?;
    ensure!(says == "bennu-demo v1", "{says} runs");
    host.wait_for_state(&machine.mac(), "up", 120)?;
    machine.power_off()?;
    Ok(format!("login after {:.1} s", login.as_secs_f64()))
}

/// The view is on the serial line and on the screen, and takes the keys of both.
fn watched(host: &Host) -> Result<()> {
    let console = host.machine.console()?;
    host.screenshot("view")?;
    host.machine.press(&["p"])?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    host.screenshot("view-power")?;
    host.machine.press(&["n"])?;
    console.send("?")?;
    console.wait_for("Ctrl-L", 30)?;
    console.send(" ")?;
    console.wait_for("EVENTS", 30)?;
    host.machine.press(&["down"])?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    host.screenshot("view-selected")
}

/// A state disk that was let go of needs no mending.
fn clean(state: &Path) -> Result<String> {
    let said = command::run(Command::new("dumpe2fs").arg("-h").arg(state))?;
    let line = said.lines().find(|line| line.starts_with("Filesystem state:")).unwrap_or_default();
    ensure!(line.ends_with(" clean"), "the state disk was left so: {line}");
    Ok(String::new())
}
