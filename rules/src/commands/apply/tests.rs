//! Documents applied to records in memory.

use super::{plan::Action, *};
use crate::{
    Change, Live, Machine, Timestamp,
    commands::images::tests::{image, kernel_image, settings},
    image::{Image, Tag},
    memory::Memory,
};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const WEB: &str = "52:54:00:00:00:01";
const DB: &str = "52:54:00:00:00:02";

fn tagged(records: &mut Memory, name: &str, image: Image) {
    let (name, digest) = (name.parse().unwrap(), image.digest);
    records.apply(Change::PutTag(Tag { name, digest, others: Default::default(), history: Vec::new() }));
    records.apply(Change::PutImage(image));
}

fn world() -> Memory {
    let mut records = Memory::default();
    tagged(&mut records, "web:v1", image(1));
    tagged(&mut records, "web:v2", image(2));
    tagged(&mut records, "kernel:v1", kernel_image(3));
    records
}

fn request(documents: &Value) -> Apply {
    let own_addresses = vec!["10.77.0.2".parse().unwrap()];
    Apply {
        documents: documents.as_array().unwrap().clone(),
        own_addresses,
        by: "test".into(),
        scopes: [Scope::Admin].into(),
        ..Apply::default()
    }
}

fn run(records: &mut Memory, request: &Apply) -> Result<Plan, Wrong> {
    let at = Moment { now: Timestamp(1000), entropy: [7; 32], settings: Arc::new(settings()) };
    let decision = apply(request, &View { records: &*records, live: &Live::default() }, &at);
    assert!((decision.answer.is_ok() && !request.dry_run) || decision.changes.is_empty());
    decision.changes.into_iter().for_each(|change| records.apply(change));
    decision.answer
}

fn applied(records: &mut Memory, documents: &Value) -> Plan {
    run(records, &request(documents)).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn refused(records: &mut Memory, documents: &Value) -> (Option<usize>, String, String) {
    let wrong = run(records, &request(documents)).unwrap_err();
    (wrong.document, wrong.field, wrong.reason)
}

fn rack() -> Value {
    json!([
        {"kind": "Tag", "name": "web:stable", "image": "web:v1"},
        {"kind": "Rule", "name": "web", "selector": "role=web", "image": "web:stable", "priority": 10},
        {"kind": "Machine", "name": WEB, "labels": {"role": "web"}, "reservation": "10.77.0.20", "arguments": " quiet  x"},
        {"kind": "Machine", "name": DB, "macs": ["52-54-00-00-00-03"], "image": "web:v2", "options": {"12": "text:db"}},
    ])
}

#[test]
fn documents_make_a_plan_that_is_carried_out_once() {
    let mut records = world();
    let dry = Apply { dry_run: true, ..request(&rack()) };
    let plan = run(&mut records, &dry).unwrap();
    assert_eq!((plan.steps.len(), plan.applied, records.machines().len()), (4, false, 0));
    let plan = applied(&mut records, &rack());
    assert!(plan.steps.iter().all(|step| step.action == Action::Add));
    assert_eq!(records.machine(WEB.parse().unwrap()).unwrap().arguments, "quiet x");
    assert_eq!(records.machine("525400000003".parse().unwrap()).unwrap().id.to_string(), DB);
    assert_eq!(records.tag(&"web:stable".parse().unwrap()).unwrap().history[0].by, "apply by test");
    let again = applied(&mut records, &rack());
    assert_eq!((again.steps.len(), again.unchanged), (0, 4));
    // What it is now applies to nothing, and pruning takes nothing of it away.
    let exported = Value::Array(export(&records));
    let prune = Apply { prune: ["Machine".into(), "Rule".into()].into(), ..request(&exported) };
    let plan = run(&mut records, &prune).unwrap();
    assert_eq!((plan.steps, plan.unchanged), (vec![], 7));
}

#[test]
fn a_plan_tells_every_field_that_changes() {
    let mut records = world();
    applied(&mut records, &rack());
    let plan = applied(
        &mut records,
        &json!([{"kind": "Machine", "name": WEB, "labels": {"role": "api", "rack": "r1"}, "reservation": "10.77.0.20"}]),
    );
    insta::assert_json_snapshot!(plan.steps, @r#"
    [
      {
        "action": "change",
        "kind": "Machine",
        "name": "52:54:00:00:00:01",
        "fields": [
          {
            "field": "arguments",
            "before": "quiet x"
          },
          {
            "field": "labels.role",
            "before": "web",
            "after": "api"
          },
          {
            "field": "labels.rack",
            "after": "r1"
          }
        ]
      }
    ]
    "#);
}

#[test]
fn pruning_takes_away_what_people_said_and_nothing_else() {
    let mut records = world();
    applied(&mut records, &rack());
    let mut seen = Machine::new("52:54:00:00:00:09".parse().unwrap(), Timestamp(5));
    seen.facts.serial = Some("S9".into());
    seen.labels.insert("rack".into(), "r9".into());
    records.apply(Change::PutMachine(seen));
    let left = json!([{"kind": "Rule", "name": "web", "selector": "role=web", "image": "web:stable", "priority": 10}]);
    let unpruned = applied(&mut records, &left);
    assert_eq!(unpruned.steps, []);
    let prune = Apply { prune: ["Machine".into()].into(), ..request(&left) };
    let plan = run(&mut records, &prune).unwrap();
    assert!(plan.steps.iter().all(|step| step.action == Action::Remove && step.kind == "Machine"));
    assert_eq!(plan.steps.len(), 3);
    let kept: Vec<String> = records.machines().iter().map(|machine| machine.id.to_string()).collect();
    assert_eq!(kept, [DB, "52:54:00:00:00:09"], "a joined card and a serial number are no document's to take");
    assert!(records.machines().iter().all(|machine| machine.labels.is_empty() && machine.assignment.is_none()));
    let everything = Apply { prune: ["Rule".into()].into(), ..request(&json!([])) };
    assert_eq!(run(&mut records, &everything).unwrap().steps.len(), 1);
    assert_eq!(records.rules(), []);
}

#[test]
fn addresses_change_hands_in_one_go() {
    let mut records = world();
    let held = |web: &str, db: &str| {
        json!([
            {"kind": "Machine", "name": WEB, "reservation": web},
            {"kind": "Machine", "name": DB, "reservation": db},
        ])
    };
    applied(&mut records, &held("10.77.0.20", "10.77.0.21"));
    assert_eq!(applied(&mut records, &held("10.77.0.21", "10.77.0.20")).steps.len(), 2);
    assert_eq!(records.reservation("10.77.0.20".parse().unwrap()), Some(DB.parse().unwrap()));
    assert_eq!(records.reservation("10.77.0.21".parse().unwrap()), Some(WEB.parse().unwrap()));
    let (document, field, reason) = refused(&mut records, &held("10.77.0.22", "10.77.0.22"));
    assert_eq!((document, field.as_str()), (Some(1), "/reservation"), "{reason}");
    let only = json!([{"kind": "Machine", "name": WEB, "reservation": "10.77.0.20"}]);
    assert!(refused(&mut records, &only).2.contains("is reserved for machine 52:54:00:00:00:02"));
}

#[test]
fn what_is_wrong_is_refused_where_it_is_and_nothing_changes() {
    let good = json!({"kind": "Machine", "name": WEB, "labels": {"rack": "r1"}});
    let rule = |fields: Value| {
        let mut rule = json!({"kind": "Rule", "name": "web", "image": "web:v1"});
        rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        rule
    };
    for (document, field, reason) in [
        (json!("Machine"), "", "no map of fields"),
        (json!({"name": WEB}), "/kind", "it has no kind"),
        (json!({"kind": 7}), "/kind", "no text"),
        (json!({"kind": "Mashine", "name": WEB}), "/kind", "'Mashine' is no kind"),
        (json!({"kind": "Machine"}), "", "missing field `name`"),
        (json!({"kind": "Machine", "name": "web1"}), "/name", "not a MAC address"),
        (json!({"kind": "Machine", "name": DB, "label": {}}), "/label", "unknown field `label`"),
        (json!({"kind": "Machine", "name": DB, "labels": {"a/b": 7}}), "/labels/a~1b", "expected a string"),
        (json!({"kind": "Machine", "name": DB, "labels": {"a b": "x"}}), "/labels/a b", "the key is empty"),
        (json!({"kind": "Machine", "name": DB, "labels": {"bennu.arch": "x"}}), "/labels/bennu.arch", "begin with"),
        (json!({"kind": "Machine", "name": DB, "reservation": "10.77.0.300"}), "/reservation", "IPv4"),
        (
            json!({"kind": "Machine", "name": DB, "reservation": "10.78.0.3"}),
            "/reservation",
            "no configured boot.subnet",
        ),
        (json!({"kind": "Machine", "name": DB, "reservation": "10.77.0.2"}), "/reservation", "Bennu's own"),
        (json!({"kind": "Machine", "name": DB, "image": "web:v9"}), "/image", "there is no image web:v9"),
        (json!({"kind": "Machine", "name": DB, "image": "kernel:v1"}), "/image", "only supplies a kernel"),
        (json!({"kind": "Machine", "name": DB, "arguments": "${x}"}), "/arguments", "'${'"),
        (json!({"kind": "Machine", "name": DB, "options": {"67": "text:x"}}), "/options/67", "cannot be set"),
        (json!({"kind": "Machine", "name": DB, "macs": [DB, "x"]}), "/macs/1", "not a MAC address"),
        (json!({"kind": "Machine", "name": "5254.0000.0001"}), "/name", "has a document already, number 1"),
        (rule(json!({"selector": "role=web,"})), "/selector", "at character 10"),
        (rule(json!({"priority": "high"})), "/priority", "expected i32"),
        (rule(json!({"description": "a\nb"})), "/description", "control character"),
        (json!({"kind": "Tag", "name": "web:a", "image": "web:v9"}), "/image", "there is no image"),
        (json!({"kind": "Tag", "name": "web:v1", "image": "web:v1"}), "/image", "itself set by a document"),
        (json!({"kind": "Tag", "name": "Web:", "image": "web:v1"}), "/name", "not an image name"),
    ] {
        let mut records = world();
        let (place, at, said) = refused(&mut records, &json!([good, document]));
        assert_eq!((place, at.as_str()), (Some(1), field), "{document}: {said}");
        assert!(said.contains(reason), "{document}: {said}");
        assert_eq!((records.machines().len(), records.rules().len()), (0, 0));
    }
    let mut records = world();
    for kind in ["Tag", "Image"] {
        let prune = Apply { prune: [kind.into()].into(), ..request(&json!([good])) };
        assert_eq!(run(&mut records, &prune).unwrap_err().document, None);
    }
    let many = (0..=crate::rule::MAX_RULES).map(|n| json!({"kind": "Rule", "name": format!("r{n}"), "image": "local"}));
    assert!(refused(&mut records, &many.collect()).2.contains("as many as there can be"));
}

#[test]
fn a_plan_for_another_configuration_is_refused() {
    let mut records = world();
    let plan = run(&mut records, &Apply { dry_run: true, ..request(&rack()) }).unwrap();
    applied(&mut records, &json!([{"kind": "Machine", "name": WEB, "labels": {"rack": "r7"}}]));
    let stale = Apply { expected: Some(plan.revision), ..request(&rack()) };
    assert_eq!(run(&mut records, &stale).unwrap_err().kind, WrongKind::Stale);
    let fresh = Apply { expected: Some(revision(&records)), ..request(&rack()) };
    assert_eq!(run(&mut records, &fresh).unwrap().steps.len(), 4);
}

#[test]
fn the_schema_describes_every_kind() {
    let schema = schema();
    let kinds: Vec<&str> =
        schema["oneOf"].as_array().unwrap().iter().map(|kind| kind["title"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Tag", "Rule", "Machine", "Profile", "Metadata", "Role"]);
    let machine = &schema["oneOf"][2];
    assert_eq!(machine["properties"]["kind"]["const"], "Machine");
    assert_eq!(machine["additionalProperties"], false);
    assert_eq!(machine["required"], json!(["kind", "name"]));
    assert_eq!(machine["properties"]["labels"]["additionalProperties"]["type"], "string");
    assert!(!schema.to_string().contains("$ref"), "editors find everything in its place");
}

proptest! {
    #[test]
    fn what_is_exported_applies_to_nothing(
        labels in proptest::collection::btree_map("[a-z][a-z0-9./_-]{0,10}", "[^\\p{Cc}]{0,20}", 0..4),
        last in 1_u8..6, priority: i32, reserved: bool, local: bool,
    ) {
        let mut records = world();
        let mut machine = json!({"kind": "Machine", "name": format!("52:54:00:00:00:0{last}"), "labels": labels});
        if reserved {
            machine["reservation"] = json!(format!("10.77.0.{}", 100 + last));
        }
        if local {
            machine["image"] = json!("local");
        }
        let rule = json!({"kind": "Rule", "name": "r", "selector": "rack", "image": "web:v2", "priority": priority});
        applied(&mut records, &json!([machine, rule]));
        let exported = Value::Array(export(&records));
        let before = revision(&records);
        let plan = applied(&mut records, &exported);
        prop_assert_eq!((plan.steps, plan.revision.as_str()), (vec![], before.as_str()));
    }
}

#[path = "tests/kinds.rs"]
mod kinds;
