//! What is on a disk. A disk is formatted only when nothing is: what looks like nothing to one table of signatures is
//! somebody's data to another, so the first and the last MiB must be zero as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// At both ends of a disk.
const MARGIN: u64 = 1 << 20;
/// At its beginning: partitions begin 1 or 8 MiB into a disk, and the tables of LVM, RAID and encryption come before that.
const HEAD: u64 = 16 << 20;
/// Places all over a disk, and how much of each is looked at.
const SAMPLES: u64 = 1024;
const PAGE: u64 = 4096;

/// What is known of what lies on a disk or a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Blank,
    /// A file system with a label.
    FileSystem {
        /// As mount(2) calls it.
        kind: &'static str,
        /// Its label; may be empty.
        label: String,
    },
    /// Something else: in words.
    Other(&'static str),
}

/// A text at a place that says what it is.
struct Signature {
    at: u64,
    magic: &'static [u8],
    means: &'static str,
}

const fn sign(at: u64, magic: &'static [u8], means: &'static str) -> Signature {
    Signature { at, magic, means }
}

/// Places and magic numbers as each format's documentation, and libblkid's tables, have them. Those beyond the first MiB are
/// what remains of a file system whose beginning was wiped.
const SIGNATURES: &[Signature] = &[
    sign(512, b"EFI PART", "a GPT partition table"),
    sign(4096, b"EFI PART", "a GPT partition table"),
    sign(510, &[0x55, 0xaa], "an MBR partition table or a boot sector"),
    sign(0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    sign(0x400_0040, b"_BHRfS_M", "a btrfs file system (its second superblock)"),
    sign(0, b"LUKS\xba\xbe", "LUKS encryption"),
    sign(0x4000, b"SKUL\xba\xbe", "LUKS encryption (its second header)"),
    sign(512 + 24, b"LVM2 001", "an LVM physical volume"),
    sign(24, b"LVM2 001", "an LVM physical volume"),
    sign(4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a Linux RAID"),
    sign(0, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a Linux RAID"),
    sign(4086, b"SWAPSPACE2", "swap space"),
    sign(3, b"NTFS    ", "an NTFS file system"),
    sign(3, b"EXFAT   ", "an exFAT file system"),
    sign(54, b"FAT1", "a FAT file system"),
    sign(82, b"FAT32", "a FAT file system"),
    sign(0, b"hsqs", "a squashfs"),
    sign(1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS"),
    sign(1024, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS file system"),
    sign(0x8001, b"CD001", "an ISO 9660 file system"),
    sign(0x1_0034, b"ReIsEr", "a ReiserFS file system"),
    sign(0x8000, b"JFS1", "a JFS file system"),
    sign(24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "a bcache device"),
    sign(4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "a bcache device"),
    sign(0x10_0000, &[0x0d, 0xd0, 0x01, 0xc0], "a VMFS volume"),
    sign(0x20_0000, &[0x5e, 0xf1, 0xab, 0x2f], "a VMFS file system"),
    // The second superblocks of ext2, ext3 and ext4 with blocks of 1, 2 and 4 KiB.
    sign(8193 * 1024 + 56, &[0x53, 0xef], "an ext file system (its second superblock)"),
    sign(16384 * 2048 + 56, &[0x53, 0xef], "an ext file system (its second superblock)"),
    sign(32768 * 4096 + 56, &[0x53, 0xef], "an ext file system (its second superblock)"),
];

/// Looks at a device of this many bytes. What cannot be read is an error, and no reason to think it blank.
pub fn look(device: &File, size: u64) -> io::Result<Found> {
    if let Some(found) = file_system(device, size)? {
        return Ok(found);
    }
    for signature in SIGNATURES {
        if has(device, size, signature.at, signature.magic)? {
            return Ok(Found::Other(signature.means));
        }
    }
    // A disk that is smaller than both margins is looked at twice, which does no harm.
    let margins = [(0, HEAD.min(size)), (size.saturating_sub(MARGIN), MARGIN.min(size))];
    // Where a table of partitions was wiped, what they held is still there.
    let samples = (0..SAMPLES).map(|n| (size / SAMPLES * n / PAGE * PAGE, PAGE.min(size)));
    for (from, length) in margins.into_iter().chain(samples) {
        if !is_zero(device, from, length.min(size.saturating_sub(from)))? {
            return Ok(Found::Other("data of a kind that is not known here"));
        }
    }
    Ok(Found::Blank)
}

/// The file systems that are made and mounted here, with their labels.
fn file_system(device: &File, size: u64) -> io::Result<Option<Found>> {
    if has(device, size, 0, b"XFSB")? {
        return Ok(Some(Found::FileSystem { kind: "xfs", label: label(device, 108, 12)? }));
    }
    if !has(device, size, 1024 + 56, &[0x53, 0xef])? {
        return Ok(None);
    }
    let label = label(device, 1024 + 120, 16)?;
    let (mut compatible, mut incompatible) = ([0; 4], [0; 4]);
    device.read_exact_at(&mut compatible, 1024 + 92)?;
    device.read_exact_at(&mut incompatible, 1024 + 96)?;
    // Extents make it ext4, a journal without them ext3 (linux/fs/ext4/ext4.h). All three mount as ext4.
    let (extents, journal) = (u32::from_le_bytes(incompatible) & 0x40 != 0, u32::from_le_bytes(compatible) & 4 != 0);
    let kind = match (extents, journal) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    Ok(Some(Found::FileSystem { kind, label }))
}

fn has(device: &File, size: u64, at: u64, magic: &[u8]) -> io::Result<bool> {
    if at.saturating_add(magic.len() as u64) > size {
        return Ok(false);
    }
    let mut there = vec![0; magic.len()];
    device.read_exact_at(&mut there, at)?;
    Ok(there == magic)
}

fn label(device: &File, at: u64, length: usize) -> io::Result<String> {
    let mut text = vec![0; length];
    device.read_exact_at(&mut text, at)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn is_zero(device: &File, from: u64, length: u64) -> io::Result<bool> {
    let mut piece = vec![0; 64 << 10];
    let mut at = from;
    let end = from.saturating_add(length);
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
        device.read_exact_at(&mut piece[..part], at)?;
        if piece[..part].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += part as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const SIZE: u64 = 300 << 20;

    fn disk() -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let open = File::options().read(true).write(true).open(file.path()).unwrap();
        (file, open)
    }

    #[test]
    fn zeros_are_blank_and_a_byte_in_either_margin_is_not() {
        let (_file, open) = disk();
        assert_eq!(look(&open, SIZE).unwrap(), Found::Blank);
        for at in [0, 700, MARGIN - 1, SIZE - MARGIN, SIZE - 1] {
            open.write_all_at(&[1], at).unwrap();
            assert!(matches!(look(&open, SIZE).unwrap(), Found::Other(_)), "{at}");
            open.write_all_at(&[0], at).unwrap();
        }
        for size in [0, 512, 4096] {
            open.set_len(size).unwrap();
            assert_eq!(look(&open, size).unwrap(), Found::Blank, "{size}");
        }
        assert!(look(&open, SIZE).is_err(), "what cannot be read is not blank");
    }

    #[test]
    fn every_signature_is_seen_alone() {
        for signature in SIGNATURES {
            let (_file, open) = disk();
            open.write_all_at(signature.magic, signature.at).unwrap();
            assert_eq!(look(&open, SIZE).unwrap(), Found::Other(signature.means));
        }
    }

    #[test]
    fn what_mkfs_makes_is_known_by_its_label_and_even_with_its_beginning_wiped() {
        for (kind, program, size) in
            [("ext4", "mkfs.ext4", SIZE), ("ext2", "mkfs.ext2", SIZE), ("ext3", "mkfs.ext3", SIZE)]
        {
            let (file, open) = disk();
            let made = Command::new(program).args(["-q", "-F", "-L", "DATA"]).arg(file.path()).output();
            let made = made.unwrap_or_else(|error| panic!("{program}: {error}"));
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            assert_eq!(look(&open, size).unwrap(), Found::FileSystem { kind, label: "DATA".into() });
            open.write_all_at(&vec![0; 1 << 20], 0).unwrap();
            assert!(matches!(look(&open, size).unwrap(), Found::Other(_)), "{kind}");
        }
    }
}
