//! Whether a trusted key has signed an image.

use super::{
    manifest::{Candidate, LARGEST_PAYLOAD, Signatures},
    payload::Claims,
    public_key::TrustedKey,
    sha256,
};
use base64ct::{Base64, Encoding as _};
use bennu_rules::{
    image::{BlobRef, Digest},
    signature::{KeyId, Rejection, Verdict},
};

/// What the signatures found beside an image are worth: `manifests` are those under its tag and among its referrers.
/// `payload` reads a blob, or says why it cannot; it is asked for none over [`LARGEST_PAYLOAD`]. Whoever may push may push
/// many, so the caller bounds the number of manifests and puts the tag's first.
pub fn verify<'a>(
    image: &Digest,
    manifests: impl IntoIterator<Item = &'a [u8]>,
    keys: &[TrustedKey],
    mut payload: impl FnMut(&BlobRef) -> Result<Vec<u8>, String>,
) -> Verdict {
    let mut why = Vec::new();
    let mut candidates = Vec::new();
    for manifest in manifests {
        match Signatures::parse(manifest) {
            Ok(signatures) => candidates.extend(signatures.candidates),
            Err(error) => why.push(Rejection::Manifest { what: error.to_string() }),
        }
    }
    for candidate in &candidates {
        let bytes = match candidate.payload.size {
            size if size > LARGEST_PAYLOAD => {
                Err(format!("it has {size} bytes, and at most {LARGEST_PAYLOAD} are read"))
            }
            _ => payload(&candidate.payload),
        };
        let said = match bytes {
            Ok(bytes) => verify_one(image, candidate, &bytes, keys),
            Err(what) => Err(Rejection::NoPayload { payload: candidate.payload.digest, what }),
        };
        match said {
            Ok((key, identity)) => return Verdict::Signed { key, identity },
            // Somebody who may write there may write one bad signature a hundred times.
            Err(rejection) if why.contains(&rejection) => {}
            Err(rejection) => why.push(rejection),
        }
    }
    if why.is_empty() { Verdict::Unsigned } else { Verdict::NotTrusted { why } }
}

/// The key that made this signature and the name that its signer gave the image, or why it does not count.
pub fn verify_one(
    image: &Digest,
    candidate: &Candidate,
    payload: &[u8],
    keys: &[TrustedKey],
) -> Result<(KeyId, String), Rejection> {
    let found = sha256(payload);
    if found != candidate.payload.digest {
        return Err(Rejection::OtherPayload { payload: candidate.payload.digest, found });
    }
    let signature = decode(candidate.signature.as_deref())?;
    if keys.is_empty() {
        return Err(Rejection::NoKeys);
    }
    // The payload is read only after a trusted key vouches for every byte of it.
    let Some(key) = keys.iter().find(|key| key.has_signed(payload, &signature)) else {
        let tried: Vec<&str> = keys.iter().map(|key| key.id().name.as_str()).collect();
        return Err(Rejection::NoKeyFits { tried: tried.join(", ") });
    };
    let key = key.id().clone();
    let claims = match Claims::parse(payload) {
        Ok(claims) => claims,
        Err(what) => return Err(Rejection::Claims { key, what }),
    };
    if claims.image != *image {
        return Err(Rejection::OtherImage { key, signed: claims.image });
    }
    Ok((key, claims.identity))
}

fn decode(signature: Option<&str>) -> Result<Vec<u8>, Rejection> {
    let refuse = |what: &str| Rejection::Encoding { what: what.into() };
    let written = signature.ok_or_else(|| refuse("missing"))?;
    // Tools that attach a signature made elsewhere keep its line breaks, and Go's decoder skips them.
    let plain: String = written.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    Base64::decode_vec(&plain).map_err(|_| refuse("not base64"))
}
