//! What is signed: "simple signing" (containers/image, containers-signature(5)) with cosign's type.

use super::told;
use bennu_rules::image::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What both cosign and containers/image write.
const TYPE: &str = "cosign container image signature";

/// As containers/image does, everything that is unknown is refused except what is said to be optional: `critical` is
/// where a signer would put what no verifier may overlook. (cosign itself overlooks it.)
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    #[serde(borrow)]
    critical: Critical<'a>,
    /// An object, or `null` as cosign writes it.
    optional: Value,
}

// In the order in which Go's JSON writes them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical<'a> {
    #[serde(borrow)]
    identity: Identity<'a>,
    image: Image,
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity<'a> {
    #[serde(rename = "docker-reference")]
    reference: std::borrow::Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// What a payload says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub image: Digest,
    pub identity: String,
}

impl Claims {
    /// Reads a payload. What it says is worth what its signature is worth.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let payload: Payload<'_> = serde_json::from_slice(json)
            .map_err(|error| format!("it is no simple-signing payload: {}", told(&error.to_string())))?;
        if payload.critical.kind != TYPE {
            return Err(format!("its type is '{}' and not '{TYPE}'", told(&payload.critical.kind)));
        }
        if !matches!(payload.optional, Value::Null | Value::Object(_)) {
            return Err("its optional part is neither an object nor null".into());
        }
        let reference = payload.critical.identity.reference;
        Ok(Self { image: payload.critical.image.digest, identity: reference.into_owned() })
    }

    /// The payload byte for byte as cosign writes it.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let identity = Identity { reference: self.identity.as_str().into() };
        let critical = Critical { identity, image: Image { digest: self.image }, kind: TYPE.into() };
        serde_json::to_vec(&Payload { critical, optional: Value::Null })
    }
}
