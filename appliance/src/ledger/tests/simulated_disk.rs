//! A disk in memory that notes what is written to it, and fails when told to.

use crate::ledger::disk::Disk;
use redb::StorageBackend;
use std::{
    io::{self, ErrorKind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

/// Chance that can be had again (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// What reached the file, in order.
#[derive(Debug, Clone)]
pub enum Effect {
    Write(u64, Arc<[u8]>),
    Resize(u64),
}

impl Effect {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = *offset as usize + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset as usize..end].copy_from_slice(data);
            }
            Self::Resize(length) => bytes.resize(*length as usize, 0),
        }
    }
}

/// One entry of the record: `T` is what a test notes among the effects.
#[derive(Debug, Clone)]
pub enum Entry<T> {
    Effect(Effect),
    Synced,
    Note(T),
}

/// What the disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Every write and growth, from that of this number on, for this reason.
    Writes(u64, ErrorKind),
    /// The sync of this number, and every write and sync after it.
    Syncs(u64, ErrorKind),
}

struct Content<T> {
    /// As reads see it.
    cached: Vec<u8>,
    /// As it was at the last sync.
    durable: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Effect>,
    record: Vec<Entry<T>>,
    /// Whether it claims to have synced what it has not.
    lies: bool,
    failing: Option<Failing>,
    /// Set when the failure has begun.
    failed: Option<ErrorKind>,
    writes: u64,
    syncs: u64,
    chance: Chance,
}

/// The disk; clones are the same one.
pub struct SimulatedDisk<T>(Arc<Mutex<Content<T>>>);

impl<T> Clone for SimulatedDisk<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> SimulatedDisk<T> {
    pub fn new(bytes: Vec<u8>, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Content {
            cached: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
            record: Vec::new(),
            lies: false,
            failing: None,
            failed: None,
            writes: 0,
            syncs: 0,
            chance: Chance(seed),
        })))
    }

    /// One whose sync does nothing.
    pub fn lying(bytes: Vec<u8>, seed: u64) -> Self {
        let disk = Self::new(bytes, seed);
        disk.lock().lies = true;
        disk
    }

    fn lock(&self) -> MutexGuard<'_, Content<T>> {
        self.0.lock().unwrap()
    }

    pub fn note(&self, note: T) {
        self.lock().record.push(Entry::Note(note));
    }

    pub fn take_record(&self) -> Vec<Entry<T>> {
        std::mem::take(&mut self.lock().record)
    }

    /// Counts from now.
    pub fn fail(&self, failing: Failing) {
        let mut content = self.lock();
        (content.writes, content.syncs) = (0, 0);
        content.failing = Some(failing);
    }

    pub fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    pub fn heal(&self) {
        let mut content = self.lock();
        (content.failing, content.failed) = (None, None);
    }

    /// What a power cut at this moment leaves, at worst.
    pub fn durable(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }
}

impl<T> Content<T> {
    fn writes_one(&mut self) -> io::Result<()> {
        self.writes += 1;
        if let Some(Failing::Writes(from, kind)) = self.failing
            && self.writes >= from
        {
            self.failed = Some(kind);
        }
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn effect(&mut self, effect: Effect) {
        effect.apply(&mut self.cached);
        self.pending.push(effect.clone());
        self.record.push(Entry::Effect(effect));
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if let Some(Failing::Syncs(from, kind)) = self.failing
            && self.syncs >= from
        {
            self.failed = Some(kind);
        }
        // A disk that refuses new bytes still syncs the old ones.
        if matches!(self.failing, Some(Failing::Syncs(..)))
            && let Some(kind) = self.failed
        {
            // Whatever the kernel could not write, it drops.
            let chance = &mut self.chance;
            self.pending.retain(|_| chance.percent(50));
            return Err(kind.into());
        }
        if !self.lies {
            for effect in self.pending.drain(..) {
                effect.apply(&mut self.durable);
            }
            self.record.push(Entry::Synced);
        }
        Ok(())
    }
}

impl<T: Send + 'static> Disk for SimulatedDisk<T> {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut content = self.lock();
        if content.failed.is_some() {
            // As after a sync and a drop of the cache: what is read is what is on disk.
            let mut bytes = content.durable.clone();
            content.pending.iter().for_each(|effect| effect.apply(&mut bytes));
            content.cached = bytes;
        }
        drop(content);
        Ok(Box::new(Backend(self.clone())))
    }

    fn has_room(&self) -> io::Result<()> {
        self.lock().failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn path(&self) -> &Path {
        Path::new("a disk in memory")
    }
}

struct Backend<T>(SimulatedDisk<T>);

impl<T> std::fmt::Debug for Backend<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl<T: Send + 'static> StorageBackend for Backend<T> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.0.lock();
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(content.cached.get(range).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        if length > content.cached.len() as u64 {
            content.writes_one()?;
        }
        content.effect(Effect::Resize(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock();
        content.writes_one()?;
        content.effect(Effect::Write(offset, data.into()));
        Ok(())
    }
}
