//! Writing a tar stream: ustar headers, with pax records only where a value does not fit.

use super::{BLOCK, Xattrs, header::Fields, pax};
use std::io::{self, Write};

/// What every entry has.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a> {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: &'a Xattrs,
}

/// What an entry is, with what only that kind has.
#[derive(Debug, Clone, Copy)]
pub enum RecordKind<'a> {
    /// A directory; its path gets a closing slash.
    Directory,
    /// A file, whose contents follow by [`Writer::data`].
    File(Contents<'a>),
    /// Another name of an entry already written.
    HardLink(&'a [u8]),
    /// A symbolic link.
    Symlink(&'a [u8]),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A file's contents to come.
#[derive(Debug, Clone, Copy)]
pub enum Contents<'a> {
    /// All of it, of this size.
    Whole(u64),
    /// Only these stretches (offset, length) of a file of `size` bytes: GNU's pax form 1.0.
    Sparse {
        /// Size with the holes.
        size: u64,
        /// In order, not overlapping.
        segments: &'a [(u64, u64)],
    },
}

/// A tar stream being written. The same calls give the same bytes.
pub struct Writer<W: Write> {
    inner: W,
    /// Of the current entry's data, still to come.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `inner`, which is best buffered.
    pub fn new(inner: W) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Starts an entry.
    pub fn entry(&mut self, path: &[u8], kind: RecordKind<'_>, meta: Metadata<'_>) -> io::Result<()> {
        self.close()?;
        let mut records = Vec::new();
        let slashed;
        let mut path = path;
        if matches!(kind, RecordKind::Directory) {
            slashed = [path, b"/"].concat();
            path = &slashed;
        }
        let map = sparse_map(kind);
        let (flag, link, stored, device) = describe(kind, &map);
        if let RecordKind::File(Contents::Sparse { size, .. }) = kind {
            pax::record(&mut records, b"GNU.sparse.major", b"1");
            pax::record(&mut records, b"GNU.sparse.minor", b"0");
            pax::record(&mut records, b"GNU.sparse.name", path);
            pax::record(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
        }
        let fields = Fields {
            path,
            link,
            kind: flag,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            size: stored,
            mtime: meta.mtime.try_into().unwrap_or(0),
            device,
        };
        odd_values(&mut records, &fields, meta.mtime);
        for (name, value) in meta.xattrs {
            pax::record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        self.extended(&records)?;
        self.inner.write_all(&fields.encode())?;
        self.expect(stored);
        self.data(&map)
    }

    /// Writes some of the current entry's stored data.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = bytes.len() as u64;
        let Some(left) = self.left.checked_sub(count) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more data than the entry announced"));
        };
        self.left = left;
        self.inner.write_all(bytes)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let size = records.len() as u64;
        // Readers without pax see a file of this name; nothing of the entry enters it.
        let path = b"././@PaxHeader";
        let (link, device) = (b"".as_slice(), (0, 0));
        let header = Fields { path, link, kind: b'x', mode: 0o644, uid: 0, gid: 0, size, mtime: 0, device };
        self.inner.write_all(&header.encode())?;
        self.expect(size);
        self.data(records)?;
        self.close()
    }

    fn expect(&mut self, stored: u64) {
        self.left = stored;
        self.padding = (stored.wrapping_neg() % BLOCK as u64) as usize;
    }

    fn close(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "less data than the entry announced"));
        }
        self.inner.write_all(&[0; BLOCK][..self.padding])?;
        self.padding = 0;
        Ok(())
    }
}

/// Type flag, link name, stored size and device of a header.
fn describe<'a>(kind: RecordKind<'a>, map: &[u8]) -> (u8, &'a [u8], u64, (u32, u32)) {
    match kind {
        RecordKind::Directory => (b'5', b"", 0, (0, 0)),
        RecordKind::File(Contents::Whole(size)) => (b'0', b"", size, (0, 0)),
        RecordKind::File(Contents::Sparse { segments, .. }) => {
            let data: u64 = segments.iter().map(|&(_, length)| length).sum();
            (b'0', b"", map.len() as u64 + data, (0, 0))
        }
        RecordKind::HardLink(target) => (b'1', target, 0, (0, 0)),
        RecordKind::Symlink(target) => (b'2', target, 0, (0, 0)),
        RecordKind::Character(major, minor) => (b'3', b"", 0, (major, minor)),
        RecordKind::Block(major, minor) => (b'4', b"", 0, (major, minor)),
        RecordKind::Fifo => (b'6', b"", 0, (0, 0)),
    }
}

/// GNU's form 1.0: count, then offsets and lengths, a decimal line each, filled up to whole blocks.
fn sparse_map(kind: RecordKind<'_>) -> Vec<u8> {
    let RecordKind::File(Contents::Sparse { segments, .. }) = kind else { return Vec::new() };
    let mut map = format!("{}\n", segments.len()).into_bytes();
    for (offset, length) in segments {
        map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Records for what the header's fields cannot hold.
fn odd_values(records: &mut Vec<u8>, fields: &Fields<'_>, mtime: i64) {
    if fields.path.len() > 100 {
        pax::record(records, b"path", fields.path);
    }
    if fields.link.len() > 100 {
        pax::record(records, b"linkpath", fields.link);
    }
    for (key, value, most) in
        [("uid", fields.uid, 0o7777777), ("gid", fields.gid, 0o7777777), ("size", fields.size, 0o77777777777)]
    {
        if value > most {
            pax::record(records, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if !(0..=0o77777777777).contains(&mtime) {
        pax::record(records, b"mtime", mtime.to_string().as_bytes());
    }
}
