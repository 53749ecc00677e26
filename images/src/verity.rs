//! dm-verity: a tree of hashes over a root filesystem, with which the kernel checks each block as it is read (the
//! kernel's admin-guide/device-mapper/verity, on-disk format in cryptsetup's wiki "DMVerity").
//!
//! ```text
//!   superblock │ top ─▶ … ─▶ leaves        each block of hashes is hashed into one slot of the level above;
//!                                          the hash of the top is the root hash
//! ```
//!
//! Byte for byte what `veritysetup format --salt=-` writes for the same UUID, so `veritysetup verify` reads it. There is
//! no salt, since SHA-256 needs none and the same root is to give the same tree.

use crate::store::{Store, StoreError};
use bennu_rules::image::{BlobRef, Digest, Verity};
use ring::digest::{SHA256, digest};
use rustix::io::Errno;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};
use tempfile::NamedTempFile;

/// Bytes of a block, of data and of hashes alike.
pub const BLOCK: usize = 4096;
const HASH: usize = 32;
/// Hashes in a block.
const FANOUT: u64 = (BLOCK / HASH) as u64;

/// Where the tree's levels lie in its file, in blocks. The leaves' level is the first here and the last in the file.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    levels: Vec<Level>,
    /// Blocks of the whole file.
    end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    start: u64,
    blocks: u64,
}

impl Layout {
    /// Of a tree over so many blocks of data.
    fn over(data: u64) -> Self {
        let mut sizes = Vec::new();
        let mut below = data;
        while below > 1 {
            below = below.div_ceil(FANOUT);
            sizes.push(below);
        }
        // Behind the superblock's block.
        let mut end = 1;
        let mut levels: Vec<Level> = sizes
            .into_iter()
            .rev()
            .map(|blocks| {
                let start = end;
                end += blocks;
                Level { start, blocks }
            })
            .collect();
        levels.reverse();
        Self { levels, end }
    }
}

/// Makes the tree of a root in the store, on so many threads.
pub fn protect(root: &BlobRef, store: &Store, threads: usize) -> Result<Verity, StoreError> {
    let (data, size) = store.open_blob(&root.digest)?;
    Tree::over(&data, size, store, threads)?.finish(root, store)
}

/// A tree that lacks nothing but its superblock, which names the root: it can be made while the root's own digest is.
#[derive(Debug)]
pub struct Tree {
    file: NamedTempFile,
    data_blocks: u64,
    root_hash: Digest,
}

impl Tree {
    /// Hashes the data, on so many threads.
    pub fn over(data: &File, size: u64, store: &Store, threads: usize) -> Result<Self, StoreError> {
        let file = tempfile::Builder::new()
            .prefix("verity-")
            .tempfile_in(store.tmp())
            .map_err(|e| store.failed("make a file in", store.tmp(), e))?;
        let grown = grow(data, size, file.as_file(), threads);
        let root_hash = grown.map_err(|e| store.failed("write the hash tree to", file.path(), e))?;
        Ok(Self { file, data_blocks: size / BLOCK as u64, root_hash })
    }

    /// Puts it into the store.
    pub fn finish(self, root: &BlobRef, store: &Store) -> Result<Verity, StoreError> {
        let Self { file, data_blocks, root_hash } = self;
        let written = file.as_file().write_all_at(&superblock(uuid(root), data_blocks), 0);
        written.map_err(|e| store.failed("write the hash tree to", file.path(), e))?;
        Ok(Verity { tree: store.adopt(file)?, root_hash })
    }
}

/// A UUID that is the root's own (RFC 9562 §5.8): a tree made twice is the same twice.
fn uuid(root: &BlobRef) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&root.digest.0[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Writes the tree of `data`, all but its superblock; answers the root hash.
fn grow(data: &File, size: u64, tree: &File, threads: usize) -> io::Result<Digest> {
    if size == 0 || !size.is_multiple_of(BLOCK as u64) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a root of {size} bytes is not made of whole blocks of {BLOCK}: its builder must pad it"),
        ));
    }
    let data_blocks = size / BLOCK as u64;
    let layout = Layout::over(data_blocks);
    tree.set_len(layout.end * BLOCK as u64)?;
    let mut below = (data, Level { start: 0, blocks: data_blocks });
    for level in layout.levels {
        hash_level(below, (tree, level), threads)?;
        below = (tree, level);
    }
    let (file, Level { start, .. }) = below;
    let mut top = [0; BLOCK];
    file.read_exact_at(&mut top, start * BLOCK as u64)?;
    Ok(hash(&top))
}

/// `struct verity_sb`.
fn superblock(uuid: [u8; 16], data_blocks: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        block[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"verity\0\0");
    put(&1_u32.to_le_bytes());
    // The hash type of all current versions: the salt comes first, and hashes are padded to powers of two.
    put(&1_u32.to_le_bytes());
    put(&uuid);
    let mut algorithm = [0; 32];
    algorithm[..6].copy_from_slice(b"sha256");
    put(&algorithm);
    put(&(BLOCK as u32).to_le_bytes());
    put(&(BLOCK as u32).to_le_bytes());
    put(&data_blocks.to_le_bytes());
    block
}

fn hash(block: &[u8]) -> Digest {
    let mut hash = [0; HASH];
    hash.copy_from_slice(digest(&SHA256, block).as_ref());
    Digest(hash)
}

/// Hashes each block of one level into a slot of the next. A thread takes one block of the next level at a time.
fn hash_level(below: (&File, Level), above: (&File, Level), threads: usize) -> io::Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> io::Result<()> {
        let mut read = vec![0; BLOCK * FANOUT as usize];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= above.1.blocks {
                return Ok(());
            }
            let first = number * FANOUT;
            let blocks = FANOUT.min(below.1.blocks - first);
            let bytes = &mut read[..BLOCK * blocks as usize];
            below.0.read_exact_at(bytes, (below.1.start + first) * BLOCK as u64)?;
            let mut hashes = [0; BLOCK];
            for (slot, block) in hashes.chunks_mut(HASH).zip(bytes.chunks(BLOCK)) {
                slot.copy_from_slice(&hash(block).0);
            }
            above.0.write_all_at(&hashes, (above.1.start + number) * BLOCK as u64)?;
        }
    };
    let most = usize::try_from(above.1.blocks).unwrap_or(usize::MAX);
    let threads = threads.clamp(1, most.max(1));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A worker that panicked has said why.
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(Errno::IO.into())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn root(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|at| ((at / 7) ^ (at >> 12)) as u8).collect()
    }

    #[test]
    fn levels_lie_top_first() {
        assert_eq!(Layout::over(1), Layout { levels: vec![], end: 1 });
        assert_eq!(Layout::over(128), Layout { levels: vec![Level { start: 1, blocks: 1 }], end: 2 });
        let three = [Level { start: 4, blocks: 129 }, Level { start: 2, blocks: 2 }, Level { start: 1, blocks: 1 }];
        assert_eq!(Layout::over(128 * 128 + 1), Layout { levels: three.into(), end: 133 });
    }

    #[test]
    fn the_tree_is_that_of_veritysetup() {
        for blocks in [1, 2, 127, 128, 129, 16384, 16385] {
            let dir = tempfile::tempdir().unwrap();
            let [data, ours, theirs] = ["data", "ours", "theirs"].map(|name| dir.path().join(name));
            let bytes = root(blocks);
            fs::write(&data, &bytes).unwrap();
            let uuid = *b"\x12\x3e\x45\x67\xe8\x9b\x82\xd3\xa4\x56\x42\x66\x14\x17\x40\x00";
            let tree = File::options().read(true).write(true).create(true).truncate(true).open(&ours).unwrap();
            let data_file = File::open(&data).unwrap();
            let root_hash = grow(&data_file, bytes.len() as u64, &tree, 3).unwrap();
            tree.write_all_at(&superblock(uuid, blocks as u64), 0).unwrap();
            let made = Command::new("veritysetup")
                .args(["format", "--salt=-", "--uuid=123e4567-e89b-82d3-a456-426614174000"])
                .args([&data, &theirs])
                .output()
                .expect("veritysetup is installed by `make setup` (cryptsetup-bin)");
            let said = String::from_utf8_lossy(&made.stdout).into_owned();
            assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
            assert!(said.contains(&root_hash.hex()), "{blocks} blocks: {} is not in {said}", root_hash.hex());
            assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(), "{blocks} blocks: the trees differ");
        }
    }

    #[test]
    fn the_same_root_gives_the_same_tree_on_any_number_of_threads() {
        let made = [1, 2, 16].map(|threads| {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let blob = store.put(&root(300)).unwrap();
            protect(&blob, &store, threads).unwrap()
        });
        assert!(made[0] == made[1] && made[1] == made[2]);
        assert_eq!(made[0].tree.size, 5 * BLOCK as u64);
    }

    #[test]
    fn a_root_with_a_part_of_a_block_is_refused_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blob = store.put(&[1; BLOCK + 1]).unwrap();
        let refused = protect(&blob, &store, 1).unwrap_err().to_string();
        assert!(refused.contains("4097 bytes"), "{refused}");
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
    }
}
