//! Sets the root directory's owner in a finished filesystem.
//!
//! mksquashfs 4.5.1 ignores `-root-uid` and `-root-gid` when it reads a tar and writes its own user and group, so that
//! an image would depend on who made it, and its `/` belong to that user's number. Inodes hold places in a table of ids
//! (squashfs 4.0; Documentation/filesystems/squashfs.rst, "Uid/gid lookup table"): what only the root directory brought
//! into that table is at its end, since that inode is written last. It is taken out, and the wanted ids put in where
//! they are missing, which moves what follows the table: the extended attributes. `-noI` leaves the table uncompressed.

use super::root_time::{Inode, METADATA, PLAIN, bad, superblock, word};
use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt as _, path::Path};

/// Of the superblock: how many ids, bytes used, and where the tables of ids and of extended attributes are.
const COUNT_AT: usize = 26;
const USED_AT: usize = 40;
const IDS_AT: usize = 48;
const XATTRS_AT: usize = 56;
/// Of an inode's header: places of its owner and its group.
const OWNER_AT: u64 = 4;
/// An identifier of extended attributes takes as much.
const XATTR_ID: u64 = 16;
/// mksquashfs fills its file up to a multiple of this.
const PADDING: u64 = 4096;

/// Makes `owner`, a user and a group, the root directory's; `others` own everything else.
pub(super) fn set(image: &Path, owner: [u32; 2], others: &BTreeSet<u32>) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let head = superblock(&file)?;
    let table = Table::read(&file, &head)?;
    let used = table.ids.iter().take_while(|id| others.contains(id)).count();
    let (kept, of_root) = table.ids.split_at(used);
    if of_root.iter().any(|id| others.contains(id)) {
        return Err(bad("its table of ids is not in the order of its inodes"));
    }
    let mut ids = kept.to_vec();
    let mut places = Vec::new();
    for id in owner {
        let place = ids.iter().position(|known| *known == id).unwrap_or(ids.len());
        if place == ids.len() {
            ids.push(id);
        }
        places.extend(u16::try_from(place).map_err(|_| bad("it has too many ids"))?.to_le_bytes());
    }
    Inode::root(&file, &head)?.write(&file, OWNER_AT, &places)?;
    if ids == table.ids { Ok(()) } else { table.replace(&file, &head, &ids) }
}

/// The table of ids: plain metadata blocks, and a list of where they are.
struct Table {
    ids: Vec<u32>,
    /// Where its first block is.
    blocks: u64,
    /// Where its list ends.
    end: u64,
}

impl Table {
    fn read(file: &File, head: &[u8]) -> io::Result<Self> {
        let count = u64::from(u16::from_le_bytes([head[COUNT_AT], head[COUNT_AT + 1]]));
        let list = word(head, IDS_AT);
        let mut bytes = Vec::new();
        let places = numbers(&bytes_at(file, list, 8 * (4 * count).div_ceil(METADATA))?);
        for place in &places {
            let length = bytes_at(file, *place, 2)?;
            let length = u16::from_le_bytes([length[0], length[1]]);
            if length & PLAIN == 0 {
                return Err(bad("its ids are compressed though -noI was given"));
            }
            bytes.extend(bytes_at(file, place + 2, u64::from(length & !PLAIN))?);
        }
        let ids: Vec<u32> = bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
        let blocks = places.first().copied().ok_or_else(|| bad("it has no ids"))?;
        let contiguous = blocks + 2 * places.len() as u64 + bytes.len() as u64 == list;
        if ids.len() as u64 != count || !contiguous {
            return Err(bad("its table of ids is not laid out as mksquashfs does"));
        }
        Ok(Self { ids, blocks, end: list + 8 * places.len() as u64 })
    }

    fn replace(&self, file: &File, head: &[u8], ids: &[u32]) -> io::Result<()> {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let (mut written, mut places) = (Vec::new(), Vec::new());
        for block in bytes.chunks(METADATA as usize) {
            places.extend((self.blocks + written.len() as u64).to_le_bytes());
            written.extend((block.len() as u16 | PLAIN).to_le_bytes());
            written.extend(block);
        }
        let list = self.blocks + written.len() as u64;
        written.extend(places);
        let used = word(head, USED_AT);
        let mut rest = bytes_at(file, self.end, used.saturating_sub(self.end))?;
        let moved = |place: u64| (self.blocks + written.len() as u64).wrapping_add(place).wrapping_sub(self.end);
        let xattrs = word(head, XATTRS_AT);
        if xattrs != u64::MAX {
            let at = xattrs.checked_sub(self.end).filter(|at| at + XATTR_ID <= rest.len() as u64);
            move_xattrs(&mut rest, at.ok_or_else(|| bad("its extended attributes are before its ids"))?, moved)?;
            file.write_all_at(&moved(xattrs).to_le_bytes(), XATTRS_AT as u64)?;
        }
        let end = moved(used);
        written.extend(rest);
        file.write_all_at(&written, self.blocks)?;
        // The size makes the padding, all zero.
        file.set_len(end)?;
        file.set_len(end.next_multiple_of(PADDING))?;
        file.write_all_at(&(ids.len() as u16).to_le_bytes(), COUNT_AT as u64)?;
        file.write_all_at(&end.to_le_bytes(), USED_AT as u64)?;
        file.write_all_at(&list.to_le_bytes(), IDS_AT as u64)
    }
}

/// Moves what the table of extended attributes says of places: where its values begin, and where its own blocks are.
fn move_xattrs(rest: &mut [u8], at: u64, moved: impl Fn(u64) -> u64) -> io::Result<()> {
    let at = at as usize;
    let count = u64::from(u32::from_le_bytes([rest[at + 8], rest[at + 9], rest[at + 10], rest[at + 11]]));
    let blocks = (XATTR_ID * count).div_ceil(METADATA) as usize;
    let list = at + XATTR_ID as usize;
    for place in std::iter::once(at).chain((0..blocks).map(|block| list + 8 * block)) {
        let bytes = rest.get_mut(place..place + 8).ok_or_else(|| bad("its extended attributes are cut off"))?;
        let now = moved(word(bytes, 0));
        bytes.copy_from_slice(&now.to_le_bytes());
    }
    Ok(())
}

fn bytes_at(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > file.metadata()?.len() {
        return Err(bad("a table of it is longer than it is"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|number| word(number, 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A tree with these owners of its files and some extended attributes, made by us; only root can be another user,
    /// and nobody needs to be: [`set`] changes from any owner to any other.
    fn made(dir: &Path, owners: &[u32]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (number, owner) in owners.iter().enumerate() {
            let name = format!("file{number}");
            tar.append_pax_extensions([(format!("SCHILY.xattr.user.n{number}").as_str(), name.as_bytes())]).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(name.len() as u64);
            header.set_mode(0o644);
            header.set_uid(u64::from(*owner));
            header.set_gid(u64::from(*owner));
            tar.append_data(&mut header, &name, name.as_bytes()).unwrap();
        }
        let (source, out) = (dir.join("source.tar"), dir.join("out"));
        std::fs::write(&source, tar.into_inner().unwrap()).unwrap();
        let mut command = Command::new("mksquashfs");
        command.arg("-").arg(&out).args(["-tar", "-noappend", "-quiet", "-no-progress", "-noI", "-mkfs-time", "0"]);
        let status = command.stdin(File::open(source).unwrap()).status().unwrap();
        assert!(status.success());
        super::super::root_time::set(&out, 0).unwrap();
        std::fs::read(out).unwrap()
    }

    fn ids(image: &Path) -> Vec<u32> {
        let file = File::open(image).unwrap();
        Table::read(&file, &superblock(&file).unwrap()).unwrap().ids
    }

    #[test]
    fn the_bytes_do_not_tell_who_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        for owners in [vec![0, 7], vec![995, 0], vec![3], (1..5000).collect::<Vec<u32>>()] {
            std::fs::write(&image, made(dir.path(), &owners)).unwrap();
            let others: BTreeSet<u32> = owners.iter().copied().collect();
            set(&image, [0, 0], &others).unwrap();
            let wanted = std::fs::read(&image).unwrap();
            // As if other users had made it, alone or with a group of its own.
            for maker in [[995, 995], [7, 1000], [77777, 0], [0, 995]] {
                set(&image, maker, &others).unwrap();
                assert!(maker.iter().all(|id| ids(&image).contains(id)));
                set(&image, [0, 0], &others).unwrap();
                assert!(std::fs::read(&image).unwrap() == wanted, "{maker:?}");
            }
        }
    }

    #[test]
    fn what_it_holds_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let owners = [5, 9];
        std::fs::write(&image, made(dir.path(), &owners)).unwrap();
        set(&image, [995, 996], &owners.into()).unwrap();
        assert_eq!(ids(&image), [5, 9, 995, 996]);
        let listed = Command::new("unsquashfs").arg("-lln").arg(&image).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for owner in ["995/996", "5/5", "9/9"] {
            assert!(listed.contains(owner), "{listed}");
        }
        let out = dir.path().join("unpacked");
        let unpacked =
            Command::new("unsquashfs").args(["-no-progress", "-user-xattrs", "-d"]).arg(&out).arg(&image).output();
        assert!(unpacked.unwrap().status.success());
        assert_eq!(std::fs::read(out.join("file1")).unwrap(), b"file1");
        assert_eq!(xattr::get(out.join("file1"), "user.n1").unwrap().unwrap(), b"file1");
    }

    #[test]
    fn a_table_in_another_order_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, made(dir.path(), &[5, 9])).unwrap();
        let error = set(&image, [0, 0], &BTreeSet::from([9])).unwrap_err().to_string();
        assert!(error.contains("order"), "{error}");
    }
}
