//! What squashfs can carry, checked before the long work starts.
//!
//! squashfs stores times as unsigned 32-bit seconds, owners through a table of 65,535 numbers, extended
//! attributes only of three classes, and the root directory's attributes not at all when its builder reads a tar.

use super::{InodeId, Kind, ROOT, Tree};
use crate::archive::{Entry, EntryKind, Xattrs, show};
use std::collections::BTreeSet;

/// What to do with POSIX access control lists, which squashfs cannot store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acls {
    /// Refuse the import and name the file.
    #[default]
    Refuse,
    /// Leave them out. Group permissions become what the list gives the owning group, so nobody gains access.
    Drop,
}

/// Something in the tree that the image cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{path}' {what}")]
pub struct NotCarried {
    /// Where.
    pub path: String,
    /// What it is and what to do about it.
    pub what: String,
}

/// squashfs's id table is counted in 16 bits.
const MOST_IDS: usize = 65_535;
/// NAME_MAX.
const LONGEST_NAME: usize = 255;
/// PATH_MAX with its NUL.
const LONGEST_PATH: usize = 4_095;
/// The kernel's own limit for a value (XATTR_SIZE_MAX).
const LONGEST_VALUE: usize = 65_536;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// systemd's packages put lists on these when they are installed, and systemd-tmpfiles (tmpfiles.d/systemd.conf)
/// puts them on again at each boot: leaving them out loses nothing.
const SET_AT_BOOT: [&[u8]; 1] = [b"var/log/journal"];

/// Checks everything, and takes out what may be left out; `note` tells of that.
pub fn prepare(tree: &mut Tree, acls: Acls, note: &mut dyn FnMut(&str)) -> Result<(), NotCarried> {
    let mut ids = BTreeSet::new();
    let mut drop_acls = Vec::new();
    let mut seen = BTreeSet::new();
    tree.walk(|path, id| {
        let bad = |what: String| NotCarried { path: shown(path), what };
        name(path).map_err(bad)?;
        if !seen.insert(id) {
            return Ok(());
        }
        let inode = tree.inode(id);
        let meta = &inode.meta;
        kind(&inode.kind).map_err(bad)?;
        if u32::try_from(meta.mtime).is_err() {
            return Err(bad(format!(
                "has the time {} (seconds since 1970), and squashfs holds 1970 to 2106. Set another with touch",
                meta.mtime
            )));
        }
        for owner in [meta.uid, meta.gid] {
            // The highest number means "no owner" to the kernel (chown(2)).
            if owner >= u64::from(u32::MAX) {
                return Err(bad(format!("belongs to {owner}, and Linux counts users to 4294967294. Change its owner")));
            }
            ids.insert(owner);
        }
        if ids.len() > MOST_IDS {
            let what = "is one owner too many: squashfs holds 65535 different users and groups. Change the owner of some files";
            return Err(bad(what.to_owned()));
        }
        if xattrs(path, &meta.xattrs, acls).map_err(bad)? {
            drop_acls.push((id, shown(path)));
        }
        Ok(())
    })?;
    for (id, path) in &drop_acls {
        drop_acl(tree, *id);
        note(&format!("the access control list of '{path}' is left out: squashfs cannot hold it"));
    }
    root(tree, note);
    Ok(())
}

/// Refuses what is longer than Linux takes as soon as its entry comes: the tree is held in memory, and waiting for
/// [`prepare`] would let one tar fill it.
pub(super) fn check_lengths(entry: &Entry) -> Result<(), NotCarried> {
    let names: Vec<&[u8]> = entry.path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    let bad = |what: String| NotCarried { path: shown(&names.join(&b'/')), what };
    for part in &names {
        name(part).map_err(bad)?;
    }
    name(&names.join(&b'/')).map_err(bad)?;
    match &entry.kind {
        EntryKind::HardLink(target) | EntryKind::Symlink(target) if target.len() > LONGEST_PATH => {
            return Err(bad(format!("is a link whose target has {} bytes. Make the link anew", target.len())));
        }
        _ => {}
    }
    entry.xattrs.iter().try_for_each(|(name, value)| xattr_lengths(name, value)).map_err(bad)
}

fn xattr_lengths(name: &[u8], value: &[u8]) -> Result<(), String> {
    if name.len() > LONGEST_NAME {
        let (name, length) = (show(name), name.len());
        return Err(format!(
            "has the extended attribute '{name}' with a name of {length} bytes, and Linux holds {LONGEST_NAME}. Remove \
             it (setfattr -x)"
        ));
    }
    if value.len() > LONGEST_VALUE {
        return Err(format!(
            "has the extended attribute '{}' of {} bytes, and Linux holds {LONGEST_VALUE}. Remove it (setfattr -x)",
            show(name),
            value.len()
        ));
    }
    Ok(())
}

fn shown(path: &[u8]) -> String {
    format!("/{}", show(path))
}

fn name(path: &[u8]) -> Result<(), String> {
    let last = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    if last.len() > LONGEST_NAME {
        return Err(format!("has a name of {} bytes, and Linux holds {LONGEST_NAME}. Rename it", last.len()));
    }
    if path.len() > LONGEST_PATH {
        return Err(format!("has a path of {} bytes, and Linux opens {LONGEST_PATH}. Move it up", path.len()));
    }
    Ok(())
}

fn kind(kind: &Kind) -> Result<(), String> {
    match kind {
        Kind::Symlink(target) if target.is_empty() || target.len() > LONGEST_PATH || target.contains(&0) => {
            Err(format!("is a symbolic link whose target has {} bytes. Make the link anew", target.len()))
        }
        // Linux counts minors to 1048575, but mksquashfs 4.5.1 takes the upper half for negative. Nothing has so many.
        Kind::Character(major, minor) | Kind::Block(major, minor) if *major > 0xfff || *minor > 0x7_ffff => {
            Err(format!("is the device {major}:{minor}, and the image can hold up to 4095:524287. Remove it"))
        }
        _ => Ok(()),
    }
}

/// Whether there are lists to leave out.
fn xattrs(path: &[u8], xattrs: &Xattrs, acls: Acls) -> Result<bool, String> {
    let mut drop = false;
    for (name, _) in xattrs {
        if name == ACCESS || name == DEFAULT {
            let again =
                |prefix: &&[u8]| path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
            if acls == Acls::Refuse && !SET_AT_BOOT.iter().any(again) {
                return Err("has an access control list, which squashfs cannot hold. Remove it (setfacl -b) and give \
                            the access by owner, group and mode"
                    .to_owned());
            }
            drop = true;
        } else if ![b"user.".as_slice(), b"trusted.", b"security."].iter().any(|class| name.starts_with(class)) {
            return Err(format!(
                "has the extended attribute '{}', and squashfs holds only user.*, trusted.* and security.*. Remove it (setfattr -x)",
                show(name)
            ));
        }
    }
    Ok(drop)
}

/// With a list, the mode's group bits are its mask (acl(5)); without one they are the owning group's. So the bits
/// become what the owning group had under the mask, and never more.
fn drop_acl(tree: &mut Tree, id: InodeId) {
    let meta = tree.meta_mut(id);
    if let Some((_, acl)) = meta.xattrs.iter().find(|(name, _)| name == ACCESS) {
        // And-ed, so the mask still counts.
        meta.mode &= !0o070 | owning_group(acl) << 3;
    }
    meta.xattrs.retain(|(name, _)| name != ACCESS && name != DEFAULT);
}

/// The owning group's bits of a list: the kernel's binary form (version 2: tag, bits, id) or the text of
/// `tar --acls`. One that cannot be read gives none.
fn owning_group(acl: &[u8]) -> u32 {
    const VERSION: &[u8] = &2u32.to_le_bytes();
    const GROUP: u16 = 0x04;
    if let Some(entries) = acl.strip_prefix(VERSION) {
        let group = entries.as_chunks::<8>().0.iter().find(|e| u16::from_le_bytes([e[0], e[1]]) == GROUP);
        return group.map_or(0, |entry| u32::from(u16::from_le_bytes([entry[2], entry[3]]) & 7));
    }
    let text = String::from_utf8_lossy(acl);
    let group = text.split([',', '\n']).find_map(|entry| entry.trim().strip_prefix("group::"));
    group.map_or(0, |bits| {
        [('r', 4), ('w', 2), ('x', 1)]
            .iter()
            .filter(|(c, _)| bits.get(..3).is_some_and(|b| b.contains(*c)))
            .map(|b| b.1)
            .sum()
    })
}

fn root(tree: &mut Tree, note: &mut dyn FnMut(&str)) {
    let meta = tree.meta_mut(ROOT);
    for (name, _) in std::mem::take(&mut meta.xattrs) {
        note(&format!(
            "the extended attribute '{}' of the root directory itself is left out: mksquashfs cannot set it",
            show(&name)
        ));
    }
    if meta.mode & 0o001 == 0 {
        note(&format!(
            "the root directory's mode is {:04o}: programs that do not run as root will not reach any file. \
             chmod 755 the source directory and import it again",
            meta.mode
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_list_never_widens() {
        // user::rwx, user:1000:rwx, group::r-x, mask::rwx, other::---
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [(1u16, 7u16, !0u32), (2, 7, 1000), (4, 5, !0), (0x10, 7, !0), (0x20, 0, !0)] {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&bits.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        assert_eq!(owning_group(&acl), 5);
        assert_eq!(owning_group(b"user::rwx\nuser:joe:rwx\ngroup::r--\nmask::rwx\nother::---\n"), 4);
        assert_eq!(owning_group(b"user::rwx,group::rwx,other::r-x"), 7);
        assert_eq!(owning_group(b"nonsense"), 0);
    }
}
