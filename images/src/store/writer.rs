//! Blobs on their way into the store.

use super::{Store, StoreError};
use bennu_rules::image::{BlobRef, Digest};
use ring::digest::{Context, SHA256};
use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Write},
};
use tempfile::NamedTempFile;

/// Disk and hash see writes of this size.
const CHUNK: usize = 1 << 20;

/// Hashes what passes through to the file.
struct Hashed {
    file: NamedTempFile,
    hash: Context,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.as_file_mut().write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob being written aside. Dropping it removes what was written.
pub struct BlobWriter {
    store: Store,
    out: BufWriter<Hashed>,
}

impl BlobWriter {
    pub(super) fn new(store: &Store) -> Result<Self, StoreError> {
        let file = aside(store)?;
        let out = BufWriter::with_capacity(CHUNK, Hashed { file, hash: Context::new(&SHA256), size: 0 });
        Ok(Self { store: store.clone(), out })
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.out.get_ref().size + self.out.buffer().len() as u64
    }

    /// Makes the blob durable and puts it in its place.
    pub fn finish(self) -> Result<BlobRef, StoreError> {
        let (store, file, blob) = self.end()?;
        settle(&store, file, blob)
    }

    /// The same, where somebody said beforehand what the bytes come to.
    pub fn finish_as(self, expected: &Digest) -> Result<Finished, StoreError> {
        let (store, file, blob) = self.end()?;
        if blob.digest != *expected {
            return Ok(Finished::Other(blob));
        }
        settle(&store, file, blob).map(Finished::Stored)
    }

    fn end(self) -> Result<(Store, NamedTempFile, BlobRef), StoreError> {
        let store = self.store;
        let Hashed { file, hash, size } =
            self.out.into_inner().map_err(|e| store.failed("write to", store.tmp(), e.into_error()))?;
        Ok((store, file, named(hash, size)))
    }
}

/// How a blob ended whose digest was told beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// As told.
    Stored(BlobRef),
    /// The bytes came to this, and are gone again.
    Other(BlobRef),
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A named file in `tmp/`, so that it can be renamed later.
fn aside(store: &Store) -> Result<NamedTempFile, StoreError> {
    tempfile::Builder::new()
        .prefix("blob-")
        .tempfile_in(store.tmp())
        .map_err(|e| store.failed("make a file in", store.tmp(), e))
}

/// Hashes a file that a tool wrote and puts it in its place. Meanwhile it goes to the disk, and `beside` reads it too.
pub(super) fn adopt<T: Send>(
    store: &Store,
    mut file: NamedTempFile,
    beside: impl FnOnce(&File, u64) -> Result<T, StoreError> + Send,
) -> Result<(BlobRef, T), StoreError> {
    // Opened anew by name: the tool may have replaced the file behind our handle.
    let path = file.path().to_owned();
    let reader = File::open(&path).map_err(|e| store.failed("open", &path, e))?;
    let size = reader.metadata().map_err(|e| store.failed("look at", &path, e))?.len();
    let (hashed, made, synced) = std::thread::scope(|scope| {
        let synced = scope.spawn(|| reader.sync_all());
        let made = scope.spawn(|| beside(&reader, size));
        let hashed = hash(&reader);
        // A thread that panicked has said why.
        let lost = || io::Error::other("a thread ended early");
        let made = made.join().unwrap_or_else(|_| Err(store.failed("read", &path, lost())));
        (hashed, made, synced.join().unwrap_or_else(|_| Err(lost())))
    });
    let blob = hashed.map_err(|e| store.failed("read", &path, e))?;
    let made = made?;
    synced.map_err(|e| store.failed("sync", &path, e))?;
    *file.as_file_mut() = reader;
    store.place(file, &blob)?;
    Ok((blob, made))
}

fn hash(mut reader: &File) -> io::Result<BlobRef> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        size += count as u64;
    }
    Ok(named(hash, size))
}

fn named(hash: Context, size: u64) -> BlobRef {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    BlobRef { digest: Digest(digest), size }
}

fn settle(store: &Store, file: NamedTempFile, blob: BlobRef) -> Result<BlobRef, StoreError> {
    file.as_file().sync_all().map_err(|e| store.failed("sync", file.path(), e))?;
    store.place(file, &blob)?;
    Ok(blob)
}
