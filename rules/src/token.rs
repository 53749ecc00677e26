//! Tokens of the management plane: who may do what from afar.

use crate::{
    Timestamp,
    image::{Digest, serde_as_text},
};
use serde::{Deserialize, Serialize, de};
use std::{fmt, str::FromStr};

/// A text that is no part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not eight hex digits.
    #[error("'{0}' is not a token's id; write its eight hex digits, as `bennu token list` shows them")]
    Id(String),
    /// A name that cannot be stored.
    #[error("'{0}' is not a token's name; write up to 63 letters, digits, '.', '_' and '-', such as ci-builder")]
    Name(String),
    /// No role of ours.
    #[error("'{0}' is not a role; write read, push, operate or admin")]
    Role(String),
}

/// Short, for errors about text of any length.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// What a token is known by. No secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 4]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        bytes_of_hex(text).map(Self).ok_or_else(|| BadToken::Id(cut(text)))
    }
}

/// What people call a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenName(String);

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenName {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || text.len() > 63 || !text.bytes().all(allowed) {
            return Err(BadToken::Name(cut(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a caller may do. Each may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything but tokens.
    Read,
    /// Bring images: the registry, imports and tags.
    Push,
    /// Everything but tokens.
    Operate,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Push, Self::Operate, Self::Admin];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Push => "push",
            Self::Operate => "operate",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let found = Self::ALL.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| BadToken::Role(cut(text)))
    }
}

serde_as_text!(TokenId, TokenName, Role);

/// A token in the ledger. Its secret is nowhere but with its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Identity.
    pub id: TokenId,
    /// What people call it; no two that are valid share one.
    pub name: TokenName,
    /// What its bearer may do.
    pub role: Role,
    /// SHA-256 of its secret.
    pub secret: Digest,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub by: String,
    /// When it ends; `None`: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was used, to the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

impl Token {
    /// Whether it has ended.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

const PREFIX: &str = "bnu_";

/// A token as its bearer presents it.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Which token it says it is.
    pub id: TokenId,
    /// What only its bearer knows.
    pub secret: [u8; 32],
}

/// The secret stays out of logs.
impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

impl Bearer {
    /// Reads `bnu_<id>_<secret>`; `None`: it is no token of any Bennu.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: id.parse().ok()?, secret: bytes_of_hex(secret)? })
    }

    /// The whole token, for the one time that it is shown.
    pub fn reveal(&self) -> String {
        let secret: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{}_{secret}", self.id)
    }
}

fn bytes_of_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    if hex.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_shown() {
        let bearer = Bearer { id: TokenId([1, 2, 3, 0xfe]), secret: [0xa5; 32] };
        let text = bearer.reveal();
        assert_eq!(text, format!("bnu_010203fe_{}", "a5".repeat(32)));
        assert_eq!(Bearer::parse(&text), Some(bearer.clone()));
        assert!(!format!("{bearer:?}").contains("a5a5"), "no log shows a secret");
        for other in
            ["", "bnu_", "bnu_010203fe", "bnu_010203fe_", "bnu_010203fe_a5", "x", &text[1..], &format!("{text}0")]
        {
            assert_eq!(Bearer::parse(other), None, "{other}");
        }
        assert_eq!(Bearer::parse(&text.replace("a5a5", "é5")), None);
    }

    #[test]
    fn names_ids_and_roles_are_checked() {
        for good in ["ci", "CI-2.x_y", "0"] {
            assert!(good.parse::<TokenName>().is_ok(), "{good}");
        }
        for bad in ["", "-x", "a b", "a\n", "é", &"a".repeat(64)] {
            assert!(bad.parse::<TokenName>().is_err(), "{bad}");
        }
        assert!("0102030".parse::<TokenId>().is_err() && "0102030g".parse::<TokenId>().is_err());
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
