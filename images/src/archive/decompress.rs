//! Sniffing and undoing the compression of a stream.

use flate2::bufread::MultiGzDecoder;
use liblzma::{bufread::XzDecoder, stream};
use std::io::{self, BufRead, BufReader, Read};

/// Large enough that a reader seldom waits for a system call.
const BUFFER: usize = 1 << 20;

/// xz -9 needs 65 MiB; a stream that asks for more than this was made to exhaust memory.
const XZ_MEMORY: u64 = 1 << 30;

/// zstd --ultra --long=30: 1 GiB of window.
const ZSTD_WINDOW_LOG: u32 = 30;

/// A stream, decompressed if need be.
pub enum Decompressed<R: Read> {
    /// As it came.
    Plain(BufReader<R>),
    /// gzip, all its members.
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    /// xz, all its streams.
    Xz(Box<XzDecoder<BufReader<R>>>),
    /// zstd, all its frames.
    Zstd(Box<zstd::Decoder<'static, BufReader<R>>>),
}

/// Looks at the first bytes and chooses.
pub fn sniff<R: Read>(inner: R) -> io::Result<Decompressed<R>> {
    let mut inner = BufReader::with_capacity(BUFFER, inner);
    let start = inner.fill_buf()?;
    // A pipe may give less than six bytes at first; gzip's and zstd's magic numbers then still tell.
    let is = |magic: &[u8]| !start.is_empty() && start.starts_with(&magic[..magic.len().min(start.len())]);
    let unsupported = |what: &str| {
        let hint = format!(
            "it is compressed with {what}, which Bennu does not read: decompress it first, or use zstd, xz or gzip"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, hint))
    };
    if is(b"\x1f\x8b") {
        return Ok(Decompressed::Gzip(Box::new(MultiGzDecoder::new(inner))));
    }
    if is(b"\xfd7zXZ\0") {
        let stream = stream::Stream::new_stream_decoder(XZ_MEMORY, stream::CONCATENATED)?;
        return Ok(Decompressed::Xz(Box::new(XzDecoder::new_stream(inner, stream))));
    }
    // The second is a skippable frame, which pzstd writes first.
    if is(b"\x28\xb5\x2f\xfd") || (is(b"\x50\x2a\x4d\x18")) {
        let mut decoder = zstd::Decoder::with_buffer(inner)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Decompressed::Zstd(Box::new(decoder)));
    }
    if is(b"BZh") && start.len() > 3 && start[3].is_ascii_digit() && start[4..].starts_with(b"1AY&SY") {
        return unsupported("bzip2");
    }
    if is(b"\x04\x22\x4d\x18") {
        return unsupported("lz4");
    }
    if is(b"LZIP") {
        return unsupported("lzip");
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
