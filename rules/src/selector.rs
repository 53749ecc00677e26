//! Label selectors: which machines are meant, in the syntax that Kubernetes made known.
//!
//! `rack=r1,role in (web,api),!decommissioned,env!=dev`: every requirement must be met. `!=` and `notin` are met by machines
//! without the label too. Values with spaces or punctuation are quoted: `owner="Team A, B"`. Nothing at all means every
//! machine. Keys that begin with `bennu.` are not labels but what is known of the machine's hardware ([`subject`]).

mod parse;
pub mod subject;

pub use parse::BadSelector;
pub use subject::{Subject, is_reserved};

use crate::{Machine, settings::Settings};
use serde::{Deserialize, Serialize, de};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// Which machines are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// What one key must be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Which key.
    pub key: String,
    /// What of it.
    pub condition: Condition,
}

/// What is required of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// `key`: it is there, with any value.
    Exists,
    /// `!key`: it is not there.
    Absent,
    /// `key=value`.
    Is(String),
    /// `key!=value`: another value, or none.
    IsNot(String),
    /// `key in (a,b)`.
    In(BTreeSet<String>),
    /// `key notin (a,b)`: another value, or none.
    NotIn(BTreeSet<String>),
}

impl Selector {
    /// What must all be met, as written.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it means every machine.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it looks at hardware: at what a machine says of itself on a wire where everybody can say anything. What
    /// protects something, such as a token's limits, must look at labels alone, which only people set.
    pub fn looks_at_hardware(&self) -> bool {
        self.requirements.iter().any(|requirement| is_reserved(&requirement.key))
    }

    /// Whether something with these labels, and nothing known of its hardware, is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_subject(&Subject::of_labels(labels))
    }

    /// Whether something with these labels may be meant, whatever its hardware is.
    pub fn may_mean(&self, labels: &BTreeMap<String, String>) -> bool {
        let subject = Subject::of_labels(labels);
        self.requirements.iter().all(|requirement| is_reserved(&requirement.key) || requirement.is_met_by(&subject))
    }

    /// Whether a machine is meant.
    pub fn matches_machine(&self, machine: &Machine, settings: &Settings) -> bool {
        self.matches_subject(&Subject::of_machine(machine, settings))
    }

    /// The same where several selectors are asked about one machine: what is derived is derived once.
    pub fn matches_subject(&self, subject: &Subject<'_>) -> bool {
        self.requirements.iter().all(|requirement| requirement.is_met_by(subject))
    }
}

impl Requirement {
    fn is_met_by(&self, subject: &Subject<'_>) -> bool {
        let has = |value: &String| subject.has(&self.key, value);
        match &self.condition {
            Condition::Exists => subject.knows(&self.key),
            Condition::Absent => !subject.knows(&self.key),
            Condition::Is(value) => has(value),
            Condition::IsNot(value) => !has(value),
            Condition::In(values) => values.iter().any(has),
            Condition::NotIn(values) => !values.iter().any(has),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, requirement) in self.requirements.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.condition {
            Condition::Exists => f.write_str(key),
            Condition::Absent => write!(f, "!{key}"),
            Condition::Is(value) => write!(f, "{key}={}", parse::written(value)),
            Condition::IsNot(value) => write!(f, "{key}!={}", parse::written(value)),
            Condition::In(values) => write!(f, "{key} in ({})", listed(values)),
            Condition::NotIn(values) => write!(f, "{key} notin ({})", listed(values)),
        }
    }
}

fn listed(values: &BTreeSet<String>) -> String {
    values.iter().map(|value| parse::written(value)).collect::<Vec<_>>().join(",")
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        parse::parse(text).map(|requirements| Self { requirements })
    }
}

impl Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
