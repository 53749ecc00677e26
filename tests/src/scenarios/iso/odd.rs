//! Hosts that are not as simple as one card and an empty disk.

use anyhow::{Result, ensure};
use std::{path::Path, process::Command, rc::Rc, thread, time::Duration};

use crate::{
    command,
    disc::Host,
    harness::Life,
    machine::{Firmware, Medium},
    rack::Rack,
    site::Site,
};

/// Two cards, one of them on a wire with a DHCP server, and a disk with data, which is given up by its serial number alone. Then
/// consoles that are left to plain lines.
pub const ODD: Life = Life {
    name: "iso odd host",
    shows: &["iso_several_cards", "iso_used_disk", "iso_plain_console"],
    live: |story| {
        let rack = story.rack()?;
        rack.wire().bridge("office")?;
        let office = rack.wire().plug_bare("office", "office", "site0")?;
        office.ip("address add 10.77.0.2/24 dev site0")?;
        let _site = Site::start(Rc::clone(rack.home_shared()), &office, "site0", &[])?;
        let spec = rack.machine(Firmware::Bios).second_card("office").scratch(super::STATE_BYTES);
        let mut host = Host::unanswered(&rack, spec.scratch_prepared(with_data), Medium::Usb)?;
        story.show("iso_several_cards", || several_cards(&host))?;
        story.show("iso_used_disk", || used_disk(&mut host))?;
        story.show("iso_plain_console", || plain(&rack, &mut host))
    },
};

/// The set-up's question that the disk belongs to, and how many there are as long as memory is the answer.
const DISK_QUESTION: &str = "9/10";

/// Each card with its cable and who answers there.
fn several_cards(host: &Host) -> Result<String> {
    let console = host.machine.console()?;
    // Asking takes some seconds.
    thread::sleep(Duration::from_secs(8));
    console.send("\x0c")?;
    for part in ["eth0", "eth1", "10.77.0.2"] {
        console.wait_for(part, 30)?;
    }
    host.screenshot("set-up-cards")?;
    Ok(String::new())
}

/// Enter takes memory; the disk is offered, and taken when its serial number is typed, no sooner.
fn used_disk(host: &mut Host) -> Result<String> {
    let console = host.machine.console()?;
    for step in 1..=8 {
        console.wait_for(&format!("{step}/10"), 60)?;
        console.send("\r")?;
    }
    console.wait_for(DISK_QUESTION, 60)?;
    console.wait_for("DATA", 30)?;
    host.screenshot("set-up-disk")?;
    console.send("\x1b[B\r")?;
    console.wait_for("serial", 30)?;
    console.send("scratc\r")?;
    console.wait_for("Type scratch in full", 30)?;
    ensure!(
        label(&host.machine.scratch_file())? == "PAYROLL",
        "the disk was touched before its serial number was typed"
    );
    console.send("h\r")?;
    // What opens it, and whether all is right.
    for step in ["10/11", "11/11"] {
        console.wait_for(step, 30)?;
        console.send("\r")?;
    }
    let remark = host.ready()?;
    host.introduce()?;
    host.machine.press_power()?;
    console.wait_for("bennu: off", 60)?;
    ensure!(label(&host.machine.scratch_file())? == "BENNU-STATE", "the disk did not become the state disk");
    Ok(remark)
}

/// Lines as they are written, and no view over them.
fn plain(rack: &Rack, host: &mut Host) -> Result<String> {
    host.replace_with(rack.machine(Firmware::Bios), Medium::Cd, "console = \"plain\"")?;
    thread::sleep(Duration::from_secs(10));
    host.bennu(["status"])?;
    let console = host.machine.console()?;
    ensure!(console.has_shown("INFO ready"), "the service's lines are not shown");
    ensure!(!console.has_shown("EVENTS"), "there is a view");
    Ok(String::new())
}

fn with_data(disk: &Path) -> Result<()> {
    command::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", "PAYROLL"]).arg(disk)).map(drop)
}

fn label(disk: &Path) -> Result<String> {
    let said = command::run(Command::new("e2label").arg(disk))?;
    Ok(said.trim().to_owned())
}

/// A rack boots what the disc brings along.
pub const BROUGHT: Life = Life {
    name: "iso seeds",
    shows: &["iso_discovery", "iso_rescue", "iso_memtest"],
    live: |story| {
        let rack = story.rack()?;
        let spec = super::with_state(rack.machine(Firmware::Bios));
        let (mut host, _) = Host::start(&rack, spec, Medium::Cd)?;
        host.introduce()?;
        for image in ["discovery:latest", "memtest86:latest", "rescue:latest"] {
            host.wait_for_image(image, 180)?;
        }
        story.show("iso_discovery", || {
            let mut machine = rack.machine(Firmware::Bios).start()?;
            let mac = machine.mac();
            host.wait_for_state(&mac, "waiting", 180)?;
            let shown = host.bennu(["machine", "show", &mac])?;
            ensure!(shown.contains("VR-100"), "nothing is known of it: {shown}");
            machine.power_off().map(|()| String::new())
        })?;
        story.show("iso_rescue", || {
            let mut machine = rack.machine(Firmware::Bios).install()?;
            host.bennu(["machine", "assign", &machine.mac(), "rescue:latest"])?;
            machine.power_on()?;
            let console = machine.console()?;
            let prompt = console.wait_for("rescue# ", 180)?;
            console.send("e2fsck -V && smartctl -V | head -1 && nvme version && echo all''there\r")?;
            console.wait_for("allthere", 60)?;
            machine.power_off()?;
            Ok(format!("its shell after {:.1} s", prompt.as_secs_f64()))
        })?;
        story.show("iso_memtest", || {
            let mut machine = rack.machine(Firmware::Bios).memory(256).install()?;
            host.bennu(["machine", "assign", &machine.mac(), "memtest86:latest"])?;
            machine.power_on()?;
            let title = machine.console()?.wait_for("Memtest86+", 180)?;
            machine.console()?.wait_for("Status: Testing", 60)?;
            Ok(format!("its screen after {:.1} s", title.as_secs_f64()))
        })
    },
};
