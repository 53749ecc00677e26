//! Commands about images and tags.

use super::{Refusal, find_image};
use crate::{
    Change, Decision, MacAddress, Moment, Records, Timestamp, View,
    assignment::Assignment,
    boot::{Boot, State},
    image::{Digest, Image, ImageName, ImageReference, Tag, TagMove},
    settings::UnknownPolicy,
};

/// A boot that has been silent this long holds no image any more: a machine was switched off, or runs somebody
/// else's system, which never says that it is up.
const HOLD_MS: u64 = 60 * 60 * 1000;

/// Moves of a tag that are kept.
const MAX_HISTORY: usize = 100;

/// Adds an imported image and points a tag at it.
#[derive(Debug, Clone)]
pub struct AddImage {
    /// The image; its time of import is the rule's to say.
    pub image: Image,
    /// The tag.
    pub name: ImageName,
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

/// Carries out [`AddImage`].
pub fn add_image(request: &AddImage, view: &View<'_>, at: &Moment) -> Decision<Added> {
    let earlier = view.records.image(&request.image.digest);
    let known = earlier.is_some();
    let image = earlier.unwrap_or_else(|| Image { imported: at.now, ..request.image.clone() });
    let by = format!("import {}", request.image.source);
    let (tag, moved) = moved(&request.name, image.digest, by, view.records, at.now);
    let mut changes = Vec::new();
    if !known {
        changes.push(Change::PutImage(image.clone()));
    }
    if moved {
        changes.push(Change::PutTag(tag.clone()));
    }
    Decision { changes, ..Decision::just(Added { image, tag, known }) }
}

/// Points a tag at an image that exists.
#[derive(Debug, Clone)]
pub struct MoveTag {
    /// The tag.
    pub name: ImageName,
    /// The image, by another tag or by digest.
    pub to: ImageReference,
}

/// Carries out [`MoveTag`].
pub fn move_tag(request: &MoveTag, view: &View<'_>, at: &Moment) -> Decision<Result<Tag, Refusal>> {
    let digest = match find_image(&request.to, view.records) {
        Ok(digest) => digest,
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    let (tag, moved) = moved(&request.name, digest, format!("tag {}", request.to), view.records, at.now);
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
}

/// Carries out [`RollBack`].
pub fn roll_back(request: &RollBack, view: &View<'_>, at: &Moment) -> Decision<Result<Tag, Refusal>> {
    let name = &request.name;
    let earlier = match find_image(&ImageReference::Name(name.clone()), view.records) {
        Ok(_) => view.records.tag(name).and_then(|tag| earlier(&tag, view.records)),
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    let Some(digest) = earlier else { return Decision::just(Err(Refusal::NothingEarlier(name.clone()))) };
    let (tag, _) = moved(name, digest, ROLLBACK.to_owned(), view.records, at.now);
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

/// A tag that points at `digest`, and whether it did not before.
fn moved(name: &ImageName, digest: Digest, by: String, records: &dyn Records, now: Timestamp) -> (Tag, bool) {
    let mut tag = records.tag(name).unwrap_or_else(|| Tag { name: name.clone(), digest, history: Vec::new() });
    if tag.digest == digest && !tag.history.is_empty() {
        return (tag, false);
    }
    tag.digest = digest;
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
    let removed = match removal(&request.reference, view, at) {
        Ok(removed) => removed,
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    let tags = removed.tags.iter().cloned().map(Change::RemoveTag);
    let changes = tags.chain(removed.image.map(Change::RemoveImage)).collect();
    Decision { changes, ..Decision::just(Ok(removed)) }
}

fn removal(reference: &ImageReference, view: &View<'_>, at: &Moment) -> Result<Removed, Refusal> {
    let digest = find_image(reference, view.records)?;
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
fn booting(digest: &Digest, view: &View<'_>, now: Timestamp) -> Vec<MacAddress> {
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
pub(super) mod tests;
