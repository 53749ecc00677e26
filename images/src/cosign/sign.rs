//! Signing an image.

use super::{
    manifest::{BadManifest, MANIFEST_TYPE, PAYLOAD_TYPE, SIGNATURE_ARTIFACT, SIGNATURE_KEY, Signatures},
    payload::Claims,
    private_key::SigningKey,
    sha256,
};
use base64ct::{Base64, Encoding as _};
use bennu_rules::image::Digest;
use serde_json::{Value, json};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// Why an image cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum CannotSign {
    /// The signatures it has are in the way.
    #[error("cannot add a signature to those the image has: {0}")]
    Existing(BadManifest),
    /// No name.
    #[error("'{0}' names no image; write the name under which it is fetched, such as registry.example/web")]
    Reference(String),
    /// The key would not.
    #[error("the private key cannot sign; make another with cosign generate-key-pair")]
    Key,
    /// Never seen.
    #[error("cannot write the signature's manifest: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where the signature is to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Under the image's [signature tag](super::signature_tag): all tools look there.
    Tag,
    /// Among the image's referrers (OCI 1.1): the descriptor of its manifest.
    Referrer {
        /// Media type.
        media_type: String,
        /// Bytes.
        size: u64,
    },
}

/// A signature and what holds it. Store payload and config before the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What was signed: a blob of its own.
    pub payload: Vec<u8>,
    /// Base64 of the signature.
    pub signature: String,
    /// The manifest's config: a blob of its own.
    pub config: Vec<u8>,
    /// The manifest, with the signatures that were there before.
    pub manifest: Vec<u8>,
}

/// Signs an image by its manifest's digest. `reference` is the name that verifiers may compare with the one they fetched,
/// such as `registry.example/web`; `existing` is the signature's manifest that lies in that place already.
pub fn sign(
    key: &SigningKey,
    image: &Digest,
    reference: &str,
    place: &Place,
    existing: Option<&[u8]>,
) -> Result<Signature, CannotSign> {
    if reference.is_empty() || reference.len() > 512 || reference.contains(|c: char| c.is_control() || c == ' ') {
        return Err(CannotSign::Reference(super::told(reference)));
    }
    let mut layers = existing.map_or(Ok(Vec::new()), layers_of)?;
    let payload = Claims { image: *image, identity: reference.to_owned() }.to_json()?;
    let signature = Base64::encode_string(&key.sign(&payload).map_err(|_| CannotSign::Key)?);
    layers.push(json!({
        "mediaType": PAYLOAD_TYPE,
        "size": payload.len(),
        "digest": sha256(&payload),
        "annotations": { SIGNATURE_KEY: signature },
    }));
    // To container tools this is an image whose layers are the payloads: as both cosign and containers/image write it.
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": digests });
    let config = serde_json::to_vec(&json!({ "architecture": "", "os": "", "config": {}, "rootfs": rootfs }))?;
    // Registries tell a referrer's artifact type from the config's media type where none is written, and cosign looks there.
    let config_type = if *place == Place::Tag { CONFIG_TYPE } else { SIGNATURE_ARTIFACT };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": { "mediaType": config_type, "size": config.len(), "digest": sha256(&config) },
        "layers": layers,
    });
    if let Place::Referrer { media_type, size } = place {
        manifest["artifactType"] = SIGNATURE_ARTIFACT.into();
        manifest["subject"] = json!({ "mediaType": media_type, "size": size, "digest": image });
    }
    let manifest = serde_json::to_vec(&manifest)?;
    // What the next reader would refuse is refused now, with those before it still in place.
    Signatures::parse(&manifest).map_err(CannotSign::Existing)?;
    Ok(Signature { payload, signature, config, manifest })
}

/// The layers of a manifest that holds signatures, with everything they say.
fn layers_of(manifest: &[u8]) -> Result<Vec<Value>, CannotSign> {
    Signatures::parse(manifest).map_err(CannotSign::Existing)?;
    let mut manifest: Value = serde_json::from_slice(manifest)?;
    match manifest["layers"].take() {
        Value::Array(layers) => Ok(layers),
        _ => Ok(Vec::new()),
    }
}
