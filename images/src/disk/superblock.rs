//! What is on a partition, by the numbers at its start.

use super::{Disk, DiskError, Part, Partition};
use crate::verity::BLOCK;
use std::io;

/// Magic numbers: where, what, and of what.
const MAGICS: [(u64, &[u8], &str); 10] = [
    (0x438, b"\x53\xef", "ext4"),
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "Btrfs"),
    (0, b"hsqs", "squashfs"),
    (0x400, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (0, b"LUKS\xba\xbe", "LUKS, which is encrypted"),
    (0x218, b"LVM2 001", "LVM"),
    (0x52, b"FAT32   ", "FAT"),
    (0x36, b"FAT1", "FAT"),
    (0xff6, b"SWAPSPACE2", "swap space"),
];

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// One whose files can be read here.
    Ext4(Ext4),
    /// FAT, as on EFI system partitions.
    Fat,
    /// Something else, by name; nothing that is known if that is empty.
    Other(&'static str),
}

/// What a machine's memory may hold. A table of groups comes with the size, and is held in ours.
const LARGEST: u64 = 1 << 40;
/// mke2fs's own limit.
const LEAST_GROUP: u64 = 256;

/// What ext4's superblock says (the kernel's filesystems/ext4/super.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ext4 {
    /// Bytes of the file system, which may be less than those of its partition.
    pub size: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Whether it was not unmounted: its journal holds changes that are in no file.
    pub is_dirty: bool,
}

/// Looks what is on a partition.
pub fn look(part: &Part, partition: &Partition) -> Result<Found, DiskError> {
    let failed = |source| DiskError::Read { what: format!("the start of {}", partition.describe()), source };
    let name = magic_of(|buffer, offset| part.read_exact_at(buffer, offset), part.length()).map_err(failed)?;
    match name {
        Some("ext4") => ext4(part, partition).map(Found::Ext4),
        Some("FAT") => Ok(Found::Fat),
        Some(other) => Ok(Found::Other(other)),
        None => Ok(Found::Other("")),
    }
}

/// What the disk has at an offset.
pub fn magic(disk: &Disk, start: u64) -> io::Result<Option<&'static str>> {
    let length = disk.size().saturating_sub(start);
    magic_of(|buffer, offset| disk.read_exact_at(buffer, start + offset), length)
}

/// Whether the disk is one file system, without partitions.
pub fn is_known(disk: &Disk) -> io::Result<bool> {
    Ok(magic(disk, 0)?.is_some())
}

fn magic_of(read: impl Fn(&mut [u8], u64) -> io::Result<()>, length: u64) -> io::Result<Option<&'static str>> {
    for (at, magic, name) in MAGICS {
        let mut found = [0; 10];
        let found = &mut found[..magic.len()];
        if at + magic.len() as u64 <= length {
            read(found, at)?;
            if found == magic {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

fn ext4(part: &Part, partition: &Partition) -> Result<Ext4, DiskError> {
    const RECOVER: u32 = 0x4;
    const WIDE: u32 = 0x80;
    let refuse = |what: String| Err(DiskError::Root { partition: partition.describe(), what });
    let mut block = [0; 1024];
    let read = part.read_exact_at(&mut block, 1024);
    read.map_err(|source| DiskError::Read { what: format!("the superblock of {}", partition.describe()), source })?;
    let number = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (scale, features) = (number(0x18), number(0x60));
    if scale > 6 {
        return refuse(format!("is an ext4 with blocks of 2^{scale} KiB, which makes no sense. Check it (e2fsck -fn)"));
    }
    let size_of_block = 1024_u64 << scale;
    let group = u64::from(number(0x20));
    if !(LEAST_GROUP..=8 * size_of_block).contains(&group) {
        return refuse(format!(
            "is an ext4 with groups of {group} blocks, which makes no sense. Check it (e2fsck -fn)"
        ));
    }
    let high = if features & WIDE != 0 { u64::from(number(0x150)) } else { 0 };
    let blocks = high << 32 | u64::from(number(4));
    match blocks.checked_mul(size_of_block) {
        Some(size) if size > LARGEST => refuse(format!(
            "holds an ext4 of {size} bytes, and no machine has a root of more than {LARGEST} in its memory. Make it \
             smaller (resize2fs)"
        )),
        Some(size) if size > 0 && size <= part.length() => {
            Ok(Ext4 { size, block: size_of_block, is_dirty: features & RECOVER != 0 })
        }
        _ => refuse(format!(
            "holds an ext4 of {blocks} blocks of {size_of_block} bytes, and has only {} bytes: it is cut, or was made \
             smaller than what is on it. Copy the disk again",
            part.length()
        )),
    }
}

impl Ext4 {
    /// Why the kernel would not mount it over dm-verity, if it would not: that makes a device whose smallest piece is
    /// one of its own blocks, and no file system has blocks smaller than its device's.
    pub fn objection(&self) -> Option<String> {
        (self.block < BLOCK as u64).then(|| {
            format!(
                "is an ext4 with blocks of {} bytes, and dm-verity checks blocks of {BLOCK}. Make it anew with \
                 mke2fs -b {BLOCK}, or import its tree: tar -C MOUNTPOINT -c . | bennu image import tar:- NAME:TAG",
                self.block
            )
        })
    }
}
