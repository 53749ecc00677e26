//! Root filesystems that take no time to import: a kernel that is all header, and what it needs built in.

use anyhow::{Context, Result};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{command, home::Home};

/// `uname -r` of the kernel.
pub const RELEASE: &str = "6.1.0-0-test";

/// A tree that can be imported; tests take parts away.
#[derive(Debug)]
pub struct Tree(PathBuf);

impl Tree {
    /// One of its own name.
    pub fn new(home: &Home, name: &str) -> Result<Self> {
        let tree = Self(home.dir().join(name));
        let modules = format!("lib/modules/{RELEASE}");
        tree.file("sbin/init", b"#!/bin/sh\n")?;
        tree.file("etc/os-release", b"PRETTY_NAME=\"A small system\"\n")?;
        tree.file(&format!("boot/vmlinuz-{RELEASE}"), &kernel(RELEASE))?;
        // A module of no use for booting, so that nobody looks into its file.
        tree.file(&format!("{modules}/kernel/sound/silent.ko"), b"no module")?;
        tree.file(&format!("{modules}/modules.dep"), b"kernel/sound/silent.ko:\n")?;
        tree.file(&format!("{modules}/modules.alias"), b"alias snd-card silent\n")?;
        let builtin = "kernel/drivers/block/loop.ko\nkernel/fs/overlayfs/overlay.ko\nkernel/fs/squashfs/squashfs.ko\n";
        tree.file(&format!("{modules}/modules.builtin"), builtin.as_bytes())?;
        Ok(tree)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// As a source for `bennu image import`.
    pub fn source(&self) -> String {
        format!("dir:{}", self.0.display())
    }

    /// Writes a file, and the directories above it.
    pub fn file(&self, path: &str, bytes: &[u8]) -> Result<()> {
        write(&self.0.join(path), bytes)
    }

    /// Takes a file or directory away.
    pub fn without(self, path: &str) -> Result<Self> {
        let gone = self.0.join(path);
        let removed = if gone.is_dir() { fs::remove_dir_all(&gone) } else { fs::remove_file(&gone) };
        removed.with_context(|| format!("cannot remove {}", gone.display()))?;
        Ok(self)
    }

    /// The tree as GNU tar packs it.
    pub fn tar(&self) -> Result<Vec<u8>> {
        command::run_bytes(Command::new("tar").args(["--format=pax", "-cf", "-", "-C"]).arg(&self.0).arg("."))
    }
}

/// Writes a file, and the directories above it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let written = fs::File::create(path).and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A bzImage's header (Documentation/arch/x86/boot.rst) with its version string, and nothing after it.
pub fn kernel(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x4000];
    image[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x300_u16.to_le_bytes());
    image[0x236] = 1;
    let version = format!("{release} (root@test) #1 SMP");
    image[0x500..0x500 + version.len()].copy_from_slice(version.as_bytes());
    image
}

/// Chance that can be had again: xorshift64.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From the clock, with the seed that brings the same again.
    pub fn of_now() -> (Self, u64) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = now.as_millis() as u64;
        (Self::new(seed), seed)
    }

    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // xorshift's low bits are its weakest.
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() >> 16) as usize % end.max(1)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.word().to_le_bytes()).take(count.div_ceil(8));
        let mut bytes: Vec<u8> = words.flatten().collect();
        bytes.truncate(count);
        bytes
    }
}
