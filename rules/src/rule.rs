//! Assignment rules: what machines boot that have no assignment of their own.

use crate::{
    Machine,
    assignment::Assignment,
    image::serde_as_text,
    selector::{Selector, Subject},
    settings::Settings,
};
use serde::{Deserialize, Serialize, de};
use std::{cmp::Reverse, fmt, str::FromStr};

/// Rules are few and machines many: every boot that opens looks at all of them.
pub const MAX_RULES: usize = 256;

/// A text that names no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a rule's name; write up to 63 letters, digits, '.', '_' and '-', such as web-servers")]
pub struct BadRuleName(String);

/// What people call a rule; its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(String);

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RuleName {
    type Err = BadRuleName;

    fn from_str(text: &str) -> Result<Self, BadRuleName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || text.len() > 63 || !text.bytes().all(allowed) {
            return Err(BadRuleName(text.chars().filter(|c| !c.is_control()).take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

serde_as_text!(RuleName);

/// Machines that a selector means boot an image, unless they have an assignment of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rule {
    /// Identity.
    pub name: RuleName,
    /// Which machines.
    #[serde(default)]
    #[schema(value_type = String)]
    pub selector: Selector,
    /// What they boot: `name:tag`, `sha256:…` or `local`.
    pub image: Assignment,
    /// The rule with the greatest wins; of equal ones that whose name comes first.
    #[serde(default)]
    pub priority: i32,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Rule {
    /// What rules are ordered by: the first that means a machine wins.
    fn rank(&self) -> (Reverse<i32>, &RuleName) {
        (Reverse(self.priority), &self.name)
    }
}

/// The rules that mean a machine, the one that wins first. `None` is a machine that nobody declared or saw before.
pub fn matching<'r>(rules: &'r [Rule], machine: Option<&Machine>, settings: &Settings) -> Vec<&'r Rule> {
    let nothing = Default::default();
    let subject = match machine {
        Some(machine) => Subject::of_machine(machine, settings),
        None => Subject::of_labels(&nothing),
    };
    let mut found: Vec<&Rule> = rules.iter().filter(|rule| rule.selector.matches_subject(&subject)).collect();
    found.sort_by(|a, b| a.rank().cmp(&b.rank()));
    found
}
