//! An answer's body that a thread writes, as fast as the client takes it.

use axum::body::{Body, Bytes};
use futures_util::stream;
use std::io::{self, BufWriter, Write};
use tokio::sync::mpsc;

/// What is on its way to the client at once, at most, is some of these.
const CHUNK: usize = 256 << 10;

/// Where the body is written.
pub struct Outflow(mpsc::Sender<io::Result<Bytes>>);

/// A body, and where it is written.
pub fn outflow() -> (Outflow, Body) {
    let (chunks, arriving) = mpsc::channel::<io::Result<Bytes>>(4);
    let body = stream::unfold(arriving, |mut arriving| async {
        let chunk = arriving.recv().await?;
        if chunk.is_err() {
            // What came before, the answer's head above all, leaves before the connection is cut.
            tokio::task::yield_now().await;
        }
        Some((chunk, arriving))
    });
    (Outflow(chunks), Body::from_stream(body))
}

impl Outflow {
    /// For the thread that writes. A client that went away is a broken pipe.
    pub fn writer(&self) -> impl Write + use<> {
        BufWriter::with_capacity(CHUNK, Chunks(self.0.clone()))
    }

    /// Cuts the answer: it is not what its head promised.
    pub fn cut(self, why: impl std::error::Error + Send + Sync + 'static) {
        let _ = self.0.blocking_send(Err(io::Error::other(why)));
    }
}

struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK);
        let chunk = Bytes::copy_from_slice(&bytes[..count]);
        self.0.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
