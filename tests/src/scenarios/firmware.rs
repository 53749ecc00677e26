//! Every firmware that this appliance boots, with full DHCP.

use anyhow::ensure;

use super::checks::{boots, no_wait_for_ipv6, recognised, seen, stops_at_a_damaged_block};
use crate::{appliance::Config, harness::Life, images, machine::Firmware};

/// SeaBIOS with an iPXE in ROM that can do HTTP.
pub const BIOS: Life = Life {
    name: "bios pxe",
    shows: &["bios_pxe", "dm_verity"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::Bios).install()?;
        story.show("bios_pxe", || {
            let remark = boots(&bennu, &mut machine, "debian:v1")?;
            let boot = bennu.last_boot(&machine.mac())?;
            recognised(&boot, "bios", "tftp")?;
            no_wait_for_ipv6(&boot)?;
            Ok(remark)
        })?;
        story.show("dm_verity", || {
            stops_at_a_damaged_block(&bennu, &mut machine)?;
            Ok("a block that changed in memory is not read, and the boot says so".into())
        })
    },
};

/// OVMF's HTTP boot.
pub const UEFI_HTTP: Life = Life {
    name: "uefi http boot",
    shows: &["uefi_http"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::UefiHttp).install()?;
        story.show("uefi_http", || {
            let remark = boots(&bennu, &mut machine, "debian:v1")?;
            let boot = bennu.last_boot(&machine.mac())?;
            recognised(&boot, "uefi", "http")?;
            seen(&boot, "a loader read by HTTP", |entry| {
                entry["seen"] == "loader_read" && entry["by"] == "http" && entry["complete"] == true
            })?;
            Ok(remark)
        })
    },
};

/// An iPXE in ROM that cannot do HTTP gets our loader, once, and the loader boots the machine.
pub const UNDIONLY: Life = Life {
    name: "undionly",
    shows: &["undionly_ran"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::Bios).rom_without_http().install()?;
        story.show("undionly_ran", || {
            let remark = boots(&bennu, &mut machine, "debian:v1")?;
            let boot = bennu.last_boot(&machine.mac())?;
            let read = seen(&boot, "undionly.kpxe read by TFTP", |entry| {
                entry["seen"] == "loader_read" && entry["file"] == "undionly.kpxe" && entry["complete"] == true
            })?;
            ensure!(read["by"] == "tftp", "undionly.kpxe was read by {}", read["by"]);
            // What iPXE says of its network card tells which iPXE speaks: the ROM's own driver is virtio-net.
            let console = machine.console()?;
            let first = console.text().find("using virtio-net").unwrap_or(usize::MAX);
            let second = console.text().find("using undionly").unwrap_or(0);
            ensure!(first < second, "the console does not show undionly after the ROM:\n{}", console.text());
            ensure!(console.text().matches("using undionly").count() < 3, "undionly ran more than once");
            Ok(remark)
        })
    },
};

/// A kernel and initrd that are not of our making: Debian's network installer.
pub const FOREIGN: Life = Life {
    name: "foreign pair",
    shows: &["foreign_pair"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let (linux, initrd) = images::installer()?;
        let machine = rack.machine(Firmware::UefiPxe);
        story.show("foreign_pair", || {
            let (kernel, initrd) = (format!("kernel={}", linux.display()), format!("initrd={}", initrd.display()));
            let cmdline = "cmdline=vga=normal console=ttyS0";
            bennu.bennu(["image", "import", &kernel, &initrd, cmdline, "installer:12"])?;
            let mut machine = machine.install()?;
            bennu.assign(&machine.mac(), "installer:12")?;
            machine.power_on()?;
            let screen = machine.console()?.wait_for("Choose the language", 300)?;
            let boot = bennu.last_boot(&machine.mac())?;
            ensure!(
                boot["image"]["digest"] == bennu.digest("installer:12")?.as_str(),
                "the boot tells of {}",
                boot["image"]
            );
            seen(&boot, "the foreign initrd", |entry| entry["seen"] == "blob_read" && entry["part"] == "initrd")?;
            Ok(format!("first screen after {:.1} s", screen.as_secs_f64()))
        })
    },
};
