//! Blobs on their way into the store.

use super::{Store, StoreError};
use bennu_rules::image::{BlobRef, Digest};
use ring::digest::{Context, SHA256};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write},
};
use tempfile::NamedTempFile;

/// Disk and hash see writes of this size, each at a multiple of it: what lands in the page cache in large aligned pieces
/// leaves it by sendfile(2) at twice the speed.
const CHUNK: usize = 1 << 20;

/// A blob being written aside. Dropping it removes what was written.
pub struct BlobWriter {
    store: Store,
    file: NamedTempFile,
    hash: Context,
    size: u64,
    /// What is not written yet.
    chunk: Vec<u8>,
}

impl BlobWriter {
    pub(super) fn new(store: &Store) -> Result<Self, StoreError> {
        let (file, hash) = (aside(store)?, Context::new(&SHA256));
        Ok(Self { store: store.clone(), file, hash, size: 0, chunk: Vec::new() })
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.size + self.chunk.len() as u64
    }

    /// Makes the blob durable and puts it in its place.
    pub fn finish(mut self) -> Result<BlobRef, StoreError> {
        self.write_chunk().map_err(|e| self.store.failed("write to", self.store.tmp(), e))?;
        settle(&self.store, self.file, self.hash, self.size)
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        self.file.as_file_mut().write_all(&self.chunk)?;
        self.hash.update(&self.chunk);
        self.size += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.write_chunk()?;
        }
        Ok(taken)
    }

    /// Whole chunks go to the file, so that what comes after stays aligned.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A named file in `tmp/`, so that it can be renamed later.
fn aside(store: &Store) -> Result<NamedTempFile, StoreError> {
    tempfile::Builder::new()
        .prefix("blob-")
        .tempfile_in(store.tmp())
        .map_err(|e| store.failed("make a file in", store.tmp(), e))
}

/// Hashes a file that a tool wrote and puts it in its place.
pub(super) fn adopt(store: &Store, mut file: NamedTempFile) -> Result<BlobRef, StoreError> {
    // Opened anew by name: the tool may have replaced the file behind our handle.
    let path = file.path().to_owned();
    let mut reader = File::open(&path).map_err(|e| store.failed("open", &path, e))?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(store.failed("read", &path, error)),
        };
        hash.update(&buffer[..count]);
        size += count as u64;
    }
    reader.rewind().map_err(|e| store.failed("read", &path, e))?;
    *file.as_file_mut() = reader;
    settle(store, file, hash, size)
}

fn settle(store: &Store, file: NamedTempFile, hash: Context, size: u64) -> Result<BlobRef, StoreError> {
    file.as_file().sync_all().map_err(|e| store.failed("sync", file.path(), e))?;
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    let blob = BlobRef { digest: Digest(digest), size };
    store.place(file, &blob)?;
    Ok(blob)
}
