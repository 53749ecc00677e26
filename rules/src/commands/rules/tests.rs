//! Commands about rules, on records in memory.

use super::*;
use crate::{
    Live, Timestamp,
    commands::{
        collect::{Collect, Verdict, collect},
        images::{
            RemoveImage, remove_image,
            tests::{image, kernel_image, settings},
        },
    },
    image::{Image, Tag},
    memory::Memory,
};
use std::sync::Arc;

fn at() -> Moment {
    Moment { now: Timestamp(1000), entropy: [7; 32], settings: Arc::new(settings()) }
}

fn world() -> Memory {
    let mut records = Memory::default();
    for (name, image) in [("web:v1", image(1)), ("web:v2", image(2)), ("kernel:v1", kernel_image(3))] {
        tagged(&mut records, name, image);
    }
    records
}

fn tagged(records: &mut Memory, name: &str, image: Image) {
    let (name, digest) = (name.parse().unwrap(), image.digest);
    records.apply(Change::PutTag(Tag { name, digest, others: Default::default(), history: Vec::new() }));
    records.apply(Change::PutImage(image));
}

fn rule(name: &str, image: &str) -> Rule {
    Rule {
        name: name.parse().unwrap(),
        selector: "rack=r1".parse().unwrap(),
        image: image.parse().unwrap(),
        priority: 5,
        description: "rack one".into(),
    }
}

fn put_with(records: &mut Memory, rule: Rule, expected: Option<Expected>) -> Answer {
    let decision = put_rule(&PutRule { rule, expected }, &View { records: &*records, live: &Live::default() }, &at());
    assert!(decision.answer.is_ok() || decision.changes.is_empty());
    decision.changes.into_iter().for_each(|change| records.apply(change));
    decision.answer
}

fn put(records: &mut Memory, rule: Rule) -> Answer {
    put_with(records, rule, None)
}

#[test]
fn a_rule_is_set_replaced_and_removed() {
    let mut records = world();
    put(&mut records, rule("web", "web:v1")).unwrap();
    let first = records.rule(&"web".parse().unwrap()).unwrap();
    put(&mut records, rule("web", "local")).unwrap();
    assert_eq!(records.rules(), [rule("web", "local")]);
    let stale = Some(Expected::Version(vec![version(&first)]));
    assert_eq!(
        put_with(&mut records, rule("web", "web:v2"), stale.clone()),
        Err(Refusal::RuleChanged("web".parse().unwrap()))
    );
    let remove = |records: &Memory, expected| {
        let request = RemoveRule { name: "web".parse().unwrap(), expected };
        remove_rule(&request, &View { records, live: &Live::default() }, &at())
    };
    assert!(remove(&records, stale).answer.is_err());
    let decision = remove(&records, Some(Expected::Exists));
    assert_eq!(decision.changes, [Change::RemoveRule("web".parse().unwrap())]);
    assert_eq!(remove(&Memory::default(), None).answer, Err(Refusal::UnknownRule("web".parse().unwrap())));
}

#[test]
fn rules_that_could_give_nothing_are_refused() {
    let mut records = world();
    assert!(
        matches!(put(&mut records, rule("web", "web:v9")), Err(Refusal::UnknownImage { near, .. }) if near.len() == 2)
    );
    assert!(matches!(put(&mut records, rule("web", "kernel:v1")), Err(Refusal::KernelOnly(_))));
    let described = |text: String| Rule { description: text, ..rule("web", "web:v1") };
    assert!(matches!(put(&mut records, described("x".repeat(501))), Err(Refusal::BadRule { .. })));
    assert!(matches!(put(&mut records, described("a\nb".into())), Err(Refusal::BadRule { .. })));
    for n in 0..MAX_RULES {
        put(&mut records, rule(&format!("r{n}"), "local")).unwrap();
    }
    assert_eq!(put(&mut records, rule("one-more", "local")), Err(Refusal::TooManyRules));
    put(&mut records, rule("r0", "web:v1")).unwrap();
    for name in ["", "-web", "web servers", "wéb", &"x".repeat(64)] {
        assert!(name.parse::<RuleName>().is_err(), "{name}");
    }
}

#[test]
fn an_image_that_rules_give_is_not_removed_and_not_collected() {
    let mut records = world();
    put(&mut records, rule("by-tag", "web:v1")).unwrap();
    put(&mut records, rule("by-digest", &image(2).digest.to_string())).unwrap();
    let live = Live::default();
    let removal = |records: &Memory, reference: &str| {
        let request = RemoveImage { reference: reference.parse().unwrap(), expected: None };
        remove_image(&request, &View { records, live: &live }, &at()).answer.map(|_| ())
    };
    let refused = removal(&records, "web:v1").unwrap_err();
    assert_eq!(refused.to_string(), "web:v1 is given to machines by the rules by-tag");
    assert!(removal(&records, "web:v2").is_err());
    records.apply(Change::RemoveTag("web:v2".parse().unwrap()));
    let request = Collect { dry_run: true, ran: Default::default(), named: Vec::new() };
    let collected = collect(&request, &View { records: &records, live: &live }, &at()).answer;
    let verdict = collected.images.iter().find(|(digest, _)| *digest == image(2).digest).unwrap().1.clone();
    assert_eq!(verdict, Verdict::NamedByRules { rules: vec!["by-digest".parse().unwrap()] });
    records.apply(Change::RemoveRule("by-tag".parse().unwrap()));
    assert!(removal(&records, "web:v1").is_ok());
}
