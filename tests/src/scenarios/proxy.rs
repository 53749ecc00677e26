//! Beside the site's own DHCP server, which knows nothing of booting.

use anyhow::{Result, ensure};

use super::checks::{boots, recognised};
use crate::{
    appliance::Config,
    harness::{Life, Story},
    machine::{Firmware, Nic},
};

/// OVMF's PXE.
pub const UEFI: Life = Life {
    name: "proxy uefi",
    shows: &["proxy_uefi"],
    live: |story| proxied(story, "proxy_uefi", Firmware::UefiPxe, "uefi"),
};

/// A BIOS.
pub const BIOS: Life = Life {
    name: "proxy bios",
    shows: &["proxy_bios"],
    live: |story| proxied(story, "proxy_bios", Firmware::Bios, "bios"),
};

fn proxied(story: &mut Story, name: &'static str, firmware: Firmware, recognised_as: &str) -> Result<()> {
    let rack = story.rack()?;
    let site = rack.site()?;
    let bennu = rack.appliance(Config::proxy().with_images())?;
    // Another card than elsewhere, so that another driver of the modules initrd is tried. OVMF itself has none for it.
    let nic = if firmware == Firmware::Bios { Nic::E1000 } else { Nic::Virtio };
    let mut machine = rack.machine(firmware).nic(nic).install()?;
    story.show(name, || {
        let remark = boots(&bennu, &mut machine, "debian:v1")?;
        let mac = machine.mac();
        recognised(&bennu.last_boot(&mac)?, recognised_as, "tftp")?;
        let leased = |line: &str| line.contains("DHCPACK(site0)") && line.contains(&mac);
        ensure!(site.log().lines().any(leased), "the site's server gave no address:\n{}", site.log());
        let leases = bennu.bennu(["lease", "list", "--json"])?;
        ensure!(!leases.contains(&mac), "in proxy mode the appliance has leased: {leases}");
        let address = machine.run("ip -4 -o address show scope global")?;
        ensure!(address.contains("10.77.0.2"), "the machine's address is not the site's: {address}");
        Ok(remark)
    })
}
