//! qcow2, read-only (QEMU's docs/interop/qcow2.txt).
//!
//! ```text
//!   offset on the disk ─▶ L1 table ─▶ L2 table ─▶ cluster: plain │ compressed │ zeros │ nothing (zeros)
//! ```
//!
//! Our own, because the file comes from elsewhere: an image that leans on another file, a backing file or one with its
//! data, is refused, so that none can make this host read a file of its own.

use super::DiskError;
use flate2::{Decompress, FlushDecompress, Status};
use std::{cell::RefCell, fs::File, io, io::Read as _, os::unix::fs::FileExt as _, rc::Rc};

/// What every qcow2 begins with.
pub const MAGIC: &[u8] = b"QFI\xfb";

/// QEMU's own limit for the first table.
const MOST_L1: u64 = 32 << 20;
/// What tables and decompressed clusters may take together, each kind for itself.
const CACHE: usize = 8 << 20;

/// Bits 9 to 55 of a table's entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Deflate,
    Zstd,
}

/// An open image.
#[derive(Debug)]
pub struct Qcow2 {
    file: File,
    file_size: u64,
    size: u64,
    cluster_bits: u32,
    method: Method,
    l1: Vec<u64>,
    tables: RefCell<Cache<Vec<u64>>>,
    clusters: RefCell<Cache<Vec<u8>>>,
}

impl Qcow2 {
    /// Reads header and first table.
    pub fn open(file: File, file_size: u64) -> Result<Self, DiskError> {
        let refuse = |what: &str| Err(DiskError::Image(what.to_owned()));
        let failed = |what: &'static str| move |source| DiskError::Read { what: what.to_owned(), source };
        let mut header = [0; 112];
        let there = header.len().min(usize::try_from(file_size).unwrap_or(usize::MAX));
        if there < 72 {
            return refuse("is a qcow2 that is cut within its header. Copy it again");
        }
        file.read_exact_at(&mut header[..there], 0).map_err(failed("the qcow2 header"))?;
        let version = u32_at(&header, 4);
        let (features, length) = match version {
            2 => (0, 72),
            3 => (u64_at(&header, 72), u32_at(&header, 100)),
            _ => {
                return refuse(&format!(
                    "is a qcow2 of version {version}, and 2 and 3 are known. Convert it with qemu-img"
                ));
            }
        };
        if u64_at(&header, 8) != 0 {
            return refuse(
                "leans on a backing file, which is never followed. Make it whole: qemu-img convert -O qcow2 IN OUT",
            );
        }
        if features & DATA_FILE != 0 {
            return refuse(
                "keeps its data in another file, which is never followed. Make it whole: qemu-img convert -O qcow2 IN OUT",
            );
        }
        if u32_at(&header, 32) != 0 {
            return refuse("is encrypted. Decrypt it: qemu-img convert, with its key as a secret object");
        }
        if features & CORRUPT != 0 {
            return refuse("says itself that it is damaged. Repair it: qemu-img check -r all FILE");
        }
        if features & !(DIRTY | COMPRESSION) != 0 {
            let what = if features & EXTENDED_L2 != 0 { "subclusters" } else { "features that are not known" };
            return refuse(&format!("is a qcow2 with {what}. Convert it: qemu-img convert -O qcow2 IN OUT"));
        }
        let method = match header[104] {
            _ if features & COMPRESSION == 0 || length <= 104 => Method::Deflate,
            0 => Method::Deflate,
            1 => Method::Zstd,
            other => {
                return refuse(&format!("is compressed in way {other}, which is not known. Convert it with qemu-img"));
            }
        };
        let cluster_bits = u32_at(&header, 20);
        if !(9..=21).contains(&cluster_bits) {
            return refuse(&format!(
                "has clusters of 2^{cluster_bits} bytes, and 2^9 to 2^21 make sense. Copy it again"
            ));
        }
        let size = u64_at(&header, 24);
        let (entries, table) = (u64::from(u32_at(&header, 36)), u64_at(&header, 40));
        // A table of the second kind fills one cluster, and so reaches over this much of the disk.
        let reach = 1_u64 << (2 * cluster_bits - 3);
        if size == 0 || size > i64::MAX as u64 || entries * 8 > MOST_L1 || size.div_ceil(reach) > entries {
            return refuse(&format!(
                "is a qcow2 whose disk of {size} bytes does not fit its table of {entries} entries. Copy it again"
            ));
        }
        let entries = size.div_ceil(reach);
        if table.checked_add(entries * 8).is_none_or(|end| end > file_size) || table % (1 << cluster_bits) != 0 {
            return refuse("is cut, or damaged: its first table lies outside of it. Copy it again");
        }
        let l1 = table_at(&file, table, entries as usize).map_err(failed("the first table"))?;
        let (tables, clusters) = (RefCell::default(), RefCell::default());
        Ok(Self { file, file_size, size, cluster_bits, method, l1, tables, clusters })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads bytes that lie on the disk.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let within = offset & self.mask();
            let count = buffer.len().min((self.cluster_size() - within) as usize);
            let (now, rest) = buffer.split_at_mut(count);
            self.read_within(now, offset >> self.cluster_bits, within)?;
            (buffer, offset) = (rest, offset + count as u64);
        }
        Ok(())
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn mask(&self) -> u64 {
        self.cluster_size() - 1
    }

    fn read_within(&self, buffer: &mut [u8], cluster: u64, within: u64) -> io::Result<()> {
        let entry = self.entry(cluster)?;
        if entry & COMPRESSED != 0 {
            let plain = self.decompressed(entry)?;
            buffer.copy_from_slice(&plain[within as usize..][..buffer.len()]);
            return Ok(());
        }
        let start = entry & OFFSET;
        if entry & ZERO != 0 || start == 0 {
            buffer.fill(0);
            return Ok(());
        }
        self.check(start, "a cluster")?;
        // QEMU leaves the end of the last cluster away where nothing was written to it.
        let there = self.file_size.saturating_sub(start + within).min(buffer.len() as u64) as usize;
        if there == 0 {
            return Err(damaged(format!("a cluster lies at {start}, behind the end of the file")));
        }
        let (present, absent) = buffer.split_at_mut(there);
        absent.fill(0);
        self.file.read_exact_at(present, start + within)
    }

    /// The second table's entry of a cluster; 0: there is none.
    fn entry(&self, cluster: u64) -> io::Result<u64> {
        let bits = self.cluster_bits - 3;
        let number = (cluster >> bits) as usize;
        let Some(start) = self.l1.get(number).map(|entry| entry & OFFSET).filter(|start| *start != 0) else {
            return Ok(0);
        };
        let within = (cluster & ((1 << bits) - 1)) as usize;
        let table = self.tables.borrow_mut().get(start, 1 << self.cluster_bits, || {
            self.check(start, "a table")?;
            table_at(&self.file, start, 1 << bits)
        })?;
        Ok(table[within])
    }

    fn check(&self, start: u64, what: &str) -> io::Result<()> {
        if start & self.mask() != 0 || start >= self.file_size {
            return Err(damaged(format!("{what} lies at {start}, which is no cluster of the file")));
        }
        Ok(())
    }

    /// A compressed cluster, decompressed. Its entry says where it starts, and in how many sectors it ends.
    fn decompressed(&self, entry: u64) -> io::Result<Rc<Vec<u8>>> {
        let bits = 62 - (self.cluster_bits - 8);
        let start = entry & ((1 << bits) - 1);
        let sectors = ((entry & !(COMPRESSED | 1 << 63)) >> bits) + 1;
        self.clusters.borrow_mut().get(start, self.cluster_size() as usize, || {
            let length = (sectors * 512 - (start & 511)).min(self.file_size.saturating_sub(start));
            // Never larger than it would be plain, but for the sector it begins in.
            if length == 0 || length > 2 * self.cluster_size() + 512 {
                return Err(damaged(format!("a compressed cluster at {start} lies outside of the file")));
            }
            let mut packed = vec![0; length as usize];
            self.file.read_exact_at(&mut packed, start)?;
            let mut plain = vec![0; self.cluster_size() as usize];
            match self.method {
                Method::Deflate => inflate(&packed, &mut plain),
                Method::Zstd => unzstd(&packed, &mut plain),
            }
            .map_err(|error| damaged(format!("a compressed cluster at {start} is damaged: {error}")))?;
            Ok(plain)
        })
    }
}

fn inflate(packed: &[u8], plain: &mut [u8]) -> io::Result<()> {
    let mut stream = Decompress::new(false);
    let status = stream.decompress(packed, plain, FlushDecompress::Finish);
    let whole = stream.total_out() == plain.len() as u64;
    match status.map_err(io::Error::other)? {
        Status::StreamEnd | Status::BufError | Status::Ok if whole => Ok(()),
        _ => Err(io::Error::other("it ends too early")),
    }
}

fn unzstd(packed: &[u8], plain: &mut [u8]) -> io::Result<()> {
    let mut decoder = zstd::Decoder::with_buffer(packed)?;
    // No frame needs to look back further than a cluster is long.
    decoder.window_log_max(22)?;
    decoder.read_exact(plain)
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn table_at(file: &File, start: u64, entries: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries * 8];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// What was read last, by its place in the file.
#[derive(Debug)]
struct Cache<T> {
    held: Vec<(u64, Rc<T>)>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { held: Vec::new() }
    }
}

impl<T> Cache<T> {
    /// What lies at `key`, made where it is not held; `size` is that of each.
    fn get(&mut self, key: u64, size: usize, make: impl FnOnce() -> io::Result<T>) -> io::Result<Rc<T>> {
        if let Some(at) = self.held.iter().position(|(held, _)| *held == key) {
            self.held[..=at].rotate_right(1);
            return Ok(Rc::clone(&self.held[0].1));
        }
        let made = Rc::new(make()?);
        self.held.truncate((CACHE / size).max(2) - 1);
        self.held.insert(0, (key, Rc::clone(&made)));
        Ok(made)
    }
}
