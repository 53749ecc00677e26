//! Trusted public keys.

use super::{decode_pem, sha256};
use bennu_rules::{image::Digest, signature::KeyId};
use ring::signature as algorithm;
use spki::{
    ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{
        Decode as _, SliceReader,
        asn1::{AnyRef, UintRef},
    },
};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// RSA of 4096 bits takes some 800 bytes.
const LARGEST_FILE: u64 = 16 << 10;

pub(super) const LABEL: &str = "PUBLIC KEY";

// RFC 5480 §2.1.1, RFC 3279 §2.3.1, RFC 8410 §3.
pub(super) const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(super) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A file that holds no public key of ours.
#[derive(Debug, thiserror::Error)]
pub enum BadPublicKey {
    /// It cannot be read.
    #[error("cannot read the public key {}: {source}. Write it there, or name another file", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("'{name}' is no public key: {what}")]
    Content {
        /// Which key or file.
        name: String,
        /// What it is instead, and what to do.
        what: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    P256,
    /// PKCS#1 v1.5.
    Rsa,
    /// The plain one, as cosign 2.5 and containers/image sign. Of Ed25519ph, which later ones of cosign choose, `ring` knows
    /// nothing.
    Ed25519,
}

/// A public key whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    id: KeyId,
    scheme: Scheme,
    /// As `ring` takes it: a point, an `RSAPublicKey`, or 32 bytes.
    key: Vec<u8>,
}

impl TrustedKey {
    /// Reads a PEM file. The key's name is the file's without its ending.
    pub fn read(path: &Path) -> Result<Self, BadPublicKey> {
        let fault = |source| BadPublicKey::Read { path: path.to_owned(), source };
        let mut pem = Vec::new();
        File::open(path).map_err(fault)?.take(LARGEST_FILE + 1).read_to_end(&mut pem).map_err(fault)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Self::from_pem(&name, &pem).map_err(|error| match error {
            BadPublicKey::Content { what, .. } => BadPublicKey::Content { name: path.display().to_string(), what },
            other => other,
        })
    }

    /// Of a PEM text (`-----BEGIN PUBLIC KEY-----`, RFC 7468 §13).
    pub fn from_pem(name: &str, pem: &[u8]) -> Result<Self, BadPublicKey> {
        let refuse = |what: String| BadPublicKey::Content { name: name.to_owned(), what };
        if pem.len() as u64 > LARGEST_FILE {
            return Err(refuse(format!("it is over {LARGEST_FILE} bytes; name a .pub file")));
        }
        let (label, der) = decode_pem(pem)
            .map_err(|error| refuse(format!("it is not PEM ({error}); name a .pub file as cosign writes it")))?;
        if label != LABEL {
            let help = if label.contains("PRIVATE") {
                "keep it off this host, and name its public half (cosign public-key --key …)"
            } else {
                "write it as PUBLIC KEY (openssl pkey -pubin -in … -pubout)"
            };
            return Err(refuse(format!("its PEM says {label}; {help}")));
        }
        let (scheme, key) = parse(&der).map_err(&refuse)?;
        Ok(Self { id: KeyId { name: name.to_owned(), fingerprint: sha256(&der) }, scheme, key })
    }

    /// Its name and fingerprint.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> Digest {
        self.id.fingerprint
    }

    /// Whether this key made the signature over the message.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let how: &dyn algorithm::VerificationAlgorithm = match self.scheme {
            Scheme::P256 => &algorithm::ECDSA_P256_SHA256_ASN1,
            Scheme::Rsa => &algorithm::RSA_PKCS1_2048_8192_SHA256,
            Scheme::Ed25519 => &algorithm::ED25519,
        };
        algorithm::UnparsedPublicKey::new(how, &self.key).verify(message, signature).is_ok()
    }
}

fn parse(der: &[u8]) -> Result<(Scheme, Vec<u8>), String> {
    const WHICH: &str = "use ECDSA P-256 (cosign generate-key-pair), RSA of 2048 to 4096 bits or Ed25519";
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|error| format!("its DER is garbled ({error})"))?;
    let key = info.subject_public_key.as_bytes().ok_or("its DER is garbled (bits over)")?;
    let parameters = info.algorithm.parameters;
    let scheme = match info.algorithm.oid {
        EC => match parameters.and_then(|curve: AnyRef<'_>| curve.decode_as::<ObjectIdentifier>().ok()) {
            Some(P256) if matches!(key, [0x04, point @ ..] if point.len() == 64) => Scheme::P256,
            Some(P256) => return Err("its point is not a whole uncompressed one; export it again".into()),
            _ => return Err(format!("its curve is not P-256; {WHICH}")),
        },
        RSA => {
            let bits = modulus_bits(key).ok_or("its RSA modulus is garbled")?;
            if !(2048..=4096).contains(&bits) {
                return Err(format!("it is RSA of {bits} bits; {WHICH}"));
            }
            Scheme::Rsa
        }
        ED25519 if key.len() == 32 => Scheme::Ed25519,
        other => return Err(format!("its algorithm is {other}; {WHICH}")),
    };
    Ok((scheme, key.to_vec()))
}

/// The length of the modulus in an `RSAPublicKey` (RFC 8017 §A.1.1), which begins with it.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut fields = SliceReader::new(AnyRef::from_der(key).ok()?.value()).ok()?;
    let modulus = UintRef::decode(&mut fields).ok()?;
    let bytes = modulus.as_bytes();
    Some(bytes.len() * 8 - bytes.first()?.leading_zeros() as usize)
}
