//! The power goes at any moment: whatever was acknowledged is on disk, and nothing is there by half.
//!
//! A run of the real ledger on a disk that notes every write, resize and sync is cut at a point by chance. What was
//! synced stays; of the rest a random part stays, in sectors, torn and out of order. The image is opened as after a
//! restart and must be, byte for byte in every table, what one of two neighbouring commits left: the last one that
//! was over, or the one that was going on.

use super::{
    super::{redb_file::RedbFile, storage::*, *},
    simulated_disk::{Chance, Effect, Entry, SimulatedDisk},
    workload::{self, Promise},
};
use ring::digest::{SHA256, digest};
use std::{
    panic::AssertUnwindSafe,
    time::{SystemTime, UNIX_EPOCH},
};

/// What a run notes among the disk's effects.
#[derive(Debug, Clone)]
enum Noted {
    /// A commit is over; this is everything, in short.
    Committed([u8; 32]),
    Promised(Promise),
}

type Disk = SimulatedDisk<Noted>;
type Record = Vec<Entry<Noted>>;

const TABLES: [Table; 11] = [
    Table::Meta,
    Table::Machines,
    Table::Macs,
    Table::Reservations,
    Table::Uuids,
    Table::Leases,
    Table::Addresses,
    Table::Images,
    Table::Tags,
    Table::Boots,
    Table::BootsOfMachine,
];

/// Every pair of every table, in short.
fn everything(storage: &dyn Storage) -> Result<[u8; 32], Fault> {
    let snapshot = storage.snapshot()?;
    let mut bytes = Vec::new();
    for table in TABLES {
        for (key, value) in snapshot.scan(table, &[])? {
            bytes.push(table as u8);
            bytes.extend((key.len() as u32).to_be_bytes());
            bytes.extend(key);
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.extend(value);
        }
    }
    Ok(digest(&SHA256, &bytes).as_ref().try_into().unwrap())
}

/// The real storage, noting each commit.
struct Noting {
    inner: RedbFile,
    disk: Disk,
}

impl Storage for Noting {
    fn snapshot(&self) -> Result<Arc<Shot>, Fault> {
        self.inner.snapshot()
    }

    fn write(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        let mut changed = false;
        self.inner.write(&mut |batch| {
            changed = work(batch)?;
            Ok(changed)
        })?;
        if changed {
            self.disk.note(Noted::Committed(everything(&self.inner)?));
        }
        Ok(())
    }

    fn recover(&self) -> Result<(), Fault> {
        self.inner.recover()
    }
}

/// A run: the new ledger, and what reached the disk after.
struct Run {
    new: Vec<u8>,
    record: Record,
}

/// Runs `rounds` rounds of a few operations at once.
fn run(lies: bool, rounds: usize, seed: u64) -> Run {
    // A ledger appears whole, by a rename: it is cut from there on.
    let whole = Disk::new(Vec::new(), seed);
    drop(RedbFile::on(Box::new(whole.clone())).unwrap());
    let new = whole.durable();
    let disk = if lies { Disk::lying(new.clone(), seed) } else { Disk::new(new.clone(), seed) };
    // Commits in one phase, as long ledgers do them, and some of each in one run.
    let one_phase_bytes = match seed % 4 {
        0 => 0,
        1 => (new.len() + (4 << 10)) as u64,
        _ => u64::MAX,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let inner = RedbFile::with_one_phase_up_to(one_phase_bytes, Box::new(disk.clone())).unwrap();
        disk.note(Noted::Committed(everything(&inner).unwrap()));
        let storage = Noting { inner, disk: disk.clone() };
        let ledger = Ledger::on(Box::new(storage), workload::settings()).unwrap();
        let mut chance = Chance(seed);
        // Some runs begin with trees of several levels.
        let grown = if chance.percent(50) { chance.below(600) as u32 } else { 0 };
        let mut tasks = tokio::task::JoinSet::new();
        let lease = |ledger: Ledger, n: u32| async move {
            let mac = super::mac(1000 + n);
            let offered = workload::discover(&ledger, mac).await.unwrap();
            workload::request(&ledger, mac, offered).await.unwrap();
        };
        (0..grown).for_each(|n| drop(tasks.spawn(lease(ledger.clone(), n))));
        while tasks.join_next().await.is_some_and(|done| done.is_ok()) {}
        for _ in 0..rounds {
            let mut tasks = tokio::task::JoinSet::new();
            let mut machines: Vec<u32> = (0..40).collect();
            chance.shuffle(&mut machines);
            for n in machines.into_iter().take(1 + chance.below(12)) {
                let (ledger, disk, chance) = (ledger.clone(), disk.clone(), Chance(chance.next()));
                tasks.spawn(async move {
                    if let Some(promise) = workload::operate(&ledger, n, chance).await.unwrap() {
                        disk.note(Noted::Promised(promise));
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        }
    });
    Run { new, record: disk.take_record() }
}

/// What must hold of an image.
#[derive(Default)]
struct Expected {
    before: [u8; 32],
    after: Option<[u8; 32]>,
    promises: Vec<Promise>,
}

impl Expected {
    /// Opens the image as a start of the service does. The second part is what the opening itself wrote.
    fn check(&self, image: Vec<u8>, seed: u64) -> Result<Record, String> {
        // A disk that lies may leave what no careful reader foresees.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| self.open(image, seed)));
        opened.unwrap_or_else(|_| Err("opening it panics".into()))
    }

    fn open(&self, image: Vec<u8>, seed: u64) -> Result<Record, String> {
        let disk = Disk::new(image, seed);
        let storage = RedbFile::on(Box::new(disk.clone())).map_err(|fault| format!("it does not open: {fault}"))?;
        let found = everything(&storage).map_err(|fault| format!("it cannot be read: {fault}"))?;
        if found != self.before && Some(found) != self.after {
            return Err("it holds what no commit left".into());
        }
        check_format(&storage).map_err(|fault| fault.to_string())?;
        let snapshot = storage.snapshot().map_err(|fault| fault.to_string())?;
        let records = Stored::new(&*snapshot);
        match self.promises.iter().find(|promise| !promise.is_kept(&records)) {
            Some(broken) => Err(format!("it does not hold what was acknowledged: {broken:?}")),
            None => Ok(disk.take_record()),
        }
    }
}

/// How much the cut leaves of what was not synced.
fn what_a_cut_leaves(durable: &[u8], pending: &[Effect], chance: &mut Chance) -> Vec<u8> {
    let mut image = durable.to_vec();
    // None of it, or all of it.
    match chance.below(8) {
        0 => return image,
        1 => {
            pending.iter().for_each(|effect| effect.apply(&mut image));
            return image;
        }
        _ => {}
    }
    let sector = if chance.percent(50) { 512 } else { 4096 };
    let kept = [5, 30, 50, 80, 97][chance.below(5)];
    let tears_bytes = chance.percent(20);
    let mut lengths = vec![durable.len()];
    let mut pieces: Vec<(usize, &[u8])> = Vec::new();
    for effect in pending {
        match effect {
            Effect::Resize(length) => lengths.push(*length as usize),
            Effect::Write(offset, data) => {
                let mut at = *offset as usize;
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(rest.len().min(sector - at % sector));
                    if chance.percent(kept) {
                        let torn =
                            if tears_bytes && chance.percent(10) { chance.below(piece.len()) } else { piece.len() };
                        pieces.push((at, &piece[..torn]));
                    }
                    at += piece.len();
                    rest = more;
                }
            }
        }
    }
    if chance.percent(60) {
        chance.shuffle(&mut pieces);
    }
    // The length is the old one, the newest, or one between.
    let length = match chance.below(3) {
        0 => durable.len(),
        1 => *lengths.last().unwrap(),
        _ => lengths[chance.below(lengths.len())],
    };
    image.resize(length, 0);
    for (at, piece) in pieces {
        let end = (at + piece.len()).min(length);
        if at < end {
            image[at..end].copy_from_slice(&piece[..end - at]);
        }
    }
    image
}

/// Cuts one run `images` times; gives the failures.
fn cut(run: &Run, images: usize, chance: &mut Chance) -> Vec<String> {
    let record = &run.record;
    // Until the first commit is over, nothing is known of what there is.
    let first = record.iter().position(|entry| matches!(entry, Entry::Note(Noted::Committed(_)))).unwrap();
    let mut cuts: Vec<usize> = (0..images).map(|_| chance.below(record.len() + 1).max(first + 1)).collect();
    cuts.sort_unstable();
    let mut failures = Vec::new();
    let (mut durable, mut pending) = (run.new.clone(), Vec::new());
    let mut expected = Expected::default();
    let mut promises = Vec::new();
    let mut position = 0;
    for at in cuts {
        for entry in &record[position..at] {
            match entry {
                Entry::Effect(effect) => pending.push(effect.clone()),
                Entry::Synced => pending.drain(..).for_each(|effect| effect.apply(&mut durable)),
                Entry::Note(Noted::Committed(state)) => expected.before = *state,
                Entry::Note(Noted::Promised(promise)) => promises.push(promise.clone()),
            }
        }
        position = at;
        expected.after = record[at..].iter().find_map(|entry| match entry {
            Entry::Note(Noted::Committed(state)) => Some(*state),
            _ => None,
        });
        // The equality above holds for all of them; these are looked up as the service does.
        expected.promises =
            (0..promises.len().min(6)).map(|_| promises[chance.below(promises.len())].clone()).collect();
        let image = what_a_cut_leaves(&durable, &pending, chance);
        let number = chance.next();
        let outcome = expected.check(image.clone(), number).and_then(|opening| {
            // And again while the first start repairs it.
            let cut = chance.below(opening.len() + 1);
            let (mut durable, mut pending) = (image.clone(), Vec::new());
            for entry in &opening[..cut] {
                match entry {
                    Entry::Effect(effect) => pending.push(effect.clone()),
                    Entry::Synced => pending.drain(..).for_each(|effect| effect.apply(&mut durable)),
                    Entry::Note(_) => {}
                }
            }
            let again = what_a_cut_leaves(&durable, &pending, chance);
            expected.check(again, number).map_err(|why| format!("cut twice: {why}"))
        });
        if let Err(why) = outcome {
            failures.push(format!("cut after entry {at} of {}: {why}", record.len()));
        }
    }
    failures
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Images cut from one run.
const IMAGES_A_RUN: usize = 100;

#[test]
fn whatever_was_acknowledged_outlives_a_power_cut() {
    let images = number_from("BENNU_POWER_CUT_IMAGES").unwrap_or(500) as usize;
    let seed = number_from("BENNU_POWER_CUT_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("{images} power cuts, BENNU_POWER_CUT_SEED={seed}");
    let mut chance = Chance(seed);
    for run in 0..images.div_ceil(IMAGES_A_RUN) {
        let recorded = self::run(false, 30, chance.next());
        let failures = cut(&recorded, IMAGES_A_RUN.min(images - run * IMAGES_A_RUN), &mut chance);
        assert!(failures.is_empty(), "seed {seed}, run {run}:\n{}", failures.join("\n"));
    }
}

#[test]
fn a_disk_that_only_claims_to_sync_is_found_out() {
    let failures = cut(&run(true, 10, 1), 60, &mut Chance(1));
    assert!(!failures.is_empty(), "60 cuts of a disk that never synced lost nothing");
}
