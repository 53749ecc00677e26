//! A FAT file system's files (Microsoft's FAT specification of 2005), as on EFI system partitions.

use super::{Contents, DiskError, Part};
use std::{collections::BTreeSet, io};

/// A table of so many bytes belongs to a file system of many gigabytes.
const LARGEST_TABLE: u64 = 64 << 20;
const LARGEST_DIRECTORY: usize = 8 << 20;
const MOST_DIRECTORIES: usize = 4096;
const ENTRY: usize = 32;
/// NAME_MAX and PATH_MAX.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4_095;

/// An open file system.
pub struct Fat<'a> {
    part: &'a Part,
    /// The cluster after each cluster; the end and free ones are out of range.
    next: Vec<u32>,
    cluster: usize,
    /// Where cluster 2 begins.
    data: u64,
    root: Root,
}

enum Root {
    /// A stretch of its own: FAT12 and FAT16.
    At(u64, usize),
    /// A chain: FAT32.
    Chain(u32),
}

/// A directory's entry.
struct Entry {
    name: String,
    is_directory: bool,
    start: u32,
    size: u32,
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl<'a> Fat<'a> {
    /// Opens what [`super::look`] found.
    pub fn open(part: &'a Part) -> io::Result<Self> {
        let mut boot = [0; 512];
        part.read_exact_at(&mut boot, 0)?;
        let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| u64::from(u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]));
        let either = |first: u64, second: u64| if first == 0 { second } else { first };
        let (sector, per_cluster) = (short(11), u64::from(boot[13]));
        let makes_sense = sector.is_power_of_two() && (512..=4096).contains(&sector) && per_cluster.is_power_of_two();
        if !makes_sense {
            return Err(damaged("its FAT has sectors and clusters of no size that there is"));
        }
        let (reserved, tables, entries) = (short(14), u64::from(boot[16]), short(17));
        let (total, table) = (either(short(19), long(32)), either(short(22), long(36)) * sector);
        let root = (entries * ENTRY as u64).div_ceil(sector) * sector;
        let root_at = reserved * sector + tables * table;
        let data = root_at + root;
        let cluster = sector * per_cluster;
        let count = (total * sector).checked_sub(data).map_or(0, |bytes| bytes / cluster);
        if count == 0 || table > LARGEST_TABLE || total * sector > part.length() || count > 0x0fff_fff0 {
            return Err(damaged("its FAT does not fit its partition"));
        }
        let bits = match count {
            WIDE.. => 32,
            MIDDLE.. => 16,
            _ => 12,
        };
        if (count + 2) * bits > table * 8 {
            return Err(damaged("its FAT is too short for its clusters"));
        }
        let mut bytes = vec![0; table as usize];
        part.read_exact_at(&mut bytes, reserved * sector)?;
        let next = chains(&bytes, count);
        let root = if count < WIDE { Root::At(root_at, root as usize) } else { Root::Chain(long(44) as u32) };
        Ok(Self { part, next, cluster: cluster as usize, data, root })
    }

    /// Adds everything below `at`, a path with a slash at its end.
    pub fn gather(&self, at: &str, out: &mut Contents<'_>) -> Result<(), DiskError> {
        let failed = |path: &str| {
            let what = format!("'/{at}{}' of its FAT", crate::archive::show(path.as_bytes()));
            move |source| DiskError::Read { what, source }
        };
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(String::new(), None)];
        while let Some((path, start)) = waiting.pop() {
            let bytes = self.directory(start).map_err(failed(&path))?;
            for entry in entries(&bytes) {
                let path = format!("{path}{}", entry.name);
                if path.len() > LONGEST_PATH {
                    return Err(failed(&path)(damaged("its path is too long")));
                }
                let placed = format!("{at}{path}");
                if !entry.is_directory {
                    out.file(placed.as_bytes(), entry.size.into(), |write| self.copy(&entry, write))?;
                    continue;
                }
                if !seen.insert(entry.start) || seen.len() > MOST_DIRECTORIES {
                    return Err(failed(&path)(damaged("its directories lead in a circle")));
                }
                out.directory(placed.as_bytes())?;
                waiting.push((format!("{path}/"), Some(entry.start)));
            }
        }
        Ok(())
    }

    fn directory(&self, start: Option<u32>) -> io::Result<Vec<u8>> {
        let start = match (start, &self.root) {
            (Some(start), _) => start,
            (None, Root::Chain(start)) => *start,
            (None, Root::At(offset, length)) => {
                let mut bytes = vec![0; *length];
                self.part.read_exact_at(&mut bytes, *offset)?;
                return Ok(bytes);
            }
        };
        let mut bytes = Vec::new();
        self.follow(start, &mut |cluster| {
            if bytes.len() + cluster.len() > LARGEST_DIRECTORY {
                return Err(damaged("it is a directory that is too large"));
            }
            bytes.extend_from_slice(cluster);
            Ok(true)
        })?;
        Ok(bytes)
    }

    fn copy(&self, entry: &Entry, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut left = entry.size as usize;
        self.follow(entry.start, &mut |cluster| {
            let count = left.min(cluster.len());
            write(&cluster[..count])?;
            left -= count;
            Ok(left > 0)
        })
    }

    /// Gives the clusters of a chain, until `take` has enough.
    fn follow(&self, start: u32, take: &mut dyn FnMut(&[u8]) -> io::Result<bool>) -> io::Result<()> {
        let mut buffer = vec![0; self.cluster];
        let mut at = start;
        for _ in 0..self.next.len() {
            if at < 2 || at as usize >= self.next.len() {
                return Ok(());
            }
            self.part.read_exact_at(&mut buffer, self.data + u64::from(at - 2) * self.cluster as u64)?;
            if !take(&buffer)? {
                return Ok(());
            }
            at = self.next[at as usize];
        }
        Err(damaged("its clusters lead in a circle"))
    }
}

/// From so many clusters on a FAT is FAT32, and from so many on FAT16.
const WIDE: u64 = 65_525;
const MIDDLE: u64 = 4_085;

fn chains(table: &[u8], count: u64) -> Vec<u32> {
    let byte = |at: usize| u32::from(*table.get(at).unwrap_or(&0xff));
    (0..count as usize + 2)
        .map(|number| match count {
            WIDE.. => {
                (byte(4 * number) | byte(4 * number + 1) << 8 | byte(4 * number + 2) << 16 | byte(4 * number + 3) << 24)
                    & 0x0fff_ffff
            }
            MIDDLE.. => byte(2 * number) | byte(2 * number + 1) << 8,
            _ => {
                let pair = byte(number * 3 / 2) | byte(number * 3 / 2 + 1) << 8;
                if number.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
            }
        })
        .collect()
}

/// The files and directories of a directory, without itself and the one above.
fn entries(bytes: &[u8]) -> Vec<Entry> {
    const LONG_NAME: u8 = 0x0f;
    const VOLUME: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    let mut found = Vec::new();
    let mut long: Vec<u16> = Vec::new();
    for entry in bytes.as_chunks::<ENTRY>().0 {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (0xe5, _) => long.clear(),
            (_, LONG_NAME) => {
                // Thirteen letters each, the last ones first.
                let letters = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
                let letters = letters.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
                long.splice(..0, letters.into_iter().take_while(|letter| *letter != 0));
            }
            (_, attributes) => {
                let long_name = String::from_utf16_lossy(&std::mem::take(&mut long));
                // Names of more letters than a long name has are none.
                let is_long = (1..=LONGEST_NAME * 3).contains(&long_name.len());
                let name = if is_long { long_name } else { short_name(entry) };
                if attributes & VOLUME != 0 || matches!(name.as_str(), "." | ".." | "") || name.contains('/') {
                    continue;
                }
                let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                let (start, size) = (half(20) << 16 | half(26), half(28) | half(30) << 16);
                found.push(Entry { name, is_directory: attributes & DIRECTORY != 0, start, size });
            }
        }
    }
    found
}

fn short_name(entry: &[u8; ENTRY]) -> String {
    let part = |bytes: &[u8], small: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if small { text.to_lowercase() } else { text }
    };
    // Bits of Windows NT's for names that are small letters alone.
    let (base, end) = (part(&entry[..8], entry[12] & 8 != 0), part(&entry[8..11], entry[12] & 0x10 != 0));
    if end.is_empty() { base } else { format!("{base}.{end}") }
}
