//! The manifest that holds signatures.

use super::told;
use bennu_rules::image::{BlobRef, Digest};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Bytes of a manifest that registries take, and so we.
pub const LARGEST_MANIFEST: usize = 4 << 20;
/// Bytes of a payload; cosign's have some 240, and what signers add as annotations.
pub const LARGEST_PAYLOAD: u64 = 256 << 10;
/// Signatures of one image that are looked at. Each costs a check against every key.
const MOST_LAYERS: usize = 128;

/// Artifact type of a signature's manifest among an image's referrers.
pub const SIGNATURE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub(super) const SIGNATURE_KEY: &str = "dev.cosignproject.cosign/signature";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// With `COSIGN_DOCKER_MEDIA_TYPES=1` cosign writes this.
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// cosign 3 writes bundles unless it is told otherwise.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// The tag under which an image's signatures lie in the image's repository.
pub fn signature_tag(image: &Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

/// The image whose signatures this tag holds, if it is such a tag.
pub fn is_signature_tag(tag: &str) -> Option<Digest> {
    let hex = tag.strip_prefix("sha256-")?.strip_suffix(".sig")?;
    Digest::from_hex(hex).ok().filter(|digest| digest.hex() == hex)
}

/// A manifest that holds no signatures which can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Too large to be one.
    #[error("it has {0} bytes, and at most {LARGEST_MANIFEST} are read; sign the image again under an empty tag")]
    Size(usize),
    /// Too many signatures.
    #[error("it has {0} layers, and at most {MOST_LAYERS} are looked at; delete it, and sign the image again")]
    Layers(usize),
    /// Not an OCI image manifest.
    #[error("it is no OCI image manifest ({0}); sign the image again")]
    Content(String),
    /// A sigstore bundle.
    #[error("it is a sigstore bundle, which is not read; sign the image with cosign sign --new-bundle-format=false")]
    Bundle,
}

/// What claims to be a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The blob that was signed.
    pub payload: BlobRef,
    /// Base64 of the signature over it, as written.
    pub signature: Option<String>,
    /// Whatever else the layer says.
    pub annotations: BTreeMap<String, String>,
}

/// What a signature's manifest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// The image that it refers to, where it is a referrer. Nobody vouches for this.
    pub subject: Option<Digest>,
    /// Each layer that claims to be a signature.
    pub candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    layers: Vec<WrittenDescriptor>,
    subject: Option<WrittenDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Signatures {
    /// Reads a manifest's JSON.
    pub fn parse(json: &[u8]) -> Result<Self, BadManifest> {
        if json.len() > LARGEST_MANIFEST {
            return Err(BadManifest::Size(json.len()));
        }
        let written: Written =
            serde_json::from_slice(json).map_err(|error| BadManifest::Content(told(&error.to_string())))?;
        let is_bundle = |layer: &WrittenDescriptor| layer.media_type.starts_with(BUNDLE);
        if written.artifact_type.is_some_and(|kind| kind.starts_with(BUNDLE)) || written.layers.iter().any(is_bundle) {
            return Err(BadManifest::Bundle);
        }
        let kind = written.media_type.as_deref().unwrap_or(MANIFEST_TYPE);
        if written.schema_version != 2 || ![MANIFEST_TYPE, DOCKER_MANIFEST_TYPE].contains(&kind) {
            return Err(BadManifest::Content(format!("its media type is '{}'", told(kind))));
        }
        if written.layers.len() > MOST_LAYERS {
            return Err(BadManifest::Layers(written.layers.len()));
        }
        // Attestations and whatever else tools attach may lie beside signatures.
        let layers = written.layers.into_iter().filter(|layer| layer.media_type == PAYLOAD_TYPE);
        let candidates = layers.map(|layer| {
            let mut annotations = layer.annotations.unwrap_or_default();
            let signature = annotations.remove(SIGNATURE_KEY);
            Candidate { payload: BlobRef { digest: layer.digest, size: layer.size }, signature, annotations }
        });
        Ok(Self { subject: written.subject.map(|subject| subject.digest), candidates: candidates.collect() })
    }
}
