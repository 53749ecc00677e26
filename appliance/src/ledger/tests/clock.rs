//! The wall clock is set while the ledger runs, and while it does not.

use super::{
    super::{
        clock::{Reading, Source},
        redb_file::RedbFile,
        *,
    },
    simulated_disk::SimulatedDisk,
    workload,
};
use std::sync::atomic::{AtomicI64, Ordering};

const DAY: i64 = 86_400_000;

/// Clocks that a test sets.
#[derive(Clone, Default)]
struct Clocks {
    steady: Arc<AtomicI64>,
    wall: Arc<AtomicI64>,
}

impl Clocks {
    fn source(&self) -> Source {
        let clocks = self.clone();
        Box::new(move || {
            let steady = clocks.steady.load(Ordering::SeqCst);
            Reading { wall: clocks.wall.load(Ordering::SeqCst) + steady, steady }
        })
    }

    fn pass(&self, seconds: i64) {
        self.steady.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn set(&self, by: i64) {
        self.wall.fetch_add(by, Ordering::SeqCst);
    }
}

fn start(clocks: &Clocks, disk: &SimulatedDisk<()>) -> Ledger {
    let storage = RedbFile::on(Box::new(disk.clone())).unwrap();
    Ledger::by(clocks.source(), Box::new(storage), workload::settings()).unwrap()
}

/// As the flusher does.
async fn follow(ledger: &Ledger) {
    if ledger.shared.clock.is_to_be_followed() {
        ledger.writer.follow_clock();
    }
    // Behind it in the queue.
    ledger.decide((), |(), _, at| Decision { changes: vec![put(at)], ..Decision::just(()) }).await.unwrap();
}

fn put(at: &Moment) -> Change {
    Change::PutMachine(bennu_rules::Machine::new(super::mac(77), at.now))
}

/// Seconds left of a client's lease.
fn left(ledger: &Ledger, n: u32) -> u64 {
    let key = bennu_rules::decision::lease_key(workload::subnet().network, super::mac(n));
    let lease = ledger.read(|records, _| bennu_rules::Records::lease(records, &key)).unwrap().unwrap();
    lease.expires.since(ledger.now()) / 1000
}

#[tokio::test]
async fn leases_end_when_their_clients_think_they_do() {
    let clocks = Clocks::default();
    clocks.set(1_790_000_000_000);
    let disk = SimulatedDisk::new(Vec::new(), 1);
    let ledger = start(&clocks, &disk);
    let offered = workload::discover(&ledger, super::mac(1)).await.unwrap();
    workload::request(&ledger, super::mac(1), offered).await.unwrap();
    clocks.pass(600);
    for by in [DAY, -DAY, -2 * DAY, 40 * 365 * DAY, -1_790_000_000_000] {
        clocks.set(by);
        assert_eq!(left(&ledger, 1), 3000, "set by {by} and not followed yet");
        follow(&ledger).await;
        assert_eq!(left(&ledger, 1), 3000, "set by {by}");
        assert_eq!(ledger.now().0 as i64, (clocks.source())().wall, "people see the time that they set");
    }
    // What was granted before a restart, by a clock that is set while nobody looks.
    drop(ledger);
    clocks.set(DAY);
    clocks.pass(60);
    let ledger = start(&clocks, &disk);
    assert_eq!(left(&ledger, 1), 2940);
    follow(&ledger).await;
    assert_eq!(left(&ledger, 1), 2940);
    let again = workload::discover(&ledger, super::mac(2)).await.unwrap();
    assert_ne!(again, offered);
}
