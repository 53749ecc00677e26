//! One pass over a tar, or over the tars of layers: names and metadata into a tree, contents into a spool.

use super::{
    BadEntry, Extent, FileData, InodeId, Kind, Metadata, Put, Tree, carry::check_lengths, hashed::Hashed,
    layer::Whiteout,
};
use crate::{
    archive::{
        Entry, EntryKind, Reader, TarError,
        decompress::{self, Decompressed},
    },
    import::{ImportError, Meter},
    store::{Store, StoreError},
};
use bennu_rules::image::Digest;
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::fs::FileExt as _,
    rc::Rc,
};

/// Zeros are found in stretches of squashfs's block size: what it would not store, the spool need not either.
const STRETCH: usize = 128 << 10;
static ZEROS: [u8; STRETCH] = [0; STRETCH];

/// The tree is held in memory, some 300 bytes a file; a root filesystem of a whole desktop has half a million.
const MOST_ENTRIES: usize = 4 << 20;
/// What paths, link targets, extended attributes and maps of all entries may take together. A million files with
/// paths of a hundred bytes take a fifth of it.
const MOST_METADATA: usize = 512 << 20;
/// What the archives may come to when they are decompressed. A machine keeps its root in memory, so no honest one is
/// near; a stream of zeros compresses a thousandfold, and would be read for days.
const MOST_STREAM: u64 = 256 << 30;
/// What all files may come to with their holes: a `lastlog` of a user with a high number claims hundreds of gigabytes
/// and has a few blocks.
const MOST_CONTENTS: u64 = 2 << 40;

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
    let mut indexer = Indexer::new(store)?;
    indexer.archive(source, meter)?;
    indexer.finish(meter)
}

/// Counts what the source gave.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Archives on their way into one tree.
pub struct Indexer<'a> {
    tree: Tree,
    out: SpoolWriter,
    store: &'a Store,
    /// Bytes of the sources so far.
    count: Rc<Cell<u64>>,
    entries: usize,
    /// What may still come.
    room: Room,
}

/// What bounds memory, disk and time, whatever the source holds.
struct Room {
    /// Bytes of metadata.
    metadata: usize,
    /// Bytes of decompressed archives.
    stream: u64,
    /// Bytes of files, their holes included.
    contents: u64,
}

impl<'a> Indexer<'a> {
    /// An empty tree. The spool lies in the store's scratch space.
    pub fn new(store: &'a Store) -> Result<Self, ImportError> {
        let room = Room { metadata: MOST_METADATA, stream: MOST_STREAM, contents: MOST_CONTENTS };
        let (tree, out) = (Tree::default(), SpoolWriter::new(store)?);
        Ok(Self { tree, out, store, count: Rc::default(), entries: 0, room })
    }

    /// Adds a tar, compressed or not.
    pub fn archive<R: Read>(&mut self, source: R, meter: &mut Meter<'_>) -> Result<(), ImportError> {
        let plain = self.opened(source)?;
        self.entries(plain, meter, |_| Ok(None))
    }

    /// Adds a layer: what it hides of what is there is gone (see [`Tree::whiteout`]). Gives the digest of the layer
    /// without its compression (its DiffID: OCI image specification, "Layer DiffID").
    pub fn layer<R: Read>(&mut self, source: R, meter: &mut Meter<'_>) -> Result<Digest, ImportError> {
        self.tree.begin_layer();
        let mut hashed = Hashed::new(self.opened(source)?);
        self.entries(&mut hashed, meter, Whiteout::read)?;
        self.tree.end_layer()?;
        Ok(hashed.finish())
    }

    /// What was read so far, for a look at it. Contents that came last may still be in memory.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Ties what is open, and gives the whole.
    pub fn finish(self, meter: &mut Meter<'_>) -> Result<Indexed, ImportError> {
        let Self { mut tree, out, store, count, entries, .. } = self;
        tree.finish()?;
        let spool = out.finish(store)?;
        meter.done(count.get());
        Ok(Indexed { tree, spool, entries })
    }

    fn opened<R: Read>(&self, source: R) -> Result<Decompressed<Counted<R>>, TarError> {
        let counted = Counted { inner: source, count: Rc::clone(&self.count) };
        decompress::sniff(counted).map_err(|source| TarError::Read { source, within: None, last: None })
    }

    fn entries<R: Read>(
        &mut self,
        plain: R,
        meter: &mut Meter<'_>,
        whiteout: impl Fn(&[u8]) -> Result<Option<Whiteout>, BadEntry>,
    ) -> Result<(), ImportError> {
        let mut reader = Reader::new(plain.take(self.room.stream));
        while let Some(entry) = reader.next_entry().map_err(|error| self.cut(error, &reader))? {
            self.entries += 1;
            // A path also makes the directories it leads through.
            if self.entries > MOST_ENTRIES || self.tree.inode_count() > MOST_ENTRIES {
                let path = crate::archive::show(&entry.path);
                let what =
                    "is one entry too many: an image holds 4194304 files and directories. Import less of the tree";
                return Err(BadEntry { path, what }.into());
            }
            match whiteout(&entry.path)? {
                Some(whiteout) => self.tree.whiteout(&whiteout)?,
                None => self.add(entry, &mut reader, meter)?,
            }
        }
        self.room.stream -= reader.offset().min(self.room.stream);
        Ok(())
    }

    /// A stream that was cut because it is too long is not one that came cut.
    fn cut<R: Read>(&self, error: TarError, reader: &Reader<R>) -> ImportError {
        if reader.offset() < self.room.stream {
            return error.into();
        }
        ImportError::Option(format!(
            "the source is larger than {} when it is decompressed, and a machine keeps its root in memory. Import less",
            crate::store::bytes(MOST_STREAM)
        ))
    }

    fn add<R: Read>(&mut self, entry: Entry, reader: &mut Reader<R>, meter: &mut Meter<'_>) -> Result<(), ImportError> {
        check_lengths(&entry)?;
        self.take_room(&entry.path, weight(&entry))?;
        let kind = match entry.kind {
            EntryKind::HardLink(target) => return Ok(self.tree.put(&entry.path, Put::HardLink(target))?),
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::File => {
                self.room.contents = self.room.contents.checked_sub(entry.size).ok_or_else(|| BadEntry {
                    path: crate::archive::show(&entry.path),
                    what: "is where the files of the source come to more than 2 TiB, holes included. Import less of the tree",
                })?;
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
        self.room.metadata = self.room.metadata.checked_sub(bytes).ok_or_else(|| BadEntry {
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
                let count = reader.read_data(&mut buffer[..want]).map_err(|error| self.cut(error, reader))?;
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
        archive::{Contents, Metadata, RecordKind, Writer, Xattrs},
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
            let mut meter = Meter::new(&(), ImportStep::Read, None);
            let mut indexer = Indexer::new(&store).unwrap();
            indexer.room.metadata = 1 << 20;
            let taken = Rc::clone(&indexer.count);
            let result = indexer.archive(tar, &mut meter).and_then(|()| indexer.finish(&mut meter));
            (result, taken.get() as usize)
        };
        assert_eq!(read(&heavy(17)).0.unwrap().entries, 17);
        let tar = heavy(200);
        let (result, taken) = read(&tar);
        let error = result.unwrap_err();
        assert!(matches!(error, ImportError::Entry(_)), "{error}");
        assert!(error.to_string().starts_with("'f17' ") && error.to_string().contains("512 MiB"), "{error}");
        assert!(taken < tar.len() / 3, "it was refused when it came, and not after {taken} bytes");
    }

    #[test]
    fn a_bomb_ends_in_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let none = Xattrs::new();
        let mut tar = Writer::new(Vec::new());
        let meta = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: &none };
        tar.entry(b"zeros", RecordKind::File(Contents::Whole(8 << 20)), meta).unwrap();
        tar.data(&vec![0; 8 << 20]).unwrap();
        let bomb = zstd::encode_all(tar.finish().unwrap().as_slice(), 3).unwrap();
        let read = |stream: u64, contents: u64| {
            let mut meter = Meter::new(&(), ImportStep::Read, None);
            let mut indexer = Indexer::new(&store).unwrap();
            (indexer.room.stream, indexer.room.contents) = (stream, contents);
            // The bound is over all layers of an image.
            indexer.layer(bomb.as_slice(), &mut meter).and_then(|_| indexer.layer(bomb.as_slice(), &mut meter))
        };
        assert!(read(17 << 20, 16 << 20).is_ok());
        for (stream, contents, says) in [(9 << 20, 16 << 20, "larger than 256.0 GiB"), (17 << 20, 12 << 20, "2 TiB")] {
            let error = read(stream, contents).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
    }
}
