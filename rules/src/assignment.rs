//! Which image a machine boots, and why.

use crate::{
    Machine, Records,
    facts::Architecture,
    image::{Digest, ImageReference},
    rule::{self, Rule, RuleName},
    settings::{Settings, UnknownPolicy},
};
use serde::{Deserialize, Serialize, de};
use std::{fmt, str::FromStr};

/// What a person assigned to a machine: what was written is stored, a tag as a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// An image, by tag or digest.
    Image(ImageReference),
    /// The machine's own disk; written `local`.
    Local,
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => image.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

impl FromStr for Assignment {
    type Err = crate::image::BadReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "local" {
            return Ok(Self::Local);
        }
        text.parse().map(Self::Image)
    }
}

impl Serialize for Assignment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Assignment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where a decision came from, for `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AssignmentOrigin)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The machine's own assignment.
    Machine,
    /// The policy for unknown machines.
    UnknownPolicy,
    /// An assignment rule.
    Rule {
        /// Which.
        name: RuleName,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("the machine's own assignment"),
            Self::UnknownPolicy => f.write_str("the policy `boot.unknown`"),
            Self::Rule { name } => write!(f, "the rule '{name}'"),
        }
    }
}

/// What a machine shall boot, resolved to a digest where it is an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum Resolution {
    /// This image.
    Image {
        /// As written.
        reference: ImageReference,
        /// As resolved.
        digest: Digest,
        /// Why.
        origin: Origin,
    },
    /// The discovery image, to wait for an assignment.
    Discover {
        /// Its digest.
        digest: Digest,
    },
    /// Wait in the loader: unassigned, and no discovery image exists.
    Wait,
    /// The machine's own disk.
    Local {
        /// Why.
        origin: Origin,
    },
    /// No answer.
    Ignore,
    /// Assigned to an image that does not exist.
    Missing {
        /// As written.
        reference: ImageReference,
        /// Why.
        origin: Origin,
    },
}

/// What is written for a machine, and where: its own assignment, else that of the first rule that means it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Chosen {
    /// What to boot; absent where the policy for unknown machines names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Assignment>,
    /// Who says so.
    pub origin: Origin,
}

/// Chooses for `machine` among `rules`. `None` is a machine that nobody declared or saw before.
pub fn choose(machine: Option<&Machine>, rules: &[Rule], settings: &Settings) -> Chosen {
    if let Some(own) = machine.and_then(|machine| machine.assignment.as_ref()) {
        return Chosen { image: Some(own.clone()), origin: Origin::Machine };
    }
    if let Some(rule) = rule::matching(rules, machine, settings).first() {
        return Chosen { image: Some(rule.image.clone()), origin: Origin::Rule { name: rule.name.clone() } };
    }
    let image = match &settings.unknown {
        UnknownPolicy::Local => Some(Assignment::Local),
        UnknownPolicy::Image(reference) => Some(Assignment::Image(reference.clone())),
        UnknownPolicy::Ignore | UnknownPolicy::Discover => None,
    };
    Chosen { image, origin: Origin::UnknownPolicy }
}

/// Resolves what `machine` boots now. `None` is a machine that nobody declared or saw before.
pub fn resolve(machine: Option<&Machine>, records: &dyn Records, settings: &Settings) -> Resolution {
    let architecture = machine.and_then(|machine| machine.facts.architecture);
    // Most machines need no look at them.
    let has_own = machine.is_some_and(|machine| machine.assignment.is_some());
    let rules = if has_own { Vec::new() } else { records.rules() };
    let Chosen { image, origin } = choose(machine, &rules, settings);
    match image {
        Some(Assignment::Local) => Resolution::Local { origin },
        Some(Assignment::Image(reference)) => resolve_image(&reference, origin, architecture, records),
        None if settings.unknown == UnknownPolicy::Ignore => Resolution::Ignore,
        None => match lookup_for(&settings.discovery_image, architecture, records) {
            Some(digest) => Resolution::Discover { digest },
            None => Resolution::Wait,
        },
    }
}

fn resolve_image(
    reference: &ImageReference,
    origin: Origin,
    architecture: Option<Architecture>,
    records: &dyn Records,
) -> Resolution {
    let reference = reference.clone();
    match lookup_for(&reference, architecture, records) {
        Some(digest) => Resolution::Image { reference, digest, origin },
        None => Resolution::Missing { reference, origin },
    }
}

/// The digest of an image that exists.
pub fn lookup(reference: &ImageReference, records: &dyn Records) -> Option<Digest> {
    lookup_for(reference, None, records)
}

/// The same for a machine of an architecture, where its tag has an image of its own for that.
pub fn lookup_for(
    reference: &ImageReference,
    architecture: Option<Architecture>,
    records: &dyn Records,
) -> Option<Digest> {
    let digest = match reference {
        ImageReference::Digest(digest) => *digest,
        ImageReference::Name(name) => {
            let tag = records.tag(name)?;
            architecture.and_then(|architecture| tag.others.get(&architecture).copied()).unwrap_or(tag.digest)
        }
    };
    records.image(&digest).map(|image| image.digest)
}
