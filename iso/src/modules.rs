//! The kernel and its modules: everything a management host may have its disks, sticks and network cards on.

use crate::tree::Tree;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel of the packages.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `6.1.0-50-amd64`.
    pub release: String,
    /// The file, signed by the distribution.
    pub image: PathBuf,
}

/// Folders of the modules' tree that are taken whole.
const TAKEN: [&str; 27] = [
    "arch/x86/crypto/",
    "crypto/",
    "drivers/acpi/",
    "drivers/ata/",
    "drivers/block/",
    "drivers/cdrom/",
    "drivers/char/hw_random/",
    "drivers/char/tpm/",
    "drivers/firmware/",
    "drivers/hid/",
    "drivers/hv/",
    "drivers/input/",
    "drivers/md/",
    "drivers/message/",
    "drivers/net/",
    "drivers/nvme/",
    "drivers/pci/",
    "drivers/scsi/",
    "drivers/usb/",
    "drivers/virtio/",
    "drivers/watchdog/",
    "drivers/xen/",
    "fs/ext4/",
    "fs/fat/",
    "fs/isofs/",
    "fs/nls/",
    "lib/",
];
/// Parts of those that no such host needs.
const LEFT: [&str; 19] = [
    "drivers/net/wireless/",
    "drivers/net/can/",
    "drivers/net/ieee802154/",
    "drivers/net/wwan/",
    "drivers/net/hamradio/",
    "drivers/net/arcnet/",
    "drivers/net/fddi/",
    "drivers/net/plip/",
    "drivers/net/slip/",
    "drivers/net/wan/",
    "drivers/input/joystick/",
    "drivers/input/touchscreen/",
    "drivers/input/tablet/",
    "drivers/usb/gadget/",
    "drivers/usb/atm/",
    "drivers/usb/misc/",
    "drivers/usb/serial/",
    "drivers/hid/amd-sfh-hid/",
    "drivers/block/drbd/",
];
/// Single modules beside them: loop and squashfs for image tests, the rest for what the service opens.
const SINGLE: [&str; 4] = ["squashfs", "overlay", "af_packet", "efivarfs"];

impl Kernel {
    /// The one kernel that was unpacked.
    pub fn find(packages: &Path) -> Result<Self> {
        let boot = packages.join("boot");
        let entries = std::fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut releases: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned())).collect();
        releases.sort();
        match releases.as_slice() {
            [release] => Ok(Self { release: release.clone(), image: boot.join(format!("vmlinuz-{release}")) }),
            [] => bail!("{} has no kernel", boot.display()),
            several => bail!("{} has several kernels: {}", boot.display(), several.join(", ")),
        }
    }
}

/// What the initrd needs before it has its root.
const FIRST: [&str; 2] = ["loop", "squashfs"];

/// Adds the modules, what they need, and depmod's tables; to `first` those that the root itself needs.
pub fn add(tree: &mut Tree, first: &mut Tree, packages: &Path, kernel: &Kernel) -> Result<()> {
    let directory = packages.join("lib/modules").join(&kernel.release);
    depmod(packages, &kernel.release)?;
    let table = std::fs::read_to_string(directory.join("modules.dep"))?;
    let needs: BTreeMap<&str, Vec<&str>> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let with_needs = |wanted: &dyn Fn(&str) -> bool| {
        let mut waiting: Vec<&str> = needs.keys().copied().filter(|path| wanted(path)).collect();
        let mut chosen = BTreeSet::new();
        while let Some(path) = waiting.pop() {
            if chosen.insert(path) {
                waiting.extend(needs.get(path).into_iter().flatten());
            }
        }
        chosen
    };
    let chosen = with_needs(&is_taken);
    if chosen.is_empty() {
        bail!("{} has none of the modules that a host needs", directory.display());
    }
    let place = format!("lib/modules/{}", kernel.release);
    for path in &chosen {
        tree.copy(&directory.join(path), &format!("{place}/{path}"), 0o644)?;
    }
    // Modules that were left out stay in the tables; who loads modules skips what is not there.
    for name in ["modules.dep", "modules.alias", "modules.softdep", "modules.builtin"] {
        tree.copy(&directory.join(name), &format!("{place}/{name}"), 0o644)?;
    }
    for path in with_needs(&|path| FIRST.contains(&name_of(path))) {
        first.copy(&directory.join(path), &format!("{place}/{path}"), 0o644)?;
    }
    first.file(&format!("{place}/modules.dep"), 0o644, table.clone().into_bytes());
    Ok(())
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().and_then(|name| name.split(".ko").next()).unwrap_or_default()
}

fn is_taken(path: &str) -> bool {
    let inside = path.strip_prefix("kernel/").unwrap_or(path);
    let name = name_of(path);
    let within = |places: &[&str]| places.iter().any(|place| inside.starts_with(place));
    SINGLE.contains(&name) || (within(&TAKEN) && !within(&LEFT))
}

/// The packages' scripts would run it; nothing of theirs was run.
fn depmod(packages: &Path, release: &str) -> Result<()> {
    let done = Command::new("depmod").arg("--basedir").arg(packages).arg(release).output();
    let done = done.context("cannot run depmod (package kmod)")?;
    if !done.status.success() {
        bail!("depmod failed: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_hardware_is_taken_and_the_rest_left() {
        for good in [
            "kernel/drivers/net/ethernet/intel/igb/igb.ko",
            "kernel/drivers/scsi/megaraid/megaraid_sas.ko.xz",
            "kernel/fs/ext4/ext4.ko",
            "kernel/fs/squashfs/squashfs.ko",
        ] {
            assert!(is_taken(good), "{good}");
        }
        for bad in [
            "kernel/drivers/net/wireless/ath/ath9k/ath9k.ko",
            "kernel/drivers/gpu/drm/i915/i915.ko",
            "kernel/sound/soundcore.ko",
            "kernel/fs/xfs/xfs.ko",
        ] {
            assert!(!is_taken(bad), "{bad}");
        }
    }
}
