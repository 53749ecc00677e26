//! Commands about machines, on records in memory.

use super::*;
use crate::{
    Live,
    commands::images::tests::{image, kernel_image, settings},
    image::{Image, Tag},
    lease::{Lease, LeaseKey},
    memory::Memory,
};
use std::sync::Arc;

pub fn mac(last: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, last])
}

fn at(ms: u64) -> Moment {
    Moment { now: Timestamp(ms), entropy: [7; 32], settings: Arc::new(settings()) }
}

fn tagged(records: &mut Memory, name: &str, image: Image) {
    records.apply(Change::PutTag(Tag {
        name: name.parse().unwrap(),
        digest: image.digest,
        others: Default::default(),
        history: Vec::new(),
    }));
    records.apply(Change::PutImage(image));
}

fn run<R>(records: &mut Memory, request: R, rule: fn(&R, &View<'_>, &Moment) -> Decision<Answer>) -> Answer {
    let live = Live::default();
    let decision = rule(&request, &View { records, live: &live }, &at(1000));
    assert!(decision.answer.is_ok() || decision.changes.is_empty(), "a refusal changes nothing");
    for change in decision.changes {
        records.apply(change);
    }
    decision.answer
}

fn change(records: &mut Memory, last: u8, edit: Edit) -> Answer {
    let own_addresses = vec![Ipv4Addr::new(10, 77, 0, 2)];
    run(records, EditMachine { mac: mac(last), edit, own_addresses, expected: None }, super::edit)
}

fn assign_to(records: &mut Memory, last: u8, image: &str) -> Answer {
    let assignment = Some(image.parse().unwrap());
    run(records, Assign { mac: mac(last), assignment, expected: None }, assign)
}

#[test]
fn an_assignment_declares_the_machine_and_keeps_what_was_written() {
    let mut records = Memory::default();
    tagged(&mut records, "web:v1", image(1));
    let machine = assign_to(&mut records, 1, "web:v1").unwrap();
    assert_eq!(machine.assignment.unwrap().to_string(), "web:v1");
    assert_eq!(records.machine(mac(1)).unwrap().first_seen, Timestamp(1000));
    let unassigned = run(&mut records, Assign { mac: mac(1), assignment: None, expected: None }, assign).unwrap();
    assert_eq!(unassigned.assignment, None);
    assert!(assign_to(&mut records, 1, "local").is_ok());
}

#[test]
fn an_assignment_to_what_cannot_boot_is_refused_with_what_can() {
    let mut records = Memory::default();
    for (name, seed) in [("web:v1", 1), ("web:v2", 2), ("database:v1", 3)] {
        tagged(&mut records, name, image(seed));
    }
    tagged(&mut records, "kernel:v1", kernel_image(9));
    let refusal = assign_to(&mut records, 1, "web:v3").unwrap_err();
    assert_eq!(refusal.to_string(), "there is no image web:v3");
    assert_eq!(refusal.advice(), "near it: web:v1, web:v2");
    let refusal = assign_to(&mut records, 1, "databse:v1").unwrap_err();
    assert_eq!(refusal.advice(), "near it: database:v1");
    assert!(matches!(assign_to(&mut records, 1, "kernel:v1"), Err(Refusal::KernelOnly(_))));
    assert!(records.machines().is_empty());
    let gone = Assign { mac: mac(1), assignment: None, expected: None };
    assert_eq!(run(&mut records, gone, assign), Err(Refusal::UnknownMachine(mac(1))));
}

#[test]
fn a_change_of_an_older_version_is_refused() {
    let mut records = Memory::default();
    let first = change(&mut records, 1, Edit::default()).unwrap();
    let seen = version(&first);
    let label = |value: &str| Edit { labels: [("rack".to_owned(), Some(value.to_owned()))].into(), ..Edit::default() };
    let expecting =
        |edit, expected| EditMachine { mac: mac(1), edit, own_addresses: Vec::new(), expected: Some(expected) };
    let as_seen = Expected::Version(vec![seen.clone()]);
    assert!(run(&mut records, expecting(label("a"), as_seen.clone()), edit).is_ok());
    assert_eq!(run(&mut records, expecting(label("b"), as_seen), edit), Err(Refusal::Changed(mac(1))));
    assert!(run(&mut records, expecting(label("b"), Expected::Exists), edit).is_ok());
    let absent = Forget { mac: mac(2), expected: Some(Expected::Exists) };
    assert_eq!(run(&mut records, absent, forget), Err(Refusal::UnknownMachine(mac(2))));
    let declares =
        EditMachine { mac: mac(2), edit: Edit::default(), own_addresses: Vec::new(), expected: Some(Expected::Exists) };
    assert_eq!(run(&mut records, declares, edit), Err(Refusal::Changed(mac(2))));
}

#[test]
fn labels_and_arguments_are_checked_before_they_enter_a_record() {
    let mut records = Memory::default();
    let labels = |key: &str, value: &str| Edit { labels: [(key.into(), Some(value.into()))].into(), ..Edit::default() };
    assert!(change(&mut records, 1, labels("rack/row", "b 7 ü")).is_ok());
    for (key, value) in [("", "x"), ("a b", "x"), ("a", "line\nbreak"), (&"k".repeat(64), "x"), ("a", &"v".repeat(256))]
    {
        assert!(matches!(change(&mut records, 1, labels(key, value)), Err(Refusal::BadLabel { .. })), "{key}={value}");
    }
    let removed = Edit { labels: [("rack/row".into(), None)].into(), ..Edit::default() };
    assert!(change(&mut records, 1, removed).unwrap().labels.is_empty());
    let arguments = |text: &str| Edit { arguments: Some(text.into()), ..Edit::default() };
    assert_eq!(change(&mut records, 1, arguments("  quiet   splash ")).unwrap().arguments, "quiet splash");
    for bad in ["a\nb", "${net0/mac}", "é", &"x".repeat(1025)] {
        assert!(matches!(change(&mut records, 1, arguments(bad)), Err(Refusal::BadArguments(_))), "{bad}");
    }
}

#[test]
fn options_are_set_removed_and_taken_along() {
    let mut records = Memory::default();
    let options = |pairs: &[(&str, Option<&str>)]| Edit {
        options: pairs.iter().map(|(c, v)| (c.parse().unwrap(), v.map(|v| v.parse().unwrap()))).collect(),
        ..Edit::default()
    };
    let set = change(&mut records, 1, options(&[("12", Some("text:web1")), ("26", Some("u16:9000"))])).unwrap();
    assert_eq!(set.options.len(), 2);
    let removed = change(&mut records, 1, options(&[("26", None)])).unwrap();
    assert_eq!(removed.options.keys().map(|code| code.number()).collect::<Vec<_>>(), [12]);
    change(&mut records, 2, options(&[("12", Some("text:web2")), ("42", Some("addresses:10.77.0.3"))])).unwrap();
    let joined = change(&mut records, 1, Edit { join: vec![mac(2)], ..Edit::default() }).unwrap();
    let told: Vec<String> = joined.options.iter().map(|(code, value)| format!("{code}={value}")).collect();
    assert_eq!(told, ["12=text:web1", "42=addresses:10.77.0.3"]);
}

#[test]
fn a_reservation_is_a_free_host_of_a_subnet() {
    let mut records = Memory::default();
    let reserve = |text: &str| Edit { reservation: Some(Some(text.parse().unwrap())), ..Edit::default() };
    assert!(change(&mut records, 1, reserve("10.77.0.20")).is_ok());
    assert!(change(&mut records, 1, reserve("10.77.0.20")).is_ok(), "one's own again");
    let taken = change(&mut records, 2, reserve("10.77.0.20")).unwrap_err();
    assert_eq!(taken.to_string(), "10.77.0.20 is reserved for machine 52:54:00:00:00:01");
    let key = LeaseKey { subnet: "10.77.0.0/24".parse().unwrap(), mac: mac(3) };
    records.apply(Change::PutLease(Lease {
        key,
        address: "10.77.0.60".parse().unwrap(),
        granted: Timestamp(0),
        expires: Timestamp(5000),
        hostname: None,
        declined: false,
    }));
    assert!(matches!(change(&mut records, 2, reserve("10.77.0.60")), Err(Refusal::AddressLeased { .. })));
    assert!(change(&mut records, 3, reserve("10.77.0.60")).is_ok(), "its own lease");
    for bad in ["10.77.0.0", "10.77.0.255", "10.77.0.1", "10.77.0.2", "10.78.0.5"] {
        assert!(matches!(change(&mut records, 2, reserve(bad)), Err(Refusal::BadAddress { .. })), "{bad}");
    }
    let freed = Edit { reservation: Some(None), ..Edit::default() };
    assert_eq!(change(&mut records, 1, freed).unwrap().reservation, None);
}

#[test]
fn machines_join_by_hand_unless_both_have_what_only_one_can_have() {
    let mut records = Memory::default();
    tagged(&mut records, "web:v1", image(1));
    tagged(&mut records, "web:v2", image(2));
    assign_to(&mut records, 1, "web:v1").unwrap();
    assign_to(&mut records, 2, "web:v2").unwrap();
    let join = |last: u8| Edit { join: vec![mac(last)], ..Edit::default() };
    let refusal = change(&mut records, 1, join(2)).unwrap_err();
    assert_eq!(refusal, Refusal::Conflict { machine: mac(1), other: mac(2), what: "assignment" });
    assign_to(&mut records, 2, "web:v1").unwrap();
    let labelled = Edit { labels: [("rack".into(), Some("b7".into()))].into(), ..Edit::default() };
    change(&mut records, 2, labelled).unwrap();
    let joined = change(&mut records, 1, join(2)).unwrap();
    assert_eq!((joined.macs.clone(), joined.labels["rack"].as_str()), (vec![mac(1), mac(2)], "b7"));
    assert_eq!(records.machine(mac(2)), Some(joined));
    assert_eq!(records.machines().len(), 1);
    assert_eq!(change(&mut records, 1, join(3)).unwrap().macs.len(), 3, "a MAC nobody knows");
}

#[test]
fn an_open_boot_goes_on_under_the_machine_it_joined() {
    let mut records = Memory::default();
    change(&mut records, 1, Edit::default()).unwrap();
    change(&mut records, 2, Edit::default()).unwrap();
    let mut live = Live::default();
    let boot = Boot::open(mac(2), None, &View { records: &records, live: &live }, &at(500));
    live.apply(Volatile::PutBoot(boot.clone()));
    let joins = Edit { join: vec![mac(2)], ..Edit::default() };
    let request = EditMachine { mac: mac(1), edit: joins, own_addresses: Vec::new(), expected: None };
    for change in edit(&request, &View { records: &records, live: &live }, &at(1000)).volatile {
        live.apply(change);
    }
    assert_eq!(live.boot(mac(2)), None);
    assert_eq!(live.boot(mac(1)).map(|moved| &moved.id), Some(&boot.id));
}
