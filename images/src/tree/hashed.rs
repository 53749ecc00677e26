//! A stream's digest, made beside whoever reads it.

use bennu_rules::image::Digest;
use ring::digest::{Context, SHA256};
use std::{
    io::{self, Read},
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

/// What is hashed at a time.
const CHUNK: usize = 256 << 10;
/// How many of them may wait.
const WAITING: usize = 8;

/// Passes a stream on, and hashes it on a thread of its own: on processors without SHA instructions that takes as long
/// as decompressing it.
pub struct Hashed<R> {
    inner: R,
    chunk: Vec<u8>,
    chunks: Option<SyncSender<Vec<u8>>>,
    hasher: Option<JoinHandle<[u8; 32]>>,
    /// Hashes here where no thread could be had.
    here: Context,
}

impl<R: Read> Hashed<R> {
    /// Begins.
    pub fn new(inner: R) -> Self {
        let (chunks, waiting) = sync_channel::<Vec<u8>>(WAITING);
        let work = move || {
            let mut hash = Context::new(&SHA256);
            waiting.iter().for_each(|chunk| hash.update(&chunk));
            bytes(hash)
        };
        let hasher = std::thread::Builder::new().name("hash".into()).spawn(work).ok();
        let chunks = hasher.is_some().then_some(chunks);
        Self { inner, chunk: Vec::with_capacity(CHUNK), chunks, hasher, here: Context::new(&SHA256) }
    }

    /// The digest of all that was read.
    pub fn finish(mut self) -> Digest {
        self.pass_on();
        drop(self.chunks.take());
        let beside = self.hasher.take().and_then(|hasher| hasher.join().ok());
        Digest(beside.unwrap_or_else(|| bytes(self.here)))
    }

    fn pass_on(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        match &self.chunks {
            // The thread ends only after this sender has.
            Some(chunks) => drop(chunks.send(chunk)),
            None => self.here.update(&chunk),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.chunk.extend_from_slice(&buffer[..count]);
        if self.chunk.len() >= CHUNK {
            self.pass_on();
        }
        Ok(count)
    }
}

fn bytes(hash: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_all_bytes() {
        for length in [0, 1, CHUNK, 5 * CHUNK + 3] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut hashed = Hashed::new(bytes.as_slice());
            let mut out = Vec::new();
            hashed.read_to_end(&mut out).unwrap();
            assert!(out == bytes);
            assert_eq!(hashed.finish().0.as_slice(), ring::digest::digest(&SHA256, &bytes).as_ref());
        }
    }
}
