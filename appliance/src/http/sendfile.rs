//! The wire under hyper, which knows the bodies that go over it: bytes that lie in a blob's mapping leave by
//! sendfile(2), straight from the page cache, and every byte of a body is counted as the kernel takes it.
//!
//! A response announces its body to its connection ([`Outgoing::announce`]) and gets the [`Bytes`] that hyper is to
//! send. hyper hands them back, uncopied, to `poll_write_vectored`, where they are known by their address. When
//! hyper has written or dropped them the announcement ends, and its report runs.

use super::{gate::Gate, mapped::Mapped};
use bytes::Bytes;
use rustix::{
    fs::{Advice, fadvise, sendfile},
    io::{ReadWriteFlags, preadv2},
    net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt::set_tcp_cork},
};
use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    num::NonZeroU64,
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// One call sends no more, so that connections share a worker thread.
const MOST_AT_ONCE: usize = 4 << 20;
/// How far ahead the kernel is asked to read: a page that is not in memory would block the worker for a disk's time.
const AHEAD: u64 = 8 << 20;

/// Where a body's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    Mapped(Arc<Mapped>),
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(mapped) => mapped.bytes(),
        }
    }
}

/// The bodies on their way over one connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    bodies: Mutex<Vec<Arc<Body>>>,
}

/// A body that is being sent.
#[derive(Debug)]
struct Body {
    source: Source,
    range: Range<usize>,
    sent: AtomicU64,
    advised: AtomicU64,
}

/// Runs once, when a body is done or given up, with the bytes that were sent.
type Report = Box<dyn FnOnce(u64) + Send + Sync>;

/// What hyper holds: the bytes, and the announcement that ends with them.
struct Announced {
    body: Arc<Body>,
    connection: Weak<Outgoing>,
    report: Mutex<Option<Report>>,
}

impl AsRef<[u8]> for Announced {
    fn as_ref(&self) -> &[u8] {
        &self.body.source.bytes()[self.body.range.clone()]
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.upgrade() {
            connection.lock().retain(|body| !Arc::ptr_eq(body, &self.body));
        }
        if let Some(report) = self.report.lock().unwrap_or_else(PoisonError::into_inner).take() {
            report(self.body.sent.load(Ordering::Relaxed));
        }
    }
}

impl Outgoing {
    /// The bytes of `range` for hyper. `report` learns how many of them the kernel took.
    pub fn announce(
        self: &Arc<Self>,
        source: Source,
        range: Range<usize>,
        report: impl FnOnce(u64) + Send + Sync + 'static,
    ) -> Bytes {
        let advised = AtomicU64::new(range.start as u64);
        let body = Arc::new(Body { source, range, sent: AtomicU64::new(0), advised });
        body.read_ahead(body.range.start as u64);
        self.lock().push(body.clone());
        let report: Report = Box::new(report);
        Bytes::from_owner(Announced { body, connection: Arc::downgrade(self), report: Mutex::new(Some(report)) })
    }

    /// The body that these bytes belong to, and where in its source they begin.
    fn find(&self, bytes: &[u8]) -> Option<(Arc<Body>, usize)> {
        let at = bytes.as_ptr() as usize;
        self.lock().iter().find_map(|body| {
            let offset = at.checked_sub(body.source.bytes().as_ptr() as usize)?;
            (body.range.contains(&offset) && offset + bytes.len() <= body.range.end).then(|| (body.clone(), offset))
        })
    }

    /// Counts bytes of bodies that left from memory, or from a file's mapping.
    pub fn count(&self, slices: &[IoSlice<'_>], mut sent: usize) {
        for slice in slices {
            let of_this = slice.len().min(sent);
            sent -= of_this;
            if of_this > 0
                && let Some((body, offset)) = self.find(slice)
            {
                body.sent.fetch_add(of_this as u64, Ordering::Relaxed);
                body.read_ahead((offset + of_this) as u64);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Body>>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    fn file(&self) -> Option<&Mapped> {
        match &self.source {
            Source::Memory(_) => None,
            Source::Mapped(mapped) => Some(mapped),
        }
    }

    /// Keeps the kernel reading between one and two stretches ahead of `offset`.
    fn read_ahead(&self, offset: u64) {
        let (Some(mapped), end) = (self.file(), self.range.end as u64) else { return };
        let advised = self.advised.load(Ordering::Relaxed);
        if advised >= end || advised > offset + AHEAD {
            return;
        }
        if let Some(length) = NonZeroU64::new((2 * AHEAD).min(end - advised)) {
            let next = advised + length.get();
            if !is_in_memory(mapped.file(), next - 1) {
                let _ = fadvise(mapped.file(), advised, Some(length), Advice::WillNeed);
            }
            self.advised.store(next, Ordering::Relaxed);
        }
    }
}

/// Whether a stretch that ends here has been read, judged by its last byte: advice walks every page of a stretch, which
/// costs a fourth of the time of sending it from memory.
fn is_in_memory(file: &File, last: u64) -> bool {
    let mut byte = [0];
    preadv2(file, &mut [IoSliceMut::new(&mut byte)], last, ReadWriteFlags::NOWAIT) == Ok(1)
}

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// From the network.
    Tcp(TcpStream),
    /// From this host.
    Unix(UnixStream),
}

macro_rules! each {
    ($stream:expr, $socket:ident => $body:expr) => {
        match $stream {
            Stream::Tcp($socket) => $body,
            Stream::Unix($socket) => $body,
        }
    };
}

impl Stream {
    /// Waits until there is something to read, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        each!(self, socket => socket.readable().await)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => socket.poll_write_ready(cx))
    }

    /// Writes without waiting; `WouldBlock` makes tokio wait for the socket's next readiness.
    fn try_write_with(&self, write: impl Fn(rustix::fd::BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        each!(self, socket => socket.try_io(Interest::WRITABLE, || write(rustix::fd::AsFd::as_fd(socket))))
    }
}

/// The wire: a socket and what goes out over it.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    corked: bool,
    outgoing: Arc<Outgoing>,
    gate: Option<Gate>,
}

impl Wire {
    /// Over this socket; what comes in passes the gate, where there is one.
    pub fn new(stream: Stream, outgoing: Arc<Outgoing>, gate: Option<Gate>) -> Self {
        Self { stream, corked: false, outgoing, gate }
    }

    /// Repeats a write until it succeeds, fails, or has to wait.
    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(rustix::fd::BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write_with(&write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Keeps the kernel from sending packets that are not full (tcp(7)): without, it does so at the end of each stretch
    /// that it takes from a file, and one stream costs half as much again.
    fn cork(&mut self, corked: bool) -> io::Result<()> {
        if let Stream::Tcp(socket) = &self.stream
            && self.corked != corked
        {
            set_tcp_cork(socket, corked)?;
            self.corked = corked;
        }
        Ok(())
    }

    fn poll_sendfile(
        &self,
        cx: &mut Context<'_>,
        mapped: &Mapped,
        from: usize,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let length = length.min(MOST_AT_ONCE);
        let sent = ready!(self.poll_with(cx, |socket| {
            let mut offset = from as u64;
            Ok(sendfile(socket, mapped.file(), Some(&mut offset), length)?)
        }))?;
        if sent == 0 {
            // Only a file that became shorter gives this; no file of the store may.
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a blob's file is shorter than it was",
            )));
        }
        Poll::Ready(Ok(sent))
    }

    /// Sends what lies before the first body that has a file.
    fn poll_sendmsg(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>], more: bool) -> Poll<io::Result<usize>> {
        let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if more {
            // The head of a response and the first bytes of its body share a packet.
            flags |= SendFlags::MORE;
        }
        let sent = ready!(
            self.poll_with(cx, |socket| { Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?) })
        )?;
        self.outgoing.count(slices, sent);
        Poll::Ready(Ok(sent))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let with_file = slices.iter().enumerate().find_map(|(at, slice)| {
            let (body, offset) = self.outgoing.find(slice).filter(|_| !slice.is_empty())?;
            body.file().is_some().then_some((at, body, offset))
        });
        let Some((at, body, offset)) = with_file else {
            return self.poll_sendmsg(cx, slices, false);
        };
        if slices[..at].iter().any(|slice| !slice.is_empty()) {
            return self.poll_sendmsg(cx, &slices[..at], true);
        }
        let Some(mapped) = body.file() else { return self.poll_sendmsg(cx, slices, false) };
        body.read_ahead(offset as u64);
        self.cork(body.range.len() > MOST_AT_ONCE)?;
        let sent = ready!(self.poll_sendfile(cx, mapped, offset, slices[at].len()))?;
        body.sent.fetch_add(sent as u64, Ordering::Relaxed);
        if offset + sent == body.range.end {
            self.cork(false)?;
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.stream, socket => Pin::new(socket).poll_shutdown(cx))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(each!(&mut self.stream, socket => Pin::new(socket).poll_read(cx, buffer)))?;
        if let Some(gate) = &mut self.gate {
            gate.pass(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}
