//! The audit log: in the batch of what it tells of, chained, and found out when it is touched.

use super::*;
use crate::{
    audit::Verified,
    author,
    ledger::{
        audit::{self, Retention},
        records::encode,
    },
};
use bennu_rules::{
    audit::{Action, AuditRecord, Author, Who},
    image::{ImageName, Tag},
};
use std::ops::ControlFlow;

fn ci() -> Author {
    let who = Who::Token { id: bennu_rules::token::TokenId([1, 2, 3, 4]), name: "ci".parse().unwrap() };
    Author { who, from: "192.0.2.7:5000".into(), request: "PUT /v1/tags/web:v1".into(), limit: None }
}

fn move_tag(to: &u8, view: &View<'_>, at: &Moment) -> Decision<()> {
    let name: ImageName = "web:v1".parse().unwrap();
    let none = || Tag { name: name.clone(), digest: Digest([0; 32]), others: BTreeMap::new(), history: Vec::new() };
    let mut tag = view.records.tag(&name).unwrap_or_else(none);
    tag.digest = Digest([*to; 32]);
    tag.history.push(bennu_rules::image::TagMove { at: at.now, digest: tag.digest, by: "ci".into() });
    Decision { changes: vec![Change::PutTag(tag)], ..Decision::just(()) }
}

fn log_of(ledger: &Ledger) -> Vec<AuditRecord> {
    let extent = ledger.audit_extent().unwrap();
    let mut log = Vec::new();
    let keep = |record| {
        log.push(record);
        ControlFlow::Continue(())
    };
    ledger.audit_records(extent.first..=extent.last, keep).unwrap();
    log
}

/// A ledger with five records, closed again; and the directory that it is in.
async fn closed_ledger() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    for to in 1..=5 {
        author::by(ci(), ledger.decide(to, move_tag)).await.unwrap();
    }
    assert!(ledger.verify_audit(None).unwrap().intact);
    directory
}

/// Does something to the file behind Bennu's back, and says what a verification finds after it.
fn after(directory: &tempfile::TempDir, act: impl Fn(&mut dyn Batch) -> Result<(), Fault>) -> Verified {
    let storage = redb_file::RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
    storage.write(&mut |batch| act(batch).map(|()| true)).unwrap();
    drop(storage);
    Ledger::open(directory.path(), settings()).unwrap().verify_audit(None).unwrap()
}

#[tokio::test]
async fn a_record_that_is_edited_in_the_file_is_named() {
    let directory = closed_ledger().await;
    let edit = |batch: &mut dyn Batch| {
        let key = 3_u64.to_be_bytes();
        let text = String::from_utf8(batch.get(Table::Audit, &key)?.unwrap()).unwrap();
        let edited = text.replace("192.0.2.7", "192.0.2.8");
        assert_ne!(edited, text);
        batch.put(Table::Audit, &key, edited.as_bytes())
    };
    let verified = after(&directory, edit);
    assert!(!verified.intact);
    assert_eq!((verified.bad.unwrap().seq, verified.records), (3, 2));
}

#[tokio::test]
async fn records_that_are_removed_or_moved_in_the_file_are_named() {
    let key = |seq: u64| seq.to_be_bytes();
    let bad = |verified: Verified| verified.bad.map(|bad| bad.seq);
    let directory = closed_ledger().await;
    assert_eq!(bad(after(&directory, |batch| batch.delete(Table::Audit, &key(2)))), Some(2));
    let directory = closed_ledger().await;
    assert_eq!(bad(after(&directory, |batch| batch.delete(Table::Audit, &key(5)))), Some(5));
    let directory = closed_ledger().await;
    let swap = |batch: &mut dyn Batch| {
        let (two, four) = (batch.get(Table::Audit, &key(2))?.unwrap(), batch.get(Table::Audit, &key(4))?.unwrap());
        batch.put(Table::Audit, &key(2), &four)?;
        batch.put(Table::Audit, &key(4), &two)
    };
    assert_eq!(bad(after(&directory, swap)), Some(2));
    // Who cuts the end off and says so is found by a head that was kept elsewhere.
    let directory = closed_ledger().await;
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let kept = ledger.verify_audit(None).unwrap().head;
    let fourth = log_of(&ledger)[3].hash;
    drop(ledger);
    let cut = |batch: &mut dyn Batch| {
        batch.delete(Table::Audit, &key(5))?;
        let extent = audit::Extent { first: 1, last: 4, head: fourth };
        batch.put(Table::Meta, b"audit", &encode(Table::Meta, &extent)?)
    };
    assert!(after(&directory, cut).intact);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    assert_eq!(bad(ledger.verify_audit(Some(kept)).unwrap()), Some(5));
    assert!(ledger.verify_audit(Some(fourth)).unwrap().intact);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_batch_get_records_that_follow_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let mut events = ledger.follow(None).live;
    let writes = (0..100_u8).map(|to| {
        let ledger = ledger.clone();
        tokio::spawn(author::by(ci(), async move { ledger.decide(to + 1, move_tag).await.unwrap() }))
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let log = log_of(&ledger);
    assert_eq!(log.iter().map(|record| record.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    for pair in log.windows(2) {
        assert_eq!(pair[1].before, pair[0].after, "each shows what the one before left");
    }
    assert!(ledger.verify_audit(None).unwrap().intact);
    for record in &log {
        let told = events.recv().await.unwrap();
        let Event::Audit(told) = &told.event else { panic!() };
        assert_eq!(**told, *record);
    }
    drop(ledger);
    assert_eq!(log_of(&Ledger::open(directory.path(), settings()).unwrap()), log);
}

#[tokio::test]
async fn who_is_not_named_is_written_as_unknown_and_packets_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    ledger.decide(mac(1), lease_next).await.unwrap();
    ledger.decide(mac(1), open_boot).await.unwrap();
    let come = |mac: &MacAddress, _: &View<'_>, at: &Moment| {
        let changes = vec![Change::PutMachine(bennu_rules::Machine::new(*mac, at.now))];
        Decision { changes, ..Decision::just(()) }
    };
    ledger.decide(mac(1), come).await.unwrap();
    assert!(log_of(&ledger).is_empty());
    ledger.decide(image(), assign).await.unwrap();
    let log = log_of(&ledger);
    assert_eq!(log.iter().map(|record| record.target.kind.as_str()).collect::<Vec<_>>(), ["image", "machine"]);
    assert!(log.iter().all(|record| record.who == Who::Unknown));
    assert_eq!((log[0].action, log[1].action), (Action::Created, Action::Changed));
    author::by(ci(), ledger.decide(image(), assign)).await.unwrap();
    assert_eq!(log_of(&ledger).len(), 2, "what leaves everything as it was is no write");
}

#[test]
fn the_oldest_records_go_and_a_record_vouches_for_that() {
    let directory = tempfile::tempdir().unwrap();
    let storage = redb_file::RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
    let retention = Retention { kept: 20, trimmed: 5 };
    let write = |to: u8| {
        let tag = Tag {
            name: "web:v1".parse().unwrap(),
            digest: Digest([to; 32]),
            others: BTreeMap::new(),
            history: Vec::new(),
        };
        let changes = [Change::PutTag(tag)];
        let write = &mut |batch: &mut dyn Batch| {
            let watch = audit::Watch::before(&changes, Some(&ci()), &Stored::new(batch.as_snapshot()));
            records::perform(batch, &changes[0])?;
            watch.write(batch, Some(&ci()), Timestamp(u64::from(to)), retention).map(|_| true)
        };
        storage.write(write).unwrap();
    };
    (1..=60).for_each(write);
    let extent = audit::extent(&*storage.snapshot().unwrap()).unwrap();
    assert!(extent.first > 30 && extent.last + 1 - extent.first <= 25, "{extent:?}");
    drop(storage);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let verified = ledger.verify_audit(None).unwrap();
    assert!(verified.intact, "{verified:?}");
    assert_eq!(verified.first, extent.first);
    let trims: Vec<_> = log_of(&ledger).into_iter().filter(|record| record.action == Action::Trimmed).collect();
    let through = trims.last().unwrap().after.as_ref().unwrap()["through"].as_u64();
    assert_eq!(through, Some(extent.first - 1));
    drop(ledger);
    // Who removes more of the beginning, and says so, lacks a record that vouches for it.
    let more = |batch: &mut dyn Batch| {
        batch.delete(Table::Audit, &extent.first.to_be_bytes())?;
        let extent = audit::Extent { first: extent.first + 1, ..extent };
        batch.put(Table::Meta, b"audit", &encode(Table::Meta, &extent)?)
    };
    assert_eq!(after(&directory, more).bad.map(|bad| bad.seq), Some(extent.first));
}
