//! Deadlines on every phase of a connection: request head, request body, response, and the quiet in between. hyper
//! has one for the head alone, which also runs while a connection is idle; so they are kept here, around the wire.

use http_body::{Body, Frame, SizeHint};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How long each phase may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From accept, or from a request's first byte, to the end of its head.
    pub head: Duration,
    /// A request's body, without a byte; `None` where its sender may take its time.
    pub body: Option<Duration>,
    /// Between requests.
    pub idle: Duration,
    /// A response, without a byte taken.
    pub stall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(10), body: Some(seconds(60)), idle: seconds(30), stall: seconds(60) }
    }
}

/// A request's body and a response that move slower than this fall behind.
const BYTES_PER_MS: u64 = 16;

/// What a connection is at: shared by the wire, the service above it, and whoever has to choose whom to end.
#[derive(Debug)]
pub struct Busy {
    answering: AtomicBool,
    /// Requests begun, so that one answered between two looks is noticed too.
    begun: AtomicU64,
    since: Instant,
    /// Until when it has kept up with its work, in milliseconds after `since`. A head and the bytes of bodies bring it
    /// forward, bytes of a head and silence do not.
    kept_up: AtomicU64,
}

impl Default for Busy {
    fn default() -> Self {
        Self { answering: false.into(), begun: 0.into(), since: Instant::now(), kept_up: 0.into() }
    }
}

impl Busy {
    /// A head has come whole.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.answering.store(true, Ordering::Release);
        self.kept_up.store(self.age(), Ordering::Relaxed);
    }

    /// The response's body has been handed on.
    pub fn end(&self) {
        self.answering.store(false, Ordering::Release);
    }

    /// Bytes of a body have gone either way.
    pub fn moved(&self, bytes: u64) {
        let until = self.kept_up.load(Ordering::Relaxed) + bytes.div_ceil(BYTES_PER_MS);
        self.kept_up.store(until.min(self.age()), Ordering::Relaxed);
    }

    /// How far behind its work it is.
    pub fn arrears(&self) -> Duration {
        Duration::from_millis(self.age().saturating_sub(self.kept_up.load(Ordering::Relaxed)))
    }

    fn age(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    fn is(&self) -> bool {
        self.answering.load(Ordering::Acquire)
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }
}

/// What is waited for while no request is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Await {
    /// Nothing: a request is being answered.
    Nothing,
    /// The end of a head.
    Head,
    /// The first byte of the next request.
    Next,
}

/// A wire whose waits end.
#[derive(Debug)]
pub struct Timed<W> {
    wire: W,
    deadlines: Deadlines,
    busy: Arc<Busy>,
    awaits: Await,
    /// Of [`Busy::begun`], at the last look.
    begun: u64,
    read_by: Pin<Box<Sleep>>,
    /// Runs while the peer takes nothing.
    write_by: Option<Pin<Box<Sleep>>>,
}

impl<W> Timed<W> {
    /// The first head must be whole at `head_by`.
    pub fn new(wire: W, deadlines: Deadlines, busy: Arc<Busy>, head_by: Instant) -> Self {
        let read_by = Box::pin(sleep_until(head_by));
        Self { wire, deadlines, busy, awaits: Await::Head, begun: 0, read_by, write_by: None }
    }

    fn arm(&mut self, awaits: Await) {
        self.awaits = awaits;
        let wait = if awaits == Await::Head { self.deadlines.head } else { self.deadlines.idle };
        self.read_by.as_mut().reset(Instant::now() + wait);
    }

    fn before_read(&mut self) {
        let begun = self.busy.begun();
        if self.busy.is() {
            self.awaits = Await::Nothing;
        } else if self.awaits == Await::Nothing || self.begun != begun {
            self.arm(Await::Next);
        }
        self.begun = begun;
    }

    fn after_write(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &written {
            self.busy.moved(result.as_ref().map_or(0, |bytes| *bytes as u64));
            self.write_by = None;
            if self.awaits == Await::Next {
                self.arm(Await::Next);
            }
            return written;
        }
        let stall = self.deadlines.stall;
        let write_by = self.write_by.get_or_insert_with(|| Box::pin(sleep(stall)));
        match write_by.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the client takes no bytes"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<W: AsyncRead + Unpin> AsyncRead for Timed<W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.before_read();
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(cx, buffer);
        if read.is_ready() {
            if self.awaits == Await::Nothing {
                self.busy.moved((buffer.filled().len() - before) as u64);
            }
            if self.awaits == Await::Next && buffer.filled().len() > before {
                self.arm(Await::Head);
            }
            // A drip of bytes keeps hyper reading; the deadline of a head counts on.
            let late = self.awaits == Await::Head && self.read_by.as_mut().poll(cx).is_ready();
            return if late { Poll::Ready(Err(timed_out("the request's head came too slowly"))) } else { read };
        }
        // Polled in any case, since nothing else would wake an idle connection.
        while self.awaits != Await::Nothing && self.read_by.as_mut().poll(cx).is_ready() {
            if self.write_by.is_none() {
                return Poll::Ready(Err(timed_out("no request came in time")));
            }
            // The bytes of a large response still leave while hyper already waits for the next request.
            let awaits = self.awaits;
            self.arm(awaits);
        }
        Poll::Pending
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Timed<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write(cx, bytes);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write_vectored(cx, slices);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper looks for the next request before it lets go of a response's body, and may not look again: the last
        // flush of a response starts the wait for the next request, and asks to be woken at its end.
        self.before_read();
        if self.awaits == Await::Next {
            let _ = self.read_by.as_mut().poll(cx);
        }
        let flushed = Pin::new(&mut self.wire).poll_flush(cx);
        // What TLS has sealed leaves here, and a peer that takes nothing is not waited for either.
        if flushed.is_ready() && self.write_by.is_none() {
            return flushed;
        }
        self.after_write(cx, flushed.map_ok(|()| 0)).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.wire).poll_shutdown(cx);
        self.after_write(cx, shut.map_ok(|()| 0)).map_ok(drop)
    }
}

/// A request's body whose sender must not fall silent.
pub struct TimedBody<B> {
    body: B,
    silence: Option<Duration>,
    by: Option<Pin<Box<Sleep>>>,
}

impl<B> TimedBody<B> {
    /// A body that may be silent for so long, or for ever.
    pub fn new(body: B, silence: Option<Duration>) -> Self {
        Self { body, silence, by: None }
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = B::Data;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.by = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(silence) = self.silence else { return Poll::Pending };
        let by = self.by.get_or_insert_with(|| Box::pin(sleep(silence)));
        match by.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(timed_out("the request's body stopped coming").into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body that says when hyper is done with it.
pub struct EndingBody<B> {
    body: B,
    busy: Arc<Busy>,
}

impl<B> EndingBody<B> {
    /// Ends `busy` when it is dropped.
    pub fn new(body: B, busy: Arc<Busy>) -> Self {
        Self { body, busy }
    }
}

impl<B> Drop for EndingBody<B> {
    fn drop(&mut self) {
        self.busy.end();
    }
}

impl<B: Body + Unpin> Body for EndingBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
