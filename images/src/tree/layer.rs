//! Layers: archives over one another, and what an upper one hides of those below it (OCI image specification,
//! "Image Layer Filesystem Changeset").

use super::{BadEntry, InodeId, Kind, ROOT, Tree, components};
use std::collections::BTreeMap;

/// What hides names of the layers below.
const PREFIX: &[u8] = b".wh.";
/// Hides everything that the layers below have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept for itself in a layer; no file of the image.
const OF_AUFS: &[u8] = b".wh..wh.";

/// An entry's path that is a whiteout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whiteout {
    /// Of one name.
    Name {
        /// The directory.
        directory: Vec<u8>,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Of all names of a directory.
    Opaque {
        /// The directory.
        directory: Vec<u8>,
    },
    /// Of nothing: leave it out.
    Ignored,
}

impl Whiteout {
    /// What an entry of a layer hides, if it is no file.
    pub fn read(path: &[u8]) -> Result<Option<Self>, BadEntry> {
        let mut names = components(path)?;
        let Some(last) = names.pop().filter(|last| last.starts_with(PREFIX)) else { return Ok(None) };
        let directory = names.join(&b'/');
        if last == OPAQUE {
            return Ok(Some(Self::Opaque { directory }));
        }
        if last.starts_with(OF_AUFS) {
            return Ok(Some(Self::Ignored));
        }
        match &last[PREFIX.len()..] {
            b"" | b"." | b".." => Err(BadEntry {
                path: crate::archive::show(path),
                what: "is a whiteout of no name. Build the image anew",
            }),
            name => Ok(Some(Self::Name { directory, name: name.to_vec() })),
        }
    }
}

impl Tree {
    /// Begins a layer over what is there.
    pub fn begin_layer(&mut self) {
        self.fresh = Some(BTreeMap::new());
    }

    /// Ends a layer: its hard links lead to what it and those below it have.
    pub fn end_layer(&mut self) -> Result<(), BadEntry> {
        self.fresh = None;
        self.tie_all()
    }

    /// Hides what the layers below have. What this layer puts stays, whichever came first.
    pub fn whiteout(&mut self, whiteout: &Whiteout) -> Result<(), BadEntry> {
        let within = |path: &[u8]| components(path).map(|names| self.resolve(ROOT, &names, true));
        match whiteout {
            Whiteout::Ignored => {}
            // A directory that is not there has nothing to hide.
            Whiteout::Opaque { directory } => {
                if let Some(directory) = within(directory)? {
                    self.hide_children(directory);
                }
            }
            Whiteout::Name { directory, name } => {
                if let Some(directory) = within(directory)? {
                    self.hide(directory, name);
                }
            }
        }
        Ok(())
    }

    /// Remembers that this layer put a name, or something below it.
    pub(super) fn refresh(&mut self, directory: InodeId, name: &[u8]) {
        if let Some(fresh) = &mut self.fresh {
            let names = fresh.entry(directory).or_default();
            if !names.contains(name) {
                names.insert(name.to_vec());
            }
        }
    }

    fn is_fresh(&self, directory: InodeId, name: &[u8]) -> bool {
        self.fresh.as_ref().and_then(|fresh| fresh.get(&directory)).is_some_and(|names| names.contains(name))
    }

    fn hide(&mut self, directory: InodeId, name: &[u8]) {
        let Some(id) = self.child(directory, name) else { return };
        if self.is_fresh(directory, name) {
            self.hide_children(id);
        } else if let Kind::Directory(children) = &mut self.inodes[directory].kind {
            children.remove(name);
        }
    }

    /// Of a directory that this layer has as well, what came from below. Trees are as deep as paths are long, so the
    /// directories still to do are kept in a list and not on the stack.
    fn hide_children(&mut self, directory: InodeId) {
        let mut todo = vec![directory];
        while let Some(directory) = todo.pop() {
            let kept = self.fresh.as_ref().and_then(|fresh| fresh.get(&directory));
            let Kind::Directory(children) = &mut self.inodes[directory].kind else { continue };
            children.retain(|name, _| kept.is_some_and(|kept| kept.contains(name)));
            todo.extend(children.values().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Metadata, Put};
    use super::*;

    fn meta(mode: u32) -> Metadata {
        Metadata { mode, uid: 0, gid: 0, mtime: 7, xattrs: Vec::new() }
    }

    /// `d:` a directory, `f:` a file, `s:path>target` a symbolic link, `h:path>target` a hard link, `w:` a whiteout.
    fn layer(tree: &mut Tree, entries: &str) {
        tree.begin_layer();
        for entry in entries.split_whitespace() {
            let (kind, rest) = entry.split_once(':').unwrap();
            let (path, target) = rest.split_once('>').unwrap_or((rest, ""));
            let path = path.as_bytes();
            let put = match kind {
                "d" => Put::Inode(Kind::Directory(BTreeMap::new()), meta(0o755)),
                "f" => Put::Inode(Kind::File(Default::default()), meta(0o644)),
                "s" => Put::Inode(Kind::Symlink(target.into()), meta(0o777)),
                "h" => Put::HardLink(target.into()),
                _ => {
                    let whiteout = Whiteout::read(path).unwrap().unwrap();
                    tree.whiteout(&whiteout).unwrap();
                    continue;
                }
            };
            tree.put(path, put).unwrap();
        }
        tree.end_layer().unwrap();
    }

    fn names(layers: &[&str]) -> String {
        let mut tree = Tree::default();
        layers.iter().for_each(|entries| layer(&mut tree, entries));
        tree.finish().unwrap();
        let mut paths = Vec::new();
        tree.walk(|path, _| {
            paths.push(String::from_utf8(path.to_vec()).unwrap());
            Ok::<_, ()>(())
        })
        .unwrap();
        paths[1..].join(" ")
    }

    #[test]
    fn a_whiteout_hides_what_is_below_and_nothing_of_its_own_layer() {
        let base = "d:a f:a/x f:a/y d:a/d f:a/d/z f:b";
        assert_eq!(names(&[base, "w:a/.wh.x w:.wh.b w:.wh.none w:none/.wh.x"]), "a a/d a/d/z a/y");
        assert_eq!(names(&[base, "w:.wh.a"]), "b");
        for both in ["w:.wh.a d:a f:a/new", "d:a f:a/new w:.wh.a", "f:a/new w:.wh.a"] {
            assert_eq!(names(&[base, both]), "a a/new b", "{both}");
        }
        for both in ["f:a/x w:a/.wh.x", "w:a/.wh.x f:a/x"] {
            assert_eq!(names(&["d:a d:a/x f:a/x/1", both]), "a a/x", "{both}");
        }
        assert_eq!(names(&[base, "w:.wh.b", "f:b"]), "a a/d a/d/z a/x a/y b");
    }

    #[test]
    fn an_opaque_directory_has_only_what_its_layer_has() {
        let base = "d:a f:a/x d:a/d f:a/d/z d:a/e f:a/e/q";
        for upper in ["d:a w:a/.wh..wh..opq f:a/new f:a/d/1", "f:a/d/1 f:a/new w:a/.wh..wh..opq"] {
            assert_eq!(names(&[base, upper]), "a a/d a/d/1 a/new", "{upper}");
        }
        assert_eq!(names(&[base, "w:.wh..wh..opq"]), "");
    }

    #[test]
    fn links_lead_through_the_layers() {
        assert_eq!(
            names(&["d:usr d:usr/lib s:lib>usr/lib", "f:lib/x", "w:lib/.wh.x f:lib/y"]),
            "lib usr usr/lib usr/lib/y"
        );
        let mut tree = Tree::default();
        layer(&mut tree, "d:a f:a/x");
        layer(&mut tree, "h:b>a/x");
        layer(&mut tree, "w:a/.wh.x");
        assert!(tree.file(b"b").is_some() && tree.find(b"a/x").is_none(), "the inode lives while it has a name");
        // A directory over a link to one takes its place, as container runtimes unpack it.
        assert_eq!(names(&["d:usr s:lib>usr", "d:lib f:lib/x"]), "lib lib/x usr");
        assert_eq!(names(&["d:a f:a/x", "f:a", "d:a"]), "a");
    }

    #[test]
    fn a_whiteout_of_no_name_is_refused_and_those_of_aufs_are_not_files() {
        for bad in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(Whiteout::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(Whiteout::read(b"a/.wh..wh.plnk").unwrap(), Some(Whiteout::Ignored));
        assert_eq!(Whiteout::read(b"a/.white").unwrap(), None);
        assert!(Whiteout::read(b"a/../.wh.x").is_err());
    }
}
