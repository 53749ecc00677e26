//! What a signature's verification came to, and what the policy makes of it.

use crate::image::Digest;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What becomes of images that no trusted key has signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignaturePolicy {
    /// Signatures are not looked at.
    #[default]
    Off,
    /// They boot, and that is told.
    Warn,
    /// They do not boot.
    Require,
}

impl FromStr for SignaturePolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warn),
            "require" => Ok(Self::Require),
            _ => Err(()),
        }
    }
}

impl fmt::Display for SignaturePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Require => "require",
        })
    }
}

/// A trusted public key, as records and messages name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyId {
    /// Its file's name without the ending, for people. Two keys may share one.
    pub name: String,
    /// SHA-256 of its DER: which key it is.
    pub fingerprint: Digest,
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ({})", self.name, self.fingerprint.short())
    }
}

/// Why one signature counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rejection {
    /// No key is trusted at all.
    #[error("no public key is trusted; name the signer's under [signatures] keys")]
    NoKeys,
    /// Signed, but by none of the trusted keys, or the payload was changed after it was signed.
    #[error(
        "none of the trusted keys ({tried}) made this signature; sign the image with one of them, or trust the signer's key under [signatures] keys"
    )]
    NoKeyFits {
        /// The keys tried, by name.
        tried: String,
    },
    /// A trusted key signed it, for another image.
    #[error("key {key} signed another image, {signed}; sign this one")]
    OtherImage {
        /// Whose signature it is.
        key: KeyId,
        /// What it signed.
        signed: Digest,
    },
    /// A trusted key signed it, and it says something that cannot be acted on.
    #[error(
        "the payload that key {key} signed cannot be used: {what}; sign the image again with cosign, skopeo or bennu"
    )]
    Claims {
        /// Whose signature it is.
        key: KeyId,
        /// What is wrong with it.
        what: String,
    },
    /// The annotation with the signature is missing or garbled.
    #[error("the signature itself is {what}; sign the image again")]
    Encoding {
        /// Missing, or how it is garbled.
        what: String,
    },
    /// What was signed is not to be had.
    #[error("the signed payload {payload} cannot be read: {what}; push the signature again")]
    NoPayload {
        /// Its digest.
        payload: Digest,
        /// Why.
        what: String,
    },
    /// The payload is not the one that the signature's manifest names.
    #[error("the payload's bytes are {found} and the signature's manifest names {payload}; push the signature again")]
    OtherPayload {
        /// What the manifest names.
        payload: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// The container image is signed, and the kernel image that it was paired with is not.
    #[error("the kernel image {kernel} that it was paired with is {what}; sign that one too")]
    Kernel {
        /// The kernel image.
        kernel: Digest,
        /// What its own verification came to.
        what: String,
    },
    /// The manifest that holds the signatures cannot be used.
    #[error("the signature's manifest cannot be used: {what}")]
    Manifest {
        /// Why, and what to do.
        what: String,
    },
}

/// What verification came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SignatureVerdict)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// A trusted key signed exactly this image.
    Signed {
        /// Which key.
        key: KeyId,
        /// The name that the signer gave the image (`critical.identity.docker-reference`).
        identity: String,
    },
    /// There is no signature.
    Unsigned,
    /// There are signatures, and none counts.
    NotTrusted {
        /// What is wrong with each.
        why: Vec<Rejection>,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed { key, identity } => write!(f, "signed by key {key} as '{identity}'"),
            Self::Unsigned => f.write_str("not signed"),
            Self::NotTrusted { why } => match &why[..] {
                [only] => write!(f, "not signed by a trusted key: {only}"),
                all => {
                    write!(f, "not signed by a trusted key, {} signatures", all.len())?;
                    // One line is to stay readable however many signatures somebody has put there.
                    all.iter().take(3).try_for_each(|one| write!(f, "; {one}"))
                }
            },
        }
    }
}

/// What the policy makes of a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "judgement", content = "reason", rename_all = "snake_case")]
pub enum Judgement {
    /// It boots.
    Boots,
    /// It boots, and this is told.
    BootsWithNotice(String),
    /// It never boots, for this reason.
    Refused(String),
}

/// Whether an image with this verdict boots.
pub fn judge(policy: SignaturePolicy, verdict: &Verdict) -> Judgement {
    let help = match verdict {
        Verdict::Signed { .. } => return Judgement::Boots,
        Verdict::Unsigned => ". Sign it with cosign sign or bennu image sign",
        Verdict::NotTrusted { .. } => "",
    };
    match policy {
        SignaturePolicy::Off => Judgement::Boots,
        SignaturePolicy::Warn => Judgement::BootsWithNotice(format!(
            "the image is {verdict}{help}. It boots, since signatures.policy is \"warn\""
        )),
        SignaturePolicy::Require => Judgement::Refused(format!(
            "the image is {verdict}{help}. It does not boot, since signatures.policy is \"require\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeyId {
        KeyId { name: "ci".into(), fingerprint: Digest([0xab; 32]) }
    }

    #[test]
    fn policies_are_written_as_they_are_read() {
        for policy in [SignaturePolicy::Off, SignaturePolicy::Warn, SignaturePolicy::Require] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
        }
        assert_eq!("Require".parse::<SignaturePolicy>(), Err(()));
        assert_eq!(SignaturePolicy::default(), SignaturePolicy::Off);
    }

    #[test]
    fn only_a_trusted_signature_boots_without_a_word() {
        let signed = Verdict::Signed { key: key(), identity: "registry.example/web".into() };
        let foreign = Verdict::NotTrusted { why: vec![Rejection::NoKeyFits { tried: "ci, release".into() }] };
        for policy in [SignaturePolicy::Off, SignaturePolicy::Warn, SignaturePolicy::Require] {
            assert_eq!(judge(policy, &signed), Judgement::Boots);
        }
        for verdict in [&Verdict::Unsigned, &foreign] {
            assert_eq!(judge(SignaturePolicy::Off, verdict), Judgement::Boots);
            assert!(matches!(judge(SignaturePolicy::Warn, verdict), Judgement::BootsWithNotice(_)));
            assert!(matches!(judge(SignaturePolicy::Require, verdict), Judgement::Refused(_)));
        }
    }

    #[test]
    fn reasons_name_the_key_and_what_to_do() {
        let Judgement::Refused(said) = judge(SignaturePolicy::Require, &Verdict::Unsigned) else { panic!() };
        assert_eq!(
            said,
            "the image is not signed. Sign it with cosign sign or bennu image sign. \
             It does not boot, since signatures.policy is \"require\""
        );
        let why = vec![Rejection::OtherImage { key: key(), signed: Digest([1; 32]) }; 5];
        let Judgement::BootsWithNotice(said) = judge(SignaturePolicy::Warn, &Verdict::NotTrusted { why }) else {
            panic!()
        };
        assert!(said.contains("5 signatures; key 'ci' (abababababab) signed another image, sha256:0101"), "{said}");
        assert!(said.matches("another image").count() == 3 && said.ends_with("is \"warn\""), "{said}");
    }

    #[test]
    fn verdicts_are_stored_and_read_again() {
        for verdict in [
            Verdict::Signed { key: key(), identity: "web".into() },
            Verdict::Unsigned,
            Verdict::NotTrusted { why: vec![Rejection::NoKeys, Rejection::Encoding { what: "missing".into() }] },
        ] {
            let json = serde_json::to_string(&verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict, "{json}");
        }
    }
}
