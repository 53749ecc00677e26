//! Disk images: raw or qcow2, their partitions, and the file systems on them.
//!
//! Everything here was made by somebody else. No number of the image decides how much memory is taken, no loop in it is
//! followed for ever, and nothing in it makes this host open another file.

mod contents;
mod ext4;
mod fat;
mod partitions;
mod qcow2;
mod superblock;

pub use contents::{Contents, contents};
pub use ext4::Files;
pub use fat::Fat;
pub use partitions::{Partition, Role, partitions};
pub use superblock::{Ext4, Found, look};

use crate::store::{Store, StoreError};
use qcow2::Qcow2;
use std::{fs::File, io, os::unix::fs::FileExt as _, rc::Rc};

/// Why a disk image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The container around the disk's bytes.
    #[error("the disk image {0}")]
    Image(String),
    /// The partition table.
    #[error("the disk's partition table {0}")]
    Table(String),
    /// A partition that should be the root.
    #[error("{partition} {what}")]
    Root {
        /// Which, for people.
        partition: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// No partition is a root.
    #[error(
        "the disk has no root partition that can be used: {0}. Import a disk image of an installed system, or, for any \
         file system that this host mounts, its tree: tar -C MOUNTPOINT -c . | bennu image import tar:- NAME:TAG"
    )]
    NoRoot(String),
    /// Bytes that are not there, or cannot be had.
    #[error(
        "cannot read {what} of the disk image: {source}. Make the image anew, or check it (qemu-img check, e2fsck -fn)"
    )]
    Read {
        /// What was to be read.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
    /// What was written aside could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The start of other containers than qcow2, and what they are called.
const OTHERS: [(u64, &[u8], &str); 6] = [
    (0, b"KDMV", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK descriptor"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"QED\0", "QED"),
];

/// The bytes that a machine would see.
#[derive(Debug)]
pub enum Disk {
    /// As they are.
    Raw {
        /// Where they are.
        file: File,
        /// How many.
        size: u64,
    },
    /// Behind tables.
    Qcow2(Box<Qcow2>),
}

impl Disk {
    /// A disk from a file that holds the whole image.
    pub fn open(file: File) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Read { what: "the start".to_owned(), source };
        let size = file.metadata().map_err(failed)?.len();
        let mut head = vec![0; size.min(4096) as usize];
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        if head.starts_with(qcow2::MAGIC) {
            return Ok(Self::Qcow2(Box::new(Qcow2::open(file, size)?)));
        }
        for (at, magic, name) in OTHERS {
            if head.get(at as usize..).is_some_and(|rest| rest.starts_with(magic)) {
                let what = format!("is a {name}, which is not read here. Convert it: qemu-img convert -O qcow2 IN OUT");
                return Err(DiskError::Image(what));
            }
        }
        if size == 0 {
            return Err(DiskError::Image("is empty. Name the right file".to_owned()));
        }
        Ok(Self::Raw { file, size })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        match self {
            Self::Raw { size, .. } => *size,
            Self::Qcow2(inner) => inner.size(),
        }
    }

    /// Reads some of them.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size()) {
            let what = format!("{} bytes at {offset} are behind the end of the disk ({})", buffer.len(), self.size());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        match self {
            Self::Raw { file, .. } => file.read_exact_at(buffer, offset),
            Self::Qcow2(inner) => inner.read_exact_at(buffer, offset),
        }
    }
}

/// A stretch of a disk.
#[derive(Debug, Clone)]
pub struct Part {
    disk: Rc<Disk>,
    start: u64,
    length: u64,
}

impl Part {
    /// The stretch of a partition, which lies within its disk.
    pub fn of(disk: &Rc<Disk>, partition: &Partition) -> Self {
        Self { disk: Rc::clone(disk), start: partition.start, length: partition.length }
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads some of them.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            let what = format!("{} bytes at {offset} are behind the partition's end ({})", buffer.len(), self.length);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.disk.read_exact_at(buffer, self.start + offset)
    }
}

const CHUNK: usize = 1 << 20;
/// Zeros are left out of scratch files in stretches of this size.
const STRETCH: usize = 64 << 10;
static ZEROS: [u8; STRETCH] = [0; STRETCH];

/// Writes a stream to a scratch file, with holes for its zeros. The meter hears how much came.
pub fn spool(
    mut source: impl io::Read,
    store: &Store,
    mut meter: crate::import::Meter<'_>,
) -> Result<File, crate::import::ImportError> {
    let file = store.spool()?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0_u64;
    loop {
        let count = fill(&mut source, &mut buffer)
            .map_err(|source| crate::import::ImportError::Read { what: "disk image".to_owned(), source })?;
        store.check_room()?;
        for (number, stretch) in buffer[..count].chunks(STRETCH).enumerate() {
            if stretch != &ZEROS[..stretch.len()] {
                let offset = at + (number * STRETCH) as u64;
                file.write_all_at(stretch, offset).map_err(|e| store.failed("write to", store.tmp(), e))?;
            }
        }
        at += count as u64;
        meter.at(at);
        meter.check()?;
        if count < buffer.len() {
            break;
        }
    }
    meter.done(at);
    file.set_len(at).map_err(|e| store.failed("write to", store.tmp(), e))?;
    Ok(file)
}

/// Fills the buffer, but for the stream's end.
fn fill(source: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match source.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}
