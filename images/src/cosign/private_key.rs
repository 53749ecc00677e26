//! Private keys: cosign's, under a password, and plain ones.

use super::{
    decode_pem,
    encrypted::{self, Locked},
    public_key::{EC, ED25519, LABEL, P256, RSA},
};
use pem_rfc7468::LineEnding;
use ring::{
    error::KeyRejected,
    rand::SystemRandom,
    rsa,
    signature::{self as algorithm, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use spki::{
    AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{
        Decode as _, Encode as _, SliceReader,
        asn1::{AnyRef, BitStringRef},
    },
};

/// RSA of 4096 bits, locked, takes some 4 kB.
const LARGEST_FILE: usize = 64 << 10;

/// What cosign writes, and what it wrote at first. Both hold the same.
const SEALED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const PLAIN: &str = "PRIVATE KEY";

/// A private key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPrivateKey {
    /// It is something else.
    #[error("this is no private key that can sign: {0}; make one with cosign generate-key-pair")]
    Content(String),
    /// The password does not open it.
    #[error(
        "the password does not open the private key, or the file was changed; set COSIGN_PASSWORD to the one it was made with"
    )]
    Password,
    /// There is a password to give.
    #[error("the private key needs its password; set COSIGN_PASSWORD")]
    NoPassword,
}

impl From<Locked> for BadPrivateKey {
    fn from(locked: Locked) -> Self {
        match locked {
            Locked::Format(what) => Self::Content(what),
            Locked::Password => Self::Password,
        }
    }
}

#[derive(Debug)]
enum Half {
    P256(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key that signs: ECDSA P-256 or RSA with SHA-256, or Ed25519.
#[derive(Debug)]
pub struct SigningKey {
    half: Half,
    chance: SystemRandom,
}

/// A new pair of keys, as files.
pub struct KeyPair {
    /// `cosign.key`: under the password. For its owner's eyes alone (mode 0600).
    pub private: String,
    /// `cosign.pub`.
    pub public: String,
}

impl KeyPair {
    /// Makes an ECDSA P-256 pair, as `cosign generate-key-pair` does.
    pub fn generate(password: &[u8]) -> Result<Self, BadPrivateKey> {
        let unfit = |what: &dyn std::fmt::Display| BadPrivateKey::Content(format!("it cannot be made ({what})"));
        let chance = SystemRandom::new();
        let kind = &algorithm::ECDSA_P256_SHA256_ASN1_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(kind, &chance).map_err(|error| unfit(&error))?;
        let half = EcdsaKeyPair::from_pkcs8(kind, private.as_ref(), &chance).map_err(|error| unfit(&error))?;
        let sealed = encrypted::seal(private.as_ref(), password, &chance)?;
        let pem = |label, bytes: &[u8]| {
            pem_rfc7468::encode_string(label, LineEnding::LF, bytes).map_err(|error| unfit(&error))
        };
        let public = public_der(half.public_key().as_ref()).map_err(|error| unfit(&error))?;
        Ok(Self { private: pem(SEALED[0], &sealed)?, public: pem(LABEL, &public)? })
    }
}

/// `SubjectPublicKeyInfo` of a point on P-256 (RFC 5480 §2).
fn public_der(point: &[u8]) -> spki::der::Result<Vec<u8>> {
    let algorithm = AlgorithmIdentifierRef { oid: EC, parameters: Some(AnyRef::from(&P256)) };
    SubjectPublicKeyInfoRef { algorithm, subject_public_key: BitStringRef::from_bytes(point)? }.to_der()
}

impl SigningKey {
    /// Reads a PEM file: one of cosign's, which its password opens, or a plain PKCS#8 one (`-----BEGIN PRIVATE KEY-----`).
    pub fn from_pem(pem: &[u8], password: Option<&[u8]>) -> Result<Self, BadPrivateKey> {
        if pem.len() > LARGEST_FILE {
            return Err(BadPrivateKey::Content(format!("it is over {LARGEST_FILE} bytes")));
        }
        let (label, content) =
            decode_pem(pem).map_err(|error| BadPrivateKey::Content(format!("it is not PEM ({error})")))?;
        let pkcs8 = match label {
            PLAIN => content,
            label if SEALED.contains(&label) => encrypted::open(&content, password.ok_or(BadPrivateKey::NoPassword)?)?,
            other => return Err(BadPrivateKey::Content(format!("its PEM says {other}"))),
        };
        let chance = SystemRandom::new();
        Ok(Self { half: half(&pkcs8, &chance)?, chance })
    }

    /// The public half as cosign.pub has it, of the only kind that tests make.
    #[cfg(test)]
    pub(super) fn public_der(&self) -> Option<Vec<u8>> {
        match &self.half {
            Half::P256(key) => public_der(key.public_key().as_ref()).ok(),
            Half::Rsa(_) | Half::Ed25519(_) => None,
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        match &self.half {
            Half::P256(key) => key.sign(&self.chance, message).map(|signature| signature.as_ref().to_vec()),
            Half::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&algorithm::RSA_PKCS1_SHA256, &self.chance, message, &mut signature).map(|()| signature)
            }
            Half::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

fn half(pkcs8: &[u8], chance: &SystemRandom) -> Result<Half, BadPrivateKey> {
    let unfit = |error: KeyRejected| BadPrivateKey::Content(format!("ring says {error} of its content"));
    let oid = algorithm_of(pkcs8).ok_or_else(|| BadPrivateKey::Content("its PKCS#8 is garbled".into()))?;
    match oid {
        EC => EcdsaKeyPair::from_pkcs8(&algorithm::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, chance)
            .map(Half::P256)
            .map_err(|error| {
                BadPrivateKey::Content(format!(
                    "ring says {error} of its content, which must be ECDSA P-256 with its public half"
                ))
            }),
        RSA => rsa::KeyPair::from_pkcs8(pkcs8).map(Half::Rsa).map_err(unfit),
        // OpenSSL and Go write no public half with these.
        ED25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map(Half::Ed25519).map_err(unfit),
        other => {
            Err(BadPrivateKey::Content(format!("its algorithm is {other}, which is not ECDSA P-256, RSA or Ed25519")))
        }
    }
}

/// The algorithm in a `PrivateKeyInfo` (RFC 5208 §5), which comes second in it.
fn algorithm_of(pkcs8: &[u8]) -> Option<ObjectIdentifier> {
    let mut fields = SliceReader::new(AnyRef::from_der(pkcs8).ok()?.value()).ok()?;
    let _version = u8::decode(&mut fields).ok()?;
    AlgorithmIdentifierRef::decode(&mut fields).ok().map(|algorithm| algorithm.oid)
}
