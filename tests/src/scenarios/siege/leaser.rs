//! A relay with many cards behind it that take and renew leases at a steady rate.

use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{RELAY, Told, check_numbers, items, no_address_twice, number};
use crate::{
    conformance::{
        ask::{Ask, kind},
        place::{Place, SERVER},
    },
    wire::Namespace,
};

/// An exchange that has no answer by then is given up: the appliance may be dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one card was told.
#[derive(Debug, Clone, Copy, Default)]
struct Card {
    address: Option<Ipv4Addr>,
    told: Told,
}

/// What all cards were told so far.
#[derive(Debug, Default)]
struct Book {
    cards: Vec<Card>,
    acks: u64,
    problems: Vec<String>,
}

/// The load. Dropping it ends it.
#[derive(Debug)]
pub struct Leaser {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Leaser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Leaser {
    /// Begins: `cards` cards, in turn, `per_second` exchanges of four packets.
    pub fn start(place: &Place, cards: usize, per_second: u32) -> Result<Self> {
        let host = &place.host;
        host.ip(&format!("address add {RELAY}/32 dev net0"))?;
        let socket = bind(host)?;
        let book = Arc::new(Mutex::new(Book { cards: vec![Card::default(); cards], ..Book::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let run = Run {
            socket,
            book: book.clone(),
            pending: HashMap::new(),
            next: 0,
            pace: Duration::from_secs(1) / per_second,
        };
        let flag = stop.clone();
        let thread = thread::Builder::new().name("leaser".into()).spawn(move || run.until(&flag))?;
        Ok(Self { book, stop, thread: Some(thread) })
    }

    /// ACKs so far.
    pub fn acks(&self) -> u64 {
        held(&self.book).acks
    }

    /// Compares what was promised with what the appliance has on record; how many cards had a promise.
    pub fn check(&self, place: &Place) -> Result<usize> {
        let before = self.told();
        let listing = place.json(&["lease", "list"])?;
        let after = self.told();
        let leases = items(&listing)?;
        no_address_twice(leases)?;
        let key = |lease: &serde_json::Value| lease["mac"].as_str().unwrap_or_default().to_owned();
        let record = leases.iter().map(|lease| (key(lease), number(&lease["hostname"]))).collect();
        let checked = check_numbers("the lease", &before, &record, &after)?;
        let addresses: BTreeMap<String, &str> =
            leases.iter().map(|lease| (key(lease), lease["address"].as_str().unwrap_or_default())).collect();
        let book = held(&self.book);
        ensure!(book.problems.is_empty(), "{}", book.problems.join("; "));
        for (index, card) in book.cards.iter().enumerate() {
            if let (Some(address), Some(recorded)) = (card.address, addresses.get(&name(index))) {
                ensure!(address.to_string() == *recorded, "{} has {address}, and on record is {recorded}", name(index));
            }
        }
        Ok(checked)
    }

    fn told(&self) -> BTreeMap<String, Told> {
        held(&self.book).cards.iter().enumerate().map(|(index, card)| (name(index), card.told)).collect()
    }
}

fn held(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(host: &Namespace) -> Result<UdpSocket> {
    host.inside(|| {
        let socket = UdpSocket::bind((RELAY, 67)).context("the relay's port")?;
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        Ok(socket)
    })
}

fn mac(index: usize) -> [u8; 6] {
    let [high, low] = (index as u16).to_be_bytes();
    [0x52, 0x54, 0x5e, 0, high, low]
}

fn name(index: usize) -> String {
    mac(index).map(|byte| format!("{byte:02x}")).join(":")
}

/// An exchange on its way; the transaction's number is also that of the write.
struct Exchange {
    card: usize,
    since: Instant,
}

struct Run {
    socket: UdpSocket,
    book: Arc<Mutex<Book>>,
    pending: HashMap<u32, Exchange>,
    next: u32,
    pace: Duration,
}

impl Run {
    fn until(mut self, stop: &AtomicBool) {
        let mut due = Instant::now();
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() >= due {
                // After a pause of this process the lost time is not caught up on in a burst.
                due = (due + self.pace).max(Instant::now() - 4 * self.pace);
                self.discover();
            }
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.hear(&buffer[..length]);
            }
        }
    }

    fn discover(&mut self) {
        self.pending.retain(|_, exchange| exchange.since.elapsed() < PATIENCE);
        self.next += 1;
        let card = self.next as usize % held(&self.book).cards.len();
        if self.pending.values().any(|exchange| exchange.card == card) {
            return;
        }
        self.pending.insert(self.next, Exchange { card, since: Instant::now() });
        self.send(&Ask::new(kind::DISCOVER, self.next, mac(card)));
    }

    fn send(&self, ask: &Ask) {
        let relayed = ask.clone().relayed(RELAY, SERVER);
        // While the appliance is dead its host says that the port is closed.
        let _ = self.socket.send_to(&relayed.bytes(), SocketAddrV4::new(SERVER, 67));
    }

    fn hear(&mut self, packet: &[u8]) {
        let Some(got) = Answer::read(packet) else { return };
        let Some(exchange) = self.pending.get(&got.xid) else { return };
        let card = exchange.card;
        let mut book = held(&self.book);
        let known = book.cards[card].address;
        if known.is_some_and(|known| known != got.address) {
            book.problems.push(format!("{} had {known:?} and was told {} {}", name(card), got.kind, got.address));
        }
        match got.kind {
            kind::OFFER => {
                book.cards[card].told.asked = got.xid.into();
                drop(book);
                let request = Ask::new(kind::REQUEST, got.xid, mac(card));
                let request = request.address(50, got.address).address(54, SERVER);
                // Another name makes the lease a new one: it has to be written.
                self.send(&request.with(12, format!("n{}", got.xid)));
            }
            kind::ACK => {
                book.acks += 1;
                book.cards[card].told.acked = got.xid.into();
                book.cards[card].address = Some(got.address);
                drop(book);
                self.pending.remove(&got.xid);
            }
            other => book.problems.push(format!("{} got message type {other}", name(card))),
        }
    }
}

/// The little that matters of an answer.
struct Answer {
    kind: u8,
    xid: u32,
    address: Ipv4Addr,
}

impl Answer {
    fn read(packet: &[u8]) -> Option<Self> {
        let message = dhcproto::v4::borrowed::Message::new(packet).ok()?;
        let kind = message.opts().find(|option| u8::from(option.code()) == 53)?.data().first().copied()?;
        Some(Self { kind, xid: message.xid(), address: message.yiaddr() })
    }
}
