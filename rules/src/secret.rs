//! Secrets of machines: which one is whose, and where it is laid down. What they are is not known here: the rules see
//! ciphertext.

use crate::{MacAddress, Machine, Records, Timestamp, image::serde_as_text, selector::Selector};
use serde::{Deserialize, Serialize, de};
use std::{fmt, str::FromStr};

/// A text that is no secret's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("that is not a secret's name; write up to 63 letters, digits, '.', '_' and '-', such as db-password")]
pub struct BadSecretName;

/// What people and documents call a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretName(String);

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = BadSecretName;

    fn from_str(text: &str) -> Result<Self, BadSecretName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        // The text is not told: who confuses the arguments writes the secret here.
        (starts && text.len() <= 63 && text.bytes().all(allowed)).then(|| Self(text.to_owned())).ok_or(BadSecretName)
    }
}

serde_as_text!(SecretName);

/// A text that only the appliance's key opens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key.
    pub key: String,
    /// Nonce, ciphertext and tag, in base64.
    pub text: String,
}

impl fmt::Debug for Sealed {
    /// Not even the ciphertext enters a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(under {})", self.key)
    }
}

/// Whose a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One machine's, by any of its MACs.
    Machine(MacAddress),
    /// Every machine's with such labels. What a machine says of its own hardware does not count: it could lie.
    Selector(Selector),
}

impl Target {
    fn is(&self, machine: &Machine) -> bool {
        match self {
            Self::Machine(mac) => machine.id == *mac || machine.macs.contains(mac),
            Self::Selector(selector) => !selector.looks_at_hardware() && selector.matches(&machine.labels),
        }
    }
}

/// Where a secret is laid down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// `user:group`, names of the image or numbers; empty is root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: SecretName,
    /// Whose it is.
    pub target: Target,
    /// Where it is laid down by itself; `None`: nowhere yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Placement>,
    /// What it is.
    pub value: Sealed,
    /// When it was set.
    pub set: Timestamp,
    /// By whom.
    pub by: String,
}

impl Secret {
    /// What its value is sealed for.
    pub fn place(name: &SecretName) -> String {
        format!("secret {name}")
    }
}

/// The secrets of a machine, in the order in which they are laid down: those of many machines, then its own, each by name.
pub fn of_machine(machine: &Machine, records: &dyn Records) -> Vec<Secret> {
    let mut secrets = records.secrets();
    secrets.retain(|secret| secret.target.is(machine));
    secrets.sort_by_key(|secret| (matches!(secret.target, Target::Machine(_)), secret.name.clone()));
    secrets
}

/// SSH host keys that outlive the images of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeys {
    /// Whose.
    pub machine: MacAddress,
    /// The machine that they were made for: another one, whose card joined this one, or itself.
    pub made_for: MacAddress,
    /// When.
    pub made: Timestamp,
    /// The public halves, a line each, as `known_hosts` has them behind the host's name.
    pub public: Vec<String>,
    /// The pairs.
    pub pairs: Sealed,
}

impl HostKeys {
    /// What the pairs are sealed for.
    pub fn place(made_for: MacAddress) -> String {
        format!("SSH host keys of {made_for}")
    }
}
