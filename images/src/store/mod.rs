//! The blob store: an OCI image layout on disk, so that `skopeo`, `oras` and `cosign` read it
//! (OCI image specification, "OCI Image Layout").
//!
//! A blob appears whole or not at all: it is written aside in `tmp/`, synced, renamed into place, and the
//! directory is synced. After that it is read-only and never changes. Which blobs and names exist is the ledger's
//! truth; `index.json` is derived from it.

mod index;
mod scrub;
mod writer;

pub use index::IndexEntry;
pub use scrub::Damage;
pub use writer::{BlobWriter, Finished};

use bennu_rules::image::{BlobRef, Digest};
use rustix::fs as posix;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. What was being written is gone again; everything else is as it was.
    #[error(
        "the disk under {} is full: {} are free, and {} are kept for the ledger. Remove images that are no longer needed (bennu image remove) or enlarge the disk, then try again",
        .path.display(), bytes(*.free), bytes(*.reserve)
    )]
    Full {
        /// The store's directory.
        path: PathBuf,
        /// Bytes an unprivileged user may still write there.
        free: u64,
        /// Bytes of them that images may not use.
        reserve: u64,
    },
    /// The blob is not there.
    #[error("the store holds no blob {digest}. Import the image again")]
    Missing {
        /// Which blob.
        digest: Digest,
    },
    /// The directory is a layout of another version.
    #[error("{} is an OCI image layout of version '{version}', and Bennu writes 1.0.0. Choose another state_dir", .path.display())]
    Layout {
        /// The store's directory.
        path: PathBuf,
        /// What its `oci-layout` says.
        version: String,
    },
    /// Anything else the file system refused.
    #[error("cannot {what} {}: {source}. Look at that disk, and at who may write there", .path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What an import leaves free: on a disk that is full to the last byte the ledger could not store a lease, and a
/// ledger that failed once serves nobody. Small disks keep a sixteenth.
const RESERVE: u64 = 64 << 20;

/// A size as a person reads it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} bytes") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// The store. Clones share one.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    blobs: PathBuf,
    tmp: PathBuf,
    held: Mutex<Held>,
}

/// Blobs that arrived while somebody held the store.
#[derive(Debug, Default)]
struct Held {
    holders: usize,
    digests: BTreeSet<Digest>,
}

/// While one lives, [`Store::collect`] spares the blobs that arrive: an import's blobs have no record yet.
/// Drop it after the record is committed.
#[derive(Debug)]
pub struct Hold {
    inner: Arc<Inner>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.inner.held();
        held.holders -= 1;
        if held.holders == 0 {
            held.digests.clear();
        }
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        // The set is whole between any two statements, so a panic elsewhere leaves it usable.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens the layout in `dir`, making it where there is none, and empties `tmp/` of what an earlier
    /// process left behind. One process at a time: whoever opens it must already hold the ledger's lock.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let dir = dir.as_ref().to_owned();
        let store = Self {
            inner: Arc::new(Inner {
                blobs: dir.join("blobs/sha256"),
                tmp: dir.join("tmp"),
                held: Mutex::default(),
                dir,
            }),
        };
        let inner = &store.inner;
        for made in [&inner.blobs, &inner.tmp] {
            fs::create_dir_all(made).map_err(|e| store.failed("make the directory", made, e))?;
        }
        store.empty_tmp()?;
        index::open(&store)?;
        Ok(store)
    }

    /// The layout's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Where work in progress lies: the same file system as the blobs.
    pub fn tmp(&self) -> &Path {
        &self.inner.tmp
    }

    /// Where a blob lies, or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.blobs.join(digest.hex())
    }

    /// A blob opened for reading, and its size.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), StoreError> {
        let path = self.blob_path(digest);
        let opened = File::open(&path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        opened.map_err(|error| self.absent(digest, "open", &path, error))
    }

    /// A blob's size.
    pub fn blob_size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.blob_path(digest);
        fs::metadata(&path).map(|data| data.len()).map_err(|error| self.absent(digest, "look at", &path, error))
    }

    /// A new blob, written aside until [`BlobWriter::finish`].
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        BlobWriter::new(self)
    }

    /// Stores bytes that are at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobRef, StoreError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|e| self.failed("write to", self.tmp(), e))?;
        writer.finish()
    }

    /// Takes over a file that a tool wrote in [`Store::tmp`].
    pub fn adopt(&self, file: tempfile::NamedTempFile) -> Result<BlobRef, StoreError> {
        writer::adopt(self, file, |_, _| Ok(())).map(|(blob, ())| blob)
    }

    /// The same, and `beside` reads the file while it is hashed and goes to the disk.
    pub fn adopt_with<T: Send>(
        &self,
        file: tempfile::NamedTempFile,
        beside: impl FnOnce(&File, u64) -> Result<T, StoreError> + Send,
    ) -> Result<(BlobRef, T), StoreError> {
        writer::adopt(self, file, beside)
    }

    /// A nameless scratch file beside the blobs; it is gone when it is closed.
    pub fn spool(&self) -> Result<File, StoreError> {
        tempfile::tempfile_in(self.tmp()).map_err(|e| self.failed("make a scratch file in", self.tmp(), e))
    }

    /// Writes `index.json` from the ledger's records: aside, synced, renamed.
    pub fn write_index(&self, entries: &[IndexEntry]) -> Result<(), StoreError> {
        index::write(self, entries)
    }

    /// Keeps blobs that arrive from now on out of [`Store::collect`]'s reach.
    pub fn hold(&self) -> Hold {
        self.inner.held().holders += 1;
        Hold { inner: Arc::clone(&self.inner) }
    }

    /// Keeps a blob that is here already out of [`Store::collect`]'s reach, as if it had just arrived: somebody was told
    /// that it need not be sent. Says whether it is here.
    pub fn keep(&self, digest: &Digest) -> bool {
        let mut held = self.inner.held();
        let is_here = self.blob_path(digest).exists();
        if is_here && held.holders > 0 {
            held.digests.insert(*digest);
        }
        is_here
    }

    /// Removes every blob that is neither in `keep` nor held, and says which.
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<Vec<BlobRef>, StoreError> {
        let removed = self.sift(keep, |path| fs::remove_file(path).map_err(|e| self.failed("remove", path, e)))?;
        self.sync_dir(&self.inner.blobs)?;
        Ok(removed)
    }

    /// What [`Store::collect`] would remove.
    pub fn unnamed(&self, keep: &BTreeSet<Digest>) -> Result<Vec<BlobRef>, StoreError> {
        self.sift(keep, |_| Ok(()))
    }

    fn sift(
        &self,
        keep: &BTreeSet<Digest>,
        found: impl Fn(&Path) -> Result<(), StoreError>,
    ) -> Result<Vec<BlobRef>, StoreError> {
        let blobs = &self.inner.blobs;
        let listed = fs::read_dir(blobs).map_err(|e| self.failed("list", blobs, e))?;
        let mut removed = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|e| self.failed("list", blobs, e))?;
            // Other names are somebody else's files: leave them.
            let Some(digest) = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok()) else {
                continue;
            };
            // Held for the removal too: an import may find this very blob present meanwhile and count on it.
            let held = self.inner.held();
            if keep.contains(&digest) || held.digests.contains(&digest) {
                continue;
            }
            let path = entry.path();
            let size = entry.metadata().map_err(|e| self.failed("look at", &path, e))?.len();
            found(&path)?;
            removed.push(BlobRef { digest, size });
        }
        removed.sort_by_key(|blob| blob.digest);
        Ok(removed)
    }

    /// Bytes an unprivileged user may still write.
    pub fn free(&self) -> u64 {
        self.room().map_or(0, |(free, _)| free)
    }

    /// Refuses to go on when less is free than what is kept for the ledger. Importers ask before they write.
    pub fn check_room(&self) -> Result<(), StoreError> {
        match self.room() {
            Some((free, reserve)) if free < reserve => Err(self.full()),
            _ => Ok(()),
        }
    }

    /// Bytes that are free, and how many of them are kept.
    fn room(&self) -> Option<(u64, u64)> {
        let stat = posix::statvfs(self.dir()).ok()?;
        let size = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some((size(stat.f_bavail), RESERVE.min(size(stat.f_blocks) / 16)))
    }

    /// The error for a failed file operation; a full disk gets its own.
    pub fn failed(&self, what: &'static str, path: &Path, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.full(),
            _ => StoreError::Io { what, path: path.to_owned(), source },
        }
    }

    /// The error of a full disk.
    pub fn full(&self) -> StoreError {
        let (free, reserve) = self.room().unwrap_or_default();
        StoreError::Full { path: self.dir().to_owned(), free, reserve }
    }

    fn absent(&self, digest: &Digest, what: &'static str, path: &Path, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { digest: *digest },
            _ => self.failed(what, path, error),
        }
    }

    fn empty_tmp(&self) -> Result<(), StoreError> {
        let tmp = self.tmp();
        for entry in fs::read_dir(tmp).map_err(|e| self.failed("list", tmp, e))? {
            let path = entry.map_err(|e| self.failed("list", tmp, e))?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| self.failed("remove", &path, e))?;
        }
        Ok(())
    }

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| self.failed("sync", dir, e))
    }

    /// Moves a synced file to its digest's name, over a blob that is there already: that one should have the same
    /// bytes, but a disk may have rotted it, and importing again is how it is repaired. Who reads it keeps the old
    /// file.
    fn place(&self, file: tempfile::NamedTempFile, blob: &BlobRef) -> Result<(), StoreError> {
        let path = self.blob_path(&blob.digest);
        let mut held = self.inner.held();
        if held.holders > 0 {
            held.digests.insert(blob.digest);
        }
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(|e| self.failed("set the mode of", file.path(), e))?;
        file.persist(&path).map_err(|e| self.failed("rename into place", &path, e.error))?;
        drop(held);
        self.sync_dir(&self.inner.blobs)
    }
}

#[cfg(test)]
mod tests;
