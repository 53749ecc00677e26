//! A request's body for work on a thread that blocks.

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// A body, as a stream of bytes that may block. It ends with an error when the client goes away before its end.
pub struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// A reader, and where its chunks are put.
    pub fn new() -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, chunks) = mpsc::channel(8);
        (sender, Self { chunks, current: Bytes::new() })
    }

    /// The next stretch of the body, as it came; `None` at its end.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        self.chunks.blocking_recv().transpose()
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Moves the body to the thread that reads it, and what nobody wants any more to nowhere.
pub async fn pump(body: Body, chunks: mpsc::Sender<io::Result<Bytes>>) {
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let broken = chunk.is_err();
        let chunk = chunk.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error));
        let _ = chunks.send(chunk).await;
        if broken {
            return;
        }
    }
}
