//! Sets the root directory's time in a finished filesystem.
//!
//! mksquashfs 4.5.1 ignores `-root-time` when it reads a tar and writes the present time, so that two runs differ.
//! The time is four bytes of the root's inode (squashfs 4.0; Documentation/filesystems/squashfs.rst, "Inodes"),
//! and `-noI` leaves inodes uncompressed, so they can be set in place.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

const MAGIC: &[u8] = b"hsqs";
pub(super) const SUPERBLOCK: usize = 96;
/// Metadata lies in blocks of this size, each after a length of two bytes.
pub(super) const METADATA: u64 = 8192;
/// This bit of the length says that the block is not compressed.
pub(super) const PLAIN: u16 = 0x8000;
/// Of the inode's header: type, mode, owner and group as indices, time.
const TIME_AT: u64 = 8;
/// Basic and extended directory.
const DIRECTORIES: [u16; 2] = [1, 8];

/// Makes the root directory's time `time`.
pub(super) fn set(image: &Path, time: u32) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    Inode::root(&file, &superblock(&file)?)?.write(&file, TIME_AT, &time.to_le_bytes())
}

pub(super) fn superblock(file: &File) -> io::Result<[u8; SUPERBLOCK]> {
    let mut superblock = [0; SUPERBLOCK];
    file.read_exact_at(&mut superblock, 0)?;
    if superblock.starts_with(MAGIC) { Ok(superblock) } else { Err(bad("it has no squashfs superblock")) }
}

/// Where an inode lies: its metadata block, and its offset there.
pub(super) struct Inode {
    block: u64,
    offset: u64,
}

impl Inode {
    /// The root directory's.
    pub(super) fn root(file: &File, superblock: &[u8; SUPERBLOCK]) -> io::Result<Self> {
        let root = word(superblock, 32);
        let inode = Self { block: word(superblock, 64).saturating_add(root >> 16), offset: root & 0xffff };
        if !DIRECTORIES.contains(&u16::from_le_bytes([inode.byte(file, 0)?, inode.byte(file, 1)?])) {
            return Err(bad("its root inode is no directory"));
        }
        Ok(inode)
    }

    /// Overwrites bytes of it.
    pub(super) fn write(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        (at..).zip(bytes).try_for_each(|(at, byte)| file.write_all_at(&[*byte], self.position(file, at)?))
    }

    /// Where a byte of the inode lies in the file; an inode may begin in one block and end in the next.
    fn position(&self, file: &File, at: u64) -> io::Result<u64> {
        let at = self.offset + at;
        let block = if at < METADATA { self.block } else { self.block.saturating_add(2 + METADATA) };
        let mut length = [0; 2];
        file.read_exact_at(&mut length, block)?;
        if u16::from_le_bytes(length) & PLAIN == 0 {
            return Err(bad("its inodes are compressed though -noI was given"));
        }
        Ok(block + 2 + at % METADATA)
    }

    fn byte(&self, file: &File, at: u64) -> io::Result<u8> {
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.position(file, at)?)?;
        Ok(byte[0])
    }
}

pub(super) fn word(superblock: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&superblock[at..at + 8]);
    u64::from_le_bytes(bytes)
}

pub(super) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superblock, and one inode that begins `offset` bytes into a metadata block.
    fn image(offset: u16, flag: u16) -> Vec<u8> {
        let mut image = vec![0; 96];
        image[..4].copy_from_slice(MAGIC);
        image[32..40].copy_from_slice(&u64::from(offset).to_le_bytes());
        image[64..72].copy_from_slice(&96u64.to_le_bytes());
        let mut inodes = vec![0; 2 * 8192];
        inodes[usize::from(offset)] = 1;
        for block in inodes.chunks(8192) {
            image.extend((8192u16 | flag).to_le_bytes());
            image.extend(block);
        }
        image
    }

    #[test]
    fn the_time_may_lie_across_two_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        for offset in [0, 5000, 8180, 8182, 8184, 8190] {
            std::fs::write(&path, image(offset, PLAIN)).unwrap();
            set(&path, 0x0403_0201).unwrap();
            let after = std::fs::read(&path).unwrap();
            let inodes = [&after[98..98 + 8192], &after[98 + 8194..]].concat();
            let at = usize::from(offset) + 8;
            assert_eq!(inodes[at..at + 4], [1, 2, 3, 4], "{offset}");
            assert_eq!(inodes.iter().filter(|&&b| b != 0).count(), 5);
        }
    }

    #[test]
    fn what_is_not_as_expected_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        for (bytes, what) in [(image(0, 0), "compressed"), (vec![0; 200], "superblock"), (vec![b'h'; 10], "fill")] {
            std::fs::write(&path, bytes).unwrap();
            let error = set(&path, 1).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
