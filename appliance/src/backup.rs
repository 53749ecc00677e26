//! Backups: one file with everything that makes this appliance, and the way back.
//!
//! The file is a tar. Its first part says what it is of, its last lists every part with its SHA-256, and what has no last part
//! was cut. The parts of the ledger are rows of its tables, in zstd; images are the blobs of the store.

mod aside;
mod kept;
mod read;
#[cfg(test)]
mod tests;

mod write;

pub use aside::{finish, note, place, unpack};
pub use kept::{Kept, keep, kept, last, make, make_before_upgrade};
pub use read::{Checked, check};
pub use write::write;

use crate::ledger::{DumpError, Fault};
use bennu_images::store::StoreError;
use bennu_rules::backup::FORMAT;
use std::{io, path::PathBuf};

/// A backup cannot be made, read or put in place.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("this is no backup of Bennu: {0}. Name a file that `bennu backup` wrote")]
    Foreign(String),
    /// Its end is missing.
    #[error(
        "the backup was cut: its last part is missing or short. Copy the file again, or take another backup. Nothing was changed"
    )]
    Cut,
    /// A part is not what it was.
    #[error(
        "the backup is damaged: {0} is not as it was written. Copy the file again, or take another backup. Nothing was changed"
    )]
    Damaged(String),
    /// Written by a newer Bennu.
    #[error(
        "the backup has format {0}, and this bennu reads up to {FORMAT}: restore it with the newer bennu that wrote it. Nothing was changed"
    )]
    TooNew(u32),
    /// The state directory holds a ledger.
    #[error(
        "{} holds a ledger already, and nothing was changed. --replace puts that state aside, beside the backup's, and \
         deletes nothing of it", .0.display()
    )]
    InPlace(PathBuf),
    /// Another restore waits there.
    #[error("a backup was put aside in {} already, and is put in place when bennu starts; start it first", .0.display())]
    Waiting(PathBuf),
    /// Somebody links the way elsewhere.
    #[error("{} is no directory of bennu's; remove it first", .0.display())]
    Strange(PathBuf),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] Fault),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client that was sent to, or sends, is gone.
    #[error("the connection broke off: {0}")]
    Gone(io::Error),
    /// A file cannot be read or written.
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

impl BackupError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

impl From<DumpError> for BackupError {
    fn from(error: DumpError) -> Self {
        match error {
            DumpError::Ledger(fault) => Self::Ledger(fault),
            DumpError::Taker(error) => Self::Gone(error),
        }
    }
}

/// SHA-256 of what passes through, and how much that was.
struct Hashing<T> {
    inner: T,
    hash: ring::digest::Context,
    size: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: ring::digest::Context::new(&ring::digest::SHA256), size: 0 }
    }

    fn part(self, name: String) -> bennu_rules::backup::Part {
        bennu_rules::backup::Part { name, size: self.size, sha256: hex(self.hash.finish().as_ref()) }
    }
}

impl<T: io::Read> io::Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
