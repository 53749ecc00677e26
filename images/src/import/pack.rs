//! A directory as a tar: what the client sends for `dir:`.

use super::{ImportStep, Meter, Progress};
use crate::archive::{Contents, Metadata, RecordKind, Writer, Xattrs, show};
use rustix::fs::{OFlags, SeekFrom};
use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, FileType},
    io::{self, BufWriter, Read as _, Write},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

const CHUNK: usize = 1 << 20;

/// Smaller holes cost more in headers than they save.
const SMALLEST_HOLE: u64 = 64 << 10;

/// Why a directory could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something could not be read.
    #[error("cannot read '{path}': {source}{}", hint(source))]
    Read {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The source is no directory.
    #[error("'{0}' is no directory. Use tar: for an archive")]
    NotADirectory(String),
    /// A file changed under our hands.
    #[error(
        "'{path}' changed while it was read ({before} bytes before, {after} after). Import a tree that nobody writes \
         to: stop what runs in it, unmount proc and sys from it, or take a snapshot"
    )]
    Changed {
        /// Which file.
        path: String,
        /// Its size at first.
        before: u64,
        /// Its size, or the bytes read, in the end.
        after: u64,
    },
    /// The receiver took no more.
    #[error("cannot send the tar: {0}")]
    Write(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ". Run this as root: a root filesystem has files that only root may read",
        _ => "",
    }
}

/// Packs everything below `path` as a pax tar; the same tree gives the same bytes.
///
/// Names are sorted bytewise, and `./` comes first with the root directory's own metadata. Owners are numbers,
/// times whole seconds, and all extended attributes that the caller may read come along, as do holes of sparse
/// files. Hard links are those within the tree. Symbolic links are not followed. Other file systems mounted
/// below `path` are packed as well (unmount proc and sys first). Sockets are left out, with a note: they mean
/// nothing without the process that listens.
pub fn pack_directory(path: &Path, writer: impl Write, progress: &dyn Progress) -> Result<(), PackError> {
    let meta = fs::metadata(path).map_err(|source| PackError::Read { path: display(path), source })?;
    if !meta.is_dir() {
        return Err(PackError::NotADirectory(display(path)));
    }
    let mut packer = Packer {
        writer: Writer::new(BufWriter::with_capacity(CHUNK, writer)),
        links: HashMap::new(),
        meter: Meter::new(progress, ImportStep::Pack, None),
        progress,
        buffer: vec![0; CHUNK],
        done: 0,
    };
    packer.entry(path, b".", &meta, RecordKind::Directory)?;
    packer.below(path)?;
    packer.writer.finish().map_err(PackError::Write)?;
    packer.meter.done(packer.done);
    Ok(())
}

fn display(path: &Path) -> String {
    show(path.as_os_str().as_bytes())
}

struct Packer<'a, W: Write> {
    writer: Writer<BufWriter<W>>,
    /// First path of every inode that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    meter: Meter<'a>,
    progress: &'a dyn Progress,
    buffer: Vec<u8>,
    done: u64,
}

/// A directory half packed: its names still to come, in reverse.
struct Open {
    path: PathBuf,
    archived: Vec<u8>,
    names: Vec<OsString>,
}

impl<W: Write> Packer<'_, W> {
    fn below(&mut self, root: &Path) -> Result<(), PackError> {
        let mut stack = vec![Open { path: root.to_owned(), archived: b".".to_vec(), names: names(root)? }];
        while let Some(open) = stack.last_mut() {
            let Some(name) = open.names.pop() else {
                stack.pop();
                continue;
            };
            let path = open.path.join(&name);
            let archived = [open.archived.as_slice(), b"/", name.as_bytes()].concat();
            let meta = fs::symlink_metadata(&path).map_err(|source| read_failed(&path, source))?;
            if meta.is_dir() {
                self.entry(&path, &archived, &meta, RecordKind::Directory)?;
                let names = names(&path)?;
                stack.push(Open { path, archived, names });
            } else {
                self.leaf(&path, archived, &meta)?;
            }
            self.meter.at(self.done);
        }
        Ok(())
    }

    fn leaf(&mut self, path: &Path, archived: Vec<u8>, meta: &fs::Metadata) -> Result<(), PackError> {
        let kind = meta.file_type();
        if kind.is_socket() {
            self.progress.note(&format!("the socket '{}' is left out", display(path)));
            return Ok(());
        }
        let id = (meta.dev(), meta.ino());
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&id) {
                let bare = Metadata { xattrs: &Vec::new(), ..metadata(meta, &Vec::new()) };
                return self.writer.entry(&archived, RecordKind::HardLink(first), bare).map_err(PackError::Write);
            }
            self.links.insert(id, archived.clone());
        }
        match device(kind, meta) {
            _ if kind.is_file() => self.file(path, &archived, meta),
            _ if kind.is_symlink() => {
                let target =
                    fs::read_link(path).map_err(|source| read_failed(path, source))?.into_os_string().into_vec();
                self.entry(path, &archived, meta, RecordKind::Symlink(&target))
            }
            Some(kind) => self.entry(path, &archived, meta, kind),
            None => Err(read_failed(path, io::Error::other("it is of an unknown kind"))),
        }
    }

    fn entry(
        &mut self,
        path: &Path,
        archived: &[u8],
        meta: &fs::Metadata,
        kind: RecordKind<'_>,
    ) -> Result<(), PackError> {
        let xattrs = xattrs(path)?;
        self.writer.entry(archived, kind, metadata(meta, &xattrs)).map_err(PackError::Write)
    }

    fn file(&mut self, path: &Path, archived: &[u8], meta: &fs::Metadata) -> Result<(), PackError> {
        let failed = |source| read_failed(path, source);
        // It may have been replaced since it was looked at: neither follow a link nor wait at a pipe.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let opened = file.metadata().map_err(failed)?;
        if (opened.dev(), opened.ino()) != (meta.dev(), meta.ino()) || !opened.is_file() {
            return Err(changed(path, meta, opened.len()));
        }
        let segments = segments(&file, &opened).map_err(failed)?;
        let size = opened.len();
        let contents = match &segments {
            Some(segments) => Contents::Sparse { size, segments },
            None => Contents::Whole(size),
        };
        self.entry(path, archived, &opened, RecordKind::File(contents))?;
        for (offset, length) in segments.clone().unwrap_or_else(|| vec![(0, size)]) {
            rustix::fs::seek(&file, SeekFrom::Start(offset)).map_err(|e| failed(e.into()))?;
            self.copy(path, &mut file, &opened, offset, length)?;
        }
        let after = file.metadata().map_err(failed)?;
        let stamp = |meta: &fs::Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
        // Files of /proc say they are empty and are not.
        let grown = segments.is_none() && file.read(&mut [0]).map_err(failed)? > 0;
        if stamp(&after) != stamp(&opened) || grown {
            return Err(changed(path, &opened, after.len() + u64::from(grown && after.len() == size)));
        }
        Ok(())
    }

    fn copy(
        &mut self,
        path: &Path,
        file: &mut File,
        opened: &fs::Metadata,
        offset: u64,
        length: u64,
    ) -> Result<(), PackError> {
        let mut left = length;
        while left > 0 {
            let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let count = match file.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(changed(path, opened, offset + length - left)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(read_failed(path, source)),
            };
            self.writer.data(&self.buffer[..count]).map_err(PackError::Write)?;
            left -= count as u64;
            self.done += count as u64;
            self.meter.at(self.done);
        }
        Ok(())
    }
}

fn read_failed(path: &Path, source: io::Error) -> PackError {
    PackError::Read { path: display(path), source }
}

fn changed(path: &Path, before: &fs::Metadata, after: u64) -> PackError {
    PackError::Changed { path: display(path), before: before.len(), after }
}

fn metadata<'a>(meta: &fs::Metadata, xattrs: &'a Xattrs) -> Metadata<'a> {
    let mode = meta.mode() & 0o7777;
    Metadata { mode, uid: meta.uid().into(), gid: meta.gid().into(), mtime: meta.mtime(), xattrs }
}

fn device(kind: FileType, meta: &fs::Metadata) -> Option<RecordKind<'static>> {
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    match kind {
        _ if kind.is_char_device() => Some(RecordKind::Character(major, minor)),
        _ if kind.is_block_device() => Some(RecordKind::Block(major, minor)),
        _ if kind.is_fifo() => Some(RecordKind::Fifo),
        _ => None,
    }
}

/// Sorted so that popping gives them in order.
fn names(directory: &Path) -> Result<Vec<OsString>, PackError> {
    let listed = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let mut names: Vec<OsString> = listed.map_err(|source| read_failed(directory, source))?;
    names.sort_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
    Ok(names)
}

fn xattrs(path: &Path) -> Result<Xattrs, PackError> {
    let listed = match xattr::list(path) {
        Ok(listed) => listed,
        // A file system without them.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(source) => return Err(read_failed(path, source)),
    };
    let mut xattrs = Vec::new();
    for name in listed {
        // Gone between the two calls: then it is not there.
        if let Some(value) = xattr::get(path, &name).map_err(|source| read_failed(path, source))? {
            xattrs.push((name.into_vec(), value));
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Where a file's data is; `None` where it has no hole worth a map.
fn segments(file: &File, meta: &fs::Metadata) -> io::Result<Option<Vec<(u64, u64)>>> {
    // st_blocks counts 512 bytes whatever the file system's block is (stat(2)).
    if meta.blocks().saturating_mul(512).saturating_add(SMALLEST_HOLE) > meta.len() {
        return Ok(None);
    }
    let mut segments: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < meta.len() {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
            Err(rustix::io::Errno::NXIO) => break,
            Err(rustix::io::Errno::INVAL) => return rewound(file, None),
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(meta.len());
        match segments.last_mut() {
            Some((offset, length)) if start - (*offset + *length) < SMALLEST_HOLE => *length = at - *offset,
            _ => segments.push((start, at.saturating_sub(start))),
        }
    }
    segments.retain(|&(_, length)| length > 0);
    rewound(file, Some(segments))
}

fn rewound<T>(file: &File, value: T) -> io::Result<T> {
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    Ok(value)
}
