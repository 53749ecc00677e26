//! Blobs on their way into the store.
//!
//! A stream is written by one thread and hashed by another, and a third sends to the disk what is there: so a large blob
//! takes as long as the slowest of them, and not as all of them together.

use super::{Store, StoreError};
use bennu_rules::image::{BlobRef, Digest};
use ring::digest::{Context, SHA256};
use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Write},
    path::Path,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};
use tempfile::NamedTempFile;

/// Disk and hash see writes of this size.
const CHUNK: usize = 1 << 20;

/// Chunks of a stream that were written and not yet hashed.
const UNHASHED: usize = 32;

/// Bytes of a stream after which it is sent to the disk, if it is not being sent there. What is shorter is synced at its end.
const SYNCED: u64 = 8 << 20;

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

    /// Takes in what `next` gives until it gives no more, or fails: what came before a failure is kept, and the blob may go
    /// on behind it.
    pub fn take<C, E>(&mut self, next: impl FnMut() -> Result<Option<C>, E>) -> Result<(), E>
    where
        C: AsRef<[u8]> + Send,
        E: From<StoreError>,
    {
        let store = self.store.clone();
        let failed = |error| store.failed("write to", store.tmp(), error);
        self.out.flush().map_err(failed)?;
        let Hashed { file, hash, size } = self.out.get_mut();
        let (to_hash, unhashed) = mpsc::sync_channel::<(C, usize)>(UNHASHED);
        let (to_sync, unsynced) = mpsc::sync_channel(1);
        let path = file.path().to_owned();
        thread::scope(|scope| {
            scope.spawn(move || unhashed.iter().for_each(|(chunk, count)| hash.update(&chunk.as_ref()[..count])));
            scope.spawn(move || sync(&path, &unsynced));
            let stream = Stream { file: file.as_file_mut(), size, unsynced: 0, to_hash, to_sync };
            stream.write(next, failed)
        })
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

/// A stream on its way into a file, and what is to be done with it besides.
struct Stream<'f, C> {
    file: &'f mut File,
    size: &'f mut u64,
    unsynced: u64,
    to_hash: SyncSender<(C, usize)>,
    to_sync: SyncSender<()>,
}

impl<C: AsRef<[u8]>> Stream<'_, C> {
    fn write<E: From<StoreError>>(
        mut self,
        mut next: impl FnMut() -> Result<Option<C>, E>,
        failed: impl Fn(io::Error) -> StoreError,
    ) -> Result<(), E> {
        while let Some(chunk) = next()? {
            let (written, outcome) = write_most(self.file, chunk.as_ref());
            *self.size += written as u64;
            self.unsynced += written as u64;
            // Hash and file are of the same bytes, whatever became of the rest.
            self.to_hash.send((chunk, written)).map_err(|_| failed(io::Error::other("the hash ended early")))?;
            outcome.map_err(&failed)?;
            if self.unsynced >= SYNCED && self.to_sync.try_send(()).is_ok() {
                self.unsynced = 0;
            }
        }
        Ok(())
    }
}

/// As `write_all`, and how much of it was written.
fn write_most(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Sends a file to the disk as often as somebody says so. Only time depends on it: through a handle of its own, so that a
/// fault is still told to whoever syncs the file at its end.
fn sync(path: &Path, unsynced: &Receiver<()>) {
    let Ok(file) = File::open(path) else { return };
    for () in unsynced {
        let _ = file.sync_data();
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
