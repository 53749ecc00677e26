//! Sniffing and undoing the compression of a stream.

use flate2::bufread::MultiGzDecoder;
use liblzma::{bufread::XzDecoder, stream};
use std::io::{self, BufReader, Read};

/// Large enough that a reader seldom waits for a system call.
const BUFFER: usize = 1 << 20;

/// bzip2's is the longest: level and block magic included.
const LONGEST_MAGIC: usize = 10;

/// xz -9 needs 65 MiB; a stream that asks for more than this was made to exhaust memory.
const XZ_MEMORY: u64 = 1 << 30;

/// zstd --ultra --long=30: 1 GiB of window.
const ZSTD_WINDOW_LOG: u32 = 30;

/// The source with the bytes that were looked at put back in front.
type Source<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

/// A stream, decompressed if need be.
pub enum Decompressed<R: Read> {
    /// As it came.
    Plain(Source<R>),
    /// gzip, all its members.
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    /// xz, all its streams.
    Xz(Box<XzDecoder<Source<R>>>),
    /// zstd, all its frames.
    Zstd(Box<zstd::Decoder<'static, Source<R>>>),
}

/// Looks at the first bytes and chooses.
pub fn sniff<R: Read>(mut inner: R) -> io::Result<Decompressed<R>> {
    // A pipe may give one byte at a time, and one byte tells nothing.
    let mut start = Vec::with_capacity(LONGEST_MAGIC);
    inner.by_ref().take(LONGEST_MAGIC as u64).read_to_end(&mut start)?;
    let is = |magic: &[u8]| start.starts_with(magic);
    // zstd's skippable frames, which pzstd writes first, have sixteen magic numbers.
    let skippable = matches!(start[..], [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    let (gzip, xz, zstd) = (is(b"\x1f\x8b"), is(b"\xfd7zXZ\0"), is(b"\x28\xb5\x2f\xfd") || skippable);
    let bzip2 = is(b"BZh") && start.get(4..).is_some_and(|block| block.starts_with(b"1AY&SY"));
    for (found, what) in [(bzip2, "bzip2"), (is(b"\x04\x22\x4d\x18"), "lz4"), (is(b"LZIP"), "lzip")] {
        if found {
            let hint = format!("it is compressed with {what}, which Bennu does not read");
            return Err(io::Error::new(io::ErrorKind::Unsupported, hint));
        }
    }
    let inner = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(inner));
    if gzip {
        return Ok(Decompressed::Gzip(Box::new(MultiGzDecoder::new(inner))));
    }
    if xz {
        let stream = stream::Stream::new_stream_decoder(XZ_MEMORY, stream::CONCATENATED)?;
        return Ok(Decompressed::Xz(Box::new(XzDecoder::new_stream(inner, stream))));
    }
    if zstd {
        let mut decoder = zstd::Decoder::with_buffer(inner)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Decompressed::Zstd(Box::new(decoder)));
    }
    Ok(Decompressed::Plain(inner))
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buffer),
            Self::Gzip(inner) => inner.read(buffer),
            Self::Xz(inner) => inner.read(buffer),
            Self::Zstd(inner) => inner.read(buffer),
        }
    }
}

/// Undoes the compression that a file's name tells of (`.xz`, `.zst`, `.gz`); any other name gives the bytes
/// as they are. `most` bounds the result.
pub fn by_name(name: &[u8], bytes: Vec<u8>, most: u64) -> io::Result<Vec<u8>> {
    if suffix(name).is_none() {
        return Ok(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len() * 3);
    sniff(bytes.as_slice())?.take(most + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it holds more than {most} bytes")));
    }
    Ok(plain)
}

/// The compression suffix of a name, with its dot.
pub fn suffix(name: &[u8]) -> Option<&'static str> {
    [".xz", ".zst", ".gz"].into_iter().find(|suffix| name.ends_with(suffix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, as a slow pipe may.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn a_slow_source_is_known_all_the_same() {
        let text = b"(Pictures)/ of no particular interest".repeat(50);
        let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
        let skippable = [b"\x5a\x2a\x4d\x18\x02\0\0\0xx".as_slice(), &zstd].concat();
        for stream in [&text, &text[..3].to_vec(), &text[..0].to_vec(), &b"BZh".to_vec(), &zstd, &skippable] {
            let mut out = Vec::new();
            sniff(Drip(stream)).unwrap().read_to_end(&mut out).unwrap();
            assert!(out == text || out == stream[..], "{} bytes", stream.len());
        }
        let mut out = Vec::new();
        sniff(Drip(&skippable)).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, text);
    }

    #[test]
    fn a_bomb_is_bounded() {
        let bomb = zstd::encode_all(&vec![0; 10 << 20][..], 1).unwrap();
        assert!(by_name(b"x.ko.zst", bomb.clone(), 1 << 20).is_err());
        assert_eq!(by_name(b"x.ko.zst", bomb, 10 << 20).unwrap().len(), 10 << 20);
    }
}
