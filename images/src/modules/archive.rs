//! A newc cpio archive for the kernel to unpack (Documentation/driver-api/early-userspace/buffer-format.rst).

use crate::store::{BlobWriter, Store, StoreError};
use bennu_rules::image::BlobRef;
use cpio::newc::{Builder, ModeFileType};
use flate2::write::GzEncoder;
use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// The kernel looks for a plain archive on four-byte boundaries only, and one may follow this initrd; it skips zeros
/// between archives (buffer-format.rst).
const ALIGNMENT: u64 = 4;

/// Compression of an initrd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A level of 1 to 22, and threads.
    Zstd(u32, usize),
    /// For kernels before 5.9.
    Gzip,
}

enum Compressor {
    Zstd(Box<zstd::Encoder<'static, BlobWriter>>),
    Gzip(Box<GzEncoder<BlobWriter>>),
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(inner) => inner.write(bytes),
            Self::Gzip(inner) => inner.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // The cpio crate flushes after entries; passing that on would end a compressed block each time.
        Ok(())
    }
}

/// An initrd on its way into the store: everything owned by root, dated 1970, parents made before children.
pub struct InitrdWriter {
    out: Compressor,
    directories: BTreeSet<String>,
    next_inode: u32,
    bytes: u64,
}

impl InitrdWriter {
    /// Starts one.
    pub fn new(store: &Store, compression: Compression) -> Result<Self, StoreError> {
        let blob = store.writer()?;
        let failed = |error| store.failed("compress into", store.tmp(), error);
        let out = match compression {
            Compression::Zstd(level, threads) => {
                let mut encoder = zstd::Encoder::new(blob, level as i32).map_err(failed)?;
                // Even one thread is asked for: with any number zstd gives the same bytes, with none others.
                encoder.multithread(threads.max(1) as u32).map_err(failed)?;
                Compressor::Zstd(Box::new(encoder))
            }
            Compression::Gzip => Compressor::Gzip(Box::new(GzEncoder::new(blob, flate2::Compression::best()))),
        };
        Ok(Self { out, directories: BTreeSet::new(), next_inode: 1, bytes: 0 })
    }

    /// Adds a file, and the directories above it. Each path once.
    pub fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        let size = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a file of 4 GiB or more"))?;
        let entry = self.entry(path).mode(0o644).set_mode_file_type(ModeFileType::Regular);
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(bytes)?;
        writer.finish()?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of all files so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the archive and stores it.
    pub fn finish(mut self, store: &Store) -> Result<BlobRef, StoreError> {
        let failed = |error| store.failed("compress into", store.tmp(), error);
        cpio::newc::trailer(&mut self.out).map_err(failed)?;
        let blob = match self.out {
            Compressor::Zstd(encoder) => encoder.finish(),
            Compressor::Gzip(encoder) => encoder.finish(),
        };
        let mut blob = blob.map_err(failed)?;
        let padding = blob.written().wrapping_neg() % ALIGNMENT;
        blob.write_all(&[0; ALIGNMENT as usize][..padding as usize]).map_err(failed)?;
        blob.finish()
    }

    fn entry(&mut self, path: &str) -> Builder {
        let inode = self.next_inode;
        self.next_inode += 1;
        Builder::new(path).ino(inode).uid(0).gid(0).mtime(0)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            let directory = &path[..at];
            if self.directories.insert(directory.to_owned()) {
                let entry = self.entry(directory).mode(0o755).nlink(2).set_mode_file_type(ModeFileType::Directory);
                entry.write(&mut self.out, 0).finish()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initrd_ends_on_a_four_byte_boundary_with_zeros_alone_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut padded = 0;
        for (compression, length) in
            (0..12).flat_map(|length| [(Compression::Zstd(1, 1), length), (Compression::Gzip, length)])
        {
            let mut out = InitrdWriter::new(&store, compression).unwrap();
            out.file("file", &b"some contents"[..length]).unwrap();
            let blob = out.finish(&store).unwrap();
            let bytes = std::fs::read(store.blob_path(&blob.digest)).unwrap();
            assert_eq!((bytes.len() % 4, bytes.len() as u64), (0, blob.size));
            let mut rest = bytes.as_slice();
            let mut archive = Vec::new();
            match compression {
                Compression::Zstd(..) => {
                    let mut decoder = zstd::Decoder::with_buffer(&mut rest).unwrap().single_frame();
                    io::Read::read_to_end(&mut decoder, &mut archive).unwrap();
                }
                Compression::Gzip => {
                    let mut decoder = flate2::bufread::GzDecoder::new(&mut rest);
                    io::Read::read_to_end(&mut decoder, &mut archive).unwrap();
                }
            }
            assert!(archive.starts_with(b"070701"));
            assert!(rest.len() < 4 && rest.iter().all(|&b| b == 0), "{rest:?}");
            padded += rest.len();
        }
        assert!(padded > 0, "no case needed any");
    }
}
