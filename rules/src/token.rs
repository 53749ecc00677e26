//! Tokens of the management plane: who may do what from afar.

use crate::{
    Timestamp,
    image::{Digest, serde_as_text},
    role::RoleName,
    selector::Selector,
};
use serde::{Deserialize, Serialize, de};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// A text that is no part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not eight hex digits.
    #[error("'{0}' is not a token's id; write its eight hex digits, as `bennu token list` shows them")]
    Id(String),
    /// A name that cannot be stored.
    #[error("'{0}' is not a token's name; write up to 63 letters, digits, '.', '_' and '-', such as ci-builder")]
    Name(String),
    /// No scope of ours.
    #[error("'{0}' is not a scope; write read, assign, images, power or admin")]
    Scope(String),
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

/// One thing that a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at everything but tokens.
    Read,
    /// Say what machines are and boot: labels, assignments, reservations, rules.
    Assign,
    /// Bring, move, test and remove images: the registry, imports, tags, the collection.
    Images,
    /// Switch machines on and off.
    Power,
    /// All of these, and whatever else there is: tokens, and what no other scope names.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Read, Self::Assign, Self::Images, Self::Power, Self::Admin];
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Assign => "assign",
            Self::Images => "images",
            Self::Power => "power",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Scope {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let found = Self::ALL.into_iter().find(|scope| scope.to_string() == text);
        found.ok_or_else(|| BadToken::Scope(cut(text)))
    }
}

/// What a caller may do, together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Whether `scope` is among them. Who has [`Scope::Admin`] has every one.
    pub fn have(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }
}

impl<S: IntoIterator<Item = Scope>> From<S> for Scopes {
    fn from(scopes: S) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(", "))
    }
}

serde_as_text!(TokenId, TokenName, Scope);

/// A token in the ledger. Its secret is nowhere but with its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredToken")]
pub struct Token {
    /// Identity.
    pub id: TokenId,
    /// What people call it; no two that are valid share one.
    pub name: TokenName,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// The machines that its bearer sees and changes; `None`: all, and what belongs to no machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Selector>,
    /// The role that says what its bearer may do: its scopes and its limit are that role's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
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

/// A token as any Bennu wrote it.
#[derive(Deserialize)]
struct StoredToken {
    id: TokenId,
    name: TokenName,
    scopes: Option<Scopes>,
    /// Its role; before there were scopes, what stood for some.
    role: Option<RoleName>,
    limit: Option<Selector>,
    secret: Digest,
    created: Timestamp,
    by: String,
    expires: Option<Timestamp>,
    last_used: Option<Timestamp>,
}

/// What tokens had before there were scopes. Each could do all that the ones before it could.
fn before_scopes(role: &RoleName) -> Scopes {
    match role.to_string().as_str() {
        "read" => [Scope::Read].into(),
        "push" => [Scope::Read, Scope::Images].into(),
        "operate" => [Scope::Read, Scope::Assign, Scope::Images, Scope::Power].into(),
        "admin" => [Scope::Admin].into(),
        _ => Scopes::default(),
    }
}

impl From<StoredToken> for Token {
    fn from(stored: StoredToken) -> Self {
        let StoredToken { id, name, scopes, role, limit, secret, created, by, expires, last_used } = stored;
        let (scopes, role) = match (scopes, role) {
            (Some(scopes), role) => (scopes, role),
            (None, role) => (role.as_ref().map(before_scopes).unwrap_or_default(), None),
        };
        Self { id, name, scopes, limit, role, secret, created, by, expires, last_used }
    }
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
    fn names_ids_and_scopes_are_checked() {
        for good in ["ci", "CI-2.x_y", "0"] {
            assert!(good.parse::<TokenName>().is_ok(), "{good}");
        }
        for bad in ["", "-x", "a b", "a\n", "é", &"a".repeat(64)] {
            assert!(bad.parse::<TokenName>().is_err(), "{bad}");
        }
        assert!("0102030".parse::<TokenId>().is_err() && "0102030g".parse::<TokenId>().is_err());
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        assert!("root".parse::<Scope>().is_err());
    }

    #[test]
    fn tokens_of_before_scopes_mean_what_they_meant() {
        let stored = |role: &str| -> Token {
            let secret = "ab".repeat(32);
            let json = format!(
                r#"{{"id":"01020304","name":"ci","role":"{role}","secret":"sha256:{secret}","created":7,"by":"local"}}"#
            );
            serde_json::from_str(&json).unwrap()
        };
        use Scope::{Admin, Assign, Images, Power, Read};
        for (role, may) in [
            ("read", &[Read][..]),
            ("push", &[Read, Images]),
            ("operate", &[Read, Assign, Images, Power]),
            ("admin", &[Read, Assign, Images, Power, Admin]),
        ] {
            let token = stored(role);
            for scope in Scope::ALL {
                assert_eq!(token.scopes.have(scope), may.contains(&scope), "{role} {scope}");
            }
            let again: Token = serde_json::from_str(&serde_json::to_string(&token).unwrap()).unwrap();
            assert_eq!(again, token);
        }
    }
}
