//! What the registry holds beside bootable images: manifests as they were pushed, the names they were pushed under, and
//! what became of them.

mod leaving;

pub use leaving::{Leaving, image_leaving, source_leaving};

use crate::{
    Records, Timestamp,
    image::{BlobRef, Digest, Image, ImageName},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A manifest or an index as it came. Its bytes are a blob; this is what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// The media type by which it came.
    pub media_type: String,
    /// What kind of artifact it is (OCI distribution specification, "Listing Referrers").
    pub kind: String,
    /// What was said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Config and layers, or the manifests of an index.
    pub parts: Vec<BlobRef>,
    /// The manifest that it is about, such as the image of a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Under which names it was pushed, without tags.
    pub repositories: BTreeSet<String>,
    /// When it first came.
    pub pushed: Timestamp,
}

/// A tag of the registry: what was pushed under it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Push {
    /// Its name.
    pub name: ImageName,
    /// What was pushed.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a push. Until it is an image, the tag stands for the image before for all machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PushOutcome)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is being made into a bootable image, or waits for that.
    Waiting,
    /// Machines can boot it: one image an architecture.
    Image {
        /// Their digests.
        images: Vec<Digest>,
    },
    /// Images were made of it, and no trusted key has signed it: the tag stays where it is until one does.
    Untrusted {
        /// Their digests.
        images: Vec<Digest>,
    },
    /// No image could be made of it.
    Failed {
        /// Why.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// It is no image, such as a signature, and was only to be kept.
    Kept,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waits to be made bootable"),
            Self::Image { images } => {
                let images: Vec<String> = images.iter().map(Digest::short).collect();
                write!(f, "boots as {}", images.join(", "))
            }
            Self::Untrusted { .. } => f.write_str("waits for a signature by a trusted key"),
            Self::Failed { reason, .. } => write!(f, "failed: {reason}"),
            Self::Kept => f.write_str("kept; it is no image"),
        }
    }
}

/// The manifest that a tag of cosign's is about: `sha256-<hex>.sig` names the image with that digest.
fn about(name: &ImageName) -> Option<Digest> {
    let (hex, suffix) = name.tag().strip_prefix("sha256-")?.split_once('.')?;
    matches!(suffix, "sig" | "att" | "sbom").then(|| Digest::from_hex(hex).ok()).flatten()
}

/// Artifacts that nothing needs: no tag names them, no image was made of them, no index that is needed holds them, and
/// they are about nothing that is needed.
pub fn orphans(artifacts: &[Artifact], pushes: &[Push], images: &[Image]) -> BTreeSet<Digest> {
    let by_digest: BTreeMap<Digest, &Artifact> = artifacts.iter().map(|artifact| (artifact.digest, artifact)).collect();
    let tagged = pushes.iter().filter(|push| about(&push.name).is_none()).map(|push| push.digest);
    let sources = images.iter().filter_map(|image| image.config.derived.as_ref()).map(|derived| derived.source.digest);
    // A signature may be about an image of ours itself.
    let made = images.iter().map(|image| image.digest);
    let mut todo: Vec<Digest> = tagged.chain(sources).chain(made).collect();
    let mut needed = BTreeSet::new();
    let signatures: Vec<(Digest, Digest)> =
        pushes.iter().filter_map(|push| Some((about(&push.name)?, push.digest))).collect();
    while let Some(digest) = todo.pop() {
        if !needed.insert(digest) {
            continue;
        }
        let parts = by_digest.get(&digest).into_iter().flat_map(|artifact| &artifact.parts).map(|part| part.digest);
        let parts = parts.filter(|part| by_digest.contains_key(part));
        let referrers = artifacts.iter().filter(|other| other.subject == Some(digest)).map(|other| other.digest);
        let signed = signatures.iter().filter(|(of, _)| *of == digest).map(|(_, signature)| *signature);
        todo.extend(parts.chain(referrers).chain(signed));
    }
    by_digest.into_keys().filter(|digest| !needed.contains(digest)).collect()
}

/// The manifests that are about one ("referrers"), of one repository.
pub fn referrers(subject: &Digest, repository: &str, records: &dyn Records) -> Vec<Artifact> {
    let mut found = records.artifacts();
    found.retain(|artifact| artifact.subject == Some(*subject) && artifact.repositories.contains(repository));
    found
}
