//! A file as bytes, without reading it: a blob's, or a disc's that is signed or verified. The one place of HTTP with `unsafe`.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapOptions};
use std::{
    fs::{File, Metadata, metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// A mapped file. The mapping is mostly a name for the file's bytes: sendfile takes them by descriptor, and no page
/// is touched unless the bytes travel another way (TLS).
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    file: File,
}

impl Mapped {
    /// Maps the first `length` bytes, at least one, of a file of the blob store, or of a disc that nobody changes meanwhile.
    pub fn new(file: File, length: usize) -> io::Result<Self> {
        // SAFETY: a shared mapping is sound as long as nobody changes or shortens the file. Files of the blob store
        // appear whole by a rename and are never changed after; removal only takes the name away, and the open
        // file keeps the bytes. A disc that is installed is root's alone; of one that a person signs or verifies, who changes it
        // meanwhile gets a wrong signature or a wrong answer.
        let map = unsafe { MmapOptions::new().len(length).map(&file)? };
        Ok(Self { map, file })
    }

    /// Whether this is still the file at a path.
    pub fn is_at(&self, path: &Path) -> bool {
        let identity = |found: Metadata| (found.dev(), found.ino());
        let (Ok(ours), Ok(there)) = (self.file.metadata(), metadata(path)) else { return false };
        identity(ours) == identity(there)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}
