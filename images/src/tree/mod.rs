//! A root filesystem in memory: names and metadata, with file contents in a spool on disk.
//!
//! Entries arrive in archive order and mean what extracting them one after the other would: a later entry
//! replaces an earlier one of its path, names lead through symbolic links to directories, a hard link shares
//! the inode its target has at that moment. The tree then has one order (bytewise by name), whatever the
//! archive's was. Several archives in a row are layers ([`Tree::end_layer`], [`Tree::whiteout`]).

mod carry;
mod emit;
mod hashed;
mod index;
mod layer;

pub use carry::{Acls, NotCarried, prepare};
pub use emit::{emit, emit_layer};
pub use index::{Indexed, Indexer, Spool, read};
pub use layer::Whiteout;

use crate::archive::Xattrs;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Number of an inode in its [`Tree`].
pub type InodeId = usize;

/// The root directory.
pub const ROOT: InodeId = 0;

/// Linux gives up after this many symbolic links (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What every inode has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

/// A stretch of a file that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub at: u64,
    /// Offset in the spool.
    pub spool: u64,
    /// Bytes.
    pub length: u64,
}

/// A file's contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileData {
    /// Size with the holes.
    pub size: u64,
    /// In order; between them are zeros.
    pub extents: Vec<Extent>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Names and what they stand for.
    Directory(BTreeMap<Vec<u8>, InodeId>),
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A hard link whose target has not come yet: its index among the pending. Gone after [`Tree::finish`].
    Pending(usize),
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Its metadata.
    pub meta: Metadata,
    /// A directory that no entry named.
    implicit: bool,
}

/// Something an entry asks for that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{path}' {what}")]
pub struct BadEntry {
    /// The entry, for people.
    pub path: String,
    /// What is wrong with it and what to do.
    pub what: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    pending: Vec<Pending>,
    /// What this layer put, or went through, by directory. `None` in a tree of one archive, which needs no such memory.
    fresh: Option<BTreeMap<InodeId, BTreeSet<Vec<u8>>>>,
}

#[derive(Debug)]
struct Pending {
    path: Vec<u8>,
    parent: InodeId,
    name: Vec<u8>,
    target: Vec<Vec<u8>>,
}

/// What an entry puts at its path.
#[derive(Debug)]
pub enum Put {
    /// A new inode, or new metadata for a directory that is there.
    Inode(Kind, Metadata),
    /// Another name of what `target` names.
    HardLink(Vec<u8>),
}

fn implicit_directory() -> Inode {
    let meta = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
    Inode { kind: Kind::Directory(BTreeMap::new()), meta, implicit: true }
}

/// A path's names as tar takes them: relative to the root, without empty ones and `.`.
fn components(path: &[u8]) -> Result<Vec<Vec<u8>>, BadEntry> {
    let bad = |what| BadEntry { path: crate::archive::show(path), what };
    let mut names = Vec::new();
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                return Err(bad(
                    "leads out of the root by '..'. Make the tar anew from inside the directory (tar -C DIR .)",
                ));
            }
            _ if name.contains(&0) => return Err(bad("has a NUL in its name. Make the tar anew")),
            _ => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

impl Default for Tree {
    fn default() -> Self {
        Self { inodes: vec![implicit_directory()], pending: Vec::new(), fresh: None }
    }
}

impl Tree {
    /// An inode.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id]
    }

    /// An inode's metadata, to change it.
    pub(crate) fn meta_mut(&mut self, id: InodeId) -> &mut Metadata {
        &mut self.inodes[id].meta
    }

    /// How many inodes were made, those replaced since included.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Puts an entry at its path.
    pub fn put(&mut self, path: &[u8], put: Put) -> Result<(), BadEntry> {
        let bad = |what| BadEntry { path: crate::archive::show(path), what };
        let mut names = components(path)?;
        let Some(name) = names.pop() else {
            return match put {
                Put::Inode(Kind::Directory(_), meta) => {
                    self.inodes[ROOT].meta = meta;
                    self.inodes[ROOT].implicit = false;
                    Ok(())
                }
                _ => Err(bad("would replace the root directory itself by something else. Make the tar anew")),
            };
        };
        let parent = self.make_directories(names).ok_or_else(|| bad("leads through a loop of symbolic links"))?;
        match put {
            Put::Inode(kind, meta) => self.put_inode(parent, name, kind, meta),
            Put::HardLink(target) => {
                let target_names = components(&target)?;
                match self.resolve(ROOT, &target_names, false) {
                    Some(id) if matches!(self.inodes[id].kind, Kind::Directory(_)) => {
                        return Err(bad(
                            "is a hard link to a directory, which Linux does not allow. Make the tar anew",
                        ));
                    }
                    Some(id) => self.set_child(parent, name, id),
                    None => self.put_pending(path, parent, name, target_names),
                }
            }
        }
        Ok(())
    }

    fn put_inode(&mut self, parent: InodeId, name: Vec<u8>, kind: Kind, meta: Metadata) {
        if let (Kind::Directory(_), Some(there)) = (&kind, self.child(parent, &name)) {
            let inode = &mut self.inodes[there];
            // A directory over a directory keeps what is in it.
            if matches!(inode.kind, Kind::Directory(_)) {
                (inode.meta, inode.implicit) = (meta, false);
                self.refresh(parent, &name);
                return;
            }
        }
        let id = self.add(Inode { kind, meta, implicit: false });
        self.set_child(parent, name, id);
    }

    fn put_pending(&mut self, path: &[u8], parent: InodeId, name: Vec<u8>, target: Vec<Vec<u8>>) {
        let meta = Metadata { mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        let id = self.add(Inode { kind: Kind::Pending(self.pending.len()), meta, implicit: false });
        self.pending.push(Pending { path: path.to_vec(), parent, name: name.clone(), target });
        self.set_child(parent, name, id);
    }

    fn add(&mut self, inode: Inode) -> InodeId {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inodes[directory].kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn set_child(&mut self, directory: InodeId, name: Vec<u8>, id: InodeId) {
        self.refresh(directory, &name);
        if let Kind::Directory(children) = &mut self.inodes[directory].kind {
            children.insert(name, id);
        }
    }

    /// Follows names from the root, making what is missing. What is in the way gives way: last wins.
    fn make_directories(&mut self, names: Vec<Vec<u8>>) -> Option<InodeId> {
        let mut queue = VecDeque::from(names);
        let mut stack = vec![ROOT];
        let mut links = 0;
        while let Some(name) = queue.pop_front() {
            let here = *stack.last()?;
            if name == b".." {
                stack.truncate((stack.len() - 1).max(1));
                continue;
            }
            let next = self.child(here, &name);
            match next.map(|id| (id, &self.inodes[id].kind)) {
                Some((id, Kind::Directory(_))) => {
                    self.refresh(here, &name);
                    stack.push(id);
                }
                Some((_, Kind::Symlink(target))) => follow(target, &mut queue, &mut stack, &mut links)?,
                _ => {
                    let id = self.add(implicit_directory());
                    self.set_child(here, name, id);
                    stack.push(id);
                }
            }
        }
        stack.last().copied()
    }

    /// Follows names from a directory, through symbolic links as a process with this root would.
    fn resolve(&self, from: InodeId, names: &[Vec<u8>], follow_last: bool) -> Option<InodeId> {
        let mut queue: VecDeque<Vec<u8>> = names.iter().cloned().collect();
        let mut stack = vec![from];
        let mut links = 0;
        while let Some(name) = queue.pop_front() {
            if name == b".." {
                stack.truncate((stack.len() - 1).max(1));
                continue;
            }
            let id = self.child(*stack.last()?, &name)?;
            match &self.inodes[id].kind {
                Kind::Symlink(target) if follow_last || !queue.is_empty() => {
                    follow(target, &mut queue, &mut stack, &mut links)?;
                }
                _ => stack.push(id),
            }
        }
        stack.last().copied()
    }

    /// Puts a part of another tree at a path. Both trees' contents lie in one spool.
    pub fn graft(&mut self, path: &[u8], other: &Self, from: InodeId) -> Result<(), BadEntry> {
        let mut first: BTreeMap<InodeId, Vec<u8>> = BTreeMap::new();
        other.walk_from(from, |below, id| {
            let path = if below.is_empty() { path.to_vec() } else { [path, b"/", below].concat() };
            let inode = other.inode(id);
            let put = match (&inode.kind, first.get(&id)) {
                (Kind::Directory(_), _) => Put::Inode(Kind::Directory(BTreeMap::new()), inode.meta.clone()),
                (_, Some(first)) => Put::HardLink(first.clone()),
                (kind, None) => {
                    first.insert(id, path.clone());
                    Put::Inode(kind.clone(), inode.meta.clone())
                }
            };
            self.put(&path, put)
        })
    }

    /// What a path names, symbolic links followed to the end (stat(2)).
    pub fn find(&self, path: &[u8]) -> Option<InodeId> {
        self.resolve(ROOT, &components(path).ok()?, true)
    }

    /// A regular file's contents.
    pub fn file(&self, path: &[u8]) -> Option<&FileData> {
        match &self.inodes[self.find(path)?].kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }

    /// A directory's names.
    pub fn directory(&self, path: &[u8]) -> Option<&BTreeMap<Vec<u8>, InodeId>> {
        match &self.inodes[self.find(path)?].kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Ties the hard links that came before their targets and dates the directories that no entry named.
    pub fn finish(&mut self) -> Result<(), BadEntry> {
        self.tie_all()?;
        self.date_implicit();
        Ok(())
    }

    fn tie_all(&mut self) -> Result<(), BadEntry> {
        for index in 0..self.pending.len() {
            self.tie(index)?;
        }
        self.pending.clear();
        Ok(())
    }

    /// Ties one pending link, and those it leads through.
    fn tie(&mut self, index: usize) -> Result<(), BadEntry> {
        let mut chain = vec![index];
        let found = loop {
            let link = &self.pending[*chain.last().unwrap_or(&index)];
            let bad = |what| BadEntry { path: crate::archive::show(&link.path), what };
            let Some(id) = self.resolve(ROOT, &link.target, false) else {
                return Err(bad(
                    "is a hard link to something that is not in the tar. Make the tar of the whole tree anew",
                ));
            };
            match self.inodes[id].kind {
                Kind::Pending(next) if chain.len() > self.pending.len() || chain.contains(&next) => {
                    return Err(bad("is a hard link that leads back to itself. Make the tar anew"));
                }
                Kind::Pending(next) => chain.push(next),
                Kind::Directory(_) => {
                    return Err(bad("is a hard link to a directory, which Linux does not allow. Make the tar anew"));
                }
                _ => break id,
            }
        };
        for index in chain {
            let (parent, name) = (self.pending[index].parent, self.pending[index].name.clone());
            // A later entry may have taken the place; then it stays.
            let there = self.child(parent, &name);
            if there.is_some_and(|id| self.inodes[id].kind == Kind::Pending(index)) {
                self.set_child(parent, name, found);
            }
        }
        Ok(())
    }

    /// A directory without an entry gets the time of the newest thing in it: nothing of the import's own time.
    fn date_implicit(&mut self) {
        let mut order = vec![(ROOT, ROOT)];
        let mut at = 0;
        while let Some(&(id, _)) = order.get(at) {
            if let Kind::Directory(children) = &self.inodes[id].kind {
                order.extend(children.values().map(|&child| (child, id)));
            }
            at += 1;
        }
        // Parents come before their children, so backwards every child is dated before its parent looks.
        for (id, parent) in order.into_iter().skip(1).rev() {
            let mtime = self.inodes[id].meta.mtime;
            let parent = &mut self.inodes[parent];
            if parent.implicit {
                parent.meta.mtime = parent.meta.mtime.max(mtime);
            }
        }
    }

    /// Visits everything, parents first, names in bytewise order. Paths have no leading slash; the root's is empty.
    pub fn walk<E>(&self, visit: impl FnMut(&[u8], InodeId) -> Result<(), E>) -> Result<(), E> {
        self.walk_from(ROOT, visit)
    }

    /// The same of what is at and below `from`, whose path is the empty one.
    pub fn walk_from<E>(&self, from: InodeId, mut visit: impl FnMut(&[u8], InodeId) -> Result<(), E>) -> Result<(), E> {
        visit(b"", from)?;
        let mut path = Vec::new();
        let children = |id: InodeId| match &self.inodes[id].kind {
            Kind::Directory(children) => Some(children.iter()),
            _ => None,
        };
        let mut stack: Vec<_> = children(from).map(|children| (children, 0)).into_iter().collect();
        while let Some((names, length)) = stack.last_mut() {
            path.truncate(*length);
            let Some((name, &id)) = names.next() else {
                stack.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            visit(&path, id)?;
            if let Some(names) = children(id) {
                stack.push((names, path.len()));
            }
        }
        Ok(())
    }
}

/// Puts a symbolic link's names before those still to go.
fn follow(target: &[u8], queue: &mut VecDeque<Vec<u8>>, stack: &mut Vec<InodeId>, links: &mut usize) -> Option<()> {
    *links += 1;
    if *links > MOST_LINKS {
        return None;
    }
    if target.starts_with(b"/") {
        stack.truncate(1);
    }
    for name in target.rsplit(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        queue.push_front(name.to_vec());
    }
    Some(())
}
