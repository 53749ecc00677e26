//! The file under the database. A database is opened on it anew after a fault of the disk, since redb takes nothing
//! more from a file that failed once.

use super::storage::Fault;
use redb::{BackendError, StorageBackend, backends::FileBackend};
use rustix::fs::{Advice, fadvise};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where the database's bytes are.
pub trait Disk: Send + Sync + 'static {
    /// The bytes as the disk has them, which after a failed sync may be fewer than were written.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// Whether the disk takes new bytes. Cheaper than opening a database to find out.
    fn has_room(&self) -> io::Result<()>;
    /// For messages.
    fn path(&self) -> &Path;
}

/// A disk as its file system shows it.
pub struct FileDisk(PathBuf);

impl FileDisk {
    /// The file at `path`, there or not.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

/// What [`FileDisk::has_room`] writes: a little more than a busy commit does.
const PROBE_BYTES: usize = 1 << 20;

impl Disk for FileDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.0)?;
        // After a failed sync Linux keeps the pages, marks them clean, and never writes them: they would be read as if
        // they were on disk until the power goes. Clean pages can be dropped, so what is read from here on is there.
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        FileBackend::new(file).map(|backend| Box::new(backend) as Box<dyn StorageBackend>).map_err(io::Error::other)
    }

    fn has_room(&self) -> io::Result<()> {
        let probe = self.0.with_extension("probe");
        let outcome = File::create(&probe).and_then(|mut file| {
            file.write_all(&[0xa5; PROBE_BYTES])?;
            file.sync_data()
        });
        fs::remove_file(&probe)?;
        outcome
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// What the owner of a database must know of its file.
#[derive(Debug, Default)]
pub struct Vitals {
    /// The first fault that was met; redb repeats only that there was one.
    met: Mutex<Option<Fault>>,
    length: AtomicU64,
}

impl Vitals {
    /// What fault was met, if any.
    pub fn met(&self) -> Option<Fault> {
        self.lock().clone()
    }

    /// A write begins: what did not keep the last one from its end counts no more.
    pub fn forget(&self) {
        self.lock().take();
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Fault>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let mut met = self.lock();
            let fault = fault_of(error);
            // A full disk heals, so what does not heal counts even where it came second.
            if !matches!(*met, Some(Fault::Disk(_))) {
                *met = Some(fault);
            }
        })
    }
}

/// What an error of the disk means for the ledger.
pub fn fault_of(error: &io::Error) -> Fault {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Fault::Full(error.to_string()),
        _ => Fault::Disk(error.to_string()),
    }
}

/// A backend whose faults are noted, and that writes either through or, while the disk is full, to memory.
#[derive(Debug)]
pub struct Attended {
    inner: Box<dyn StorageBackend>,
    vitals: Arc<Vitals>,
    /// Up to where the file has its blocks, as far as is known.
    filled: Mutex<u64>,
    overlay: Option<Mutex<Overlay>>,
}

/// What a database writes only to be readable (it marks its file as open, and repairs it): kept in memory and
/// thrown away.
#[derive(Debug)]
struct Overlay {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
    /// How much of the file below still counts.
    below: u64,
}

const PAGE: usize = 4096;

/// How far ahead of what is written a grown file is filled at a time, and beyond which gap it is not.
const AHEAD: u64 = 256 << 10;
const GAP: u64 = 16 << 20;

impl Attended {
    /// Writes through.
    pub fn new(inner: Box<dyn StorageBackend>) -> io::Result<(Self, Arc<Vitals>)> {
        let (vitals, filled) = (Arc::new(Vitals::default()), Mutex::new(inner.len()?));
        Ok((Self { inner, vitals: vitals.clone(), filled, overlay: None }, vitals))
    }

    /// Leaves the disk as it is.
    pub fn frozen(inner: Box<dyn StorageBackend>) -> io::Result<(Self, Arc<Vitals>)> {
        let length = inner.len()?;
        let overlay = Overlay { pages: BTreeMap::new(), length, below: length };
        let (attended, vitals) = Self::new(inner)?;
        Ok((Self { overlay: Some(Mutex::new(overlay)), ..attended }, vitals))
    }

    /// Writes zeros a little ahead of what is written into a grown file. In blocks that the file has, a commit is the
    /// data alone; each block that it takes first has the file system write where it is, and wait for that too.
    fn fill(&self, offset: u64, length: u64) -> io::Result<()> {
        // Held over the writing, so that zeros never come after what another thread wrote beyond them.
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset + length;
        if end <= *filled {
            return Ok(());
        }
        let until = end.next_multiple_of(AHEAD).min(self.vitals.length()).max(end);
        if offset <= *filled + GAP {
            let zeros = [0; 16 * PAGE];
            for at in (*filled..until).step_by(zeros.len()) {
                let length = (until - at).min(zeros.len() as u64);
                self.inner.write(at, &zeros[..length as usize])?;
            }
        }
        *filled = until;
        Ok(())
    }

    fn overlay(&self) -> Option<MutexGuard<'_, Overlay>> {
        self.overlay.as_ref().map(|overlay| overlay.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Overlay {
    fn read(&self, inner: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for (page, at, part) in pieces(offset, out) {
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[at..at + part.len()]),
                None => self.read_below(inner, page * PAGE as u64 + at as u64, part)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, inner: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut data = data.to_vec();
        for (page, at, part) in pieces(offset, &mut data) {
            if !self.pages.contains_key(&page) {
                let mut bytes = Box::new([0; PAGE]);
                self.read_below(inner, page * PAGE as u64, &mut bytes[..])?;
                self.pages.insert(page, bytes);
            }
            if let Some(bytes) = self.pages.get_mut(&page) {
                bytes[at..at + part.len()].copy_from_slice(part);
            }
        }
        self.length = self.length.max(offset + data.len() as u64);
        Ok(())
    }

    fn resize(&mut self, length: u64) {
        self.pages.retain(|page, _| page * (PAGE as u64) < length);
        if let Some(last) = self.pages.get_mut(&(length / PAGE as u64)) {
            last[(length % PAGE as u64) as usize..].fill(0);
        }
        self.below = self.below.min(length);
        self.length = length;
    }

    /// Reads what the file has; beyond its end are zeros.
    fn read_below(&self, inner: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.below.saturating_sub(offset).min(out.len() as u64) as usize;
        out[there..].fill(0);
        if there > 0 { inner.read(offset, &mut out[..there]) } else { Ok(()) }
    }
}

/// A range of bytes page by page: the page, where in it, and the bytes.
fn pieces(offset: u64, mut bytes: &mut [u8]) -> impl Iterator<Item = (u64, usize, &mut [u8])> {
    let mut position = offset;
    std::iter::from_fn(move || {
        let at = (position % PAGE as u64) as usize;
        let length = bytes.len().min(PAGE - at);
        let (piece, rest) = std::mem::take(&mut bytes).split_at_mut(length);
        bytes = rest;
        let page = position / PAGE as u64;
        position += length as u64;
        (length > 0).then_some((page, at, piece))
    })
}

impl StorageBackend for Attended {
    fn len(&self) -> io::Result<u64> {
        match self.overlay() {
            Some(overlay) => Ok(overlay.length),
            None => self
                .vitals
                .note(self.inner.len())
                .inspect(|length| self.vitals.length.store(*length, Ordering::Relaxed)),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.vitals.note(match self.overlay() {
            Some(overlay) => overlay.read(&*self.inner, offset, out),
            None => self.inner.read(offset, out),
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if let Some(mut overlay) = self.overlay() {
            overlay.resize(length);
            return Ok(());
        }
        self.vitals.note(self.inner.set_len(length))?;
        self.vitals.length.store(length, Ordering::Relaxed);
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        *filled = length.min(*filled);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.overlay.is_some() { Ok(()) } else { self.vitals.note(self.inner.sync_data()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.vitals.note(match self.overlay() {
            Some(mut overlay) => overlay.write(&*self.inner, offset, data),
            None => self.fill(offset, data.len() as u64).and_then(|()| self.inner.write(offset, data)),
        })
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
