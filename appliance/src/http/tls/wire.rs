//! The wire under hyper where TLS is between: what comes in passes the gate once it is in the clear, and bodies are
//! counted as they are sealed.

use crate::http::{gate::Gate, sendfile::Outgoing};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A TLS connection and what goes out over it.
#[derive(Debug)]
pub struct TlsWire {
    stream: TlsStream<TcpStream>,
    outgoing: Arc<Outgoing>,
    gate: Option<Gate>,
}

impl TlsWire {
    /// Over this connection.
    pub fn new(stream: TlsStream<TcpStream>, outgoing: Arc<Outgoing>, gate: Option<Gate>) -> Self {
        Self { stream, outgoing, gate }
    }
}

impl AsyncRead for TlsWire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(gate) = &mut self.gate {
            gate.pass(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // TLS takes 64 KiB at a time, so that a body of gigabytes is never in memory.
        let taken = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.outgoing.count(slices, taken);
        Poll::Ready(Ok(taken))
    }

    /// Otherwise hyper copies whole bodies together.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
