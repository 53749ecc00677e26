//! Figures, not verdicts: `cargo test --release -p bennu --lib speed -- --ignored --nocapture`, with
//! `BENNU_BENCH_DIR` on the disk to measure.

use super::{
    super::{redb_file::RedbFile, *},
    Counting, workload,
};
use bennu_rules::lease::Lease;
use std::{
    fs::File,
    io::{Seek, Write},
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::Instant,
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var("BENNU_BENCH_DIR").unwrap_or_else(|_| ".".into())).unwrap()
}

/// Writes of a page, each synced, in a second.
fn raw_syncs(directory: &Path) -> usize {
    let mut file = File::create(directory.join("raw")).unwrap();
    file.write_all(&[0; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(1) {
        file.seek(std::io::SeekFrom::Start((count % 256 * 4096) as u64)).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// As many as the project is measured with, and fewer than strangers are admitted at once.
const MACHINES: u32 = 10_000;

/// New leases by `in_flight` clients at once, each a DISCOVER and a REQUEST.
async fn lease_machines(ledger: &Ledger, machines: u32, in_flight: u32) {
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (ledger, next) = (ledger.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= machines {
                    return;
                }
                let mac = super::mac(n);
                let offered = workload::discover(&ledger, mac).await.unwrap();
                workload::request(&ledger, mac, offered).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[test]
#[ignore = "measures"]
fn leases_a_second() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for in_flight in [32, 256] {
        let directory = directory();
        let raw = raw_syncs(directory.path());
        let inner = RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
        let commits = Arc::new(AtomicUsize::new(0));
        let storage = Counting { inner, commits: commits.clone() };
        let ledger = Ledger::on(Box::new(storage), workload::settings()).unwrap();
        let (start, before, committed) = (Instant::now(), cpu(), commits.load(Ordering::SeqCst));
        runtime.block_on(lease_machines(&ledger, MACHINES, in_flight));
        let (took, used) = (start.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
        let commits = (commits.load(Ordering::SeqCst) - committed) as f64;
        println!(
            "{in_flight} in flight: {:.0} leases/s, {:.1} us of CPU each, {:.0} commits/s of {:.1} leases, \
             {:.0} MiB resident; raw {raw} fdatasync/s",
            f64::from(MACHINES) / took,
            used * 1e6 / f64::from(MACHINES),
            commits / took,
            f64::from(MACHINES) / commits,
            resident_mib(),
        );
    }
}

/// Leases on record, as they came in the course of months.
fn fill(ledger: &Ledger, leases: u32) {
    let now = ledger.now();
    for first in (0..leases).step_by(500) {
        ledger
            .shared
            .storage
            .write(&mut |batch| {
                for n in first..first + 500 {
                    let key = bennu_rules::decision::lease_key(
                        workload::subnet().network,
                        super::mac(n.wrapping_mul(2_654_435_761)),
                    );
                    let address = Ipv4Addr::from_bits(0x0a4c_0100 + n);
                    let hostname = Some(format!("client-{}", key.mac.hyphened()));
                    let expires = now.plus_seconds(3600);
                    let lease = Lease { key, address, granted: now, expires, hostname, declined: false };
                    records::perform(batch, &Change::PutLease(lease))?;
                }
                Ok(true)
            })
            .unwrap();
    }
}

#[test]
fn a_hundred_thousand_leases_open_within_two_seconds() {
    const LEASES: u32 = 100_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), workload::settings()).unwrap();
    fill(&ledger, LEASES);
    // As after a kill: copied while it is open, so that it was never closed.
    let kept = tempfile::tempdir().unwrap();
    let (closed, killed) = (kept.path().join("closed"), kept.path().join("killed"));
    std::fs::copy(directory.path().join("ledger.redb"), &killed).unwrap();
    drop(ledger);
    std::fs::copy(directory.path().join("ledger.redb"), &closed).unwrap();
    for (what, file) in [("closed", closed), ("killed", killed)] {
        // The best of three: other tests run beside this one.
        let offered = (0..3).map(|_| {
            let directory = tempfile::tempdir().unwrap();
            std::fs::copy(&file, directory.path().join("ledger.redb")).unwrap();
            let start = Instant::now();
            let ledger = Ledger::open(directory.path(), workload::settings()).unwrap();
            let opened = start.elapsed();
            runtime.block_on(workload::discover(&ledger, super::mac(5_000_000))).unwrap();
            let offered = start.elapsed();
            println!("{what}: open in {opened:?}, first offer after {offered:?}, {:.0} MiB resident", resident_mib());
            assert_eq!(ledger.read(|records, _| records.leases().len()).unwrap(), LEASES as usize);
            offered
        });
        let offered = offered.min().unwrap();
        assert!(offered < Duration::from_secs(2), "{what}: the first offer came after {offered:?}");
    }
}
