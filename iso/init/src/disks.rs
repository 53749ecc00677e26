//! Block devices and what their first bytes say is on them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a block device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file system of the ext family, with its label.
    Ext(String),
    /// FAT, as on a USB stick.
    Fat,
    /// A disc.
    Iso,
    /// Something else, or nothing at all.
    Other,
}

/// A disk or a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/sda1`.
    pub device: PathBuf,
    /// What is on it.
    pub content: Content,
}

/// Every disk and partition that the kernel knows, in its order of names.
pub fn all() -> Vec<Disk> {
    let mut names: Vec<String> = std::fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["loop", "ram", "dm-", "zram"].iter().any(|virtual_one| name.starts_with(virtual_one)))
        .collect();
    names.sort();
    let disk = |name: String| {
        let device = Path::new("/dev").join(name);
        File::open(&device).ok().map(|file| Disk { content: content(&file), device })
    };
    names.into_iter().filter_map(disk).collect()
}

/// Reads the magic numbers where each file system has its own.
fn content(file: &File) -> Content {
    const EXT_SUPERBLOCK: u64 = 1024;
    const EXT_MAGIC: (u64, [u8; 2]) = (0x38, [0x53, 0xef]);
    const EXT_LABEL: (u64, usize) = (0x78, 16);
    const ISO_MAGIC: (u64, &[u8]) = (0x8001, b"CD001");
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).map(|()| bytes).unwrap_or_default()
    };
    if read(EXT_SUPERBLOCK + EXT_MAGIC.0, 2) == EXT_MAGIC.1 {
        let label = read(EXT_SUPERBLOCK + EXT_LABEL.0, EXT_LABEL.1);
        let text = label.split(|byte| *byte == 0).next().unwrap_or_default();
        return Content::Ext(String::from_utf8_lossy(text).into_owned());
    }
    // The BIOS parameter block names the file system in one of two places, and the sector ends in its signature.
    let is_fat = read(510, 2) == [0x55, 0xaa] && (read(54, 3) == b"FAT" || read(82, 5) == b"FAT32");
    if is_fat {
        return Content::Fat;
    }
    if read(ISO_MAGIC.0, ISO_MAGIC.1.len()) == ISO_MAGIC.1 { Content::Iso } else { Content::Other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn made(command: &mut Command, file: &Path) -> Content {
        File::create(file).unwrap().set_len(16 << 20).unwrap();
        let done = command.arg(file).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        content(&File::open(file).unwrap())
    }

    #[test]
    fn file_systems_are_told_by_what_their_tools_write() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("disk");
        let ext = made(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-L", "BENNU-STATE"]), &file);
        assert_eq!(ext, Content::Ext("BENNU-STATE".into()));
        assert_eq!(made(Command::new("/sbin/mkfs.vfat").args(["-F", "16"]), &file), Content::Fat);
        assert_eq!(made(Command::new("/sbin/mkfs.vfat").args(["-F", "32"]), &file), Content::Fat);
        File::create(&file).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(content(&File::open(&file).unwrap()), Content::Other);
        File::create(&file).unwrap();
        assert_eq!(content(&File::open(&file).unwrap()), Content::Other);
    }
}
