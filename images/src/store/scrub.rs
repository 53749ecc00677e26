//! Blobs read again from their disk: disks lose bits without a word.

use super::{Store, StoreError};
use bennu_rules::image::{BlobRef, Digest};
use ring::digest::{Context, SHA256};
use rustix::fs::{Advice, fadvise};
use std::{fmt, fs::File, io::Read as _};

const CHUNK: usize = 1 << 20;

/// What became of a blob on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Other bytes are there.
    Differs {
        /// What they hash to.
        found: Digest,
        /// How many they are.
        size: u64,
    },
    /// Its file is gone.
    Missing,
    /// The disk does not give it back.
    Unreadable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { found, size } => write!(f, "its {size} bytes on disk are {found}"),
            Self::Missing => f.write_str("its file is gone"),
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
        }
    }
}

impl Store {
    /// Reads a blob whole and compares it with its digest. `told` hears of every megabyte and may end it with an error.
    ///
    /// What the kernel holds of the file in memory is dropped first, so that the disk is read. It keeps what somebody
    /// has mapped, such as a transfer that goes on; that part is looked at where it is.
    pub fn examine<E>(&self, blob: &BlobRef, told: &mut dyn FnMut(u64) -> Result<(), E>) -> Result<Option<Damage>, E> {
        let mut file = match self.open_blob(&blob.digest) {
            Ok((file, _)) => file,
            Err(StoreError::Missing { .. }) => return Ok(Some(Damage::Missing)),
            Err(error) => return Ok(Some(Damage::Unreadable(error.to_string()))),
        };
        // Not every file system can; then what is in memory is compared.
        let forget = |file: &File| {
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        };
        forget(&file);
        let (mut hash, mut size, mut buffer) = (Context::new(&SHA256), 0, vec![0; CHUNK]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    size += count as u64;
                    told(count as u64)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Some(Damage::Unreadable(error.to_string()))),
            }
        }
        // A scrub of everything must not push out what machines are about to fetch.
        forget(&file);
        let mut found = [0; 32];
        found.copy_from_slice(hash.finish().as_ref());
        let found = Digest(found);
        Ok((found != blob.digest || size != blob.size).then_some(Damage::Differs { found, size }))
    }
}
