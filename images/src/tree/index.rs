//! One pass over a tar: names and metadata into a tree, contents into a spool.

use super::{BadEntry, Extent, FileData, InodeId, Kind, Metadata, Put, Tree, carry::check_lengths};
use crate::{
    archive::{Entry, EntryKind, Reader, TarError},
    import::{ImportError, Meter},
    store::{Store, StoreError},
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::fs::FileExt as _,
};

/// Zeros are found in stretches of squashfs's block size: what it would not store, the spool need not either.
const STRETCH: usize = 128 << 10;
static ZEROS: [u8; STRETCH] = [0; STRETCH];

/// The tree is held in memory, some 300 bytes a file; a root filesystem of a whole desktop has half a million.
const MOST_ENTRIES: usize = 4 << 20;
/// What paths, link targets, extended attributes and maps of all entries may take together. A million files with
/// paths of a hundred bytes take a fifth of it.
const MOST_METADATA: usize = 512 << 20;

/// The contents of all files, one after the other.
#[derive(Debug)]
pub struct Spool {
    file: File,
}

impl Spool {
    /// Over a scratch file that is written.
    pub(crate) fn of(file: File) -> Self {
        Self { file }
    }

    /// Reads some of a file's stored contents.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// A whole file, which must be no larger than `most`.
    pub fn read(&self, data: &FileData, most: u64) -> io::Result<Vec<u8>> {
        if data.size > most {
            let what = format!("it has {} bytes, and at most {most} make sense", data.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut bytes = vec![0; data.size as usize];
        for extent in &data.extents {
            let at = extent.at as usize;
            self.read_exact_at(&mut bytes[at..at + extent.length as usize], extent.spool)?;
        }
        Ok(bytes)
    }
}

/// A tar that was read whole.
#[derive(Debug)]
pub struct Indexed {
    /// Names and metadata.
    pub tree: Tree,
    /// Contents.
    pub spool: Spool,
    /// How many entries the tar had.
    pub entries: usize,
}

/// Reads a tar, compressed or not.
pub fn read(source: impl Read, store: &Store, meter: &mut Meter<'_>) -> Result<Indexed, ImportError> {
    read_within(MOST_METADATA, source, store, meter)
}

fn read_within(
    most_metadata: usize,
    source: impl Read,
    store: &Store,
    meter: &mut Meter<'_>,
) -> Result<Indexed, ImportError> {
    let count = Cell::new(0);
    let plain = crate::archive::decompress::sniff(Counted { inner: source, count: &count })
        .map_err(|source| TarError::Read { source, within: None, last: None })?;
    let mut reader = Reader::new(plain);
    let out = SpoolWriter::new(store)?;
    let mut indexer = Indexer { tree: Tree::default(), out, store, count: &count, room: most_metadata };
    let mut entries = 0;
    while let Some(entry) = reader.next_entry()? {
        entries += 1;
        // A path also makes the directories it leads through.
        if entries > MOST_ENTRIES || indexer.tree.inode_count() > MOST_ENTRIES {
            let path = crate::archive::show(&entry.path);
            let what = "is one entry too many: an image holds 4194304 files and directories. Import less of the tree";
            return Err(BadEntry { path, what }.into());
        }
        indexer.add(entry, &mut reader, meter)?;
    }
    let Indexer { mut tree, out, .. } = indexer;
    tree.finish()?;
    let spool = out.finish(store)?;
    meter.done(count.get());
    Ok(Indexed { tree, spool, entries })
}

/// Counts what the source gave.
struct Counted<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

struct Indexer<'a> {
    tree: Tree,
    out: SpoolWriter,
    store: &'a Store,
    /// Bytes of the source so far.
    count: &'a Cell<u64>,
    /// Bytes of metadata that may still come.
    room: usize,
}

impl Indexer<'_> {
    fn add<R: Read>(&mut self, entry: Entry, reader: &mut Reader<R>, meter: &mut Meter<'_>) -> Result<(), ImportError> {
        check_lengths(&entry)?;
        self.take_room(&entry.path, weight(&entry))?;
        let kind = match entry.kind {
            EntryKind::HardLink(target) => return Ok(self.tree.put(&entry.path, Put::HardLink(target))?),
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::File => {
                let data = self.spool(&entry, reader, meter)?;
                self.take_room(&entry.path, data.extents.len() * size_of::<Extent>())?;
                Kind::File(data)
            }
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::Character(major, minor) => Kind::Character(major, minor),
            EntryKind::Block(major, minor) => Kind::Block(major, minor),
            EntryKind::Fifo => Kind::Fifo,
        };
        let Entry { mode, uid, gid, mtime, xattrs, .. } = entry;
        let meta = Metadata { mode, uid, gid, mtime, xattrs };
        meter.at(self.count.get());
        Ok(self.tree.put(&entry.path, Put::Inode(kind, meta))?)
    }

    fn take_room(&mut self, path: &[u8], bytes: usize) -> Result<(), BadEntry> {
        self.room = self.room.checked_sub(bytes).ok_or_else(|| BadEntry {
            path: crate::archive::show(path),
            what: "is where the names, links and extended attributes of the tar come to more than 512 MiB; no root \
                   filesystem has so many. Import less of the tree",
        })?;
        Ok(())
    }

    /// Copies a file's data to the spool, leaving out what is zero: whether a hole came as a hole or as
    /// zeros must make no difference to the image.
    fn spool<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        meter: &mut Meter<'_>,
    ) -> Result<FileData, ImportError> {
        let mut data = FileData { size: entry.size, extents: Vec::new() };
        let mut buffer = std::mem::take(&mut self.out.buffer);
        for &(offset, length) in &entry.segments {
            let mut at = offset;
            while at < offset + length {
                // Stretches are aligned in the file, so that a shifted map finds the same zeros.
                let room = STRETCH - (at % STRETCH as u64) as usize;
                let want = room.min(usize::try_from(offset + length - at).unwrap_or(room));
                let count = reader.read_data(&mut buffer[..want])?;
                if count == 0 {
                    break;
                }
                meter.check()?;
                if buffer[..count] != ZEROS[..count] {
                    self.store.check_room()?;
                    let spool = self.out.write(&buffer[..count]).map_err(|e| self.write_failed(e))?;
                    extend(&mut data.extents, Extent { at, spool, length: count as u64 });
                }
                at += count as u64;
                meter.at(self.count.get());
            }
        }
        self.out.buffer = buffer;
        Ok(data)
    }

    fn write_failed(&self, error: io::Error) -> StoreError {
        self.store.failed("write to", self.store.tmp(), error)
    }
}

/// What an entry's metadata takes in memory.
fn weight(entry: &Entry) -> usize {
    let link = match &entry.kind {
        EntryKind::HardLink(target) | EntryKind::Symlink(target) => target.len(),
        _ => 0,
    };
    // Each attribute is two vectors.
    let attribute = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 2 * size_of::<Vec<u8>>();
    entry.path.len() + link + entry.xattrs.iter().map(attribute).sum::<usize>()
}

fn extend(extents: &mut Vec<Extent>, next: Extent) {
    if let Some(last) = extents.last_mut()
        && last.at + last.length == next.at
        && last.spool + last.length == next.spool
    {
        last.length += next.length;
        return;
    }
    extents.push(next);
}

struct SpoolWriter {
    out: io::BufWriter<File>,
    end: u64,
    /// For the indexer's use: one for all files.
    buffer: Vec<u8>,
}

impl SpoolWriter {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let out = io::BufWriter::with_capacity(1 << 20, store.spool()?);
        Ok(Self { out, end: 0, buffer: vec![0; STRETCH] })
    }

    /// Writes, and says where.
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end;
        self.out.write_all(bytes)?;
        self.end += bytes.len() as u64;
        Ok(at)
    }

    fn finish(self, store: &Store) -> Result<Spool, StoreError> {
        let file = self.out.into_inner().map_err(|e| store.failed("write to", store.tmp(), e.into_error()))?;
        Ok(Spool { file })
    }
}

impl Indexed {
    /// A regular file's bytes, symbolic links followed.
    pub fn bytes(&self, path: &[u8], most: u64) -> Option<io::Result<Vec<u8>>> {
        self.tree.file(path).map(|data| self.spool.read(data, most))
    }

    /// The start of a file.
    pub fn head(&self, data: &FileData, most: u64) -> io::Result<Vec<u8>> {
        let size = data.size.min(most);
        let within = |extent: &&Extent| extent.at < size;
        let cut = |extent: &Extent| Extent { length: extent.length.min(size - extent.at), ..*extent };
        let extents = data.extents.iter().filter(within).map(cut).collect();
        self.spool.read(&FileData { size, extents }, most)
    }

    /// A file's bytes by inode.
    pub fn inode_bytes(&self, id: InodeId, most: u64) -> Option<io::Result<Vec<u8>>> {
        match &self.tree.inode(id).kind {
            Kind::File(data) => Some(self.spool.read(data, most)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        archive::{Metadata, RecordKind, Writer, Xattrs},
        import::ImportStep,
    };

    /// Files `f0`, `f1`, … with an attribute of 60000 bytes each.
    fn heavy(count: usize) -> Vec<u8> {
        let xattrs: Xattrs = vec![(b"user.heavy".to_vec(), vec![b'h'; 60_000])];
        let mut tar = Writer::new(Vec::new());
        for at in 0..count {
            let meta = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: &xattrs };
            tar.entry(format!("f{at}").as_bytes(), RecordKind::Fifo, meta).unwrap();
        }
        tar.finish().unwrap()
    }

    #[test]
    fn metadata_is_bounded_over_all_entries() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let read = |tar: &[u8]| {
            let count = Cell::new(0);
            let source = Counted { inner: tar, count: &count };
            let mut meter = Meter::new(&(), ImportStep::Read, None);
            let result = read_within(1 << 20, source, &store, &mut meter);
            (result, count.get() as usize)
        };
        assert_eq!(read(&heavy(17)).0.unwrap().entries, 17);
        let tar = heavy(200);
        let (result, taken) = read(&tar);
        let error = result.unwrap_err();
        assert!(matches!(error, ImportError::Entry(_)), "{error}");
        assert!(error.to_string().starts_with("'f17' ") && error.to_string().contains("512 MiB"), "{error}");
        assert!(taken < tar.len() / 3, "it was refused when it came, and not after {taken} bytes");
    }
}
