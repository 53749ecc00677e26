//! The EFI system partition: the signed shim, GRUB as the distribution signed it for discs, and shim's key manager.

use crate::options::Options;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is on it, and where the packages have it. Firmware starts the first from a removable medium (UEFI §3.5.1.1).
const FILES: [(&str, &str); 3] = [
    ("BOOTX64.EFI", "usr/lib/shim/shimx64.efi.signed"),
    ("grubx64.efi", "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    ("mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
];
const SPARE: u64 = 512 << 10;
const CLUSTER: u64 = 1 << 20;

/// The packages' files on it.
pub fn sources(options: &Options) -> impl Iterator<Item = PathBuf> {
    FILES.iter().map(|(_, from)| options.packages.join(from))
}

/// Makes its file system, with the same bytes for the same files.
pub fn make(options: &Options, out: &Path) -> Result<()> {
    let sizes = sources(options).map(|path| {
        std::fs::metadata(&path).map(|found| found.len()).with_context(|| format!("cannot find {}", path.display()))
    });
    let needed: u64 = sizes.sum::<Result<u64>>()?;
    let size = (needed + SPARE).next_multiple_of(CLUSTER);
    std::fs::File::create(out)?.set_len(size)?;
    let run = |command: &mut Command| {
        let done = command.env("SOURCE_DATE_EPOCH", options.epoch.to_string()).env("TZ", "UTC").output();
        let done = done.with_context(|| format!("cannot run {:?}", command.get_program()))?;
        match done.status.success() {
            true => Ok(()),
            false => bail!("{:?} failed: {}", command.get_program(), String::from_utf8_lossy(&done.stderr)),
        }
    };
    run(Command::new("mkfs.vfat").args(["--invariant", "-n", "BENNU-EFI"]).arg(out))?;
    run(Command::new("mmd").arg("-i").arg(out).args(["::/EFI", "::/EFI/BOOT"]))?;
    for (name, from) in FILES {
        run(Command::new("mcopy")
            .arg("-i")
            .arg(out)
            .arg(options.packages.join(from))
            .arg(format!("::/EFI/BOOT/{name}")))?;
    }
    Ok(())
}
