use super::*;
use crate::{Live, Timestamp, memory::Memory, settings::Settings};
use std::sync::Arc;

fn document(json: serde_json::Value) -> Document {
    serde_json::from_value(json).unwrap()
}

fn at() -> Moment {
    Moment { now: Timestamp(1), entropy: [7; 32], settings: Arc::new(Settings::default()) }
}

fn put_into(records: &mut Memory, json: serde_json::Value, expected: Option<Expected>) -> Result<Document, Refusal> {
    let live = Live::default();
    let request = PutMetadata { document: document(json), expected };
    let decision = put(&request, &View { records, live: &live }, &at());
    let changes = decision.changes;
    changes.into_iter().for_each(|change| records.apply(change));
    decision.answer
}

#[test]
fn documents_are_replaced_by_who_looked_at_them() {
    let mut records = Memory::default();
    let first = put_into(&mut records, serde_json::json!({ "name": "web", "hostname": "a" }), None).unwrap();
    let other = Some(Expected::Version(vec!["0".into()]));
    let second = serde_json::json!({ "name": "web", "hostname": "b" });
    assert!(matches!(put_into(&mut records, second.clone(), other), Err(Refusal::ChangedMetadata(_))));
    let nobody = serde_json::json!({ "name": "db" });
    assert!(matches!(put_into(&mut records, nobody, Some(Expected::Exists)), Err(Refusal::ChangedMetadata(_))));
    put_into(&mut records, second, Some(Expected::Version(vec![version(&first)]))).unwrap();
    let live = Live::default();
    let request = RemoveMetadata { name: "web".parse().unwrap(), expected: None };
    let decision = remove(&request, &View { records: &records, live: &live }, &at());
    assert_eq!(decision.answer.unwrap().hostname.as_deref(), Some("b"));
    assert_eq!(decision.changes.len(), 1);
}

#[test]
fn what_cannot_be_rendered_for_any_machine_is_not_stored() {
    let key = "ssh-ed25519 AAAAC3Nz me";
    for (json, pointer) in [
        (serde_json::json!({ "name": "x", "hostname": "{{ lables.x }}" }), "/hostname"),
        (serde_json::json!({ "name": "x", "user_data": "a\n{% for x in %}" }), "/user_data"),
        (serde_json::json!({ "name": "x", "files": [{ "path": "etc/x", "content": "" }] }), "/files/0/path"),
        (serde_json::json!({ "name": "x", "files": [{ "path": "/a/../../x", "content": "" }] }), "/files/0/path"),
        (serde_json::json!({ "name": "x", "files": [{ "path": "/proc/x", "content": "" }] }), "/files/0/path"),
        (serde_json::json!({ "name": "x", "files": [{ "path": "/x", "mode": "rw", "content": "" }] }), "/files/0/mode"),
        (
            serde_json::json!({ "name": "x", "files": [{ "path": "/x", "owner": "a:b:c", "content": "" }] }),
            "/files/0/owner",
        ),
        (serde_json::json!({ "name": "x", "files": [{ "path": "/x", "content": "{{ x }}" }] }), "/files/0/content"),
        (
            serde_json::json!({ "name": "x", "ssh_authorized_keys": { "root": [key, "nonsense"] } }),
            "/ssh_authorized_keys/root/1",
        ),
        (serde_json::json!({ "name": "x", "ssh_authorized_keys": { "../x": [key] } }), "/ssh_authorized_keys/..~1x"),
        (
            serde_json::json!({ "name": "x", "persistent": [{ "disk": {}, "label": "DATA", "mount": "/data" }] }),
            "/persistent/0/disk",
        ),
        (
            serde_json::json!({ "name": "x", "persistent": [{ "disk": { "serial": "A" }, "label": "DA TA", "mount": "/data" }] }),
            "/persistent/0/label",
        ),
        (
            serde_json::json!({ "name": "x", "persistent": [{ "disk": { "serial": "A" }, "label": "DATA", "mount": "/etc" }] }),
            "/persistent/0/mount",
        ),
        (
            serde_json::json!({ "name": "x", "persistent": [{ "disk": { "serial": "A" }, "label": "D", "filesystem": "ntfs", "mount": "/d" }] }),
            "/persistent/0/filesystem",
        ),
    ] {
        let mut records = Memory::default();
        match put_into(&mut records, json.clone(), None) {
            Err(Refusal::BadMetadata { pointer: found, .. }) => assert_eq!(found, pointer, "{json}"),
            other => panic!("{json}: {other:?}"),
        }
    }
}

#[test]
fn documents_that_every_boot_reads_are_few() {
    let mut records = Memory::default();
    for n in 0..MAX_SHARED {
        put_into(&mut records, serde_json::json!({ "name": format!("d{n}") }), None).unwrap();
    }
    let another = put_into(&mut records, serde_json::json!({ "name": "another" }), None);
    assert!(matches!(another, Err(Refusal::TooMuchMetadata { .. })));
    let own = serde_json::json!({ "name": "another", "machine": "52:54:00:00:00:01" });
    assert!(put_into(&mut records, own, None).is_ok());
    assert!(put_into(&mut records, serde_json::json!({ "name": "d0", "hostname": "x" }), None).is_ok());
}
