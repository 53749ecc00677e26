//! Cards that do not exist ask for addresses, faster than any rack, while machines with a reservation start.

use anyhow::{Context, Result, ensure};
use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::Config,
    conformance::{
        ask::{Ask, kind},
        place::Bench,
    },
    harness::Life,
};

/// One flood of ten seconds.
pub const FLOOD: Life = Life {
    name: "flood",
    shows: &["flood_of_unknown_cards"],
    live: |story| story.show("flood_of_unknown_cards", flood),
};

const STRANGERS: u32 = 50_000;
const PER_SECOND: u32 = 5000;
const RESERVED: u8 = 100;
const PATIENCE: Duration = Duration::from_secs(1);
/// The flood must have been this fast, or the test has shown nothing.
const FLOOR: f64 = 0.8;
const MORE_MEMORY: u64 = 64 << 20;

fn flood() -> Result<String> {
    let bench = Bench::new(Config::full(), &[])?;
    for number in 0..RESERVED {
        let address = Ipv4Addr::new(10, 77, 0, 100 + number);
        bench.place.bennu(&["machine", "reserve", &text(reserved(number)), &address.to_string()])?;
    }
    let before = bench.bennu.memory()?;
    bench.place.host.ip("route add 255.255.255.255/32 dev net0")?;
    let sent = AtomicU64::new(0);
    let socket = bench.place.udp()?;
    let client = client(&bench)?;
    let began = Instant::now();
    let (took, slowest) = thread::scope(|scope| -> Result<(Duration, Duration)> {
        let flood = scope.spawn(|| pour(&socket, &sent));
        // Some of the flood goes ahead, and some goes on behind.
        thread::sleep(Duration::from_millis(1500));
        let asked = ask_all(&client);
        let took = flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        Ok((took, asked?))
    })?;
    let rate = f64::from(STRANGERS) / took.as_secs_f64();
    ensure!(rate >= f64::from(PER_SECOND) * FLOOR, "the flood had only {rate:.0} packets a second");
    let grown = bench.bennu.memory()?.saturating_sub(before);
    ensure!(grown <= MORE_MEMORY, "the flood made it grow by {} MiB", grown >> 20);
    let notices = bench.place.json(&["status"])?["notices"].to_string();
    ensure!(notices.contains("too_many_unknown"), "nobody was told of the flood: {notices}");
    Ok(format!(
        "{} packets at {rate:.0} a second; {RESERVED} of {RESERVED} reserved machines had their offer, the slowest after {} ms; \
         memory grew by {} MiB; {:.0} s",
        sent.load(Ordering::Relaxed),
        slowest.as_millis(),
        grown >> 20,
        began.elapsed().as_secs_f64()
    ))
}

/// Sends the flood at its rate; how long it took.
fn pour(socket: &UdpSocket, sent: &AtomicU64) -> Result<Duration> {
    let began = Instant::now();
    for number in 0..STRANGERS {
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(PER_SECOND));
        thread::sleep(due.saturating_sub(began.elapsed()));
        let [_, a, b, c] = number.to_be_bytes();
        let ask = Ask::new(kind::DISCOVER, 0x5000_0000 + number, [0x02, 0xf1, 0x00, a, b, c]).flags(0).pxe(7);
        socket.send_to(&ask.bytes(), ask.to)?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(began.elapsed())
}

fn reserved(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0x5f, 0, 0, number]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A socket that hears what is broadcast to clients.
fn client(bench: &Bench) -> Result<UdpSocket> {
    bench.place.host.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).context("the clients' port")?;
        socket.set_broadcast(true)?;
        Ok(socket)
    })
}

/// Every reserved machine asks once; the slowest answer.
fn ask_all(socket: &UdpSocket) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for number in 0..RESERVED {
        let ask = Ask::new(kind::DISCOVER, 0x4000_0000 + u32::from(number), reserved(number)).pxe(7);
        let began = Instant::now();
        socket.send_to(&ask.bytes(), SocketAddrV4::new(Ipv4Addr::BROADCAST, 67))?;
        let address = hear(socket, ask.xid).with_context(|| format!("reserved machine {number} in the flood"))?;
        ensure!(address == Ipv4Addr::new(10, 77, 0, 100 + number), "machine {number} was offered {address}");
        slowest = slowest.max(began.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(slowest)
}

fn hear(socket: &UdpSocket, xid: u32) -> Result<Ipv4Addr> {
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no offer within {PATIENCE:?}");
        socket.set_read_timeout(Some(left))?;
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let packet = &buffer[..length];
        if length >= 240 && packet[0] == 2 && packet[4..8] == xid.to_be_bytes() {
            return Ok(Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]));
        }
    }
}
