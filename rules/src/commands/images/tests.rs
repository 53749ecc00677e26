//! Commands about images, on records in memory.

use super::*;
use crate::{
    Live, Machine, Volatile,
    boot::Pinned,
    facts::Architecture,
    image::{BlobRef, Content, FileSystem, ImageConfig},
    memory::Memory,
    settings::{Settings, Subnet},
};
use std::sync::Arc;

pub fn settings() -> Settings {
    let router = Some("10.77.0.1".parse().unwrap());
    let subnet = Subnet { router, ..Subnet::new("10.77.0.0/24".parse().unwrap()) };
    Settings { subnets: vec![subnet], ..Settings::default() }
}

fn blob(seed: u8, part: u8) -> BlobRef {
    BlobRef { digest: Digest([seed, part].repeat(16).try_into().unwrap()), size: 100 }
}

fn made(seed: u8, content: Content) -> Image {
    Image {
        digest: Digest([seed; 32]),
        manifest_size: 10,
        config_blob: blob(seed, 200),
        config: ImageConfig {
            architecture: Architecture::X86_64,
            cmdline: String::new(),
            content,
            signed: None,
            derived: None,
            entry: None,
            labels: Default::default(),
            os: None,
            tools: Default::default(),
        },
        imported: Timestamp(0),
        source: "dir:/srv/web".into(),
        verdict: None,
        adopted: false,
    }
}

/// An image with a root.
pub fn image(seed: u8) -> Image {
    let release = "6.1.0-1-amd64".to_owned();
    let (kernel, modules, root) = (blob(seed, 201), blob(seed, 202), blob(seed, 203));
    made(
        seed,
        Content::Root {
            kernel,
            modules,
            root,
            filesystem: FileSystem::Squashfs,
            verity: None,
            kernel_release: release,
        },
    )
}

/// An image that only supplies a kernel.
pub fn kernel_image(seed: u8) -> Image {
    let (kernel, modules) = (blob(seed, 201), blob(seed, 202));
    made(seed, Content::Kernel { kernel, modules, kernel_release: "6.1.0-1-amd64".into(), layer: None })
}

fn at(ms: u64) -> Moment {
    Moment { now: Timestamp(ms), entropy: [7; 32], settings: Arc::new(settings()) }
}

fn mac(last: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, last])
}

fn add(records: &mut Memory, name: &str, seed: u8, ms: u64) -> Added {
    let request = AddImages {
        images: vec![image(seed)],
        name: name.parse().unwrap(),
        source: Vec::new(),
        signatures: Vec::new(),
    };
    let decision = add_images(&request, &View { records, live: &Live::default() }, &at(ms));
    decision.changes.into_iter().for_each(|change| records.apply(change));
    decision.answer.into_iter().next().unwrap()
}

fn remove(records: &mut Memory, live: &Live, reference: &str, at: &Moment) -> Result<Removed, Refusal> {
    let request = RemoveImage { reference: reference.parse().unwrap(), expected: None };
    let decision = remove_image(&request, &View { records, live }, at);
    decision.changes.into_iter().for_each(|change| records.apply(change));
    decision.answer
}

#[test]
fn an_import_moves_the_tag_and_keeps_its_history() {
    let mut records = Memory::default();
    assert!(!add(&mut records, "web:latest", 1, 10).known);
    let again = add(&mut records, "web:latest", 1, 20);
    assert!(again.known);
    assert_eq!(again.image.imported, Timestamp(10), "an image is as old as its first import");
    assert_eq!(again.tag.history.len(), 1, "a tag that stays where it is has not moved");
    let moved = add(&mut records, "web:latest", 2, 30);
    let history: Vec<_> = moved.tag.history.iter().map(|entry| (entry.at.0, entry.digest)).collect();
    assert_eq!(history, [(10, Digest([1; 32])), (30, Digest([2; 32]))]);
    assert_eq!(moved.tag.history[1].by, "import dir:/srv/web");
}

#[test]
fn a_tag_moves_to_any_image_there_is() {
    let mut records = Memory::default();
    add(&mut records, "web:v1", 1, 10);
    let request = MoveTag { name: "web:stable".parse().unwrap(), to: "web:v1".parse().unwrap(), expected: None };
    let view = View { records: &records, live: &Live::default() };
    assert_eq!(move_tag(&request, &view, &at(20)).answer.unwrap().digest, Digest([1; 32]));
    let request = MoveTag { name: "web:stable".parse().unwrap(), to: "web:v9".parse().unwrap(), expected: None };
    assert!(matches!(move_tag(&request, &view, &at(20)).answer, Err(Refusal::UnknownImage { .. })));
}

#[test]
fn removing_a_tag_leaves_an_image_that_has_another() {
    let mut records = Memory::default();
    add(&mut records, "web:v1", 1, 10);
    add(&mut records, "web:stable", 1, 20);
    let live = Live::default();
    let removed = remove(&mut records, &live, "web:v1", &at(30)).unwrap();
    assert_eq!(removed, Removed { tags: vec!["web:v1".parse().unwrap()], image: None });
    let removed = remove(&mut records, &live, "web:stable", &at(30)).unwrap();
    assert_eq!(removed.image, Some(Digest([1; 32])));
    assert_eq!((records.tags(), records.image(&Digest([1; 32]))), (Vec::new(), None));
}

#[test]
fn what_machines_are_assigned_or_booting_is_not_removed() {
    let mut records = Memory::default();
    add(&mut records, "web:v1", 1, 10);
    let machine = Machine { assignment: Some("web:v1".parse().unwrap()), ..Machine::new(mac(1), Timestamp(0)) };
    records.apply(Change::PutMachine(machine.clone()));
    let mut live = Live::default();
    for reference in ["web:v1", &format!("sha256:{}", "01".repeat(32))] {
        let refusal = remove(&mut records, &live, reference, &at(20)).unwrap_err();
        assert_eq!(refusal.to_string(), format!("{reference} is assigned to 52:54:00:00:00:01"));
    }
    records.apply(Change::PutMachine(Machine { assignment: None, ..machine }));
    let mut boot = Boot::open(mac(1), None, &View { records: &records, live: &live }, &at(100));
    boot.image = Some(Pinned { reference: "web:v1".parse().unwrap(), digest: Digest([1; 32]) });
    live.apply(Volatile::PutBoot(boot));
    assert!(matches!(remove(&mut records, &live, "web:v1", &at(200)), Err(Refusal::Booting { .. })));
    assert!(remove(&mut records, &live, "web:v1", &at(100 + HOLD_MS)).is_ok(), "a machine that was switched off");
}

#[test]
fn the_image_of_the_policy_is_not_removed() {
    let mut records = Memory::default();
    add(&mut records, "web:v1", 1, 10);
    let policy = Settings { unknown: "web:v1".parse().unwrap(), ..settings() };
    let at = Moment { settings: Arc::new(policy), ..at(20) };
    assert!(matches!(remove(&mut records, &Live::default(), "web:v1", &at), Err(Refusal::NamedByPolicy(_))));
}

#[test]
fn a_rollback_goes_to_the_image_before_and_repeated_further_back() {
    let mut records = Memory::default();
    for (seed, ms) in [(1, 10), (2, 20), (3, 30)] {
        add(&mut records, "web:v", seed, ms);
    }
    let name: ImageName = "web:v".parse().unwrap();
    let roll_back = |records: &mut Memory, name: &ImageName| {
        let request = RollBack { name: name.clone(), expected: None };
        let decision = roll_back(&request, &View { records, live: &Live::default() }, &at(100));
        decision.changes.into_iter().for_each(|change| records.apply(change));
        decision.answer.map(|tag| tag.digest)
    };
    assert_eq!(roll_back(&mut records, &name).unwrap(), Digest([2; 32]));
    assert_eq!(roll_back(&mut records, &name).unwrap(), Digest([1; 32]), "not forward again");
    let history = records.tag(&name).unwrap().history;
    assert_eq!(history.iter().map(|moved| moved.digest.0[0]).collect::<Vec<_>>(), [1, 2, 3, 2, 1]);
    assert_eq!(history.last().unwrap().by, "rollback");
    assert_eq!(roll_back(&mut records, &name), Err(Refusal::NothingEarlier(name.clone())));
    add(&mut records, "web:v", 4, 200);
    assert_eq!(roll_back(&mut records, &name).unwrap(), Digest([3; 32]), "what was rolled out before it");
    let unknown: ImageName = "web:w".parse().unwrap();
    assert!(matches!(roll_back(&mut records, &unknown), Err(Refusal::UnknownImage { near, .. }) if near == [name]));
}

#[test]
fn a_rollback_passes_over_images_that_are_gone() {
    let mut records = Memory::default();
    for (seed, ms) in [(1, 10), (2, 20), (3, 30)] {
        add(&mut records, "web:v", seed, ms);
    }
    remove(&mut records, &Live::default(), &Digest([2; 32]).to_string(), &at(40)).unwrap();
    let request = RollBack { name: "web:v".parse().unwrap(), expected: None };
    let decision = roll_back(&request, &View { records: &records, live: &Live::default() }, &at(100));
    assert_eq!(decision.answer.unwrap().digest, Digest([1; 32]));
}
