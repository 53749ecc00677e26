//! The files of a partition's file system as a tree: all their names, and the contents of those that an import looks
//! into. What boots is the partition itself.

use super::DiskError;
use crate::{
    store::Store,
    tree::{Extent, FileData, Indexed, Kind, Metadata, Put, Spool, Tree},
};
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt as _};

/// The tree is held in memory, some 300 bytes a file; a whole desktop has half a million.
const MOST_ENTRIES: usize = 2 << 20;

/// What is read: kernels, modules, firmware, signed loaders, and what says which system it is.
const READ: [&[u8]; 13] = [
    b"boot/",
    b"lib/modules/",
    b"usr/lib/modules/",
    b"lib/firmware/",
    b"usr/lib/firmware/",
    b"lib/os-release",
    b"usr/lib/os-release",
    b"etc/os-release",
    b"etc/selinux/config",
    b"usr/lib/shim/",
    b"usr/lib/grub/x86_64-efi-signed/",
    b"usr/share/efi/",
    b"EFI/",
];
/// Initrds are large, and Bennu has its own.
const NOT_READ: [&[u8]; 2] = [b"boot/initr", b"boot/efi/EFI/Microsoft/"];
/// Kernels and modules have some ten megabytes.
const LARGEST: u64 = 512 << 20;
/// Where the contents of a file that was not read would be: behind any scratch file's end, so that they cannot be taken
/// for zeros.
const NOWHERE: u64 = i64::MAX as u64 / 2;

/// Files that are being gathered.
pub struct Contents<'a> {
    tree: Tree,
    file: File,
    end: u64,
    entries: usize,
    store: &'a Store,
}

/// Begins with nothing.
pub fn contents(store: &Store) -> Result<Contents<'_>, DiskError> {
    Ok(Contents { tree: Tree::default(), file: store.spool()?, end: 0, entries: 0, store })
}

impl Contents<'_> {
    /// A directory.
    pub fn directory(&mut self, path: &[u8]) -> Result<(), DiskError> {
        self.put(path, Kind::Directory(BTreeMap::new()), 0o755)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &[u8], target: Vec<u8>) -> Result<(), DiskError> {
        self.put(path, Kind::Symlink(target), 0o777)
    }

    /// A regular file. `read` fills the buffer from an offset in it, and is called only if its contents are of interest.
    pub fn file(
        &mut self,
        path: &[u8],
        size: u64,
        mut read: impl FnMut(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        let is = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        if !(1..=LARGEST).contains(&size) || !is(&READ) || is(&NOT_READ) {
            let extents = if size == 0 { Vec::new() } else { vec![Extent { at: 0, spool: NOWHERE, length: size }] };
            return self.put(path, Kind::File(FileData { size, extents }), 0o644);
        }
        self.store.check_room()?;
        let (store, file, start, mut end) = (self.store, &self.file, self.end, self.end);
        let copied = read(&mut |bytes| {
            store.check_room().map_err(io::Error::other)?;
            if end - start + bytes.len() as u64 > size {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than its size"));
            }
            file.write_all_at(bytes, end)?;
            end += bytes.len() as u64;
            Ok(())
        });
        let whole =
            copied.and_then(|()| if end - start == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
        if let Err(source) = whole {
            // Where the disk is full, that is why.
            store.check_room()?;
            return Err(DiskError::Read { what: format!("'/{}'", crate::archive::show(path)), source });
        }
        let extent = Extent { at: 0, spool: start, length: size };
        self.end = end;
        self.put(path, Kind::File(FileData { size, extents: vec![extent] }), 0o644)
    }

    /// Another name for a file, or for a stretch of it: offset and bytes.
    pub fn again(&mut self, file: &FileData, stretch: Option<(u64, u64)>, path: &[u8]) -> Result<(), DiskError> {
        let Some(extent) = file.extents.first() else { return Ok(()) };
        let (offset, length) = stretch.unwrap_or((0, file.size));
        let extent = Extent { at: 0, spool: extent.spool + offset, length };
        self.put(path, Kind::File(FileData { size: length, extents: vec![extent] }), 0o644)
    }

    /// Reads some of a file.
    pub fn read_exact_at(&self, file: &FileData, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let extent = file.extents.first().ok_or(io::ErrorKind::UnexpectedEof)?;
        if offset + buffer.len() as u64 > file.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, extent.spool + offset)
    }

    /// Anything else, of which only its being there is told.
    pub fn other(&mut self, path: &[u8]) -> Result<(), DiskError> {
        self.put(path, Kind::Fifo, 0o644)
    }

    fn put(&mut self, path: &[u8], kind: Kind, mode: u32) -> Result<(), DiskError> {
        self.entries += 1;
        let bad = |what: String| DiskError::Read { what: "the files".to_owned(), source: io::Error::other(what) };
        if self.entries > MOST_ENTRIES {
            return Err(bad(format!("there are more than {MOST_ENTRIES}")));
        }
        let meta = Metadata { mode, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        self.tree.put(path, Put::Inode(kind, meta)).map_err(|error| bad(error.to_string()))
    }

    /// The tree so far.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The files, to be looked into.
    pub fn finish(mut self) -> Result<Indexed, DiskError> {
        let bad = |error: crate::tree::BadEntry| DiskError::Read {
            what: "the files".to_owned(),
            source: io::Error::other(error.to_string()),
        };
        self.tree.finish().map_err(bad)?;
        Ok(Indexed { tree: self.tree, spool: Spool::of(self.file), entries: self.entries })
    }
}
