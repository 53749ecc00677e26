//! What leaves with an export.

use super::{Artifact, Outcome, about};
use crate::{
    Records,
    commands::{Refusal, find_image},
    image::{BlobRef, Digest, Image, ImageReference},
};
use std::collections::BTreeSet;

/// A manifest or index that leaves, with everything it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// It.
    pub blob: BlobRef,
    /// Its media type; `None`: that of an image's manifest.
    pub media_type: Option<String>,
    /// What kind of artifact it is, where that is on record.
    pub kind: Option<String>,
    /// Its name in the layout.
    pub name: Option<String>,
}

/// The bootable image that `reference` stands for, under a name; then the signatures on that image itself.
pub fn image_leaving(
    reference: &ImageReference,
    name: Option<String>,
    records: &dyn Records,
) -> Result<Vec<Leaving>, Refusal> {
    let image = image(reference, records)?;
    let blob = BlobRef { digest: image.digest, size: image.manifest_size };
    let first = Leaving { blob, media_type: None, kind: None, name };
    let mut leaving = said_of([image.digest].into(), records);
    leaving.insert(0, first);
    Ok(leaving)
}

/// The container image that `reference` was made of, as it was pushed, under a name; then what was said of it, such as
/// its signatures, under their own tags.
pub fn source_leaving(
    reference: &ImageReference,
    name: Option<String>,
    records: &dyn Records,
) -> Result<Vec<Leaving>, Refusal> {
    let none = || Refusal::NoSource(reference.clone());
    let digest = match pushed(reference, records) {
        Some(digest) => digest,
        None => image(reference, records)?.config.derived.ok_or_else(none)?.source.digest,
    };
    let source = records.artifact(&digest).ok_or_else(none)?;
    let subjects = source.parts.iter().map(|part| part.digest).chain([digest]).collect();
    let mut leaving = said_of(subjects, records);
    leaving.insert(0, leave(&source, name));
    Ok(leaving)
}

/// What was said of manifests, such as their signatures, and what was said of that.
fn said_of(mut subjects: BTreeSet<Digest>, records: &dyn Records) -> Vec<Leaving> {
    let is_about = |subjects: &BTreeSet<Digest>, of: Option<Digest>| of.is_some_and(|of| subjects.contains(&of));
    let (artifacts, pushes) = (records.artifacts(), records.pushes());
    let mut leaving = Vec::new();
    let mut listed = subjects.clone();
    for push in pushes.iter().filter(|push| is_about(&subjects, about(&push.name))) {
        let Some(artifact) = records.artifact(&push.digest) else { continue };
        listed.insert(artifact.digest);
        leaving.push(leave(&artifact, Some(push.name.tag().to_owned())));
    }
    loop {
        let next = artifacts.iter().find(|artifact| {
            is_about(&subjects, artifact.subject)
                && !subjects.contains(&artifact.digest)
                && records.image(&artifact.digest).is_none()
        });
        let Some(next) = next else { return leaving };
        subjects.insert(next.digest);
        if listed.insert(next.digest) {
            leaving.push(leave(next, None));
        }
    }
}

fn leave(artifact: &Artifact, name: Option<String>) -> Leaving {
    Leaving {
        blob: BlobRef { digest: artifact.digest, size: artifact.size },
        media_type: Some(artifact.media_type.clone()),
        kind: Some(artifact.kind.clone()),
        name,
    }
}

/// What was pushed as `reference`, unless the tag stands for something else by now.
fn pushed(reference: &ImageReference, records: &dyn Records) -> Option<Digest> {
    let digest = match reference {
        ImageReference::Digest(digest) => records.artifact(digest)?.digest,
        ImageReference::Name(name) => {
            let push = records.push(name)?;
            let tag = records.tag(name);
            match (&push.outcome, tag) {
                (Outcome::Image { images }, Some(tag)) if images.contains(&tag.digest) => push.digest,
                (_, None) => push.digest,
                (_, Some(_)) => return None,
            }
        }
    };
    // An image of Bennu's own that was pushed is no source.
    records.image(&digest).is_none().then_some(digest)
}

fn image(reference: &ImageReference, records: &dyn Records) -> Result<Image, Refusal> {
    let digest = find_image(reference, records)?;
    let unknown = || Refusal::UnknownImage { reference: reference.clone(), near: Vec::new() };
    records.image(&digest).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Change, Timestamp, commands::images::tests::image as root_image, image::Derivation, memory::Memory,
        registry::Push,
    };

    fn artifact(seed: u8, kind: &str, subject: Option<u8>, parts: &[u8]) -> Artifact {
        let part = |seed: &u8| BlobRef { digest: Digest([*seed; 32]), size: 1 };
        Artifact {
            digest: Digest([seed; 32]),
            size: 1,
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            kind: kind.into(),
            annotations: Default::default(),
            parts: parts.iter().map(part).collect(),
            subject: subject.map(|seed| Digest([seed; 32])),
            repositories: ["web".to_owned()].into(),
            pushed: Timestamp(0),
        }
    }

    fn push(name: &str, seed: u8, outcome: Outcome) -> Change {
        let digest = Digest([seed; 32]);
        Change::PutPush(Push { name: name.parse().unwrap(), digest, at: Timestamp(0), by: "ci".into(), outcome })
    }

    /// An image (1) made of a manifest (11) in an index (10), signed by tag (20) and by referrer (21), whose signature
    /// is signed (22).
    fn records() -> Memory {
        let mut records = Memory::default();
        let mut image = root_image(1);
        let source = BlobRef { digest: Digest([11; 32]), size: 1 };
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        image.config.derived = Some(Derivation { source, media_type, kernel: None, created: None });
        let signature = format!("web:sha256-{}.sig", Digest([11; 32]).hex());
        let images = vec![image.digest];
        let tag = crate::image::Tag {
            name: "web:v1".parse().unwrap(),
            digest: image.digest,
            others: Default::default(),
            history: Vec::new(),
        };
        for change in [
            Change::PutImage(image),
            Change::PutTag(tag),
            Change::PutArtifact(artifact(10, "", None, &[11])),
            Change::PutArtifact(artifact(11, "application/vnd.oci.image.config.v1+json", None, &[])),
            Change::PutArtifact(artifact(20, "application/x-signature", None, &[])),
            Change::PutArtifact(artifact(21, "application/x-signature", Some(10), &[])),
            Change::PutArtifact(artifact(22, "application/x-signature", Some(21), &[])),
            Change::PutArtifact(artifact(30, "application/x-other", Some(99), &[])),
            push("web:v1", 10, Outcome::Image { images }),
            push(&signature, 20, Outcome::Kept),
            push("web:broken", 10, Outcome::Failed { reason: "no".into(), advice: "none".into() }),
        ] {
            records.apply(change);
        }
        records.apply(Change::PutImage(root_image(2)));
        records
    }

    fn seeds(reference: &str, records: &Memory) -> Result<Vec<(u8, Option<String>)>, Refusal> {
        let leaving = source_leaving(&reference.parse().unwrap(), Some("t".into()), records)?;
        Ok(leaving.into_iter().map(|leaving| (leaving.blob.digest.0[0], leaving.name)).collect())
    }

    #[test]
    fn a_source_leaves_as_it_was_pushed_with_its_signatures() {
        let mut records = records();
        let signature = format!("sha256-{}.sig", Digest([11; 32]).hex());
        let whole = vec![(10, Some("t".into())), (20, Some(signature.clone())), (21, None), (22, None)];
        assert_eq!(seeds("web:v1", &records).unwrap(), whole);
        assert_eq!(seeds("web:broken", &records).unwrap(), whole, "what cannot boot leaves too");
        // By its digest an image knows only the manifest that it was made of.
        let by_digest = seeds(&Digest([1; 32]).to_string(), &records).unwrap();
        assert_eq!(by_digest, [(11, Some("t".into())), (20, Some(signature))]);
        assert!(matches!(seeds(&Digest([2; 32]).to_string(), &records), Err(Refusal::NoSource(_))));
        // The tag was moved by hand: what was pushed under it is not what it stands for.
        let mut tag = records.tag(&"web:v1".parse().unwrap()).unwrap();
        tag.digest = Digest([2; 32]);
        records.apply(Change::PutTag(tag));
        assert!(matches!(seeds("web:v1", &records), Err(Refusal::NoSource(_))));
        assert!(matches!(seeds("web:v9", &records), Err(Refusal::UnknownImage { .. })));
    }

    #[test]
    fn an_image_leaves_with_its_own_signatures_alone() {
        let mut records = records();
        let leaving = |records: &Memory| {
            let leaving = image_leaving(&"web:v1".parse().unwrap(), None, records).unwrap();
            leaving.into_iter().map(|leaving| (leaving.blob.digest.0[0], leaving.name)).collect::<Vec<_>>()
        };
        assert_eq!(leaving(&records), [(1, None)]);
        let tag = format!("sha256-{}.sig", Digest([1; 32]).hex());
        records.apply(Change::PutArtifact(artifact(40, "application/x-signature", None, &[])));
        records.apply(push(&format!("web:{tag}"), 40, Outcome::Kept));
        assert_eq!(leaving(&records), [(1, None), (40, Some(tag))]);
    }
}
