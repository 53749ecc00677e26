//! What goes and what stays, on records in memory.

use super::*;
use crate::{
    Live, Machine, Volatile,
    boot::{Pinned, Token},
    commands::images::tests::{image, settings},
    image::{BlobRef, TagMove},
    memory::Memory,
    registry::{Outcome, Push},
    settings::Settings,
};
use std::sync::Arc;

const NOW: u64 = 100 * DAY_MS;

fn digest(seed: u8) -> Digest {
    Digest([seed; 32])
}

fn at(retention: Retention) -> Moment {
    Moment { now: Timestamp(NOW), entropy: [7; 32], settings: Arc::new(Settings { retention, ..settings() }) }
}

fn keep(last: Option<u32>, days: Option<u32>) -> Retention {
    Retention { keep_last: last, keep_days: days }
}

/// Images 1 to 6; `web:v` pointed at 1, 2, 3, 2 and points at 4; `app:v` at 5, and points at 4.
fn records() -> Memory {
    let mut records = Memory::default();
    (1..=6).for_each(|seed| records.apply(Change::PutImage(image(seed))));
    for (name, history) in [("web:v", &[1, 2, 3, 2, 4][..]), ("app:v", &[5, 4])] {
        let moved = |seed: &u8| TagMove { at: Timestamp(0), digest: digest(*seed), by: "test".into() };
        let history: Vec<TagMove> = history.iter().map(moved).collect();
        let (name, others) = (name.parse().unwrap(), BTreeMap::new());
        records.apply(Change::PutTag(Tag { name, digest: digest(4), others, history }));
    }
    records
}

fn machine(last: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, last])
}

fn request(ran: &[(u8, u64)]) -> Collect {
    let ran = ran.iter().map(|(seed, until)| (digest(*seed), Timestamp(*until))).collect();
    Collect { dry_run: false, ran, named: Vec::new() }
}

fn gone(request: &Collect, records: &Memory, live: &Live, retention: Retention) -> Vec<u8> {
    let collected = collect(request, &View { records, live }, &at(retention)).answer;
    collected.gone().into_iter().map(|digest| digest.0[0]).collect()
}

#[test]
fn retention_keeps_what_its_rules_say() {
    let (records, live) = (records(), Live::default());
    let ran = [(1, NOW - 3 * DAY_MS), (3, NOW - 10 * DAY_MS), (6, NOW - 10 * DAY_MS - 1)];
    for (retention, expected) in [
        (keep(None, None), &[][..]),
        (keep(Some(1), None), &[1, 2, 3, 5, 6]),
        // web:v came back to 2 before 4; app:v was at 5.
        (keep(Some(2), None), &[1, 3, 6]),
        (keep(Some(3), None), &[1, 6]),
        (keep(Some(9), None), &[6]),
        (keep(None, Some(1)), &[1, 2, 3, 5, 6]),
        (keep(None, Some(3)), &[2, 3, 5, 6]),
        (keep(None, Some(10)), &[2, 5, 6]),
        (keep(None, Some(11)), &[2, 5]),
        (keep(Some(2), Some(11)), &[]),
    ] {
        assert_eq!(gone(&request(&ran), &records, &live, retention), expected, "{retention:?}");
    }
}

#[test]
fn what_is_in_use_stays_whatever_the_rules_say() {
    let mut records = records();
    let mut assigned = Machine::new(machine(1), Timestamp(0));
    assigned.assignment = Some(Assignment::Image(ImageReference::Digest(digest(1))));
    records.apply(Change::PutMachine(assigned));
    let mut live = Live::default();
    let rule = keep(Some(1), None);
    let mut boot = Boot::open(machine(2), None, &View { records: &records, live: &live }, &at(rule));
    boot.image = Some(Pinned { reference: "web:v".parse().unwrap(), digest: digest(2) });
    live.apply(Volatile::PutBoot(boot));
    let mut request = request(&[]);
    request.named = vec![ImageReference::Digest(digest(3))];
    let collected = collect(&request, &View { records: &records, live: &live }, &at(rule)).answer;
    let verdicts: Vec<Verdict> = collected.images.into_iter().map(|(_, verdict)| verdict).collect();
    let tags = vec!["app:v".parse().unwrap(), "web:v".parse().unwrap()];
    assert_eq!(
        verdicts,
        [
            Verdict::Assigned { machines: vec![machine(1)] },
            Verdict::Booting { machines: vec![machine(2)] },
            Verdict::Configured,
            Verdict::Tagged { tags },
            Verdict::Unneeded,
            Verdict::Unneeded,
        ]
    );
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let (records, live) = (records(), Live::default());
    let view = View { records: &records, live: &live };
    let wet = collect(&request(&[]), &view, &at(keep(Some(1), None)));
    let dry = collect(&Collect { dry_run: true, ..request(&[]) }, &view, &at(keep(Some(1), None)));
    assert_eq!((dry.answer, dry.changes.len()), (wet.answer, 0));
    assert_eq!(wet.changes.len(), 5);
}

fn artifact(seed: u8, parts: &[u8], pushed: u64) -> Change {
    let part = |seed: &u8| BlobRef { digest: digest(*seed), size: 1 };
    Change::PutArtifact(Artifact {
        digest: digest(seed),
        size: 1,
        media_type: String::new(),
        kind: String::new(),
        annotations: BTreeMap::new(),
        parts: parts.iter().map(part).collect(),
        subject: None,
        repositories: BTreeSet::new(),
        pushed: Timestamp(pushed),
    })
}

#[test]
fn artifacts_that_nothing_needs_go_after_an_hour() {
    let mut records = Memory::default();
    let signature = format!("web:sha256-{}.sig", digest(51).hex());
    let push = |name: &str, seed: u8| {
        let (name, at) = (name.parse().unwrap(), Timestamp(0));
        Change::PutPush(Push { name, digest: digest(seed), at, by: "ci".into(), outcome: Outcome::Kept })
    };
    for change in [
        artifact(50, &[], 0),
        artifact(51, &[], NOW - YOUNG_MS - 1),
        artifact(52, &[], NOW - YOUNG_MS),
        artifact(53, &[], 0),
        push("web:v1", 50),
        push(&signature, 53),
    ] {
        records.apply(change);
    }
    let live = Live::default();
    let decision = collect(&request(&[]), &View { records: &records, live: &live }, &at(keep(None, None)));
    let artifacts: Vec<u8> = decision.answer.artifacts.iter().map(|artifact| artifact.digest.0[0]).collect();
    assert_eq!(artifacts, [51, 53], "50 has a tag, and 52 is young");
    decision.changes.into_iter().for_each(|change| records.apply(change));
    assert_eq!((records.artifacts().len(), records.pushes().len()), (2, 1), "the signature's tag goes with it");
}

#[test]
fn images_of_one_index_stay_together() {
    let mut records = records();
    for (seed, source) in [(5, 60), (6, 61)] {
        let mut made = image(seed);
        let source = BlobRef { digest: digest(source), size: 1 };
        let media_type = String::new();
        made.config.derived = Some(crate::image::Derivation { source, media_type, kernel: None, created: None });
        records.apply(Change::PutImage(made));
    }
    records.apply(artifact(70, &[60, 61], 0));
    assert_eq!(gone(&request(&[]), &records, &Live::default(), keep(Some(2), None)), [1, 3]);
}

#[test]
fn an_image_runs_until_its_machine_boots_again() {
    let records = Memory::default();
    let live = Live::default();
    let boot = |last: u8, seed: u8, opened: u64, state: State| {
        let moment = Moment { now: Timestamp(opened), ..at(Retention::default()) };
        let mut boot = Boot::open(machine(last), None, &View { records: &records, live: &live }, &moment);
        boot.image = Some(Pinned { reference: "web:v".parse().unwrap(), digest: digest(seed) });
        (boot.token, boot.state) = (Some(Token("00".into())), state);
        boot
    };
    let mut unseen = boot(3, 5, 50, State::Firmware);
    unseen.token = None;
    let boots = [
        boot(1, 1, 10, State::Up),
        boot(1, 2, 20, State::Up),
        boot(2, 1, 5, State::Superseded),
        boot(2, 3, 8, State::Failed),
        boot(2, 4, 9, State::Local),
        unseen,
    ];
    let ran: Vec<(u8, u64)> =
        ran(&boots, Timestamp(99)).into_iter().map(|(digest, until)| (digest.0[0], until.0)).collect();
    assert_eq!(ran, [(1, 20), (2, 99), (4, 99)]);
}
