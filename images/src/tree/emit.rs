//! A tree as a normalised tar: parents first, names in order, each inode once and hard links after it.

use super::{Extent, FileData, Inode, InodeId, Kind, ROOT, Spool, Tree};
use crate::archive::{Contents, Metadata, RecordKind, Writer};
use std::{
    collections::HashMap,
    io::{self, BufWriter, Write},
};

const CHUNK: usize = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the tree's tar. The root directory has no entry: the builder gets its metadata by other means.
/// `progress` gets the count of content bytes so far.
pub fn emit(tree: &Tree, spool: &Spool, out: &mut dyn Write, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    emit_where(|_| true, tree, spool, out, progress)
}

/// Writes a tree's tar as a layer over another tree: a directory that no entry named is left as that one has it.
pub fn emit_layer(tree: &Tree, spool: &Spool, out: &mut dyn Write, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    emit_where(|inode| !inode.implicit, tree, spool, out, progress)
}

fn emit_where(
    wanted: impl Fn(&Inode) -> bool,
    tree: &Tree,
    spool: &Spool,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut emitter = Emitter {
        writer: Writer::new(BufWriter::with_capacity(CHUNK, out)),
        names: HashMap::new(),
        buffer: vec![0; CHUNK],
        done: 0,
    };
    tree.walk(|path, id| match id == ROOT || !wanted(tree.inode(id)) {
        true => Ok(()),
        false => emitter.entry(tree, spool, path, id, progress),
    })?;
    emitter.writer.finish()?;
    Ok(())
}

struct Emitter<W: Write> {
    writer: Writer<W>,
    /// First path of every inode but directories.
    names: HashMap<InodeId, Vec<u8>>,
    buffer: Vec<u8>,
    done: u64,
}

impl<W: Write> Emitter<W> {
    fn entry(
        &mut self,
        tree: &Tree,
        spool: &Spool,
        path: &[u8],
        id: InodeId,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let inode = tree.inode(id);
        let meta = &inode.meta;
        let fields =
            Metadata { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs: &meta.xattrs };
        if !matches!(inode.kind, Kind::Directory(_)) {
            if let Some(first) = self.names.get(&id) {
                let none = Vec::new();
                return self.writer.entry(path, RecordKind::HardLink(first), Metadata { xattrs: &none, ..fields });
            }
            self.names.insert(id, path.to_vec());
        }
        let kind = match &inode.kind {
            Kind::Directory(_) => RecordKind::Directory,
            Kind::File(data) => RecordKind::File(Contents::Whole(data.size)),
            Kind::Symlink(target) => RecordKind::Symlink(target),
            Kind::Character(major, minor) => RecordKind::Character(*major, *minor),
            Kind::Block(major, minor) => RecordKind::Block(*major, *minor),
            Kind::Fifo => RecordKind::Fifo,
            Kind::Pending(_) => return Err(io::Error::other("the tree is not finished")),
        };
        self.writer.entry(path, kind, fields)?;
        match &inode.kind {
            Kind::File(data) => self.contents(spool, data, progress),
            _ => Ok(()),
        }
    }

    fn contents(&mut self, spool: &Spool, data: &FileData, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut at = 0;
        for extent in &data.extents {
            self.zeros(extent.at - at, progress)?;
            self.copy(spool, extent, progress)?;
            at = extent.at + extent.length;
        }
        self.zeros(data.size - at, progress)
    }

    fn copy(&mut self, spool: &Spool, extent: &Extent, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut done = 0;
        while done < extent.length {
            let want = CHUNK.min(usize::try_from(extent.length - done).unwrap_or(CHUNK));
            spool.read_exact_at(&mut self.buffer[..want], extent.spool + done)?;
            self.writer.data(&self.buffer[..want])?;
            done += want as u64;
            self.done += want as u64;
            progress(self.done);
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        while count > 0 {
            let step = count.min(ZEROS.len() as u64);
            self.writer.data(&ZEROS[..step as usize])?;
            count -= step;
            self.done += step;
            progress(self.done);
        }
        Ok(())
    }
}
