//! A transfer against a simulated client over a simulated wire that loses, doubles and delays packets: every
//! transfer must end with the right bytes, within a bounded number of packets.

use super::{
    negotiate::Terms,
    packet::Packet,
    transfer::{Emit, End, Step, Then, Transfer, wire_number},
};
use proptest::prelude::*;
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

const MICRO: Duration = Duration::from_micros(1);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Wire {
    /// Chances of 1000.
    lost: u32,
    doubled: u32,
    delayed: u32,
    delay: Duration,
    seed: u64,
}

impl Wire {
    fn clean() -> Self {
        Self { lost: 0, doubled: 0, delayed: 0, delay: 200 * MICRO, seed: 1 }
    }

    /// xorshift64*.
    fn chance(&mut self, of_1000: u32) -> bool {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % 1000 < u64::from(of_1000)
    }

    /// When copies of a packet sent at `now` arrive.
    fn arrivals(&mut self, now: Duration) -> Vec<Duration> {
        let copies = if self.chance(self.lost) { 0 } else { 1 + usize::from(self.chance(self.doubled)) };
        (0..copies).map(|_| now + if self.chance(self.delayed) { self.delay * 4 } else { self.delay }).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// At the client. Blocks carry their true number, so that a wrong one cannot hide behind 16 bits.
    OptionAck,
    Block {
        number: u16,
        block: u64,
        bytes: usize,
    },
    /// At the server.
    Ack(u16),
    ClientTimer(u64),
    ServerTimer,
}

/// RFC 7440's receiver, as EDK2 has it: an ACK for each full window, and for each unexpected block.
struct Client {
    blksize: usize,
    window: u64,
    expected: u64,
    acked: u64,
    received: u64,
    done: bool,
    timer: u64,
    timeout: Duration,
}

impl Client {
    fn on_block(&mut self, number: u16, block: u64, bytes: usize) -> Option<u16> {
        if number != wire_number(self.expected) {
            self.acked = self.expected - 1;
            return Some(wire_number(self.acked));
        }
        assert_eq!(block, self.expected, "a block passed for another");
        self.received += bytes as u64;
        self.expected += 1;
        self.done = bytes < self.blksize;
        if !self.done && self.expected - 1 - self.acked < self.window {
            return None;
        }
        self.acked = self.expected - 1;
        Some(wire_number(self.acked))
    }
}

struct Outcome {
    end: End,
    blocks_sent: u64,
    took: Duration,
    received: u64,
    client_done: bool,
}

struct World {
    wire: Wire,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    order: u64,
    transfer: Transfer,
    client: Client,
    blocks_sent: u64,
}

impl World {
    fn new(length: u64, blksize: u16, windowsize: u16, options: bool, wire: Wire) -> Self {
        let answer = if options { vec![("blksize".to_owned(), blksize.to_string())] } else { Vec::new() };
        let terms = Terms { blksize, windowsize: if options { windowsize } else { 1 }, timeout: None, answer };
        let client = Client {
            blksize: usize::from(blksize),
            window: u64::from(terms.windowsize),
            expected: 1,
            acked: 0,
            received: 0,
            done: false,
            timer: 0,
            timeout: Duration::from_secs(2),
        };
        let transfer = Transfer::new(length, &terms);
        Self { wire, queue: BinaryHeap::new(), order: 0, transfer, client, blocks_sent: 0 }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, event)));
    }

    fn deliver(&mut self, now: Duration, event: Event) {
        for at in self.wire.arrivals(now) {
            self.schedule(at, event.clone());
        }
    }

    fn perform(&mut self, step: Step, now: Duration) -> Option<End> {
        match step.emit {
            Emit::Nothing => {}
            Emit::OptionAck => self.deliver(now, Event::OptionAck),
            Emit::Blocks(blocks) => {
                for block in blocks {
                    self.blocks_sent += 1;
                    let (_, bytes) = self.transfer.extent(block);
                    self.deliver(now, Event::Block { number: wire_number(block), block, bytes });
                }
            }
        }
        match step.then {
            Then::Over(end) => Some(end),
            Then::WakeAt(at) => {
                self.schedule(at, Event::ServerTimer);
                None
            }
        }
    }

    fn client_says(&mut self, number: u16, now: Duration) {
        self.deliver(now, Event::Ack(number));
        self.client.timer += 1;
        self.schedule(now + self.client.timeout, Event::ClientTimer(self.client.timer));
    }

    fn at_client(&mut self, event: Event, now: Duration) {
        match event {
            Event::OptionAck if self.client.expected == 1 => self.client_says(0, now),
            // Once it has everything, it is gone: nobody answers a resent last block.
            Event::Block { number, block, bytes } if !self.client.done => {
                if let Some(ack) = self.client.on_block(number, block, bytes) {
                    self.client_says(ack, now);
                }
            }
            Event::ClientTimer(timer) if timer == self.client.timer && !self.client.done => {
                self.client_says(wire_number(self.client.expected - 1), now);
            }
            _ => {}
        }
    }

    fn run(mut self) -> Outcome {
        let step = self.transfer.start(Duration::ZERO);
        let mut end = self.perform(step, Duration::ZERO);
        let mut now = Duration::ZERO;
        while end.is_none() {
            let Reverse((at, _, event)) = self.queue.pop().expect("something is always scheduled");
            now = at;
            let step = match event {
                Event::Ack(number) => self.transfer.on_packet(&Packet::Ack(number), now),
                Event::ServerTimer => self.transfer.on_timeout(now),
                event => {
                    self.at_client(event, now);
                    continue;
                }
            };
            // A timer that came too early only says when to come again; one such chain is enough.
            if step.emit == Emit::Nothing && matches!(step.then, Then::WakeAt(_)) {
                let Then::WakeAt(at) = step.then else { unreachable!() };
                if at > now && !self.queue.iter().any(|Reverse((_, _, e))| *e == Event::ServerTimer) {
                    self.schedule(at, Event::ServerTimer);
                }
                continue;
            }
            end = self.perform(step, now);
        }
        let (received, client_done) = (self.client.received, self.client.done);
        Outcome {
            end: end.expect("the loop ends with it"),
            blocks_sent: self.blocks_sent,
            took: now,
            received,
            client_done,
        }
    }
}

fn blocks(length: u64, blksize: u16) -> u64 {
    length / u64::from(blksize) + 1
}

#[test]
fn a_clean_wire_carries_every_block_once() {
    for (length, blksize, window) in [(0, 512, 1), (1 << 20, 1468, 4), (1 << 20, 1024, 64), (300_000, 512, 1)] {
        let outcome = World::new(length, blksize, window, true, Wire::clean()).run();
        assert_eq!((outcome.end, outcome.received), (End::Finished, length));
        assert_eq!(outcome.blocks_sent, blocks(length, blksize));
    }
}

#[test]
fn block_numbers_wrap() {
    for (length, blksize, window, options) in [
        (100_000_000, 512, 1, false),
        (65_535 * 512, 512, 16, true),
        (65_536 * 8, 8, 64, true),
        (3_000_000, 8, 5, true),
    ] {
        let outcome = World::new(length, blksize, window, options, Wire::clean()).run();
        assert_eq!((outcome.end, outcome.received), (End::Finished, length));
    }
    let lossy = Wire { lost: 10, doubled: 10, delayed: 10, ..Wire::clean() };
    let outcome = World::new(2_000_000, 8, 16, true, lossy).run();
    assert!(outcome.client_done && outcome.received == 2_000_000);
}

#[test]
fn doubled_packets_do_not_multiply() {
    for (window, bar) in [(1, 1.0), (4, 1.15), (16, 1.5)] {
        for seed in 1..20 {
            let wire = Wire { doubled: 100, seed, ..Wire::clean() };
            let outcome = World::new(2_000_000, 1468, window, true, wire).run();
            assert_eq!(outcome.end, End::Finished);
            let (sent, needed) = (outcome.blocks_sent as f64, blocks(2_000_000, 1468) as f64);
            // None for single blocks (RFC 1123 §4.2.3.1). In a window a doubled block draws an ACK in mid-window,
            // which says "resume after this one" and must be believed; its echoes must not be.
            assert!(sent <= needed * bar, "window {window}, seed {seed}: {sent} blocks for {needed}");
        }
    }
}

#[test]
fn a_lossy_wire_is_mended_faster_than_firmware_would() {
    for (lost, seconds) in [(20, 4), (100, 20)] {
        for seed in 1..20 {
            let wire = Wire { lost, seed, delay: 1000 * MICRO, ..Wire::clean() };
            let outcome = World::new(1_050_000, 1468, 4, true, wire).run();
            assert!(outcome.client_done, "{lost} of 1000 lost, seed {seed}: {}", outcome.end);
            assert!(
                outcome.took < Duration::from_secs(seconds),
                "{lost} of 1000 lost, seed {seed}: {:?}",
                outcome.took
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_transfer_ends_with_the_right_bytes(
        length in prop_oneof![0u64..2000, 0u64..400_000],
        blksize in prop_oneof![Just(512u16), Just(1468), 8u16..2000, 16_000u16..65_464],
        window in prop_oneof![Just(1u16), Just(4), 1u16..=64],
        options in any::<bool>(),
        lost in 0u32..150,
        doubled in 0u32..150,
        delayed in 0u32..150,
        delay in 1u32..200_000,
        seed in 1u64..,
    ) {
        let length = length.min(u64::from(blksize) * 3000);
        let wire = Wire { lost, doubled, delayed, delay: delay * MICRO, seed };
        let outcome = World::new(length, blksize, window, options, wire).run();
        let needed = blocks(length, blksize);
        prop_assert!(outcome.client_done, "{} after {:?}", outcome.end, outcome.took);
        prop_assert_eq!(outcome.received, length);
        // Receivers keep nothing that comes out of order, so each disturbance costs a window, and no more than a few.
        let disturbed = f64::from(lost + doubled + delayed) / 1000.0;
        let bound = 3.0 * needed as f64 * (1.0 + disturbed * f64::from(window)) + 8.0 * f64::from(window) + 50.0;
        prop_assert!(outcome.blocks_sent as f64 <= bound, "{} for {}", outcome.blocks_sent, needed);
    }
}
