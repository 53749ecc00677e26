//! GRUB: its configuration, and the image that a BIOS starts from the disc.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One entry that starts by itself; the others are for a person who stands there. `console=tty0` comes last so that a person
/// at a screen sees it; stage 1's consoles and ours are all that the kernel has.
pub const CONFIGURATION: &str = r#"set timeout=3
set default=0
if serial --unit=0 --speed=115200; then
    terminal_input --append serial
    terminal_output --append serial
fi
menuentry "Bennu" {
    linux /boot/vmlinuz console=tty0 console=ttyS0,115200 quiet loglevel=4
    initrd /boot/initrd.img
}
menuentry "Bennu, with the kernel's messages" {
    linux /boot/vmlinuz console=tty0 console=ttyS0,115200
    initrd /boot/initrd.img
}
"#;

/// What GRUB needs to read its configuration, the kernel and the initrd from the disc.
const MODULES: [&str; 12] = [
    "biosdisk",
    "iso9660",
    "part_gpt",
    "part_msdos",
    "linux",
    "normal",
    "search",
    "search_fs_file",
    "serial",
    "test",
    "terminal",
    "echo",
];

/// What a BIOS starts when the file is a disk.
pub fn hybrid(packages: &Path) -> PathBuf {
    packages.join("usr/lib/grub/i386-pc/boot_hybrid.img")
}

/// Makes the image that El Torito names for BIOS.
pub fn bios(packages: &Path, out: &Path) -> Result<()> {
    let made = Command::new("grub-mkimage")
        .args(["--format", "i386-pc-eltorito", "--prefix", "/boot/grub", "--directory"])
        .arg(packages.join("usr/lib/grub/i386-pc"))
        .arg("--output")
        .arg(out)
        .args(MODULES)
        .output()
        .context("cannot run grub-mkimage (package grub-common)")?;
    if !made.status.success() {
        bail!("grub-mkimage failed: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}
