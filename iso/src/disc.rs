//! The disc itself: ISO 9660 with El Torito for BIOS and UEFI, and a partition table, so that the same file starts as a disk.

use crate::{grub, options::Options};
use anyhow::{Context, Result, bail};
use bennu_host::vault::STICK_FROM;
use std::path::Path;
use std::process::Command;

/// The type of an EFI system partition.
const ESP_TYPE: &str = "0xef";

/// Makes it.
pub fn make(options: &Options, root: &Path, esp: &Path) -> Result<()> {
    let made = Command::new("xorriso")
        .env("SOURCE_DATE_EPOCH", options.epoch.to_string())
        .env("TZ", "UTC")
        .args(["-as", "mkisofs", "-quiet", "-r", "-J", "-V", "BENNU", "--set_all_file_dates"])
        .arg(format!("={}", options.epoch))
        .arg("-o")
        .arg(&options.out)
        .arg("--grub2-mbr")
        .arg(grub::hybrid(&options.packages))
        .args(["-partition_offset", "16", "--mbr-force-bootable", "-append_partition", "2", ESP_TYPE])
        .arg(esp)
        .args(["-iso_mbr_part_type", "0x83"])
        .args(["-c", "boot/boot.cat", "-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4"])
        .args(["-boot-info-table", "--grub2-boot-info"])
        .args(["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"])
        .arg(root)
        .output()
        .context("cannot run xorriso (package xorriso)")?;
    if !made.status.success() {
        bail!("xorriso failed: {}", String::from_utf8_lossy(&made.stderr));
    }
    let size = std::fs::metadata(&options.out).context("there is no disc")?.len();
    if size > STICK_FROM {
        bail!("the disc has {size} bytes: on a stick it would be written over the state, which begins at {STICK_FROM}");
    }
    Ok(())
}
