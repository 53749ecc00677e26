//! Partition tables: GPT (UEFI specification, "GUID Partition Table (GPT) Disk Layout"), MBR with its extended
//! partitions, or none at all.

use super::{Disk, DiskError, superblock};
use bennu_rules::facts::Architecture;
use std::io;

/// GPT names 128 entries, and no tool makes more than a thousand.
const MOST_ENTRIES: u32 = 1024;
const LARGEST_ENTRY: u32 = 4096;
/// Logical partitions hang in a chain, which may be made to have no end.
const MOST_LOGICAL: u32 = 128;

/// What a partition says it is for (the Discoverable Partitions Specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The root of a system of this architecture.
    Root(Architecture),
    /// The EFI system partition.
    System,
    /// `/boot`, by the name of XBOOTLDR.
    Boot,
    /// Anything: most tools call every Linux partition the same.
    Unknown,
    /// Surely no file system: BIOS boot, swap, LVM.
    Other,
}

/// A stretch of the disk with a file system on it, perhaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// As Linux counts; 0 is the disk itself, without a table.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What it is for.
    pub role: Role,
}

impl Partition {
    /// For people.
    pub fn describe(&self) -> String {
        if self.number == 0 { "the disk".to_owned() } else { format!("partition {}", self.number) }
    }
}

/// The disk's partitions, in the order of their numbers.
pub fn partitions(disk: &Disk) -> Result<Vec<Partition>, DiskError> {
    let whole = Partition { number: 0, start: 0, length: disk.size(), role: Role::Unknown };
    let mut sector = [0; 512];
    let there = disk.size().min(512) as usize;
    read(disk, &mut sector[..there], 0)?;
    let entries = mbr_entries(&sector);
    for size in [512, 4096] {
        if let Some(found) = gpt(disk, size)? {
            return Ok(found);
        }
    }
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        return refuse(
            "is a GPT whose two copies are both damaged. Repair it (sgdisk --verify), or copy the disk again",
        );
    }
    // The boot sector of FAT, and that before ext4, may end as a table does.
    let is_one = superblock::is_known(disk).map_err(failed("the start"))?;
    if is_one || entries.is_empty() {
        return Ok(vec![whole]);
    }
    mbr(disk, &entries)
}

fn refuse<T>(what: impl Into<String>) -> Result<T, DiskError> {
    Err(DiskError::Table(what.into()))
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::Read { what: what.to_owned(), source }
}

fn read(disk: &Disk, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
    disk.read_exact_at(buffer, offset).map_err(failed("the partition table"))
}

const PROTECTIVE: u8 = 0xee;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// An entry of an MBR, in sectors.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where in the table it stands.
    slot: u32,
    kind: u8,
    start: u64,
    count: u64,
}

fn mbr_entries(sector: &[u8; 512]) -> Vec<Entry> {
    if sector[510..] != [0x55, 0xaa] {
        return Vec::new();
    }
    let slots = sector[446..510].as_chunks::<16>().0.iter().zip(1..);
    let entry = |(bytes, slot): (&[u8; 16], u32)| {
        let number =
            |at: usize| u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        Entry { slot, kind: bytes[4], start: number(8), count: number(12) }
    };
    // What is no table has anything where a status stands.
    if sector[446..510].as_chunks::<16>().0.iter().any(|bytes| bytes[0] & 0x7f != 0) {
        return Vec::new();
    }
    slots.map(entry).filter(|entry| entry.kind != 0 && entry.count > 0).collect()
}

/// MBRs count in sectors of 512 bytes but on disks with larger ones, of which an image does not tell: the size with
/// which all partitions lie on the disk, and the first has something on it, is the right one.
fn mbr(disk: &Disk, entries: &[Entry]) -> Result<Vec<Partition>, DiskError> {
    let first = mbr_of(disk, entries, 512);
    let holds =
        |found: &[Partition]| found.iter().any(|part| superblock::magic(disk, part.start).ok().flatten().is_some());
    match first {
        Ok(found) if holds(&found) => Ok(found),
        first => match mbr_of(disk, entries, 4096) {
            Ok(found) if holds(&found) => Ok(found),
            _ => first,
        },
    }
}

fn mbr_of(disk: &Disk, entries: &[Entry], sector: u64) -> Result<Vec<Partition>, DiskError> {
    let mut found = Vec::new();
    for entry in entries {
        if EXTENDED.contains(&entry.kind) {
            logical(disk, entry, sector, &mut found)?;
        } else {
            let role = match entry.kind {
                0xef => Role::System,
                0x82 | 0x8e | 0xfd => Role::Other,
                _ => Role::Unknown,
            };
            found.push(within(disk, entry.slot, entry.start, entry.count, sector, role)?);
        }
    }
    found.sort_by_key(|partition| partition.number);
    Ok(found)
}

/// The chain of logical partitions: each link names one, and where the next link is, counted from the first.
fn logical(disk: &Disk, extended: &Entry, size: u64, found: &mut Vec<Partition>) -> Result<(), DiskError> {
    let mut link = extended.start;
    for number in 5..5 + MOST_LOGICAL {
        let mut sector = [0; 512];
        let Some(offset) = link.checked_mul(size) else { break };
        read(disk, &mut sector, offset)?;
        let entries = mbr_entries(&sector);
        let (links, parts): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| EXTENDED.contains(&entry.kind));
        if let Some(part) = parts.first() {
            found.push(within(disk, number, link + part.start, part.count, size, Role::Unknown)?);
        }
        match links.first().map(|next| extended.start + next.start) {
            None => return Ok(()),
            // Tools write the chain in order, and one that goes back is a loop.
            Some(next) if next <= link => return refuse("has logical partitions in a loop. Copy the disk again"),
            Some(next) => link = next,
        }
    }
    refuse(format!("has more than {MOST_LOGICAL} logical partitions. Copy the disk again"))
}

/// A partition that lies on the disk.
fn within(disk: &Disk, number: u32, start: u64, count: u64, sector: u64, role: Role) -> Result<Partition, DiskError> {
    let bytes = start.checked_mul(sector).zip(count.checked_mul(sector));
    match bytes {
        Some((start, length)) if start.checked_add(length).is_some_and(|end| end <= disk.size()) => {
            Ok(Partition { number, start, length, role })
        }
        _ => refuse(format!(
            "says that partition {number} has {count} sectors from sector {start} on, and the disk has only {} bytes: \
             it is cut, or the table is wrong. Copy the disk again",
            disk.size()
        )),
    }
}

/// The GPT of a disk with sectors of this size: the first copy, else the one at its end.
fn gpt(disk: &Disk, sector: u64) -> Result<Option<Vec<Partition>>, DiskError> {
    let last = (disk.size() / sector).saturating_sub(1);
    for place in [1, last] {
        if let Some(header) = gpt_header(disk, sector, place)? {
            return gpt_entries(disk, sector, &header).map(Some);
        }
    }
    Ok(None)
}

struct Header {
    table: Vec<u8>,
    entry: usize,
}

/// A header and its table, if both are what their checksums say.
fn gpt_header(disk: &Disk, sector: u64, place: u64) -> Result<Option<Header>, DiskError> {
    const LENGTH: usize = 92;
    let mut header = [0; LENGTH];
    let offset = place * sector;
    if offset.checked_add(sector).is_none_or(|end| end > disk.size()) {
        return Ok(None);
    }
    read(disk, &mut header, offset)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
    if &header[..8] != b"EFI PART" || number(12) as usize != LENGTH || long(24) != place {
        return Ok(None);
    }
    let mut unsummed = header;
    unsummed[16..20].fill(0);
    if crc32(&unsummed) != number(16) {
        return Ok(None);
    }
    let (table, count, entry, sum) = (long(72), number(80), number(84), number(88));
    if count > MOST_ENTRIES || !(128..=LARGEST_ENTRY).contains(&entry) || !entry.is_multiple_of(8) {
        return refuse(format!("has {count} entries of {entry} bytes, which makes no sense. Copy the disk again"));
    }
    let length = u64::from(count) * u64::from(entry);
    let Some(offset) = table.checked_mul(sector) else { return Ok(None) };
    if offset.checked_add(length).is_none_or(|end| end > disk.size()) {
        return Ok(None);
    }
    let mut table = vec![0; length as usize];
    read(disk, &mut table, offset)?;
    Ok((crc32(&table) == sum).then_some(Header { table, entry: entry as usize }))
}

fn gpt_entries(disk: &Disk, sector: u64, header: &Header) -> Result<Vec<Partition>, DiskError> {
    let mut found = Vec::new();
    for (entry, number) in header.table.chunks_exact(header.entry).zip(1..) {
        let mut kind = [0; 16];
        kind.copy_from_slice(&entry[..16]);
        if kind == [0; 16] {
            continue;
        }
        let long = |at: usize| entry[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (first, last) = (long(32), long(40));
        let count = last.checked_sub(first).and_then(|more| more.checked_add(1));
        let Some(count) = count else {
            return refuse(format!("says that partition {number} ends before it begins. Copy the disk again"));
        };
        found.push(within(disk, number, first, count, sector, role(kind))?);
    }
    Ok(found)
}

/// Type GUIDs as text, and what they stand for.
const ROLES: [(&str, Role); 12] = [
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", Role::Root(Architecture::X86_64)),
    ("44479540-f297-41b2-9af7-d131d5f0458a", Role::Root(Architecture::X86)),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", Role::Root(Architecture::Arm64)),
    ("69dad710-2ce4-4e3c-b16c-21a1d49abed3", Role::Root(Architecture::Arm32)),
    ("72ec70a6-cf74-40e6-bd49-4bda08e8f224", Role::Root(Architecture::Riscv64)),
    ("77055800-792c-4f94-b39a-98c91b762bb6", Role::Root(Architecture::Loongarch64)),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", Role::System),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", Role::Boot),
    ("21686148-6449-6e6f-744e-656564454649", Role::Other),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", Role::Other),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", Role::Other),
    ("9e1a2d38-c612-4316-aa26-8b49521e5a8b", Role::Other),
];

fn role(guid: [u8; 16]) -> Role {
    let text = guid_text(guid);
    ROLES.iter().find(|(known, _)| *known == text).map_or(Role::Unknown, |(_, role)| *role)
}

/// The first three groups are stored with their low byte first.
fn guid_text(guid: [u8; 16]) -> String {
    let hex = |bytes: &mut dyn Iterator<Item = &u8>| bytes.map(|byte| format!("{byte:02x}")).collect::<String>();
    [
        hex(&mut guid[..4].iter().rev()),
        hex(&mut guid[4..6].iter().rev()),
        hex(&mut guid[6..8].iter().rev()),
        hex(&mut guid[8..10].iter()),
        hex(&mut guid[10..].iter()),
    ]
    .join("-")
}

/// The sum of GPT's tables, which is gzip's too.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}
