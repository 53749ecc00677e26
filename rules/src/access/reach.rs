//! What a token that is limited to labels reaches: the machines that have them, and nothing that belongs to no machine.
//!
//! Three things hold it. Of the paths, only those named here are open to it at all, and where a path names a machine or a
//! boot, that is looked at before the request is answered ([`is_within`]). Listings leave out what it may not see. And
//! whatever it writes, the ledger looks at each change before it performs any ([`beyond`]).

use super::{is_page, is_reading};
use crate::{
    Change, MacAddress, Machine, Records, View,
    audit::{TargetName, target},
    boot::BootId,
    metadata::MetadataName,
    secret::{self, SecretName},
    selector::Selector,
};
use std::collections::BTreeSet;

/// What a path is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// All machines, or what belongs to none: nothing for who is limited.
    Whole,
    /// Machines, of which the answer shows those that the caller may see; or what every machine may boot.
    Some,
    /// One machine.
    Machine(MacAddress),
    /// One boot.
    Boot(BootId),
}

/// What asking for `path` so is about.
pub fn reach(method: &str, path: &str) -> Reach {
    // A page shows what the API answers to whoever looks at it, and changes nothing but through the API.
    if is_page(path) {
        return Reach::Some;
    }
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("v1"), Some("machines"), Some(mac)) => {
            decoded(mac).and_then(|mac| mac.parse().ok()).map_or(Reach::Whole, Reach::Machine)
        }
        (Some("v1"), Some("boots"), Some(id)) => decoded(id).map_or(Reach::Whole, |id| Reach::Boot(BootId(id))),
        (Some("v1"), Some("machines" | "boots" | "leases" | "events"), None) if is_reading(method) => Reach::Some,
        (Some("v1"), Some("images" | "tags"), _) if is_reading(method) => Reach::Some,
        _ => Reach::Whole,
    }
}

/// Part of a path without its percent signs (RFC 3986 §2.1), as handlers get it.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// Whether who is limited so may ask for this. What is not there is nobody's, and has no labels.
pub fn is_within(reach: &Reach, limit: &Selector, view: &View<'_>) -> bool {
    match reach {
        Reach::Whole => false,
        Reach::Some => true,
        Reach::Machine(mac) => sees(limit, *mac, view.records),
        Reach::Boot(id) => {
            let open = view.live.boots().find(|boot| boot.id == *id).map(|boot| boot.machine);
            let machine = open.or_else(|| view.records.boot(id).map(|boot| boot.machine));
            machine.is_some_and(|machine| sees(limit, machine, view.records))
        }
    }
}

/// Whether a limit takes in the machine that has `mac`.
pub fn sees(limit: &Selector, mac: MacAddress, records: &dyn Records) -> bool {
    records.machine(mac).is_some_and(|machine| limit.matches(&machine.labels))
}

/// The first thing that `changes` would change beyond a limit. A machine must have the labels before and after: who is
/// limited to them takes no other machine in, and sends none away.
pub fn beyond(changes: &[Change], limit: &Selector, records: &dyn Records) -> Option<TargetName> {
    let stays =
        |machine: &Machine| limit.matches(&machine.labels) && machine.macs.iter().all(|mac| sees(limit, *mac, records));
    let is_within = |change: &Change| match change {
        Change::PutMachine(machine) => stays(machine) && sees(limit, machine.id, records) && !gains(machine, records),
        Change::RemoveMachine(id) => sees(limit, *id, records),
        // What comes along with these: what the appliance keeps of machines.
        change => target(change).is_none(),
    };
    let first = changes.iter().find(|change| !is_within(change))?;
    target(first).map(|target| target.name())
}

/// Whether a machine would come by a secret or a document that it did not have: labels choose them too, and who may label
/// is not who may give these.
fn gains(machine: &Machine, records: &dyn Records) -> bool {
    let before: Vec<Machine> = machine.macs.iter().filter_map(|mac| records.machine(*mac)).collect();
    let had: BTreeSet<SecretName> =
        before.iter().flat_map(|machine| secret::of_machine(machine, records)).map(|secret| secret.name).collect();
    let documents = |machine: &Machine| {
        let documents = records.metadata_for(&machine.macs);
        let applying = documents.into_iter().filter(|document| document.selector.may_mean(&machine.labels));
        applying.map(|document| document.name).collect::<BTreeSet<_>>()
    };
    let had_documents: BTreeSet<MetadataName> = before.iter().flat_map(documents).collect();
    secret::of_machine(machine, records).iter().any(|secret| !had.contains(&secret.name))
        || !documents(machine).is_subset(&had_documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Live, Timestamp, memory::Memory};

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    fn machine(last: u8, rack: &str) -> Machine {
        let mut machine = Machine::new(mac(last), Timestamp(1));
        machine.labels.extend((!rack.is_empty()).then(|| ("rack".to_owned(), rack.to_owned())));
        machine
    }

    fn records() -> Memory {
        let mut memory = Memory::default();
        for machine in [machine(1, "r1"), machine(2, "r2"), machine(3, "")] {
            memory.apply(Change::PutMachine(machine));
        }
        memory
    }

    #[test]
    fn only_named_paths_are_open_and_machines_are_looked_at() {
        let (memory, live) = (records(), Live::default());
        let limit: Selector = "rack=r1".parse().unwrap();
        let open =
            |method: &str, path: &str| is_within(&reach(method, path), &limit, &View { records: &memory, live: &live });
        for path in [
            "/v1/machines",
            "/v1/machines/02:00:00:00:00:01",
            "/v1/machines/02%3A00%3a00:00:00:01/explain",
            "/v1/machines/02:00:00:00:00:01/assignment",
            "/v1/boots",
            "/v1/leases",
            "/v1/events",
            "/v1/images",
            "/v1/images/web:v1",
            "/v1/tags/web:v1",
            "/",
            "/ui/machines/02:00:00:00:00:02",
        ] {
            assert!(open("GET", path), "{path}");
        }
        for path in [
            "/v1/machines/02:00:00:00:00:02",
            "/v1/machines/02:00:00:00:00:02/logs",
            "/v1/machines/02%3A00:00:00:00:02/explain",
            "/v1/machines/02:00:00:00:00:03",
            "/v1/machines/02:00:00:00:00:09",
            "/v1/machines/%zz",
            "/v1/machines/",
            "/v1/boots/nothing",
            "/v1/audit",
            "/v1/rules",
            "/v1/status",
            "/v1/scrub",
            "/v1/diff",
            "/v1/exports/web:v1",
            "/v1/pushes",
            "/v1/tokens",
            "/v2/",
            "/v2/web/manifests/v1",
            "/metrics",
        ] {
            assert!(!open("GET", path), "{path}");
        }
        assert!(open("PATCH", "/v1/machines/02:00:00:00:00:01"));
        for (method, path) in [("POST", "/v1/machines"), ("DELETE", "/v1/images/web:v1"), ("PUT", "/v1/tags/web:v1")] {
            assert!(!open(method, path), "{method} {path}");
        }
    }

    #[test]
    fn a_limit_takes_no_machine_in_and_sends_none_away() {
        let memory = records();
        let limit: Selector = "rack=r1".parse().unwrap();
        let put = Change::PutMachine;
        let within = |changes: &[Change]| beyond(changes, &limit, &memory).is_none();
        let mut named = machine(1, "r1");
        named.labels.insert("role".into(), "web".into());
        assert!(within(&[put(named)]));
        assert!(within(&[Change::RemoveMachine(mac(1))]));
        assert!(!within(&[put(machine(1, "r2"))]), "it is sent away");
        assert!(!within(&[put(machine(1, ""))]));
        assert!(!within(&[put(machine(2, "r1"))]), "another's is taken in");
        assert!(!within(&[put(machine(3, "r1"))]), "nobody's is taken in");
        assert!(!within(&[put(machine(9, "r1"))]), "one that nobody knows is made");
        assert!(!within(&[Change::RemoveMachine(mac(2))]));
        let mut joined = machine(1, "r1");
        joined.macs.push(mac(2));
        assert!(!within(&[put(joined)]), "a card of another's is taken in");
        assert!(!within(&[put(machine(1, "r1")), Change::RemoveImage(crate::image::Digest([7; 32]))]));
        assert!(!within(&[Change::RemoveToken(crate::token::TokenId([1; 4]))]));
    }
}
