//! The threads that drive a listener's transfers: an epoll loop each, so that an ACK costs a wait, a receive and a
//! send, and wakes nobody else. Half-open transfers cost their socket and some hundred bytes.

use super::{
    content::Content,
    session::{Buffers, EAGERLY, Next, Outcome, Report, Session, Waiting},
};
use bytes::Bytes;
use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::OwnedFd,
    io::Errno,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedSender;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// The bell's name among the sockets'.
const BELL: u64 = u64::MAX;
/// A client that is alone and answers so quickly is waited for in its own socket, a system call less for each ACK; and
/// after so long the others are looked after.
const TALK: Duration = Duration::from_millis(1);
/// Longer than any transfer waits.
const NEVER: Duration = Duration::from_secs(3600);

/// Reads from a disk while others go on: runs what may block on a thread where it may.
pub type Blocking = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What the thread is told.
enum Order {
    Start(Box<Session>),
    /// The transfer has to give way.
    Stop(u64),
    /// Bytes of a transfer's file, from this offset.
    Read(u64, u64, io::Result<Bytes>),
    Quit,
}

/// Gives orders to the threads: each transfer belongs to one of them.
#[derive(Clone)]
pub struct Orders {
    threads: Arc<[Inbox]>,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Orders for {} threads", self.threads.len())
    }
}

impl Orders {
    /// Orders that as many threads may take later.
    pub fn new(threads: usize) -> io::Result<Self> {
        let threads = (0..threads.max(1)).map(|_| Inbox::new()).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { threads: threads.into() })
    }

    /// Begins a transfer.
    pub fn start(&self, session: Session) {
        self.of(session.place().id()).give(Order::Start(Box::new(session)));
    }

    /// Ends a transfer without a word.
    pub fn stop(&self, id: u64) {
        self.of(id).give(Order::Stop(id));
    }

    /// Ends all transfers, telling their clients, and the threads.
    pub fn quit(&self) {
        self.threads.iter().for_each(|thread| thread.give(Order::Quit));
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The thread of a transfer is told by its number.
    fn of(&self, id: u64) -> &Inbox {
        &self.threads[id as usize % self.threads.len()]
    }
}

/// Where one thread finds its orders.
#[derive(Clone)]
struct Inbox {
    shared: Arc<(Mutex<Vec<Order>>, OwnedFd)>,
}

impl Inbox {
    fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new((Mutex::default(), bell)) })
    }

    fn bell(&self) -> &OwnedFd {
        &self.shared.1
    }

    fn give(&self, order: Order) {
        let mut orders = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push(order);
        if orders.len() == 1 {
            // It can only fail where the bell rings already.
            let _ = rustix::io::write(self.bell(), &1u64.to_ne_bytes());
        }
    }

    fn take(&self) -> Vec<Order> {
        let mut orders = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = rustix::io::read(self.bell(), &mut [0; 8]);
        std::mem::take(&mut *orders)
    }
}

/// Starts the threads. They tell of each transfer that is over, and end after [`Orders::quit`].
pub fn launch(orders: &Orders, reports: &UnboundedSender<Report>, blocking: &Blocking) -> io::Result<()> {
    for inbox in orders.threads.iter() {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, inbox.bell(), epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        let engine = Engine {
            poll,
            orders: inbox.clone(),
            reports: reports.clone(),
            blocking: blocking.clone(),
            running: HashMap::new(),
            timers: BinaryHeap::new(),
            buffers: Buffers::default(),
            alone: None,
            talking_to: None,
        };
        thread::Builder::new().name("tftp".to_owned()).spawn(move || engine.run())?;
    }
    Ok(())
}

struct Engine {
    poll: OwnedFd,
    orders: Inbox,
    reports: UnboundedSender<Report>,
    blocking: Blocking,
    running: HashMap<u64, Running>,
    /// When to look after which transfer. An ACK puts its transfer's deadline off without touching this: the old
    /// entry comes up, and is put back for as long as is left.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    buffers: Buffers,
    /// The transfer whose client was alone and quick the last time, and the one that was so twice.
    alone: Option<u64>,
    talking_to: Option<u64>,
}

struct Running {
    session: Box<Session>,
    wake_at: Instant,
    /// The entry in the timers that counts; earlier ones are of the past.
    timer_at: Instant,
}

impl Engine {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            match self.wait(&mut events) {
                Ok(()) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the TFTP transfers cannot be driven");
                    thread::sleep(Duration::from_secs(1));
                }
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    BELL => {
                        if self.obey() {
                            return;
                        }
                    }
                    id => self.with(id, Session::on_readable),
                }
            }
            self.look_after();
        }
    }

    /// Waits until something has to be done, and takes what came in.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        let (from, talks) = (Instant::now(), self.talk());
        let patience = if talks { Some(Timespec::default()) } else { self.patience() };
        epoll::wait(&self.poll, rustix::buffer::spare_capacity(events), patience.as_ref())?;
        if talks && events.is_empty() {
            return Ok(());
        }
        // Only one that is alone is talked to, or others would wait for it.
        let alone = match events[..] {
            [event] if from.elapsed() < TALK => Some(event.data.u64()),
            _ => None,
        };
        self.talking_to = alone.filter(|_| alone == self.alone);
        self.alone = alone;
        Ok(())
    }

    /// Waits for the answers of a client that was alone the last times; whether others may have come meanwhile.
    fn talk(&mut self) -> bool {
        let Some(id) = self.talking_to else { return false };
        let (from, mut waiting) = (Instant::now(), Waiting::Shortly);
        while from.elapsed() < TALK {
            let Some(running) = self.running.get_mut(&id) else { return false };
            let asked = Instant::now();
            let Some(next) = running.session.receive(waiting, &mut self.buffers) else { return false };
            // A client that is as quick as this is as quick the next time.
            waiting = if asked.elapsed() < EAGERLY { Waiting::Eagerly } else { Waiting::Shortly };
            self.follow(id, next);
        }
        true
    }

    /// How long nothing has to be done.
    fn patience(&self) -> Option<Timespec> {
        let Reverse((at, _)) = self.timers.peek()?;
        let left = at.saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    /// Does what was ordered; whether that was to quit.
    fn obey(&mut self) -> bool {
        for order in self.orders.take() {
            match order {
                Order::Start(session) => self.start(session),
                Order::Stop(id) => self.end(id, Outcome::GaveWay),
                Order::Read(id, offset, read) => {
                    self.with(id, |session, buffers| session.on_read(offset, read, buffers));
                }
                Order::Quit => {
                    for id in self.running.keys().copied().collect::<Vec<_>>() {
                        if let Some(running) = self.running.get(&id) {
                            running.session.say_goodbye();
                        }
                        self.end(id, Outcome::Stopped);
                    }
                    return true;
                }
            }
        }
        false
    }

    fn start(&mut self, session: Box<Session>) {
        let (id, now) = (session.place().id(), Instant::now());
        // It may have had to give way before it came here.
        if session.place().is_evicted() {
            let _ = self.reports.send(session.report(&Outcome::GaveWay));
            return;
        }
        let watched = epoll::add(&self.poll, session.socket(), epoll::EventData::new_u64(id), epoll::EventFlags::IN);
        if let Err(error) = watched {
            tracing::warn!(%error, "a transfer's socket cannot be watched");
            return;
        }
        // The far end of any wait, so that the first step's own deadline is what counts.
        self.running.insert(id, Running { session, wake_at: now, timer_at: now + NEVER });
        self.with(id, Session::start);
    }

    /// Lets a transfer make a step.
    fn with(&mut self, id: u64, step: impl FnOnce(&mut Session, &mut Buffers) -> Next) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let next = step(&mut running.session, &mut self.buffers);
        self.follow(id, next);
    }

    /// Does what follows a transfer's step.
    fn follow(&mut self, id: u64, next: Next) {
        let Some(running) = self.running.get_mut(&id) else { return };
        match next {
            Next::WakeAt(at) => Self::wake_at(&mut self.timers, running, id, at),
            Next::Read(offset, length) => {
                let at = Instant::now() + Duration::from_secs(1);
                Self::wake_at(&mut self.timers, running, id, at);
                let content = running.session.found().content.clone();
                self.read(id, content, offset, length);
            }
            Next::Over(outcome) => self.end(id, outcome),
        }
    }

    fn wake_at(timers: &mut BinaryHeap<Reverse<(Instant, u64)>>, running: &mut Running, id: u64, at: Instant) {
        running.wake_at = at;
        if at < running.timer_at {
            running.timer_at = at;
            timers.push(Reverse((at, id)));
        }
    }

    fn read(&self, id: u64, content: Content, offset: u64, length: usize) {
        let orders = self.orders.clone();
        (self.blocking)(Box::new(move || {
            let read = content.read_ahead(offset, length);
            orders.give(Order::Read(id, offset, read));
        }));
    }

    fn end(&mut self, id: u64, outcome: Outcome) {
        let Some(running) = self.running.remove(&id) else { return };
        // Closing its socket takes it out of the poll.
        let _ = self.reports.send(running.session.report(&outcome));
    }

    /// Wakes every transfer whose time has come.
    fn look_after(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, id))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(running) = self.running.get_mut(&id).filter(|running| running.timer_at == at) else { continue };
            if running.wake_at <= now {
                running.timer_at = now + NEVER;
                self.with(id, Session::on_time);
            } else {
                running.timer_at = running.wake_at;
                self.timers.push(Reverse((running.wake_at, id)));
            }
        }
    }
}
