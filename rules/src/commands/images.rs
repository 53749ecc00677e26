//! Commands about images and tags.

use super::{Refusal, find_image, machines::Expected, precondition, registry::merged};
use crate::{
    Change, Decision, MacAddress, Moment, Records, Timestamp, View,
    assignment::Assignment,
    boot::{Boot, State},
    facts::Architecture,
    image::{Digest, Image, ImageName, ImageReference, Tag, TagMove},
    registry::{Artifact, Outcome, Push, orphans},
    settings::UnknownPolicy,
    signature::Judgement,
};
use std::collections::{BTreeMap, BTreeSet};

/// A boot that has been silent this long holds no image any more: a machine was switched off, or runs somebody
/// else's system, which never says that it is up.
const HOLD_MS: u64 = 60 * 60 * 1000;

/// Moves of a tag that are kept.
const MAX_HISTORY: usize = 100;

/// Adds imported images, one an architecture, and points a tag at them.
#[derive(Debug, Clone)]
pub struct AddImages {
    /// The images, the one that the tag stands for first; their time of import is the rule's to say.
    pub images: Vec<Image>,
    /// The tag.
    pub name: ImageName,
    /// The container image they were made of, then the manifests in it: what a push would have brought.
    pub source: Vec<Artifact>,
    /// Signatures that came along.
    pub signatures: Vec<Signature>,
}

/// A signature's manifest that came with an image, as a push would have brought it.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The tag that cosign makes of the image's digest; none where the manifest itself says what it is about.
    pub name: Option<ImageName>,
    /// Its manifest.
    pub artifact: Artifact,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// As it is on record.
    pub image: Image,
    /// The tag as it is now.
    pub tag: Tag,
    /// Whether the same image was here before.
    pub known: bool,
}

/// Carries out [`AddImages`].
pub fn add_images(request: &AddImages, view: &View<'_>, at: &Moment) -> Decision<Vec<Added>> {
    let by = request.images.first().map_or_else(String::new, |image| format!("import {}", image.source));
    let (added, mut changes) = add(&request.images, &request.name, by.clone(), view, at);
    changes.extend(request.source.iter().filter_map(|artifact| merged(artifact, view, at)).map(Change::PutArtifact));
    for Signature { name, artifact } in &request.signatures {
        changes.extend(merged(artifact, view, at).map(Change::PutArtifact));
        let kept = |name: &ImageName| Push {
            name: name.clone(),
            digest: artifact.digest,
            at: at.now,
            by: by.clone(),
            outcome: Outcome::Kept,
        };
        changes.extend(name.as_ref().map(|name| Change::PutPush(kept(name))));
    }
    let earlier = view.records.push(&request.name);
    match request.source.first() {
        Some(pushed) => {
            let images = request.images.iter().map(|image| image.digest).collect();
            let (name, digest) = (request.name.clone(), pushed.digest);
            let outcome = outcome(images, &added);
            changes.push(Change::PutPush(Push { name, digest, at: at.now, by, outcome }));
        }
        // The registry's tag is the image itself from now on.
        None => changes.extend(earlier.map(|push| Change::RemovePush(push.name))),
    }
    Decision { changes, ..Decision::just(added) }
}

/// Puts images on record and moves the tag.
pub(super) fn add(
    images: &[Image],
    name: &ImageName,
    by: String,
    view: &View<'_>,
    at: &Moment,
) -> (Vec<Added>, Vec<Change>) {
    let Some(first) = images.first() else { return (Vec::new(), Vec::new()) };
    let others = images[1..].iter().map(|image| (image.config.architecture, image.digest)).collect();
    // A verdict may be newer than the record.
    let (tag, has_moved) = match (may_move(name, first, view, at), view.records.tag(name)) {
        (false, Some(tag)) => (tag, false),
        _ => moved(name, first.digest, others, by, view.records, at.now),
    };
    let (mut added, mut changes) = (Vec::new(), Vec::new());
    for image in images {
        let earlier = view.records.image(&image.digest);
        let known = earlier.is_some();
        let image = match &earlier {
            // What was made here once is known to be what it says.
            Some(earlier) => {
                Image { verdict: image.verdict.clone(), adopted: earlier.adopted && image.adopted, ..earlier.clone() }
            }
            None => Image { imported: at.now, ..image.clone() },
        };
        if earlier.as_ref() != Some(&image) {
            changes.push(Change::PutImage(image.clone()));
        }
        added.push(Added { image, tag: tag.clone(), known });
    }
    if has_moved {
        changes.push(Change::PutTag(tag));
    }
    (added, changes)
}

/// What became of a source whose images are on record.
pub(super) fn outcome(images: Vec<Digest>, added: &[Added]) -> Outcome {
    let is_tagged = added.first().is_none_or(|first| first.tag.digest == first.image.digest);
    if is_tagged { Outcome::Image { images } } else { Outcome::Untrusted { images } }
}

/// Whether a tag may go from the image it has to another: what does not boot must not take the place of what does.
fn may_move(name: &ImageName, to: &Image, view: &View<'_>, at: &Moment) -> bool {
    let refused = |image: &Image| matches!(image.judged(at.settings.signatures), Judgement::Refused(_));
    let now = view.records.tag(name).and_then(|tag| view.records.image(&tag.digest));
    !refused(to) || now.is_none_or(|now| refused(&now))
}

/// Points a tag at an image that exists.
#[derive(Debug, Clone)]
pub struct MoveTag {
    /// The tag.
    pub name: ImageName,
    /// The image, by another tag or by digest.
    pub to: ImageReference,
    /// The tag looked at.
    pub expected: Option<Expected>,
}

/// The version of a tag: changes whenever it does.
pub fn version(tag: &Tag) -> String {
    super::version(tag)
}

/// The version of an image: changes when its record does, and when tags come to point at it or point elsewhere.
pub fn image_version(image: &Image, records: &dyn Records) -> String {
    let tags = records.tags().into_iter().filter(|tag| tag.digest == image.digest).map(|tag| tag.name);
    super::version(&(image, tags.collect::<BTreeSet<_>>()))
}

fn check_tag(name: &ImageName, expected: &Option<Expected>, records: &dyn Records) -> Result<(), Refusal> {
    let found = records.tag(name).as_ref().map(version);
    precondition::check(expected, found, format_args!("tag {name}"), |what| Refusal::Stale { what })
}

/// Carries out [`MoveTag`].
pub fn move_tag(request: &MoveTag, view: &View<'_>, at: &Moment) -> Decision<Result<Tag, Refusal>> {
    let checked = check_tag(&request.name, &request.expected, view.records);
    let digest = match checked.and_then(|()| find_image(&request.to, view.records)) {
        Ok(digest) => digest,
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    // Another tag brings its images for other architectures along.
    let others = match &request.to {
        ImageReference::Name(name) => view.records.tag(name).map(|tag| tag.others).unwrap_or_default(),
        ImageReference::Digest(_) => BTreeMap::new(),
    };
    let (tag, moved) = moved(&request.name, digest, others, format!("tag {}", request.to), view.records, at.now);
    let changes = if moved { vec![Change::PutTag(tag.clone())] } else { Vec::new() };
    Decision { changes, ..Decision::just(Ok(tag)) }
}

/// How a tag's history tells of a return.
const ROLLBACK: &str = "rollback";

/// Points a tag at what it pointed at before. Repeated, it goes further back.
#[derive(Debug, Clone)]
pub struct RollBack {
    /// The tag.
    pub name: ImageName,
    /// The tag looked at.
    pub expected: Option<Expected>,
}

/// Carries out [`RollBack`].
pub fn roll_back(request: &RollBack, view: &View<'_>, at: &Moment) -> Decision<Result<Tag, Refusal>> {
    let name = &request.name;
    let found = find_image(&ImageReference::Name(name.clone()), view.records);
    let earlier = match found.and_then(|_| check_tag(name, &request.expected, view.records)) {
        Ok(()) => view.records.tag(name).and_then(|tag| earlier(&tag, view.records)),
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    let Some(digest) = earlier else { return Decision::just(Err(Refusal::NothingEarlier(name.clone()))) };
    let others = siblings(&digest, view.records);
    let (tag, _) = moved(name, digest, others, ROLLBACK.to_owned(), view.records, at.now);
    Decision { changes: vec![Change::PutTag(tag.clone())], ..Decision::just(Ok(tag)) }
}

/// What a tag pointed at before today's image came, and is still here. Returns brought nothing new: what lies before a
/// return is what lay before the image when it first came.
fn earlier(tag: &Tag, records: &dyn Records) -> Option<Digest> {
    let came = |moved: &&TagMove| moved.by != ROLLBACK;
    let brought = tag.history.iter().rposition(|moved| moved.digest == tag.digest && came(&moved))?;
    let before = tag.history[..brought].iter().rev().filter(came).map(|moved| moved.digest);
    before.into_iter().find(|digest| *digest != tag.digest && records.image(digest).is_some())
}

/// The images for other architectures that were made of the same source.
fn siblings(digest: &Digest, records: &dyn Records) -> BTreeMap<Architecture, Digest> {
    let push = |push: &Push| match &push.outcome {
        Outcome::Image { images } if images.contains(digest) => Some(images.clone()),
        _ => None,
    };
    let images = records.pushes().iter().find_map(push).unwrap_or_default();
    let others = images.iter().filter(|other| *other != digest).filter_map(|other| records.image(other));
    others.map(|image| (image.config.architecture, image.digest)).collect()
}

/// A tag that points at `digest`, and whether it did not before.
pub(super) fn moved(
    name: &ImageName,
    digest: Digest,
    others: BTreeMap<Architecture, Digest>,
    by: String,
    records: &dyn Records,
    now: Timestamp,
) -> (Tag, bool) {
    let none = || Tag { name: name.clone(), digest, others: BTreeMap::new(), history: Vec::new() };
    let mut tag = records.tag(name).unwrap_or_else(none);
    if tag.digest == digest && tag.others == others && !tag.history.is_empty() {
        return (tag, false);
    }
    (tag.digest, tag.others) = (digest, others);
    tag.history.push(TagMove { at: now, digest, by });
    let surplus = tag.history.len().saturating_sub(MAX_HISTORY);
    tag.history.drain(..surplus);
    (tag, true)
}

/// Removes an image with all its tags (by digest), or one tag, and the image with it when that was its last.
#[derive(Debug, Clone)]
pub struct RemoveImage {
    /// Which.
    pub reference: ImageReference,
    /// The image looked at.
    pub expected: Option<Expected>,
}

/// What a removal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The tags that are gone.
    pub tags: Vec<ImageName>,
    /// The image, if it is gone as well.
    pub image: Option<Digest>,
}

/// Carries out [`RemoveImage`].
pub fn remove_image(request: &RemoveImage, view: &View<'_>, at: &Moment) -> Decision<Result<Removed, Refusal>> {
    let checked = check_image(request, view.records);
    let removed = match checked.and_then(|()| removal(&request.reference, view, at)) {
        Ok(removed) => removed,
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    let changes = removal_changes(&removed, view.records);
    Decision { changes, ..Decision::just(Ok(removed)) }
}

fn check_image(request: &RemoveImage, records: &dyn Records) -> Result<(), Refusal> {
    let RemoveImage { reference, expected } = request;
    let image = crate::assignment::lookup(reference, records).and_then(|digest| records.image(&digest));
    // What is not there is said to be so.
    let Some((image, _)) = image.zip(expected.as_ref()) else { return Ok(()) };
    let found = Some(image_version(&image, records));
    precondition::check(expected, found, format_args!("image {reference}"), |what| Refusal::Stale { what })
}

/// With the tags go what was pushed under them, and what was only kept for what goes.
fn removal_changes(removed: &Removed, records: &dyn Records) -> Vec<Change> {
    let (artifacts, mut pushes, mut images) = (records.artifacts(), records.pushes(), records.images());
    let before = orphans(&artifacts, &pushes, &images);
    let gone: Vec<ImageName> =
        pushes.extract_if(.., |push| removed.tags.contains(&push.name)).map(|push| push.name).collect();
    images.retain(|image| Some(image.digest) != removed.image);
    let orphaned = orphans(&artifacts, &pushes, &images).into_iter().filter(|digest| !before.contains(digest));
    let orphaned: BTreeSet<Digest> = orphaned.collect();
    // Tags of signatures, which are kept for what they sign.
    let of_orphans = pushes.iter().filter(|push| orphaned.contains(&push.digest)).map(|push| push.name.clone());
    let pushes: Vec<ImageName> = gone.into_iter().chain(of_orphans).collect();
    let tags = removed.tags.iter().cloned().map(Change::RemoveTag);
    let changes = tags.chain(removed.image.map(Change::RemoveImage));
    let changes = changes.chain(pushes.into_iter().map(Change::RemovePush));
    changes.chain(orphaned.into_iter().map(Change::RemoveArtifact)).collect()
}

fn removal(reference: &ImageReference, view: &View<'_>, at: &Moment) -> Result<Removed, Refusal> {
    let digest = match (find_image(reference, view.records), reference) {
        (Ok(digest), _) => digest,
        // A push that came to nothing has a name too.
        (Err(_), ImageReference::Name(name)) if view.records.push(name).is_some() => {
            return Ok(Removed { tags: vec![name.clone()], image: None });
        }
        (Err(refusal), _) => return Err(refusal),
    };
    let all_tags: Vec<ImageName> =
        view.records.tags().into_iter().filter(|tag| tag.digest == digest).map(|tag| tag.name).collect();
    let removed = match reference {
        ImageReference::Name(name) if all_tags.len() > 1 => Removed { tags: vec![name.clone()], image: None },
        _ => Removed { tags: all_tags, image: Some(digest) },
    };
    let names = |wanted: &ImageReference| match wanted {
        ImageReference::Name(name) => removed.tags.contains(name),
        ImageReference::Digest(digest) => removed.image == Some(*digest),
    };
    let reference = || reference.clone();
    let assigned: Vec<MacAddress> = view
        .records
        .machines()
        .iter()
        .filter(|machine| matches!(&machine.assignment, Some(Assignment::Image(image)) if names(image)))
        .map(|machine| machine.id)
        .collect();
    if !assigned.is_empty() {
        return Err(Refusal::Assigned { reference: reference(), machines: assigned });
    }
    let mut rules = view.records.rules();
    rules.retain(|rule| matches!(&rule.image, Assignment::Image(image) if names(image)));
    if !rules.is_empty() {
        let rules = rules.into_iter().map(|rule| rule.name).collect();
        return Err(Refusal::AssignedByRule { reference: reference(), rules });
    }
    if matches!(&at.settings.unknown, UnknownPolicy::Image(image) if names(image)) {
        return Err(Refusal::NamedByPolicy(reference()));
    }
    let booting = removed.image.map_or_else(Vec::new, |digest| booting(&digest, view, at.now));
    if !booting.is_empty() {
        return Err(Refusal::Booting { reference: reference(), machines: booting });
    }
    Ok(removed)
}

/// Machines whose open boot still has to fetch parts of an image.
pub(super) fn booting(digest: &Digest, view: &View<'_>, now: Timestamp) -> Vec<MacAddress> {
    let kernel = view.records.image(digest).map(|image| image.config.content.kernel().digest);
    let holds = |boot: &&Boot| {
        let last = boot.timeline.last().map_or(boot.opened, |last| last.until.unwrap_or(last.at));
        // A discovering machine pins no image, but its loader reads this one's parts while it is at its script.
        let discovers =
            boot.image.is_none() && boot.state == State::Script && boot.kernel.is_some() && boot.kernel == kernel;
        let pinned = boot.image.as_ref().is_some_and(|pinned| pinned.digest == *digest);
        boot.is_open() && (pinned || discovers) && now.since(last) < HOLD_MS
    };
    view.live.boots().filter(holds).map(|boot| boot.machine).collect()
}

#[cfg(test)]
pub(crate) mod tests;
