//! Long lists in parts: each part follows the one before it, whatever was added or removed between them.

use super::*;
use bennu_rules::{Machine, boot::BootId};
use proptest::prelude::*;
use std::ops::ControlFlow;

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(254), Just(255)], 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_sees_what_a_sorted_map_has(
        keys in proptest::collection::btree_set(key(), 0..24),
        prefix in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..3),
        after in proptest::option::of(key()),
        backwards in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let file = redb_file::RedbFile::open(&directory.path().join("ledger.redb")).unwrap();
        file.write(&mut |batch| {
            keys.iter().try_for_each(|key| batch.put(Table::Boots, key, key)).map(|()| true)
        }).unwrap();
        let is_behind = |key: &&Vec<u8>| after.as_ref().is_none_or(|after| if backwards { *key < after } else { *key > after });
        let mut expected: Vec<Vec<u8>> =
            keys.iter().filter(|key| key.starts_with(&prefix)).filter(is_behind).cloned().collect();
        if backwards {
            expected.reverse();
        }
        let span = Span { prefix: &prefix, after: after.as_deref(), backwards };
        let mut seen = Vec::new();
        let mut look = |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            ControlFlow::Continue(())
        };
        let shot = file.snapshot().unwrap();
        shot.walk(Table::Boots, span, &mut look).unwrap();
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(shot.count(Table::Boots).unwrap(), keys.len() as u64);
    }
}

fn at(id: &str, machine: MacAddress, records: &dyn Records) -> Boot {
    let live = Live::default();
    let moment = Moment { now: Timestamp(5), entropy: [1; 32], settings: settings() };
    let boot = Boot::open(machine, None, &View { records, live: &live }, &moment);
    Boot { id: BootId(id.into()), token: Some(bennu_rules::boot::Token(id.into())), ..boot }
}

#[tokio::test]
async fn boots_are_shown_newest_first_those_in_memory_among_the_stored() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let memory = bennu_rules::memory::Memory::default();
    let stored: Vec<Change> = ["1", "3", "5"].iter().map(|id| Change::PutBoot(at(id, mac(1), &memory))).collect();
    let live: Vec<Volatile> = [("2", 2), ("5", 1), ("6", 3)]
        .iter()
        .map(|(id, last)| Volatile::PutBoot(Boot { bytes: 7, ..at(id, mac(*last), &memory) }))
        .collect();
    ledger
        .decide((stored, live), |(stored, live), _, _| Decision {
            changes: stored.clone(),
            volatile: live.clone(),
            ..Decision::just(())
        })
        .await
        .unwrap();
    let page = |after: Option<&str>, most: usize| {
        let mut seen = Vec::new();
        let look = |boot: Boot| {
            seen.push((boot.id.0.clone(), boot.bytes));
            if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        ledger.each_boot(after.map(|id| BootId(id.into())).as_ref(), look).unwrap();
        seen.iter().map(|(id, bytes)| format!("{id}{}", if *bytes == 7 { "!" } else { "" })).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 9), ["6!", "5!", "3", "2!", "1"]);
    assert_eq!(page(None, 1), ["6!"]);
    assert_eq!(page(Some("5"), 9), ["3", "2!", "1"]);
    assert_eq!(page(Some("4"), 2), ["3", "2!"], "one that is not there begins a page too");
    assert!(page(Some("0"), 9).is_empty());
    let macs = [vec![mac(1)], vec![mac(2), mac(1)], vec![mac(3)], vec![mac(9)]];
    let latest = ledger.latest_boots(macs.iter().map(Vec::as_slice), |boot| boot.id.0.clone()).unwrap();
    assert_eq!(latest, [Some("5".into()), Some("5".into()), Some("6".into()), None]);
    assert_eq!(ledger.boots(None).unwrap().len(), 5);
}

#[tokio::test]
async fn machines_and_leases_go_on_behind_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    let lease = |last: u32| Lease {
        key: LeaseKey { subnet: "10.77.0.0/24".parse().unwrap(), mac: mac(last) },
        address: (0x0a4d_0000 + 100 - last).into(),
        granted: Timestamp(1),
        expires: Timestamp(2),
        hostname: None,
        declined: false,
    };
    let changes: Vec<Change> = (1..6)
        .flat_map(|last| [Change::PutMachine(Machine::new(mac(last), Timestamp(1))), Change::PutLease(lease(last))])
        .chain([Change::RemoveMachine(mac(3)), Change::RemoveLease(lease(3).key)])
        .collect();
    ledger.decide(changes, |changes, _, _| Decision { changes: changes.clone(), ..Decision::just(()) }).await.unwrap();
    let machines = |after: Option<MacAddress>| {
        let mut ids = Vec::new();
        let look = |machine: Machine| {
            ids.push(machine.id.0[5]);
            if ids.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        ledger.stored(|records| records.each_machine(after, look)).unwrap();
        ids
    };
    assert_eq!([machines(None), machines(Some(mac(2))), machines(Some(mac(3)))], [[1, 2], [4, 5], [4, 5]]);
    assert_eq!(machines(Some(mac(5))), [0_u8; 0]);
    let mut hosts = Vec::new();
    let look = |lease: Lease| {
        hosts.push(lease.address.octets()[3]);
        ControlFlow::Continue(())
    };
    ledger.stored(|records| records.each_lease(Some([10, 77, 0, 95].into()), look)).unwrap();
    assert_eq!(hosts, [96, 98, 99], "by address");
    assert_eq!(ledger.stored(|records| (records.machine_count(), records.machine_ids().len())).unwrap(), (4, 4));
}
