//! A disk that runs full heals in place; one that fails ends the ledger. Nothing is acknowledged that is not stored.

use super::{
    super::{redb_file::RedbFile, *},
    simulated_disk::{Chance, Failing, SimulatedDisk},
    workload::{self, Promise},
};
use std::{io::ErrorKind, time::Instant};

type Disk = SimulatedDisk<()>;

fn start(disk: &Disk) -> Ledger {
    Ledger::on(Box::new(RedbFile::on(Box::new(disk.clone())).unwrap()), workload::settings()).unwrap()
}

/// Operates until the disk fails; gives the fault, and what was acknowledged before it.
async fn operate_until_it_fails(ledger: &Ledger, chance: &mut Chance) -> (Fault, Vec<Promise>) {
    let mut promises = Vec::new();
    loop {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..1 + chance.below(8) as u32 {
            // A machine a task, new ones each round, so that no promise overtakes another.
            let n = promises.len() as u32 * 10 + n;
            let (ledger, chance) = (ledger.clone(), Chance(chance.next()));
            tasks.spawn(async move { workload::operate(&ledger, n, chance).await });
        }
        let mut fault = None;
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                Ok(promise) => promises.extend(promise),
                Err(met) => fault = Some(met),
            }
        }
        if let Some(fault) = fault {
            return (fault, promises);
        }
    }
}

/// Whether what the disk certainly has keeps every promise.
fn assert_kept(disk: &Disk, promises: &[Promise], point: u64) {
    let storage = RedbFile::on(Box::new(Disk::new(disk.durable(), 0))).unwrap();
    let snapshot = storage::Storage::snapshot(&storage).unwrap();
    let records = Stored::new(&*snapshot);
    let broken: Vec<_> = promises.iter().filter(|promise| !promise.is_kept(&records)).collect();
    assert!(broken.is_empty(), "point {point}: acknowledged and not stored: {broken:?}");
}

async fn runs_full_and_heals(point: u64, failing: Failing) {
    let disk = Disk::new(Vec::new(), point);
    let ledger = start(&disk);
    let before = super::mac(4_000_000);
    let offered = workload::discover(&ledger, before).await.unwrap();
    let held = workload::request(&ledger, before, offered).await.unwrap();
    disk.fail(failing);
    let mut chance = Chance(point);
    let (fault, mut promises) = operate_until_it_fails(&ledger, &mut chance).await;
    assert!(matches!(fault, Fault::Full(_)), "point {point}: {fault}");
    promises.push(Promise::Lease(before, held));
    assert!(ledger.is_full() && !ledger.is_closed());
    assert_kept(&disk, &promises, point);
    // Looks, offers and answers that change nothing go on; new promises are refused, at once.
    for n in 0..5 {
        let newcomer = super::mac(3_000_000 + n);
        let offered = workload::discover(&ledger, newcomer).await.unwrap();
        assert!(matches!(workload::request(&ledger, newcomer, offered).await, Err(Fault::Full(_))));
        assert_eq!(workload::request(&ledger, before, held).await.unwrap(), held);
        assert!(!ledger.read(|records, _| records.leases()).unwrap().is_empty());
    }
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(ledger.is_full(), "point {point}: it is still full, and has been looked at since");
    disk.heal();
    let freed = Instant::now();
    while ledger.is_full() {
        assert!(freed.elapsed() < Duration::from_secs(5), "point {point}: it does not serve again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 0..20 {
        promises.extend(workload::operate(&ledger, 100_000 + n, Chance(chance.next())).await.unwrap());
    }
    assert_kept(&disk, &promises, point);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_a_hundred_points_heals_in_place() {
    let mut tasks = tokio::task::JoinSet::new();
    for point in 1..=100 {
        // The first forty points are every write of the first commits.
        let nth = if point <= 40 { point } else { 40 + (point - 40) * 11 };
        let kind = if point % 2 == 0 { ErrorKind::StorageFull } else { ErrorKind::QuotaExceeded };
        // Where blocks are only found when they are needed, a sync may be the first to say it.
        let failing = if point % 5 == 0 { Failing::Syncs(1 + point / 5, kind) } else { Failing::Writes(nth, kind) };
        tasks.spawn(runs_full_and_heals(point, failing));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_after_a_disk_failed() {
    for point in 1..=40 {
        let failing = if point % 2 == 0 {
            Failing::Syncs(point / 2, ErrorKind::Other)
        } else {
            Failing::Writes(point * 3, ErrorKind::Other)
        };
        let disk = Disk::new(Vec::new(), point);
        let ledger = start(&disk);
        disk.fail(failing);
        let (fault, promises) = operate_until_it_fails(&ledger, &mut Chance(point)).await;
        assert!(matches!(fault, Fault::Disk(_) | Fault::Closed), "point {point}: {fault}");
        assert!(disk.has_failed() && ledger.is_closed() && !ledger.is_full());
        disk.heal();
        // A disk that seems well again is not believed.
        let late = workload::operate(&ledger, 9_000_000, Chance(7)).await;
        assert!(matches!(late, Err(Fault::Closed | Fault::Disk(_))), "point {point}: {late:?}");
        assert!(matches!(ledger.flush(true).await, Ok(()) | Err(_)));
        assert_kept(&disk, &promises, point);
        drop(ledger);
        assert_kept(&disk, &promises, point);
    }
}
