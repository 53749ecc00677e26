//! Pushes and what becomes of them, on records in memory.

use super::super::images::{AddImages, RollBack, add_images, roll_back, tests::image};
use super::*;
use crate::{
    Live, MacAddress, Machine, Records, Timestamp,
    assignment::Assignment,
    facts::Architecture,
    image::{BlobRef, Derivation},
    memory::Memory,
    registry::{orphans, referrers},
    settings::Settings,
    signature::{KeyId, SignaturePolicy},
};
use std::sync::Arc;

fn at(ms: u64) -> Moment {
    Moment { now: Timestamp(ms), entropy: [7; 32], settings: Arc::new(Settings::default()) }
}

fn digest(seed: u8) -> Digest {
    Digest([seed; 32])
}

fn artifact(seed: u8, parts: &[u8], subject: Option<u8>) -> Artifact {
    Artifact {
        digest: digest(seed),
        size: 10,
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        kind: "x".into(),
        annotations: Default::default(),
        parts: parts.iter().map(|&part| BlobRef { digest: digest(part), size: 1 }).collect(),
        subject: subject.map(digest),
        repositories: BTreeSet::from(["web".to_owned()]),
        pushed: Timestamp(0),
    }
}

/// An image that was made of the artifact `source`.
fn derived(seed: u8, source: u8) -> Image {
    let mut image = image(seed);
    image.config.derived = Some(Derivation {
        source: BlobRef { digest: digest(source), size: 10 },
        media_type: "m".into(),
        kernel: None,
        created: None,
    });
    image
}

struct World(Memory);

impl World {
    fn run<A>(&mut self, ms: u64, decide: impl FnOnce(&View<'_>, &Moment) -> Decision<A>) -> A {
        let live = Live::default();
        let decision = decide(&View { records: &self.0, live: &live }, &at(ms));
        decision.changes.into_iter().for_each(|change| self.0.apply(change));
        decision.answer
    }

    fn push(&mut self, ms: u64, artifact: Artifact, name: &str, is_image: bool) -> bool {
        let name = (!name.is_empty()).then(|| name.parse().unwrap());
        let request = TakePush { artifact, name, is_image, by: "ci".into() };
        self.run(ms, |view, at| take_push(&request, view, at))
    }

    fn settle(&mut self, ms: u64, name: &str, source: u8, made: Result<Vec<Image>, (String, String)>) -> bool {
        let request = SettlePush { name: name.parse().unwrap(), digest: digest(source), made };
        self.run(ms, |view, at| settle_push(&request, view, at)).is_some()
    }

    fn delete(&mut self, reference: &str) -> Result<Option<Removed>, Refusal> {
        let request = Delete { repository: "web".into(), reference: reference.parse().unwrap() };
        self.run(9, |view, at| delete(&request, view, at))
    }

    fn outcome(&self, name: &str) -> Outcome {
        self.0.push(&name.parse().unwrap()).unwrap().outcome
    }

    fn tag(&self, name: &str) -> Option<Digest> {
        self.0.tag(&name.parse().unwrap()).map(|tag| tag.digest)
    }
}

#[test]
fn a_tag_stands_for_the_image_before_until_the_next_one_is_made() {
    let mut world = World(Memory::default());
    assert!(world.push(1, artifact(1, &[11], None), "web:v", true));
    assert_eq!((world.outcome("web:v"), world.tag("web:v")), (Outcome::Waiting, None));
    assert!(world.settle(2, "web:v", 1, Ok(vec![derived(101, 1)])));
    assert_eq!(world.tag("web:v"), Some(digest(101)));
    assert!(!world.push(3, artifact(1, &[11], None), "web:v", true), "it is there already");

    assert!(world.push(4, artifact(2, &[12], None), "web:v", true));
    assert_eq!(world.tag("web:v"), Some(digest(101)));
    assert!(world.settle(5, "web:v", 2, Err(("no kernel".into(), "add one".into()))));
    assert_eq!(world.tag("web:v"), Some(digest(101)), "a push that came to nothing moves nothing");
    assert!(matches!(world.outcome("web:v"), Outcome::Failed { reason, .. } if reason == "no kernel"));
    assert!(world.push(6, artifact(2, &[12], None), "web:v", true), "pushed again is tried again");

    assert!(world.push(7, artifact(3, &[13], None), "web:v", true));
    assert!(!world.settle(8, "web:v", 2, Ok(vec![derived(102, 2)])), "what was pushed since counts");
    assert!(world.settle(9, "web:v", 3, Ok(vec![derived(103, 3)])));
    let back =
        world.run(10, |view, at| roll_back(&RollBack { name: "web:v".parse().unwrap(), expected: None }, view, at));
    assert_eq!(back.unwrap().digest, digest(101));
    assert!(world.push(11, artifact(3, &[13], None), "web:v", true), "pushing it again takes it up again");
}

#[test]
fn machines_of_another_architecture_boot_their_own_image() {
    let mut world = World(Memory::default());
    let mut arm = derived(102, 1);
    arm.config.architecture = Architecture::Arm64;
    world.push(1, artifact(1, &[], None), "web:v", true);
    world.settle(2, "web:v", 1, Ok(vec![derived(101, 1), arm]));
    let tag = world.0.tag(&"web:v".parse().unwrap()).unwrap();
    assert_eq!(tag.others[&Architecture::Arm64], digest(102));
    let reference = "web:v".parse().unwrap();
    for (architecture, expected) in [(None, 101), (Some(Architecture::X86_64), 101), (Some(Architecture::Arm64), 102)] {
        assert_eq!(crate::assignment::lookup_for(&reference, architecture, &world.0), Some(digest(expected)));
    }
    world.push(3, artifact(2, &[], None), "web:v", true);
    world.settle(4, "web:v", 2, Ok(vec![derived(103, 2)]));
    let back = world
        .run(5, |view, at| roll_back(&RollBack { name: "web:v".parse().unwrap(), expected: None }, view, at))
        .unwrap();
    assert_eq!((back.digest, back.others.get(&Architecture::Arm64)), (digest(101), None), "the push before is gone");
}

#[test]
fn what_machines_boot_is_not_deleted_through_the_registry() {
    let mut world = World(Memory::default());
    world.push(1, artifact(1, &[11], None), "web:v", true);
    world.settle(2, "web:v", 1, Ok(vec![derived(101, 1)]));
    let mut machine = Machine::new(MacAddress([2, 0, 0, 0, 0, 1]), Timestamp(0));
    machine.assignment = Some(Assignment::Image("web:v".parse().unwrap()));
    world.0.apply(Change::PutMachine(machine.clone()));
    let before = world.0.clone();
    for reference in ["web:v".to_owned(), digest(1).to_string(), digest(101).to_string()] {
        let refusal = world.delete(&reference);
        assert!(matches!(refusal, Err(Refusal::Assigned { .. })), "{reference}: {refusal:?}");
    }
    assert_eq!(world.0.pushes(), before.pushes());
    assert_eq!(world.delete("web:none").unwrap(), None);
    assert_eq!(world.delete(&digest(77).to_string()).unwrap(), None);
    world.0.apply(Change::RemoveMachine(machine.id));
    assert!(world.delete(&digest(1).to_string()).unwrap().is_some());
    assert_eq!((world.0.artifacts().len(), world.0.pushes().len(), world.0.images().len()), (0, 0, 0));
}

#[test]
fn what_was_kept_for_an_image_goes_with_it() {
    let mut world = World(Memory::default());
    world.push(1, artifact(1, &[11], None), "web:v", true);
    world.push(1, artifact(2, &[12], Some(1)), "", false);
    let sig = format!("web:sha256-{}.sig", digest(1).hex());
    assert!(!world.push(1, artifact(3, &[13], None), &sig, false));
    assert_eq!(world.outcome(&sig), Outcome::Kept);
    world.push(1, artifact(4, &[14], None), "web:other", true);
    world.settle(2, "web:v", 1, Ok(vec![derived(101, 1)]));
    assert_eq!(referrers(&digest(1), "web", &world.0).len(), 1);
    assert_eq!(referrers(&digest(1), "elsewhere", &world.0).len(), 0);
    let all = |world: &World| orphans(&world.0.artifacts(), &world.0.pushes(), &world.0.images());
    assert!(all(&world).is_empty());
    let request = RemoveImage { reference: "web:v".parse().unwrap(), expected: None };
    world.run(3, |view, at| remove_image(&request, view, at)).unwrap();
    let left: Vec<Digest> = world.0.artifacts().iter().map(|artifact| artifact.digest).collect();
    assert_eq!(left, [digest(4)], "its source, its signature and what is about it are gone");
    assert_eq!(world.0.pushes().len(), 1);
    world.settle(4, "web:other", 4, Err(("x".into(), "y".into())));
    let request = RemoveImage { reference: "web:other".parse().unwrap(), expected: None };
    world.run(5, |view, at| remove_image(&request, view, at)).unwrap();
    assert!(world.0.artifacts().is_empty() && world.0.pushes().is_empty(), "a push that came to nothing goes too");
}

#[test]
fn an_import_brings_what_a_push_would_have() {
    let mut world = World(Memory::default());
    let mut index = artifact(9, &[1], None);
    index.repositories = BTreeSet::from(["web".to_owned()]);
    let request = AddImages {
        images: vec![derived(101, 1)],
        name: "web:v".parse().unwrap(),
        source: vec![index, artifact(1, &[11], None)],
        signatures: Vec::new(),
    };
    world.run(1, |view, at| add_images(&request, view, at));
    assert_eq!(world.outcome("web:v"), Outcome::Image { images: vec![digest(101)] });
    assert!(orphans(&world.0.artifacts(), &world.0.pushes(), &world.0.images()).is_empty());
    let request = AddImages {
        images: vec![image(102)],
        name: "web:v".parse().unwrap(),
        source: Vec::new(),
        signatures: Vec::new(),
    };
    world.run(2, |view, at| add_images(&request, view, at));
    assert_eq!(world.0.push(&"web:v".parse().unwrap()), None, "the tag is that image now");
}

fn verdict(is_signed: bool) -> Verdict {
    let key = KeyId { name: "ci".into(), fingerprint: digest(99) };
    if is_signed { Verdict::Signed { key, identity: "web".into() } } else { Verdict::Unsigned }
}

fn judged(mut image: Image, is_signed: bool) -> Image {
    image.verdict = Some(verdict(is_signed));
    image
}

#[test]
fn what_must_be_signed_takes_no_tag_from_what_boots() {
    let mut world = World(Memory::default());
    let require = |ms| {
        let settings = Settings { signatures: SignaturePolicy::Require, ..Settings::default() };
        Moment { settings: Arc::new(settings), ..at(ms) }
    };
    let settle = |world: &mut World, source: u8, image: Image| {
        let request = SettlePush { name: "web:v".parse().unwrap(), digest: digest(source), made: Ok(vec![image]) };
        world.run(0, |view, _| settle_push(&request, view, &require(5)));
    };
    let set = |world: &mut World, image: u8, is_signed: bool| {
        let request = SetVerdicts { verdicts: vec![(digest(image), verdict(is_signed))] };
        world.run(0, |view, _| set_verdicts(&request, view, &require(9)))
    };
    world.push(1, artifact(1, &[], None), "web:v", true);
    settle(&mut world, 1, judged(derived(101, 1), false));
    assert_eq!(world.tag("web:v"), Some(digest(101)), "a name that is new shows what it is, and why it does not boot");
    assert_eq!(set(&mut world, 101, true), [], "it has its tag");
    world.push(2, artifact(2, &[], None), "web:v", true);
    settle(&mut world, 2, judged(derived(102, 2), false));
    assert_eq!(world.outcome("web:v"), Outcome::Untrusted { images: vec![digest(102)] });
    assert_eq!(world.tag("web:v"), Some(digest(101)), "what boots stays until the next one is signed");
    assert_eq!(set(&mut world, 102, false), []);
    assert_eq!(set(&mut world, 102, true), ["web:v".parse().unwrap()]);
    assert_eq!(world.tag("web:v"), Some(digest(102)));
    assert_eq!(world.outcome("web:v"), Outcome::Image { images: vec![digest(102)] });
    assert_eq!(world.0.image(&digest(102)).unwrap().verdict, Some(verdict(true)));
}
