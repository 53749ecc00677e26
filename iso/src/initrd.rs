//! The initrd: a plain newc archive, since the root in it is compressed by itself; the same bytes for the same files.

use crate::tree::{Entry, Tree};
use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};
use std::io::Write;

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;

/// Packs a tree. Everything belongs to root, and has no time.
pub fn pack(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, (path, entry)) in tree.entries().enumerate() {
        let (mode, contents): (u32, &[u8]) = match entry {
            Entry::Directory(mode) => (TYPE_DIRECTORY | mode, &[]),
            Entry::File(mode, contents) => (TYPE_FILE | mode, contents),
            Entry::Link(target) => (TYPE_LINK | 0o777, target.as_bytes()),
        };
        let size = u32::try_from(contents.len()).with_context(|| format!("{path} is too large for an initrd"))?;
        let number = u32::try_from(number + 1).context("too many files for an initrd")?;
        let mut writer = Builder::new(path).ino(number).mode(mode).write(archive, size);
        writer.write_all(contents)?;
        archive = writer.finish()?;
    }
    Ok(trailer(archive)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back_the_same_every_time() {
        let mut tree = Tree::default();
        tree.file("init", 0o755, vec![7; 5]);
        tree.link("bin", "usr/bin");
        tree.directory("tmp", 0o1777);
        let packed = pack(&tree).unwrap();
        assert_eq!(packed, pack(&tree).unwrap());
        let mut rest = &packed[..];
        let mut seen = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            seen.push((reader.entry().name().to_owned(), reader.entry().mode(), reader.entry().file_size()));
            rest = reader.finish().unwrap();
        }
        assert_eq!(seen, [("bin".into(), 0o120_777, 7), ("init".into(), 0o100_755, 5), ("tmp".into(), 0o041_777, 0)]);
    }
}
