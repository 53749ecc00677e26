mod audit;
mod clock;
mod disk_full;
mod listing;
mod power_cut;
mod simulated_disk;
mod speed;
mod workload;

use super::{storage::*, *};
use bennu_rules::{
    Volatile,
    boot::script::{self, Script, ScriptRequest},
    image::BlobRef,
    lease::{Lease, LeaseKey},
};
use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

fn settings() -> Arc<Settings> {
    Arc::new(Settings::default())
}

fn mac(n: u32) -> MacAddress {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddress([2, 0, a, b, c, d])
}

/// Leases the next address that nobody has: the smallest rule that two askers could get wrong together.
fn lease_next(mac: &MacAddress, view: &View<'_>, at: &Moment) -> Decision<Ipv4Addr> {
    let key = LeaseKey { subnet: "10.0.0.0/8".parse().unwrap(), mac: *mac };
    if let Some(lease) = view.records.lease(&key) {
        return Decision::just(lease.address);
    }
    let free =
        (1..).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).find(|address| view.records.lease_at(*address).is_none());
    let address = free.unwrap();
    let lease =
        Lease { key, address, granted: at.now, expires: at.now.plus_seconds(60), hostname: None, declined: false };
    Decision { changes: vec![Change::PutLease(lease)], ..Decision::just(address) }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_askers_at_once_get_distinct_and_lasting_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let asks = (0..240).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move { (n, ledger.decide(mac(n), lease_next).await.unwrap()) })
    });
    let mut given = BTreeSet::new();
    let mut leases = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        let (n, address) = ask.await.unwrap();
        assert!(given.insert(address), "{address} was given twice");
        leases.push((n, address));
    }
    drop(ledger);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    for (n, address) in leases {
        assert_eq!(ledger.decide(mac(n), lease_next).await.unwrap(), address);
    }
}

#[test]
fn a_file_that_grows_has_its_blocks_before_a_commit_needs_them() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.redb");
    let storage = redb_file::RedbFile::open(&path).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    storage.write(&mut |batch| batch.put(Table::Meta, b"large", &[7; 3 << 20]).map(|()| true)).unwrap();
    storage.write(&mut |batch| batch.delete(Table::Meta, b"large").map(|()| true)).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert!(after.len() > before.len());
    assert!(after.blocks() * 512 >= after.len(), "{} bytes in {} blocks", after.len(), after.blocks());
}

/// A storage that counts commits.
struct Counting {
    inner: redb_file::RedbFile,
    commits: Arc<AtomicUsize>,
}

impl Storage for Counting {
    fn snapshot(&self) -> Result<Arc<Shot>, Fault> {
        self.inner.snapshot()
    }

    fn write(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        self.inner.write(&mut |batch| {
            let changed = work(batch)?;
            self.commits.fetch_add(usize::from(changed), Ordering::SeqCst);
            Ok(changed)
        })
    }

    fn recover(&self) -> Result<(), Fault> {
        self.inner.recover()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_proposals_share_a_commit_and_reads_cost_none() {
    let directory = tempfile::tempdir().unwrap();
    let inner = redb_file::RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
    let commits = Arc::new(AtomicUsize::new(0));
    let ledger = Ledger::on(Box::new(Counting { inner, commits: commits.clone() }), settings()).unwrap();
    let before = commits.load(Ordering::SeqCst);
    let asks = (0..200).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.decide(mac(n), lease_next).await.unwrap() })
    });
    for ask in asks.collect::<Vec<_>>() {
        ask.await.unwrap();
    }
    let writes = commits.load(Ordering::SeqCst) - before;
    assert!(writes < 150, "200 proposals took {writes} commits");
    for n in 0..200 {
        ledger.decide(mac(n), lease_next).await.unwrap();
    }
    assert_eq!(commits.load(Ordering::SeqCst) - before, writes);
}

fn stage1() -> BlobRef {
    BlobRef { digest: bennu_rules::image::Digest([7; 32]), size: 1 }
}

fn image() -> bennu_rules::image::Image {
    let json = serde_json::json!({
        "digest": format!("sha256:{}", "11".repeat(32)), "manifest_size": 1, "imported": 0, "source": "test",
        "config_blob": { "digest": format!("sha256:{}", "22".repeat(32)), "size": 1 },
        "config": {
            "architecture": "x86_64", "kind": "foreign", "initrds": [],
            "kernel": { "digest": format!("sha256:{}", "33".repeat(32)), "size": 1 },
        },
    });
    serde_json::from_value(json).unwrap()
}

fn assign(image: &bennu_rules::image::Image, _: &View<'_>, at: &Moment) -> Decision<()> {
    let mut machine = bennu_rules::Machine::new(mac(1), at.now);
    let reference = bennu_rules::image::ImageReference::Digest(image.digest);
    machine.assignment = Some(bennu_rules::assignment::Assignment::Image(reference));
    let changes = vec![Change::PutImage(image.clone()), Change::PutMachine(machine)];
    Decision { changes, ..Decision::just(()) }
}

#[tokio::test]
async fn a_boots_token_is_durable_when_its_script_leaves_and_opens_it_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    ledger.decide(image(), assign).await.unwrap();
    let origin = "http://10.0.0.1".into();
    let request = ScriptRequest {
        mac: mac(1),
        facts: Default::default(),
        origin,
        stage1: stage1(),
        starts: true,
        vouched: true,
        tftp: None,
    };
    let Script::Boot(first) = ledger.decide(request.clone(), script::decide).await.unwrap() else { panic!() };
    let Script::Boot(again) = ledger.decide(request, script::decide).await.unwrap() else { panic!() };
    assert_eq!(first, again, "repeated fetches give the same script");
    let boot = ledger.boots(Some(mac(1))).unwrap().remove(0);
    // No flush: only what the script's own commit wrote may be relied upon.
    drop(ledger);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let token = boot.token.unwrap();
    let found = ledger.read(|_, live| live.boot_by_token(&token).cloned()).unwrap().unwrap();
    assert_eq!(found.id, boot.id);
}

#[tokio::test]
async fn observations_are_flushed_for_known_machines_only() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    ledger.decide(image(), assign).await.unwrap();
    for n in [1, 2] {
        ledger.decide(mac(n), open_boot).await.unwrap();
        ledger.observe(mac(n), Seen::DhcpNak { reason: "test".into() });
    }
    ledger.flush(true).await.unwrap();
    assert_eq!(ledger.boots(None).unwrap().len(), 2, "both are seen while they go on");
    drop(ledger);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let kept = ledger.boots(None).unwrap();
    assert_eq!(kept.iter().map(|boot| boot.machine).collect::<Vec<_>>(), [mac(1)]);
    assert_eq!(kept[0].timeline.len(), 1);
}

#[tokio::test]
async fn what_is_seen_again_and_again_is_written_now_and_then() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    ledger.decide(image(), assign).await.unwrap();
    ledger.decide(mac(1), open_boot).await.unwrap();
    let see = |reason: &str| ledger.observe(mac(1), Seen::DhcpNak { reason: reason.into() });
    let stored = || {
        let snapshot = ledger.shared.storage.snapshot().unwrap();
        let boot = Stored::new(&*snapshot).boots(Some(mac(1))).remove(0);
        boot.timeline.iter().map(|entry| entry.repeated).collect::<Vec<_>>()
    };
    see("first");
    ledger.flush(false).await.unwrap();
    assert_eq!(stored(), [0]);
    see("first");
    ledger.flush(false).await.unwrap();
    assert_eq!(stored(), [0], "once more the same is no news");
    see("second");
    ledger.flush(false).await.unwrap();
    assert_eq!(stored(), [1, 0], "news bring along what came before them");
    see("second");
    ledger.flush(true).await.unwrap();
    assert_eq!(stored(), [1, 1]);
}

#[tokio::test]
async fn a_flush_writes_what_was_seen_after_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    ledger.decide(image(), assign).await.unwrap();
    ledger.decide(mac(1), open_boot).await.unwrap();
    let stale = ledger.boots(Some(mac(1))).unwrap();
    ledger.observe(mac(1), Seen::DhcpNak { reason: "seen meanwhile".into() });
    ledger.decide(stale.into(), store_boots).await.unwrap();
    drop(ledger);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    assert_eq!(ledger.boots(Some(mac(1))).unwrap()[0].timeline.len(), 1);
}

fn open_boot(mac: &MacAddress, view: &View<'_>, at: &Moment) -> Decision<()> {
    let boot = Boot::open(*mac, None, view, at);
    Decision { volatile: vec![Volatile::PutBoot(boot)], ..Decision::just(()) }
}

#[tokio::test]
async fn a_second_owner_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Ledger::open(directory.path(), settings()).unwrap();
    let refused = Ledger::open(directory.path(), settings()).err().unwrap();
    assert!(matches!(refused, Fault::InUse(_)));
    assert!(refused.to_string().contains("systemctl stop bennu"));
}

#[tokio::test]
async fn a_newer_ledger_is_refused_clearly() {
    let directory = tempfile::tempdir().unwrap();
    let storage = redb_file::RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
    let newer = records::encode(Table::Meta, &(FORMAT + 1)).unwrap();
    storage.write(&mut |batch| batch.put(Table::Meta, b"format", &newer).map(|()| true)).unwrap();
    drop(storage);
    assert!(matches!(Ledger::open(directory.path(), settings()), Err(Fault::TooNew { found: 2, known: 1 })));
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_first_records_are_read() {
    use bennu_rules::token::{Scope, TokenId};
    let directory = tempfile::tempdir().unwrap();
    let storage = redb_file::RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
    // As the first Bennu that had tokens wrote one: these bytes never change.
    let json = format!(
        r#"{{"id":"01020304","name":"ci","role":"push","secret":"sha256:{}","created":7,"by":"local (uid 0)"}}"#,
        "ab".repeat(32)
    );
    let bytes = [b"\x01", json.as_bytes()].concat();
    storage.write(&mut |batch| batch.put(Table::Tokens, &[1, 2, 3, 4], &bytes).map(|()| true)).unwrap();
    drop(storage);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let tokens = ledger.read(|records, _| records.tokens()).unwrap();
    assert_eq!((tokens[0].id, tokens[0].expires), (TokenId([1, 2, 3, 4]), None));
    assert_eq!(tokens[0].scopes, [Scope::Read, Scope::Images].into(), "what that role could do");
    let mut token = tokens[0].clone();
    token.last_used = Some(Timestamp(9));
    let put = |token: &bennu_rules::token::Token, _: &View<'_>, _: &Moment| Decision {
        changes: vec![Change::PutToken(token.clone())],
        ..Decision::just(())
    };
    ledger.decide(token.clone(), put).await.unwrap();
    drop(ledger);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    assert_eq!(ledger.read(|records, _| records.token(token.id)).unwrap(), Some(token.clone()));
    let remove = |id: &TokenId, _: &View<'_>, _: &Moment| Decision {
        changes: vec![Change::RemoveToken(*id)],
        ..Decision::just(())
    };
    ledger.decide(token.id, remove).await.unwrap();
    assert_eq!(ledger.read(|records, _| records.tokens().len()).unwrap(), 0);
}

#[test]
fn a_ledger_of_before_tokens_gets_their_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.redb");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("machines")).unwrap();
    write.commit().unwrap();
    drop(database);
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    assert!(ledger.read(|records, _| records.tokens()).unwrap().is_empty());
}
