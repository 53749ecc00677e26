//! A disc's files.

use super::{
    IsoError,
    records::{Names, Record, RockRidge, name_of, rock_ridge_skip, u32_at},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt as _,
};

const SECTOR: u64 = 2048;
/// Volume descriptors begin here, and end with one that says so.
const FIRST: u64 = 16;
const MOST_DESCRIPTORS: u64 = 64;
/// Distributions' discs have some thousand files, in directories of some kilobytes.
const MOST_ENTRIES: usize = 200_000;
const LARGEST_DIRECTORY: u32 = 16 << 20;
const DEEPEST: usize = 32;
/// Bytes of all paths, and of all directories, together.
const MOST_BYTES: usize = 64 << 20;
/// Entries of one record that go on elsewhere.
const MOST_CONTINUATIONS: usize = 16;
const MOST_LINKS: usize = 8;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Stretches of the disc, in order: offset and bytes.
    File(Vec<(u64, u64)>),
    /// A symbolic link.
    Link(String),
}

/// A disc and its names.
#[derive(Debug)]
pub struct Disc {
    file: File,
    size: u64,
    entries: BTreeMap<String, Entry>,
    boots: bool,
}

impl Disc {
    /// Reads all directories of a disc.
    pub fn open(file: File) -> Result<Self, IsoError> {
        let failed = |source| IsoError::Read { what: "the size".to_owned(), source };
        let size = file.metadata().map_err(failed)?.len();
        let mut disc = Self { file, size, entries: BTreeMap::new(), boots: false };
        let (root, names) = disc.volume()?;
        Walk { disc: &disc, names, seen: BTreeSet::new(), entries: BTreeMap::new(), room: MOST_BYTES }.all(root).map(
            |entries| {
                disc.entries = entries;
                disc
            },
        )
    }

    /// Bytes of the disc.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether firmware finds something to start on it (the El Torito specification).
    pub fn boots(&self) -> bool {
        self.boots
    }

    /// Its files' paths, without a slash at their start.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where a file's bytes are, links followed.
    pub fn stretches(&self, path: &str) -> Option<&[(u64, u64)]> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            match self.entries.get(&path)? {
                Entry::File(stretches) => return Some(stretches),
                Entry::Link(target) => path = joined(&path, target)?,
            }
        }
        None
    }

    /// Bytes of a file.
    pub fn length(&self, path: &str) -> Option<u64> {
        Some(self.stretches(path)?.iter().map(|(_, length)| length).sum())
    }

    /// Reads some of the disc.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64, what: &str) -> Result<(), IsoError> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(IsoError::Damaged(format!("{what} lies behind its end, at {offset} of {} bytes", self.size)));
        }
        self.file.read_exact_at(buffer, offset).map_err(|source| IsoError::Read { what: what.to_owned(), source })
    }

    /// A small file's text.
    pub fn text(&self, path: &str, most: u64) -> Option<String> {
        let stretches = self.stretches(path)?;
        if self.length(path)? > most {
            return None;
        }
        let mut text = Vec::new();
        for &(offset, length) in stretches {
            let mut bytes = vec![0; length as usize];
            self.read_exact_at(&mut bytes, offset, path).ok()?;
            text.extend(bytes);
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// The root directory, and whose names are taken: Rock Ridge's before Joliet's before the standard's.
    fn volume(&mut self) -> Result<((u32, u32), Names), IsoError> {
        let (mut primary, mut joliet) = (None, None);
        for number in FIRST..FIRST + MOST_DESCRIPTORS {
            let mut descriptor = [0; SECTOR as usize];
            if (number + 1) * SECTOR > self.size {
                break;
            }
            self.read_exact_at(&mut descriptor, number * SECTOR, "a volume descriptor")?;
            if &descriptor[1..6] != b"CD001" {
                break;
            }
            let root = (u32_at(&descriptor, 156 + 2), u32_at(&descriptor, 156 + 10));
            match descriptor[0] {
                0 => self.boots |= descriptor[7..].starts_with(b"EL TORITO SPECIFICATION"),
                1 if primary.is_none() => primary = Some(root),
                2 if matches!(&descriptor[88..91], b"%/@" | b"%/C" | b"%/E") => joliet = Some(root),
                255 => break,
                _ => {}
            }
        }
        let primary = primary.ok_or(IsoError::None("it has no primary volume descriptor"))?;
        let first = self.directory(primary.0, primary.1.min(SECTOR as u32))?;
        let skip = Record::parse(&first)?.and_then(|(record, _)| rock_ridge_skip(record.end));
        Ok(match (skip, joliet) {
            (Some(skip), _) => (primary, Names::RockRidge(skip)),
            (None, Some(joliet)) => (joliet, Names::Joliet),
            (None, None) => (primary, Names::Plain),
        })
    }

    fn directory(&self, start: u32, length: u32) -> Result<Vec<u8>, IsoError> {
        if length > LARGEST_DIRECTORY {
            return Err(IsoError::Damaged(format!("a directory of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.read_exact_at(&mut bytes, u64::from(start) * SECTOR, "a directory")?;
        Ok(bytes)
    }
}

/// A link's target as a path of the disc.
fn joined(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// All directories, each once.
struct Walk<'a> {
    disc: &'a Disc,
    names: Names,
    seen: BTreeSet<u32>,
    entries: BTreeMap<String, Entry>,
    /// Bytes of paths and directories that may still come.
    room: usize,
}

/// A directory that is to be read.
struct Directory {
    path: String,
    start: u32,
    length: u32,
    depth: usize,
}

impl Walk<'_> {
    fn all(mut self, (start, length): (u32, u32)) -> Result<BTreeMap<String, Entry>, IsoError> {
        let mut waiting = vec![Directory { path: String::new(), start, length, depth: 0 }];
        while let Some(directory) = waiting.pop() {
            if !self.seen.insert(directory.start) || directory.depth > DEEPEST {
                let path = crate::archive::show(directory.path.as_bytes());
                return Err(IsoError::Damaged(format!("its directories lead in a circle at '/{path}'")));
            }
            self.one(&directory, &mut waiting)?;
        }
        Ok(self.entries)
    }

    fn one(&mut self, directory: &Directory, waiting: &mut Vec<Directory>) -> Result<(), IsoError> {
        self.take(directory.length as usize)?;
        let bytes = self.disc.directory(directory.start, directory.length)?;
        let mut stretches = Vec::new();
        for sector in bytes.chunks(SECTOR as usize) {
            let mut rest = sector;
            while let Some((record, length)) = Record::parse(rest)? {
                rest = &rest[length..];
                if record.is_dot() {
                    continue;
                }
                if self.entries.len() + waiting.len() > MOST_ENTRIES {
                    return Err(IsoError::Damaged(format!("it has more than {MOST_ENTRIES} files")));
                }
                let (name, told) = self.name(&record)?;
                let path = if directory.path.is_empty() { name } else { format!("{}/{name}", directory.path) };
                self.take(path.len())?;
                let depth = directory.depth + 1;
                if let Some(start) = told.child {
                    let length = self.length_of(start)?;
                    waiting.push(Directory { path, start, length, depth });
                } else if record.is_directory() {
                    if !told.is_moved {
                        waiting.push(Directory { path, start: record.start, length: record.length, depth });
                    }
                } else if let Some(target) = told.target {
                    self.entries.insert(path, Entry::Link(String::from_utf8_lossy(&target).into_owned()));
                } else {
                    stretches.push((u64::from(record.start) * SECTOR, u64::from(record.length)));
                    if !record.goes_on() {
                        self.entries.insert(path, Entry::File(std::mem::take(&mut stretches)));
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), IsoError> {
        let left = self.room.checked_sub(bytes);
        self.room = left.ok_or_else(|| IsoError::Damaged("its directories and paths have no end".to_owned()))?;
        Ok(())
    }

    fn name(&self, record: &Record<'_>) -> Result<(String, RockRidge), IsoError> {
        let Names::RockRidge(skip) = self.names else {
            return Ok((name_of(record.name, self.names), RockRidge::default()));
        };
        let mut told = RockRidge::default();
        let mut next = told.read(record.end.get(skip..).unwrap_or_default());
        for _ in 0..MOST_CONTINUATIONS {
            let Some((sector, offset, length)) = next else { break };
            if offset + length > SECTOR as usize {
                return Err(IsoError::Damaged("a Rock Ridge entry leaves its sector".to_owned()));
            }
            let mut area = vec![0; length];
            self.disc.read_exact_at(&mut area, u64::from(sector) * SECTOR + offset as u64, "a Rock Ridge entry")?;
            next = told.read(&area);
        }
        if next.is_some() {
            return Err(IsoError::Damaged("its Rock Ridge entries lead in a circle".to_owned()));
        }
        let name = match told.name.as_slice() {
            [] => name_of(record.name, Names::Plain),
            name => String::from_utf8_lossy(name).into_owned(),
        };
        Ok((name, told))
    }

    /// A moved directory's own first record says how long it is.
    fn length_of(&self, start: u32) -> Result<u32, IsoError> {
        let first = self.disc.directory(start, SECTOR as u32)?;
        let record = Record::parse(&first)?.ok_or_else(|| IsoError::Damaged("a directory is empty".to_owned()))?;
        Ok(record.0.length)
    }
}
