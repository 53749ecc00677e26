//! Reading a tar stream, entry by entry.

use super::{
    BLOCK, Xattrs,
    header::Header,
    numbers,
    pax::{self, Records},
    show,
    sparse::{self, Segments},
};
use std::io::{self, Read};

/// No real pax header comes near: extended attributes hold 64 KiB each.
const LONGEST_RECORDS: u64 = pax::MOST_BYTES as u64;
/// GNU long names: Linux opens paths of at most 4096 bytes.
const LONGEST_NAME: u64 = 64 << 10;

/// Why a stream could not be read as a tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The very first block is no tar header.
    #[error(
        "this is not a tar archive: {0}. Name a tar, plain or compressed with gzip, xz or zstd, or write dir: for a directory"
    )]
    NotTar(String),
    /// The stream ended before the archive did.
    #[error("the tar is cut short{}. Make or copy it again, then import it again", place(.within, .last))]
    Truncated {
        /// The entry it ended in.
        within: Option<String>,
        /// The last entry that is whole.
        last: Option<String>,
    },
    /// The stream is not what the format allows.
    #[error("the tar is damaged{} (offset {offset}): {what}. Make it again, for example with GNU tar --format=pax", place(.within, .last))]
    Damaged {
        /// What is wrong.
        what: String,
        /// The entry it is wrong in.
        within: Option<String>,
        /// The last entry that is whole.
        last: Option<String>,
        /// Where in the uncompressed stream.
        offset: u64,
    },
    /// The source could not be read, or its compression is damaged.
    #[error("cannot read the tar{}: {source}. {}", place(.within, .last), advice(source))]
    Read {
        /// What the source said.
        source: io::Error,
        /// The entry it failed in.
        within: Option<String>,
        /// The last entry that is whole.
        last: Option<String>,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::Unsupported => "Decompress it first, or use zstd, xz or gzip",
        _ => "Make or copy it again, then import it again",
    }
}

fn place(within: &Option<String>, last: &Option<String>) -> String {
    match (within, last) {
        (Some(within), Some(last)) => format!(" within '{within}', the last whole entry is '{last}'"),
        (Some(within), None) => format!(" within '{within}', its first entry"),
        (None, Some(last)) => format!(" after '{last}'"),
        (None, None) => " before its first entry".to_owned(),
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file; read its data from the reader.
    File,
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    Character(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written; not normalised.
    pub path: Vec<u8>,
    /// Kind.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// A file's size, holes included.
    pub size: u64,
    /// Where the stored data belongs: (offset, length), in order; the rest is holes.
    pub segments: Segments,
}

/// A tar stream being read.
pub struct Reader<R> {
    inner: R,
    offset: u64,
    /// Of the current entry's stored data.
    left: u64,
    padding: u64,
    global: Records,
    within: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    ended: bool,
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Extensions {
    records: Records,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads `inner`, which is not compressed (see [`super::decompress`]) and best buffered.
    pub fn new(inner: R) -> Self {
        let global = Records::default();
        Self { inner, offset: 0, left: 0, padding: 0, global, within: None, last: None, ended: false }
    }

    /// The next entry; what is left of the current one's data is skipped. `None` after the last.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.skip()?;
        self.last = self.within.take().or(self.last.take());
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            if self.extension(&header, &mut extensions)? {
                continue;
            }
            let entry = self.entry(&header, extensions)?;
            return Ok(Some(entry));
        }
    }

    /// Reads stored data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        self.fill(&mut buffer[..want])?;
        self.left -= want as u64;
        Ok(want)
    }

    /// Bytes of the uncompressed stream so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let first = self.offset == 0;
        let mut block = [0; BLOCK];
        match self.fill_some(&mut block)? {
            BLOCK => {}
            0 if first => return Err(TarError::NotTar("it is empty".to_owned())),
            count if first => return Err(TarError::NotTar(describe(&block[..count]))),
            // POSIX ends an archive with two blocks of zeros, so the end of the stream alone means a cut.
            _ => return Err(self.truncated()),
        }
        if block == [0; BLOCK] {
            self.drain()?;
            return Ok(None);
        }
        match Header::parse(block) {
            Some(header) => Ok(Some(header)),
            None if first => Err(TarError::NotTar(describe(&block))),
            None => Err(self.damaged("a header whose checksum is wrong")),
        }
    }

    /// Reads to the end after the closing blocks: compression checks its sums there, and a writer at the
    /// other end of a pipe must not see it broken.
    fn drain(&mut self) -> Result<(), TarError> {
        self.ended = true;
        let mut buffer = vec![0; 64 << 10];
        while self.fill_some(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Takes in a header that describes the next one; `false` when this is an entry itself.
    fn extension(&mut self, header: &Header, extensions: &mut Extensions) -> Result<bool, TarError> {
        let size = u64::try_from(header.size().unwrap_or(-1)).map_err(|_| self.damaged("an impossible size"))?;
        match header.kind() {
            b'x' | b'X' => {
                let text = self.text(size, LONGEST_RECORDS)?;
                extensions.records.add(&text).map_err(|what| self.damaged(what))?;
            }
            b'g' => {
                let text = self.text(size, LONGEST_RECORDS)?;
                let mut global = std::mem::take(&mut self.global);
                global.add(&text).map_err(|what| self.damaged(what))?;
                self.global = global;
            }
            b'L' => extensions.path = Some(until_nul(self.text(size, LONGEST_NAME)?)),
            b'K' => extensions.link = Some(until_nul(self.text(size, LONGEST_NAME)?)),
            // A volume's label.
            b'V' => {
                self.expect(size);
                self.skip()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let records = extensions.records.over(&self.global);
        let path = records.get(b"GNU.sparse.name").or(records.get(b"path")).map(<[u8]>::to_vec);
        let path = path.or(extensions.path).unwrap_or_else(|| header.path());
        self.within = Some(path.clone());
        let link = records.get(b"linkpath").map(<[u8]>::to_vec).or(extensions.link).unwrap_or_else(|| header.link());
        let number = |key: &[u8], field: Option<i64>| match records.number(key)? {
            Some(value) => Ok(value),
            None => field.ok_or("a header with a field that is no number"),
        };
        let read = || -> Result<_, &'static str> {
            let whole = |value: i64| u64::try_from(value).map_err(|_| "a negative number");
            Ok((
                header.mode().ok_or("a mode that is no number")?,
                whole(number(b"uid", header.uid())?)?,
                whole(number(b"gid", header.gid())?)?,
                whole(number(b"size", header.size())?)?,
                number(b"mtime", header.mtime())?,
                records.xattrs()?,
            ))
        };
        let (mode, uid, gid, stored, mtime, xattrs) = read().map_err(|what| self.damaged(what))?;
        let kind = self.kind(header, &path, link, stored)?;
        let (mut size, mut segments) = (0, Vec::new());
        if kind == EntryKind::File {
            self.expect(stored);
            (size, segments) = self.layout(header, &records, stored)?;
        } else if header.kind() == b'D' {
            // GNU incremental dumps list the directory's members here.
            self.expect(stored);
        }
        Ok(Entry { path, kind, mode: (mode & 0o7777) as u32, uid, gid, mtime, xattrs, size, segments })
    }

    fn kind(&self, header: &Header, path: &[u8], link: Vec<u8>, stored: u64) -> Result<EntryKind, TarError> {
        let device = || match header.device() {
            (Some(major), Some(minor)) => match (u32::try_from(major), u32::try_from(minor)) {
                (Ok(major), Ok(minor)) => Ok((major, minor)),
                _ => Err(self.damaged("a device number out of range")),
            },
            _ => Err(self.damaged("a device number that is no number")),
        };
        Ok(match header.kind() {
            // Before ustar a directory was a file whose name ends in a slash.
            b'0' | 0 if path.ends_with(b"/") && stored == 0 => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' if stored > 0 => {
                return Err(self.damaged("a hard link that brings contents, as cpio-like writers make them"));
            }
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => device().map(|(major, minor)| EntryKind::Character(major, minor))?,
            b'4' => device().map(|(major, minor)| EntryKind::Block(major, minor))?,
            b'5' | b'D' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'M' => return Err(self.damaged("the second volume of a multi-volume archive")),
            other => return Err(self.damaged(&format!("an entry of type '{}'", other.escape_ascii()))),
        })
    }

    /// The file's size and where its stored data belongs.
    fn layout(&mut self, header: &Header, records: &Records, stored: u64) -> Result<(u64, Segments), TarError> {
        if sparse::is_old_gnu(header) {
            return self.old_gnu_layout(header, stored);
        }
        let refuse = |what: &'static str| self.damaged(what);
        let real = records.number(b"GNU.sparse.realsize").map_err(refuse)?;
        let real = real.map_or_else(|| records.number(b"GNU.sparse.size"), |real| Ok(Some(real))).map_err(refuse)?;
        let segments = if sparse::is_in_data(records).map_err(refuse)? {
            Some(self.map_in_data()?)
        } else {
            sparse::from_records(records).map_err(refuse)?
        };
        match (segments, real) {
            (Some(segments), Some(real)) => self.checked(segments, real),
            (Some(_), None) => Err(self.damaged("a sparse file without its size")),
            // star writes SCHILY.realsize and GNU's own keywords always come with a map.
            (None, _) if stored == 0 => Ok((0, Vec::new())),
            (None, _) => Ok((stored, vec![(0, stored)])),
        }
    }

    fn old_gnu_layout(&mut self, header: &Header, _stored: u64) -> Result<(u64, Segments), TarError> {
        let (map, mut more, real) = header.sparse();
        let real = real.ok_or_else(|| self.damaged("a sparse file without its size"))?;
        let mut segments = Vec::new();
        sparse::old_gnu(map, &mut segments).map_err(|what| self.damaged(what))?;
        while more {
            let mut block = [0; BLOCK];
            // These blocks lie between header and data and are not counted in the size.
            self.fill(&mut block)?;
            sparse::old_gnu(&block[..504], &mut segments).map_err(|what| self.damaged(what))?;
            more = block[504] != 0;
        }
        self.checked(segments, real)
    }

    fn map_in_data(&mut self) -> Result<Segments, TarError> {
        // The closure needs the reader mutably and the refusal needs its place, so the refusal is made after.
        enum Failed {
            Stream(TarError),
            Map(&'static str),
        }
        let next = |block: &mut [u8; BLOCK]| {
            if self.left < BLOCK as u64 {
                return Err(Failed::Map("a sparse map longer than its entry"));
            }
            self.read_data(block).map(drop).map_err(Failed::Stream)
        };
        sparse::from_data(next, Failed::Map).map_err(|failed| match failed {
            Failed::Stream(error) => error,
            Failed::Map(what) => self.damaged(what),
        })
    }

    fn checked(&self, segments: Segments, real: i64) -> Result<(u64, Segments), TarError> {
        let real = u64::try_from(real).map_err(|_| self.damaged("a negative size"))?;
        let segments = sparse::checked(segments, real, self.left).map_err(|what| self.damaged(what))?;
        Ok((real, segments))
    }

    fn expect(&mut self, stored: u64) {
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
    }

    /// The data of an extension header.
    fn text(&mut self, size: u64, most: u64) -> Result<Vec<u8>, TarError> {
        if size > most {
            return Err(self.damaged(&format!("an extension header of {size} bytes")));
        }
        self.expect(size);
        let mut text = vec![0; size as usize];
        self.fill(&mut text)?;
        self.left = 0;
        self.skip()?;
        Ok(text)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 16 << 10];
        let mut skip = self.left.checked_add(self.padding).ok_or_else(|| self.damaged("an impossible size"))?;
        while skip > 0 {
            let step = skip.min(buffer.len() as u64);
            self.fill(&mut buffer[..step as usize])?;
            skip -= step;
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        if self.fill_some(buffer)? == buffer.len() { Ok(()) } else { Err(self.truncated()) }
    }

    /// As many bytes as there are.
    fn fill_some(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut count = 0;
        while count < buffer.len() {
            match self.inner.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(some) => count += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A decompressor's word for a stream that ends too early.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.truncated()),
                Err(source) => {
                    let (within, last) = self.place();
                    return Err(TarError::Read { source, within, last });
                }
            }
        }
        self.offset += count as u64;
        Ok(count)
    }

    fn place(&self) -> (Option<String>, Option<String>) {
        (self.within.as_deref().map(show), self.last.as_deref().map(show))
    }

    fn truncated(&self) -> TarError {
        let (within, last) = self.place();
        TarError::Truncated { within, last }
    }

    fn damaged(&self, what: &str) -> TarError {
        let (within, last) = self.place();
        TarError::Damaged { what: what.to_owned(), within, last, offset: self.offset }
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

/// A guess at what somebody took for a tar.
fn describe(start: &[u8]) -> String {
    let known: [(&[u8], &str); 10] = [
        (b"PK\x03\x04", "it is a zip archive; unpack it and import the directory with dir:"),
        (b"hsqs", "it is a squashfs; unpack it with unsquashfs and import the directory with dir:"),
        (b"QFI\xfb", "it is a qcow2 disk image"),
        (b"070701", "it is a cpio archive; unpack it and import the directory with dir:"),
        (b"070702", "it is a cpio archive; unpack it and import the directory with dir:"),
        (b"!<arch>", "it is an ar archive, such as a .deb package; unpack it and import the directory with dir:"),
        (b"\xed\xab\xee\xdb", "it is an rpm package; unpack it and import the directory with dir:"),
        (b"\x7fELF", "it is an ELF program"),
        (b"MZ", "it is a PE program, such as a kernel; import it with kernel=… initrd=…"),
        (b"<", "it looks like a web page: the download may have failed"),
    ];
    let known = known.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| (*what).to_owned());
    let digits = numbers::parse(start.get(148..156).unwrap_or_default());
    known.unwrap_or_else(|| match digits {
        _ if start.len() < BLOCK => "it is shorter than one header".to_owned(),
        Some(_) => "the checksum of its first header is wrong".to_owned(),
        None => "its first block is no tar header".to_owned(),
    })
}
