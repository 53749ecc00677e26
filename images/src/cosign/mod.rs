//! Signatures of images, as cosign makes them with key pairs and containers/image (skopeo, podman) reads them.
//!
//! ```text
//!   image's manifest ◀─ digest ─ payload (simple signing) ◀─ digest ─ layer of the signature's manifest
//!                                                                      └ annotation: base64 of the signature
//! ```
//!
//! The signature's manifest lies beside the image: under a tag made of the image's digest ([`signature_tag`]), or, with
//! OCI 1.1, as a referrer whose `subject` is the image. What is trusted is a signature by a key of [`TrustedKey`] over a
//! payload that names the image's digest; where it was found says nothing, so anybody may copy it.
//!
//! Only keys count: certificates and entries in a transparency log, which cosign may add, are not looked at.

mod blob;
mod encrypted;
mod manifest;
mod payload;
mod private_key;
mod public_key;
mod sign;
#[cfg(test)]
mod tests;
mod verify;

pub use blob::{BadSignature, sign_blob, verify_blob};
pub use manifest::{
    BadManifest, Candidate, LARGEST_MANIFEST, LARGEST_PAYLOAD, SIGNATURE_ARTIFACT, Signatures, is_signature_tag,
    signature_tag,
};
pub use private_key::{BadPrivateKey, KeyPair, SigningKey};
pub use public_key::{BadPublicKey, TrustedKey};
pub use sign::{CannotSign, Place, Signature, sign};
pub use verify::{verify, verify_one};

use bennu_rules::image::Digest;

fn sha256(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest(digest)
}

/// Text of others in a message of ours: short, and nothing that moves a terminal's cursor.
fn told(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The label and the content of the only block of a PEM file. Empty lines at its end, which editors leave, are no fault.
fn decode_pem(pem: &[u8]) -> Result<(&str, Vec<u8>), pem_rfc7468::Error> {
    pem_rfc7468::decode_vec(pem.trim_ascii_end())
}
