//! Commands of the registry: what is pushed, what becomes of it, what is deleted.

use super::{
    Refusal,
    images::{Added, RemoveImage, Removed, add, outcome, remove_image},
    machines::Expected,
    precondition,
};
use crate::{
    Change, Decision, Moment, View,
    image::{Digest, Image, ImageName, ImageReference},
    registry::{Artifact, Outcome, Push},
    signature::Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

/// Takes a manifest that was pushed.
#[derive(Debug, Clone)]
pub struct TakePush {
    /// It; when it came is the rule's to say.
    pub artifact: Artifact,
    /// The tag, where it was pushed under one.
    pub name: Option<ImageName>,
    /// Whether an image may be made of it.
    pub is_image: bool,
    /// Who pushed it.
    pub by: String,
}

/// Carries out [`TakePush`]. The answer says whether an image is to be made of it now.
pub fn take_push(request: &TakePush, view: &View<'_>, at: &Moment) -> Decision<bool> {
    let mut changes = Vec::new();
    changes.extend(merged(&request.artifact, view, at).map(Change::PutArtifact));
    let Some(name) = &request.name else { return Decision { changes, ..Decision::just(false) } };
    let digest = request.artifact.digest;
    let before = view.records.push(name).filter(|push| push.digest == digest);
    // Pushed again is tried again, unless it went well.
    let waits = match before.map(|push| push.outcome) {
        Some(Outcome::Image { images }) if images.iter().all(|image| view.records.image(image).is_some()) => {
            // The tag may have been moved by hand since.
            let is_there = view.records.tag(name).is_some_and(|tag| images.contains(&tag.digest));
            if is_there {
                return Decision { changes, ..Decision::just(false) };
            }
            true
        }
        _ => request.is_image,
    };
    let outcome = if waits { Outcome::Waiting } else { Outcome::Kept };
    let push = Push { name: name.clone(), digest, at: at.now, by: request.by.clone(), outcome };
    changes.push(Change::PutPush(push));
    Decision { changes, ..Decision::just(waits) }
}

/// The record with what it was before, if that changes anything.
pub(super) fn merged(artifact: &Artifact, view: &View<'_>, at: &Moment) -> Option<Artifact> {
    let Some(known) = view.records.artifact(&artifact.digest) else {
        return Some(Artifact { pushed: at.now, ..artifact.clone() });
    };
    let repositories: BTreeSet<String> = known.repositories.union(&artifact.repositories).cloned().collect();
    (repositories != known.repositories).then_some(Artifact { repositories, ..known })
}

/// Says what became of a push.
#[derive(Debug, Clone)]
pub struct SettlePush {
    /// The tag.
    pub name: ImageName,
    /// What was pushed under it then.
    pub digest: Digest,
    /// The images that were made, the one for the tag first; or why there is none, and what to do.
    pub made: Result<Vec<Image>, (String, String)>,
}

/// Carries out [`SettlePush`]. `None`: something else was pushed under the tag since, and that counts.
pub fn settle_push(request: &SettlePush, view: &View<'_>, at: &Moment) -> Decision<Option<Vec<Added>>> {
    let Some(push) = view.records.push(&request.name).filter(|push| push.digest == request.digest) else {
        return Decision::just(None);
    };
    match &request.made {
        Err((reason, advice)) => {
            let outcome = Outcome::Failed { reason: reason.clone(), advice: advice.clone() };
            let changes = vec![Change::PutPush(Push { outcome, ..push })];
            Decision { changes, ..Decision::just(Some(Vec::new())) }
        }
        Ok(images) => {
            let by = format!("push {}", push.by);
            let (added, mut changes) = add(images, &request.name, by, view, at);
            let outcome = outcome(images.iter().map(|image| image.digest).collect(), &added);
            changes.push(Change::PutPush(Push { outcome, ..push }));
            Decision { changes, ..Decision::just(Some(added)) }
        }
    }
}

/// Has a push that came to nothing tried again: what it lacked may be here now.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The tag.
    pub name: ImageName,
    /// The push looked at.
    pub expected: Option<Expected>,
}

/// The version of a push: changes whenever it does.
pub fn version(push: &Push) -> String {
    super::version(push)
}

/// Carries out [`Retry`]. `None`: nothing was pushed under that name. What went well, or goes on, stays as it is.
pub fn retry(request: &Retry, view: &View<'_>, _at: &Moment) -> Decision<Result<Option<Push>, Refusal>> {
    let Some(push) = view.records.push(&request.name) else { return Decision::just(Ok(None)) };
    let (what, stale) = (format_args!("push {}", request.name), |what| Refusal::Stale { what });
    if let Err(refusal) = precondition::check(&request.expected, Some(version(&push)), what, stale) {
        return Decision::just(Err(refusal));
    }
    match push.outcome {
        Outcome::Failed { .. } => {
            let push = Push { outcome: Outcome::Waiting, ..push };
            Decision { changes: vec![Change::PutPush(push.clone())], ..Decision::just(Ok(Some(push))) }
        }
        Outcome::Waiting | Outcome::Image { .. } | Outcome::Untrusted { .. } | Outcome::Kept => {
            Decision::just(Ok(Some(push)))
        }
    }
}

/// Puts on record what images' signatures came to.
#[derive(Debug, Clone)]
pub struct SetVerdicts {
    /// By image.
    pub verdicts: Vec<(Digest, Verdict)>,
}

/// Carries out [`SetVerdicts`]: pushes that waited for a signature take their tags. The answer names those.
pub fn set_verdicts(request: &SetVerdicts, view: &View<'_>, at: &Moment) -> Decision<Vec<ImageName>> {
    let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
    for (digest, verdict) in &request.verdicts {
        if let Some(image) = view.records.image(digest).filter(|image| image.verdict.as_ref() != Some(verdict)) {
            images.insert(*digest, Image { verdict: Some(verdict.clone()), ..image });
        }
    }
    let mut changes: Vec<Change> = images.values().cloned().map(Change::PutImage).collect();
    let mut taken = Vec::new();
    for push in view.records.pushes() {
        let Outcome::Untrusted { images: made } = &push.outcome else { continue };
        let now = |digest: &Digest| images.get(digest).cloned().or_else(|| view.records.image(digest));
        let made: Vec<Image> = made.iter().filter_map(now).collect();
        let by = format!("push {}", push.by);
        let (added, more) = add(&made, &push.name, by, view, at);
        let outcome = outcome(made.iter().map(|image| image.digest).collect(), &added);
        if matches!(outcome, Outcome::Image { .. }) {
            // The images themselves are among the changes already.
            changes.extend(more.into_iter().filter(|change| matches!(change, Change::PutTag(_))));
            taken.push(push.name.clone());
            changes.push(Change::PutPush(Push { outcome, ..push }));
        }
    }
    Decision { changes, ..Decision::just(taken) }
}

/// Takes a tag, or a manifest with all its tags, out of a repository.
#[derive(Debug, Clone)]
pub struct Delete {
    /// The repository: a name without its tag.
    pub repository: String,
    /// What: `repository:tag`, or a digest.
    pub reference: ImageReference,
}

/// Carries out [`Delete`]. `None`: there is no such thing.
pub fn delete(request: &Delete, view: &View<'_>, at: &Moment) -> Decision<Result<Option<Removed>, Refusal>> {
    let known_image = crate::assignment::lookup(&request.reference, view.records).is_some();
    if known_image {
        // What machines boot is not deleted under their feet.
        let removal = RemoveImage { reference: request.reference.clone(), expected: None };
        return remove_image(&removal, view, at).map(|removed| removed.map(Some));
    }
    let nothing = || Removed { tags: Vec::new(), image: None };
    match &request.reference {
        ImageReference::Name(name) => match view.records.push(name) {
            Some(_) => {
                let changes = vec![Change::RemovePush(name.clone())];
                Decision { changes, ..Decision::just(Ok(Some(nothing()))) }
            }
            None => Decision::just(Ok(None)),
        },
        ImageReference::Digest(digest) => delete_artifact(digest, &request.repository, view, at),
    }
}

fn delete_artifact(
    digest: &Digest,
    repository: &str,
    view: &View<'_>,
    at: &Moment,
) -> Decision<Result<Option<Removed>, Refusal>> {
    let artifact = view.records.artifact(digest).filter(|artifact| artifact.repositories.contains(repository));
    let Some(mut artifact) = artifact else { return Decision::just(Ok(None)) };
    let mut changes = Vec::new();
    let mut removed = Removed { tags: Vec::new(), image: None };
    for push in view.records.pushes() {
        if push.digest != *digest || push.name.name() != repository {
            continue;
        }
        // The image that was made of it goes with its tag.
        if view.records.tag(&push.name).is_some() {
            let removal = RemoveImage { reference: ImageReference::Name(push.name.clone()), expected: None };
            let decision = remove_image(&removal, view, at);
            match decision.answer {
                Ok(gone) => removed.tags.extend(gone.tags),
                Err(refusal) => return Decision::just(Err(refusal)),
            }
            changes.extend(decision.changes);
        }
        changes.push(Change::RemovePush(push.name));
    }
    artifact.repositories.remove(repository);
    changes.push(match artifact.repositories.is_empty() {
        true => Change::RemoveArtifact(*digest),
        false => Change::PutArtifact(artifact),
    });
    Decision { changes, ..Decision::just(Ok(Some(removed))) }
}

#[cfg(test)]
mod tests;
