//! Profiles, metadata and roles as documents.

use super::*;
use crate::{
    commands::tokens::{CreateToken, create},
    facts::Facts,
    image::Digest,
    metadata::{Merged, Rendered},
    token::Token,
};

fn everything() -> Value {
    json!([
        {"kind": "Profile", "name": "Dell PowerEdge", "match": {"manufacturer": "Dell Inc."},
            "settings": {"consoles": ["ttyS0,115200"], "uefi_loader": "ipxe.efi"},
            "example": {"manufacturer": "Dell Inc.", "product": "PowerEdge R640"}},
        {"kind": "Metadata", "name": "web", "selector": "role=web", "priority": 5, "hostname": "web-{{ machine.hyphened }}",
            "files": [{"path": "/etc/motd", "content": "{% for k, v in labels | items %}\n{{ k }}={{ v }}\n{% endfor %}"}],
            "ssh_authorized_keys": {"root": ["ssh-ed25519 AAAAC3Nz one"]},
            "persistent": [{"disk": {"by_id": "nvme-1"}, "label": "data", "mount": "/srv"}]},
        {"kind": "Metadata", "name": "one", "machine": WEB, "user_data": "#cloud-config\n"},
        {"kind": "Role", "name": "builder", "scopes": ["read", "images"], "expires_in_days": 30, "description": "CI"},
        {"kind": "Role", "name": "rack1", "scopes": ["read", "assign"], "limit": "rack=r1"},
    ])
}

const ALL: [&str; 5] = ["Machine", "Rule", "Profile", "Metadata", "Role"];

#[test]
fn every_kind_is_applied_exported_and_pruned() {
    let mut records = world();
    let plan = applied(&mut records, &everything());
    assert_eq!(plan.steps.len(), 5);
    assert_eq!((records.profiles().len(), records.all_metadata().len(), records.roles().len()), (1, 2, 2));
    let exported = Value::Array(export(&records));
    let again = run(&mut records, &Apply { prune: ALL.map(Into::into).into(), ..request(&exported) }).unwrap();
    assert_eq!((again.steps, again.unchanged), (vec![], 8), "three tags too");
    let mut changed = everything();
    changed[1]["files"][0]["content"] = json!("less");
    changed[4]["limit"] = json!("rack=r2");
    let plan = applied(&mut records, &changed);
    let fields: Vec<&str> = plan.steps.iter().flat_map(|step| &step.fields).map(|field| field.field.as_str()).collect();
    assert_eq!(fields, ["files", "limit"]);
    let none = Apply { prune: ALL.map(Into::into).into(), ..request(&json!([])) };
    assert_eq!(run(&mut records, &none).unwrap().steps.len(), 5);
    assert!(records.profiles().is_empty() && records.all_metadata().is_empty() && records.roles().is_empty());
}

#[test]
fn a_profile_that_people_keep_goes_before_what_bennu_brings_along() {
    let mut records = world();
    applied(&mut records, &everything());
    let facts = Facts { manufacturer: Some("Dell Inc.".into()), product: Some("R640".into()), ..Facts::default() };
    let built_in = |product: &str| -> crate::profile::Profile {
        serde_json::from_value(json!({"name": "built in", "match": {"manufacturer": "Dell Inc.", "product": product}}))
            .unwrap()
    };
    let kept_profiles = records.profiles();
    let known = crate::settings::Settings { profiles: vec![built_in("R*")], kept_profiles, ..settings() };
    assert_eq!(known.profile(&facts).unwrap().name.as_str(), "Dell PowerEdge", "though the other says more");
    let other = Facts { manufacturer: Some("Acme".into()), ..facts };
    assert_eq!(known.profile(&other), None);
}

#[test]
fn wrong_documents_of_these_kinds_change_nothing() {
    let profile = |fields: Value| {
        let mut profile = json!({"kind": "Profile", "name": "p", "match": {"manufacturer": "Acme"}});
        profile.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        profile
    };
    let long = "x".repeat(200_000);
    for (document, field, reason) in [
        (profile(json!({"name": " p"})), "/name", "not a hardware profile's name"),
        (profile(json!({"match": {}})), "/match", "means no machine"),
        (profile(json!({"match": {"product": " "}})), "/match/product", "a pattern has"),
        (profile(json!({"match": {"vendor": "x"}})), "/match/vendor", "unknown field"),
        (profile(json!({"settings": {"uefi_loader": "../x"}})), "/settings/uefi_loader", "file name"),
        (profile(json!({"settings": {"consoles": ["tty0", "a b"]}})), "/settings/consoles/1", "console="),
        (profile(json!({"settings": {"arguments": "a\nb"}})), "/settings/arguments", "kernel arguments"),
        (profile(json!({"example": {"manufacturer": "Other", "product": ""}})), "/example", "its own example"),
        (json!({"kind": "Metadata", "name": "Web"}), "/name", "not a document's name"),
        (json!({"kind": "Metadata", "name": "w", "hostname": "{{ lables.x }}"}), "/hostname", "line 1 of the template"),
        (
            json!({"kind": "Metadata", "name": "w", "files": [{"path": "/a", "content": "\n{% if %}"}]}),
            "/files/0/content",
            "line 2",
        ),
        (json!({"kind": "Metadata", "name": "w", "user_data": long.repeat(2)}), "", "262144 are the most"),
        (json!({"kind": "Role", "name": "r", "scopes": []}), "/scopes", "can do nothing"),
        (json!({"kind": "Role", "name": "r", "scopes": ["root"]}), "/scopes/0", "not a scope"),
        (json!({"kind": "Role", "name": "r", "scopes": ["admin"], "limit": "rack=r1"}), "/limit", "more than machines"),
        (json!({"kind": "Role", "name": "r", "scopes": ["read"], "expires_in_days": 0}), "/expires_in_days", "0 days"),
        (json!({"kind": "Role", "name": "r", "scopes": ["read"], "secret": "x"}), "/secret", "unknown field"),
    ] {
        let mut records = world();
        let good = json!({"kind": "Machine", "name": WEB, "labels": {"rack": "r1"}});
        let (place, at, said) = refused(&mut records, &json!([good, document]));
        assert_eq!((place, at.as_str()), (Some(1), field), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(records.machines().is_empty() && records.profiles().is_empty() && records.roles().is_empty());
    }
    let many = (0..30).map(|n| json!({"kind": "Metadata", "name": format!("m{n}"), "user_data": long}));
    let (_, _, said) = refused(&mut world(), &many.collect());
    assert!(said.contains("4194304 are the most"), "{said}");
    let own = (0..17).map(|n| json!({"kind": "Metadata", "name": format!("m{n}"), "machine": WEB}));
    assert!(refused(&mut world(), &own.collect()).2.contains("16 such"));
}

fn token(records: &mut Memory, name: &str, role: Option<&str>, days: Option<u32>) -> Result<Token, String> {
    let request = CreateToken {
        name: name.parse().unwrap(),
        scopes: if role.is_some() { Default::default() } else { [Scope::Read].into() },
        limit: None,
        role: role.map(|role| role.parse().unwrap()),
        secret: Digest([9; 32]),
        days,
        by: "test".into(),
    };
    let entropy = std::array::from_fn(|at| (at + 16 * records.tokens().len()) as u8);
    let at = Moment { now: Timestamp(1000), entropy, settings: Arc::new(settings()) };
    let decision = create(&request, &View { records: &*records, live: &Live::default() }, &at);
    decision.changes.into_iter().for_each(|change| records.apply(change));
    decision.answer.map_err(|refusal| refusal.to_string())
}

#[test]
fn tokens_follow_their_role_and_hold_it() {
    let mut records = world();
    applied(&mut records, &everything());
    let ci = token(&mut records, "ci", Some("builder"), None).unwrap();
    assert_eq!(
        (&ci.scopes, ci.expires),
        (&[Scope::Read, Scope::Images].into(), Some(Timestamp(1000).plus_seconds(30 * 86_400)))
    );
    let short = token(&mut records, "short", Some("builder"), Some(2)).unwrap();
    let rack = token(&mut records, "rack", Some("rack1"), None).unwrap();
    assert_eq!((rack.limit.map(|limit| limit.to_string()).as_deref(), rack.expires), (Some("rack=r1"), None));
    let free = token(&mut records, "free", None, None).unwrap();
    assert!(token(&mut records, "long", Some("builder"), Some(31)).unwrap_err().contains("31 days"));
    assert!(token(&mut records, "x", Some("nobody"), None).unwrap_err().contains("no role 'nobody'"));
    let less = json!([{"kind": "Role", "name": "builder", "scopes": ["read"], "expires_in_days": 7}]);
    applied(&mut records, &less);
    let now = |token: &Token| records.token(token.id).unwrap();
    assert_eq!(
        now(&ci),
        Token { scopes: [Scope::Read].into(), expires: Some(ci.created.plus_seconds(7 * 86_400)), ..ci }
    );
    assert_eq!(now(&short).expires, short.expires, "none lasts longer than it did");
    assert_eq!(now(&free), free);
    let prune = Apply { prune: ["Role".into()].into(), ..request(&json!([])) };
    let wrong = run(&mut records, &prune).unwrap_err();
    assert!(wrong.reason.contains("these tokens have it: ci, short") && wrong.kind == WrongKind::State, "{wrong:?}");
    assert_eq!(records.roles().len(), 2);
}

#[test]
fn each_kind_needs_its_scope_and_roles_are_shown_to_admins_alone() {
    let mut records = world();
    applied(&mut records, &everything());
    for (scope, kind, may) in [
        (Scope::Assign, json!({"kind": "Machine", "name": WEB}), true),
        (Scope::Assign, json!({"kind": "Rule", "name": "r", "image": "local"}), true),
        (Scope::Assign, json!({"kind": "Metadata", "name": "m"}), true),
        (Scope::Assign, json!({"kind": "Tag", "name": "web:v1", "image": "web:v2"}), false),
        (Scope::Assign, everything()[0].clone(), false),
        (Scope::Assign, everything()[3].clone(), false),
        (Scope::Images, json!({"kind": "Tag", "name": "web:v3", "image": "web:v2"}), true),
        (Scope::Images, json!({"kind": "Rule", "name": "r", "image": "local"}), false),
        (Scope::Read, json!({"kind": "Machine", "name": WEB}), false),
    ] {
        let asked = Apply { scopes: [scope].into(), dry_run: true, ..request(&json!([kind])) };
        let answer = run(&mut records, &asked);
        assert_eq!(answer.is_ok(), may, "{scope} {kind}: {answer:?}");
        if let Err(wrong) = answer {
            assert_eq!((wrong.kind, wrong.document, wrong.field.as_str()), (WrongKind::Forbidden, Some(0), "/kind"));
        }
    }
    let prune = Apply { scopes: [Scope::Assign].into(), prune: ["Role".into()].into(), ..request(&json!([])) };
    assert_eq!(run(&mut records, &prune).unwrap_err().kind, WrongKind::Forbidden);
    let reader = [Scope::Read].into();
    assert_eq!(hidden(&reader), ["Role"]);
    assert!(export_for(&reader, &records).iter().all(|document| document["kind"] != "Role"));
    assert_eq!(export_for(&[Scope::Admin].into(), &records), export(&records));
}

#[test]
fn a_machine_that_changes_its_address_keeps_what_its_boot_was_given() {
    let mut records = world();
    let held = |web: &str, db: &str| json!([{"kind": "Machine", "name": WEB, "reservation": web}, {"kind": "Machine", "name": DB, "reservation": db}]);
    applied(&mut records, &held("10.77.0.20", "10.77.0.21"));
    let machine = WEB.parse().unwrap();
    let rendered = Rendered { machine, boot: crate::boot::BootId("b1".into()), merged: Merged::default() };
    records.apply(Change::PutRendered(rendered.clone()));
    applied(&mut records, &held("10.77.0.21", "10.77.0.20"));
    assert_eq!(records.reservation("10.77.0.21".parse().unwrap()), Some(machine));
    assert_eq!(records.reservation("10.77.0.20".parse().unwrap()), Some(DB.parse().unwrap()));
    assert_eq!(records.rendered(machine), Some(rendered), "the boot goes on, and asks for it again");
}
