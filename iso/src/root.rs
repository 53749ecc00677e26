//! The appliance's root: a squashfs that stays compressed in memory, and of which only what is read is unpacked.

use crate::options::Options;
use crate::tree::{Entry, Tree};
use anyhow::{Context, Result};
use bennu_images::archive::{Contents, Metadata, RecordKind, Writer};
use bennu_images::squashfs::{BuildError, Compression, Mksquashfs, RootBuilder, RootDirectory, RootOptions};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const MEMORY: u64 = 512 << 20;

/// Makes it of a tree, in which everything belongs to root and has the time of the build's inputs.
pub fn make(options: &Options, tree: &Tree, out: &Path) -> Result<()> {
    let builder = Mksquashfs::find()?;
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    let settings = RootOptions { compression: Compression::Zstd(options.level), memory: MEMORY, processors };
    let none = Vec::new();
    let mtime = i64::try_from(options.epoch).context("such an epoch has no file")?;
    let meta = |mode| Metadata { mode, uid: 0, gid: 0, mtime, xattrs: &none };
    let own = bennu_images::tree::Metadata { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
    let root = RootDirectory { meta: &own, others: BTreeSet::from([0]) };
    let mut feed = |to: &mut dyn Write| feed(tree, to, &meta);
    builder
        .build(&root, out, &settings, &mut feed, &|| Ok::<(), BuildError>(()))
        .with_context(|| format!("cannot make {}", out.display()))
}

fn feed<'a>(tree: &Tree, to: &mut dyn Write, meta: &dyn Fn(u32) -> Metadata<'a>) -> io::Result<()> {
    let mut tar = Writer::new(to);
    for (path, entry) in tree.entries() {
        match entry {
            Entry::Directory(mode) => tar.entry(path.as_bytes(), RecordKind::Directory, meta(*mode))?,
            Entry::File(mode, contents) => {
                let kind = RecordKind::File(Contents::Whole(contents.len() as u64));
                tar.entry(path.as_bytes(), kind, meta(*mode))?;
                tar.data(contents)?;
            }
            Entry::Link(target) => tar.entry(path.as_bytes(), RecordKind::Symlink(target.as_bytes()), meta(0o777))?,
        }
    }
    tar.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_makes_the_same_bytes() {
        let place = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.file("usr/bin/bennu", 0o755, vec![7; 300_000]);
        tree.link("bin", "usr/bin");
        tree.directory("tmp", 0o1777);
        let options = Options { epoch: 1_700_000_000, level: 1, ..Options::default() };
        let made = |name: &str| {
            let out = place.path().join(name);
            make(&options, &tree, &out).unwrap();
            std::fs::read(out).unwrap()
        };
        let first = made("first");
        assert!(first.starts_with(b"hsqs"));
        assert_eq!(first, made("second"));
    }
}
