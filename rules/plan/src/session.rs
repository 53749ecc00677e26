//! The session of a boot: stage 1 posts a fresh public key to `/boot/<token>/session`, and gets what is for this machine
//! alone sealed to it (a sealed box of X25519, XSalsa20 and Poly1305, as `crypto_box_seal` of NaCl's heirs makes them).
//! From then on reports carry a proof of the secret that was in the box.

use serde::{Deserialize, Serialize, de};
use std::{fmt, str::FromStr};

/// Header of a report in a session: `Bennu-Proof: <sequence> <hex of HMAC-SHA256>`, the MAC over [`proved`].
pub const PROOF: &str = "bennu-proof";

/// A machine's public key (X25519) for one boot; 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or("a session key is 64 hex digits");
        if text.len() != 64 {
            return Err("a session key is 64 hex digits");
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(key))
    }
}

impl Serialize for SessionKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not the text itself: what is sent here by mistake may be a secret.
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What stage 1 posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// Made for this boot; its private half never leaves the machine's memory.
    pub key: SessionKey,
}

/// What the sealed box holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionGranted {
    /// The boot's id.
    pub boot: String,
    /// Key of the proofs; 64 hex digits.
    pub secret: String,
    /// Files for this machine alone. Empty until there is a root to lay them down in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SealedFile>,
    /// Where the machine's log goes; `None`: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<crate::LogsWanted>,
}

/// A file of a machine's own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// `user:group`, names of the image or numbers; empty is root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Its bytes in base64 (RFC 4648 §4).
    pub content: String,
    /// Whether it is left out where the image has no directory for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

impl fmt::Debug for SessionGranted {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionGranted({}, {:?})", self.boot, self.files)
    }
}

impl fmt::Debug for SealedFile {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFile({}, {:o}, {:?}, …)", self.path, self.mode, self.owner)
    }
}

/// What the proof of a report is made over. `sequence` is greater with each report of a boot, so that one that was
/// overheard is of no use.
pub fn proved(sequence: u64, report: &[u8]) -> Vec<u8> {
    [format!("bennu report {sequence}\n").as_bytes(), report].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_they_are_written_and_nothing_else_does() {
        let key = SessionKey(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<SessionKey>().is_err(), "{bad}");
        }
        let error = serde_json::from_str::<SessionRequest>(r#"{"key":"hunter2"}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_printed_holds_no_secret() {
        let file = SealedFile {
            path: "/etc/key".into(),
            mode: 0o600,
            owner: String::new(),
            content: "aHVudGVyMg==".into(),
            optional: false,
        };
        let granted = SessionGranted { boot: "b".into(), secret: "5ec2e7".into(), files: vec![file], logs: None };
        let text = format!("{granted:?}");
        assert!(text.contains("/etc/key") && !text.contains("aHVudGVyMg") && !text.contains("5ec2e7"), "{text}");
        let again: SessionGranted = serde_json::from_str(&serde_json::to_string(&granted).unwrap()).unwrap();
        assert_eq!(again, granted);
    }
}
