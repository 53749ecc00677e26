//! Roles: what tokens of one purpose may do, and how long they last.

use crate::{image::serde_as_text, selector::Selector, token::Scopes};
use serde::{Deserialize, Serialize, de};
use std::{fmt, str::FromStr};

/// Each change of the configuration looks at all of them.
pub const MAX_ROLES: usize = 256;

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a role's name; write up to 63 letters, digits, '.', '_' and '-', such as ci-builder")]
pub struct BadRoleName(String);

/// What people call a role; its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(String);

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = BadRoleName;

    fn from_str(text: &str) -> Result<Self, BadRoleName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || text.len() > 63 || !text.bytes().all(allowed) {
            return Err(BadRoleName(text.chars().filter(|c| !c.is_control()).take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

serde_as_text!(RoleName);

/// What tokens may do that are made with it. Whoever changes it changes those tokens; their secrets are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = TokenRole)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name.
    pub name: RoleName,
    /// What the bearers of its tokens may do: `read`, `assign`, `images`, `power`, `admin`.
    pub scopes: Scopes,
    /// The labels of the machines that they see and change, such as `rack=r1`; all machines, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Selector>,
    /// Days that such a token lasts at most; without, until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u32>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}
