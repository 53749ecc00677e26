//! Block devices and what their first bytes say is on them.

use bennu_host::vault::STICK_FROM;
use bennu_stage1::persistent::blank::{self, Found};
use rustix::fs::OFlags;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a block device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file system of the ext family, with its label.
    Ext(String),
    /// LUKS encryption, with its label.
    Luks(String),
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

/// A whole disk that can be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// `/dev/sda`.
    pub device: PathBuf,
    /// What its maker calls this one; empty when it does not say.
    pub serial: String,
    /// What its maker calls all of its kind; may be empty.
    pub model: String,
    /// Bytes.
    pub size: u64,
    /// What is on it, or why that cannot be told: it is in use, or cannot be read.
    pub content: Result<Found, String>,
    /// Its partitions.
    pub partitions: Vec<PathBuf>,
}

impl Whole {
    /// Whether nothing at all is on it.
    pub fn is_blank(&self) -> bool {
        self.partitions.is_empty() && self.content == Ok(Found::Blank)
    }
}

/// For people: device, serial, size, content.
impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, serial, size, .. } = self;
        write!(f, "{} (serial '{serial}', {} MB, ", device.display(), size / 1_000_000)?;
        match &self.content {
            Ok(Found::Blank) if self.is_blank() => f.write_str("empty)"),
            Ok(Found::Blank) => f.write_str("with partitions)"),
            Ok(Found::FileSystem { kind, label }) if label.is_empty() => write!(f, "{kind})"),
            Ok(Found::FileSystem { kind, label }) => write!(f, "{kind} '{label}')"),
            Ok(Found::Other(what)) => write!(f, "{what})"),
            Err(why) => write!(f, "not to be used: {why})"),
        }
    }
}

const NOT_DISKS: [&str; 9] = ["loop", "ram", "dm-", "zram", "sr", "fd", "md", "nbd", "mtd"];
const SECTOR: u64 = 512;

/// Every whole disk that can be written to, in the kernel's order of names.
pub fn whole() -> Vec<Whole> {
    let mut names = names("/sys/block", &NOT_DISKS);
    // An eMMC's areas that it boots from and keeps keys in are parts of the disk beside them.
    names.retain(|name| !name.starts_with("mmcblk") || !["boot", "rpmb"].iter().any(|area| name.contains(area)));
    names.iter().filter_map(|name| one(name)).collect()
}

fn one(name: &str) -> Option<Whole> {
    let sys = Path::new("/sys/block").join(name);
    let read = |file: &str| std::fs::read_to_string(sys.join(file)).ok().map(|text| text.trim().to_owned());
    if read("ro").as_deref() != Some("0") || read("hidden").as_deref() == Some("1") {
        return None;
    }
    let size = read("size")?.parse::<u64>().ok()? * SECTOR;
    let device = Path::new("/dev").join(name);
    let entries = std::fs::read_dir(&sys).ok()?.flatten().filter(|entry| entry.path().join("partition").exists());
    let mut partitions: Vec<PathBuf> = entries.map(|entry| Path::new("/dev").join(entry.file_name())).collect();
    partitions.sort();
    let serial = read("serial").or_else(|| read("device/serial")).or_else(|| unit_serial(&sys)).unwrap_or_default();
    let model = read("device/model").unwrap_or_default();
    (size > 0).then(|| Whole { content: look(&device, size), device, serial, model, size, partitions })
}

/// What is on it, opened as nobody else has it: a disk that is mounted, or part of something, is none to prepare.
fn look(device: &Path, size: u64) -> Result<Found, String> {
    let alone = OpenOptions::new().read(true).custom_flags(OFlags::EXCL.bits().cast_signed()).open(device);
    alone.and_then(|file| blank::look(&file, size)).map_err(|error| error.to_string())
}

/// SCSI's page of vital product data with the unit's serial number (SPC-4 §7.8.16): four bytes of head, then text.
fn unit_serial(sys: &Path) -> Option<String> {
    let page = std::fs::read(sys.join("device/vpd_pg80")).ok()?;
    Some(String::from_utf8_lossy(page.get(4..)?).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// Every disk and partition that the kernel knows, in its order of names.
pub fn all() -> Vec<Disk> {
    let names = names("/sys/class/block", &["loop", "ram", "dm-", "zram"]);
    let disk = |name: String| {
        let device = Path::new("/dev").join(name);
        File::open(&device).ok().map(|file| Disk { content: content(&file, 0), device })
    };
    names.into_iter().filter_map(disk).collect()
}

/// A whole disk that a disc was written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stick {
    /// `/dev/sda`.
    pub device: PathBuf,
    /// Bytes.
    pub size: u64,
    /// What lies behind the disc, where a state may.
    pub behind: Content,
    /// A partition that reaches there.
    pub beyond: Option<String>,
}

/// Every medium that is no disc in a drive and can be written to.
pub fn sticks() -> Vec<Stick> {
    names("/sys/block", &NOT_DISKS).iter().filter_map(|name| stick(name)).collect()
}

fn stick(name: &str) -> Option<Stick> {
    let read = |file: &str| std::fs::read_to_string(Path::new("/sys/block").join(name).join(file)).ok();
    let device = Path::new("/dev").join(name);
    let file = File::open(&device).ok().filter(|file| content(file, 0) == Content::Iso)?;
    let size = read("size")?.trim().parse::<u64>().ok()? * SECTOR;
    let is_writable = read("ro")?.trim() == "0";
    is_writable.then(|| Stick {
        behind: content(&file, STICK_FROM),
        beyond: beyond(&Path::new("/sys/block").join(name), STICK_FROM),
        device,
        size,
    })
}

/// The first partition of a disk that ends behind this byte.
fn beyond(sys: &Path, byte: u64) -> Option<String> {
    names(sys.to_str()?, &[]).into_iter().find(|name| {
        let sectors = |file: &str| {
            let text = std::fs::read_to_string(sys.join(name).join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        sys.join(name).join("partition").exists()
            && sectors("start").zip(sectors("size")).is_none_or(|(start, size)| (start + size) * SECTOR > byte)
    })
}

/// The names there, in order, without those of some kinds.
fn names(directory: &str, without: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !without.iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names
}

/// Reads the magic numbers where each file system that begins at this byte has its own.
fn content(file: &File, from: u64) -> Content {
    const EXT_SUPERBLOCK: u64 = 1024;
    const EXT_MAGIC: (u64, [u8; 2]) = (0x38, [0x53, 0xef]);
    const EXT_LABEL: (u64, usize) = (0x78, 16);
    const ISO_MAGIC: (u64, &[u8]) = (0x8001, b"CD001");
    const LUKS_MAGIC: &[u8] = b"LUKS\xba\xbe\0\x02";
    const LUKS_LABEL: (u64, usize) = (24, 48);
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, from + at).map(|()| bytes).unwrap_or_default()
    };
    let label = |(at, length): (u64, usize)| {
        let label = read(at, length);
        let text = label.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    if read(EXT_SUPERBLOCK + EXT_MAGIC.0, 2) == EXT_MAGIC.1 {
        return Content::Ext(label((EXT_SUPERBLOCK + EXT_LABEL.0, EXT_LABEL.1)));
    }
    if read(0, LUKS_MAGIC.len()) == LUKS_MAGIC {
        return Content::Luks(label(LUKS_LABEL));
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

    #[test]
    fn a_partition_that_reaches_behind_the_disc_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let partition = |name: &str, start: u64, size: u64| {
            let place = sys.path().join(name);
            std::fs::create_dir_all(&place).unwrap();
            for (file, text) in [("partition", "1".into()), ("start", start.to_string()), ("size", size.to_string())] {
                std::fs::write(place.join(file), format!("{text}\n")).unwrap();
            }
        };
        std::fs::create_dir(sys.path().join("queue")).unwrap();
        partition("sda1", 64, 200_000);
        assert_eq!(beyond(sys.path(), STICK_FROM), None);
        partition("sda3", 300_000, 2_097_152 - 300_000);
        assert_eq!(beyond(sys.path(), STICK_FROM), None, "it ends where the state begins");
        partition("sda3", 300_000, 2_097_152 - 300_000 + 1);
        assert_eq!(beyond(sys.path(), STICK_FROM).as_deref(), Some("sda3"));
    }

    #[test]
    fn a_disk_is_told_by_what_people_know_it_by() {
        let disk = |content, partitions: &[&str]| Whole {
            device: "/dev/sda".into(),
            serial: "S1".into(),
            model: "M".into(),
            size: 4_000_000_000,
            content,
            partitions: partitions.iter().map(PathBuf::from).collect(),
        };
        assert_eq!(disk(Ok(Found::Blank), &[]).to_string(), "/dev/sda (serial 'S1', 4000 MB, empty)");
        let parted = disk(Ok(Found::Blank), &["/dev/sda1"]);
        assert!(!parted.is_blank() && parted.to_string().ends_with("with partitions)"));
        let labelled = disk(Ok(Found::FileSystem { kind: "ext4", label: "BENNU-STATE".into() }), &[]);
        assert!(labelled.to_string().ends_with("ext4 'BENNU-STATE')"));
        assert!(!disk(Err("Device or resource busy".into()), &[]).is_blank());
    }

    fn made(command: &mut Command, file: &Path) -> Content {
        File::create(file).unwrap().set_len(16 << 20).unwrap();
        let done = command.arg(file).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        content(&File::open(file).unwrap(), 0)
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
        assert_eq!(content(&File::open(&file).unwrap(), 0), Content::Other);
        File::create(&file).unwrap();
        assert_eq!(content(&File::open(&file).unwrap(), 0), Content::Other);
    }

    #[test]
    fn what_lies_behind_a_disc_is_told() {
        let place = tempfile::tempdir().unwrap();
        let (inside, stick) = (place.path().join("inside"), place.path().join("stick"));
        made(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-L", "BENNU-STATE"]), &inside);
        let file = File::options().read(true).write(true).create_new(true).open(&stick).unwrap();
        file.write_all_at(b"CD001", 0x8001).unwrap();
        assert_eq!(content(&file, STICK_FROM), Content::Other);
        file.write_all_at(&std::fs::read(&inside).unwrap()[..4096], STICK_FROM).unwrap();
        assert_eq!((content(&file, 0), content(&file, STICK_FROM)), (Content::Iso, Content::Ext("BENNU-STATE".into())));
    }
}
