//! The files of the appliance's root, which lives in memory: by path, so that their order is always the same.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory with its mode.
    Directory(u32),
    /// A file with its mode and contents.
    File(u32, Vec<u8>),
    /// A symbolic link.
    Link(String),
}

/// Paths without a leading slash.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
    sources: BTreeSet<PathBuf>,
}

impl Tree {
    /// Adds a file, and the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        self.put(path, Entry::File(mode, contents));
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Directory(mode));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    /// Copies a file of a directory, following links.
    pub fn copy(&mut self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let contents = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        if contents.is_empty() {
            bail!("{} is empty", from.display());
        }
        self.file(path, mode, contents);
        self.sources.insert(from.to_owned());
        Ok(())
    }

    /// Everything, directories before what is in them.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// The files that were copied.
    pub fn sources(&self) -> &BTreeSet<PathBuf> {
        &self.sources
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory(0o755));
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.file("/usr/bin/bennu", 0o755, vec![1]);
        tree.directory("tmp", 0o1777);
        tree.link("bin", "usr/bin");
        let paths: Vec<&str> = tree.entries().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["bin", "tmp", "usr", "usr/bin", "usr/bin/bennu"]);
    }
}
