//! What people ask for through the API: one rule a write, answered or refused with a reason.
//!
//! Each has the shape of every rule, and its answer is a `Result`: a refusal changes nothing.

pub mod apply;
pub mod collect;
pub mod images;
pub mod machines;
pub mod metadata;
mod precondition;
pub mod profiles;
pub mod registry;
pub mod roles;
pub mod rules;
pub mod secrets;
mod text;
pub mod tokens;

use crate::{
    MacAddress, Records, Timestamp,
    image::{Digest, ImageName, ImageReference},
    metadata::MetadataName,
    profile::{MAX_PROFILES, ProfileName},
    role::{MAX_ROLES, RoleName},
    rule::{MAX_RULES, RuleName},
    secret::SecretName,
    token::{TokenId, TokenName},
};
use ring::digest::{SHA256, digest};
use std::{fmt, net::Ipv4Addr};

/// Why a command was not carried out. The state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    /// Nobody declared the machine, and it was never seen.
    #[error("no machine has the MAC address {0}")]
    UnknownMachine(MacAddress),
    /// No image by that name or digest.
    #[error("there is no image {reference}")]
    UnknownImage { reference: ImageReference, near: Vec<ImageName> },
    /// The record is not the one that the person looked at (RFC 9110 §13.1.1).
    #[error("machine {0} was changed by somebody else since you looked at it")]
    Changed(MacAddress),
    /// A kernel by itself is no system.
    #[error("{0} only supplies a kernel: a machine that boots it would find no root")]
    KernelOnly(ImageReference),
    /// Two machines are one, but each has something that only one can have.
    #[error("machines {machine} and {other} cannot be joined: each has its own {what}")]
    Conflict { machine: MacAddress, other: MacAddress, what: &'static str },
    /// The address is somebody's already.
    #[error("{address} is reserved for machine {holder}")]
    AddressReserved { address: Ipv4Addr, holder: MacAddress },
    /// The address is in use.
    #[error("{address} is leased to {holder} until {until}")]
    AddressLeased { address: Ipv4Addr, holder: MacAddress, until: Timestamp },
    /// The address cannot be reserved at all.
    #[error("{address} cannot be reserved: {reason}")]
    BadAddress { address: Ipv4Addr, reason: String },
    /// A label that cannot be stored.
    #[error("label '{key}': {reason}")]
    BadLabel { key: String, reason: String },
    /// Kernel arguments that cannot enter a script.
    #[error("arguments: {0}")]
    BadArguments(String),
    /// There is nothing to go back to.
    #[error("{0} has not pointed at another image that is still here")]
    NothingEarlier(ImageName),
    /// It was made of something else, or what it was made of is gone.
    #[error("there is no container image here that {0} was made of")]
    NoSource(ImageReference),
    /// Machines boot it.
    #[error("{reference} is assigned to {}", list(machines))]
    Assigned { reference: ImageReference, machines: Vec<MacAddress> },
    /// The configuration names it.
    #[error("{0} is what the policy boot.unknown gives to unassigned machines")]
    NamedByPolicy(ImageReference),
    /// Machines are fetching it now.
    #[error("{reference} is being booted by {}", list(machines))]
    Booting { reference: ImageReference, machines: Vec<MacAddress> },
    /// No token has this id: it never existed, or was revoked.
    #[error("there is no token {0}")]
    UnknownToken(TokenId),
    /// A valid token has this name.
    #[error("there is a token named '{name}' already: {id}")]
    TokenExists { name: TokenName, id: TokenId },
    /// Nobody's lifetime.
    #[error("a token cannot last {days} days")]
    BadLifetime { days: u32, most: u32 },
    /// It could do nothing.
    #[error("a token without a scope can do nothing")]
    NoScope,
    /// Such a token would see or change more than that, or less.
    #[error("a token cannot be limited so: {0}")]
    BadLimit(String),
    /// Every id that was drawn is some token's.
    #[error("no id is free for another token")]
    NoTokenId,
    /// No metadata document has this name.
    #[error("there is no metadata document {0}")]
    UnknownMetadata(MetadataName),
    /// The document is not the one that the person looked at.
    #[error("the metadata document {0} was changed by somebody else since you looked at it")]
    ChangedMetadata(MetadataName),
    /// A document that cannot be stored.
    #[error("{reason}")]
    BadMetadata { pointer: String, reason: String },
    /// Each boot would read them all.
    #[error("there are {most} such metadata documents already")]
    TooMuchMetadata { most: usize },
    /// The same, by their length.
    #[error("with it the metadata documents for every machine have {bytes} bytes together, and {most} are the most")]
    TooLongMetadata { bytes: usize, most: usize },
    /// No secret has this name.
    #[error("there is no secret {0}")]
    UnknownSecret(SecretName),
    /// A machine that such a document means would not boot without it.
    #[error("the secret {name} cannot go: these metadata documents name it: {}", list(documents))]
    SecretInUse { name: SecretName, documents: Vec<MetadataName> },
    /// A secret that cannot be stored; `pointer` is the field.
    #[error("{reason}")]
    BadSecret { pointer: &'static str, reason: String },
    /// No room for another.
    #[error("there are {0} secrets already")]
    TooManySecrets(usize),
    /// Rules give it to machines.
    #[error("{reference} is given to machines by the rules {}", list(rules))]
    AssignedByRule { reference: ImageReference, rules: Vec<RuleName> },
    /// Nobody made it, or it was removed.
    #[error("there is no rule '{0}'")]
    UnknownRule(RuleName),
    /// The rule is not the one that the person looked at (RFC 9110 §13.1.1).
    #[error("the rule '{0}' was changed by somebody else since you looked at it")]
    RuleChanged(RuleName),
    /// A rule that cannot be stored.
    #[error("the rule '{name}' cannot be stored: {reason}")]
    BadRule { name: RuleName, reason: String },
    /// Every boot looks at all of them.
    #[error("there are {MAX_RULES} rules already, as many as there can be")]
    TooManyRules,
    /// Nobody made it, or it was removed.
    #[error("there is no role '{0}'")]
    UnknownRole(RoleName),
    /// A role that cannot be stored; `pointer` is the field.
    #[error("{reason}")]
    BadRole { pointer: &'static str, reason: String },
    /// A token whose role is gone would keep what it may do, and nothing would say so.
    #[error("the role '{name}' cannot go: these tokens have it: {}", list(tokens))]
    RoleInUse { name: RoleName, tokens: Vec<TokenName> },
    /// Each change of the configuration looks at all of them.
    #[error("there are {MAX_ROLES} roles already, as many as there can be")]
    TooManyRoles,
    /// Nobody keeps it here: it never was, was removed, or is one that Bennu brings along.
    #[error("no hardware profile '{0}' is kept here")]
    UnknownProfile(ProfileName),
    /// A profile that cannot be stored; `pointer` is the field.
    #[error("{reason}")]
    BadProfile { pointer: String, reason: String },
    /// Every packet of a machine may look at all of them.
    #[error("there are {MAX_PROFILES} hardware profiles already, as many as there can be")]
    TooManyProfiles,
    /// A role says what its tokens may do.
    #[error("the role '{0}' says what its tokens may do, and this says it too")]
    RoleAndScopes(RoleName),
    /// The record is not the one that the person looked at (RFC 9110 §13.1.1).
    #[error("{what} was changed or removed by somebody else since you looked at it")]
    Stale { what: String },
    /// It was only to be made where there is none (RFC 9110 §13.1.2).
    #[error("{what} is there already")]
    IsThere { what: String },
}

impl Refusal {
    /// What to do next.
    pub fn advice(&self) -> String {
        match self {
            Self::UnknownMachine(_) => {
                "`bennu machine list` shows every machine; assign it an image to declare it".into()
            }
            Self::UnknownImage { near, .. } if near.is_empty() => {
                "`bennu image list` shows what there is; `bennu image import` adds one".into()
            }
            Self::UnknownImage { near, .. } => format!("near it: {}", list(near)),
            Self::Changed(_) => "look at the machine again, then repeat the change with its new ETag".into(),
            Self::KernelOnly(_) => "assign an image that has a root filesystem".into(),
            Self::Conflict { what, other, .. } => format!("take the {what} from {other} first, then join them"),
            Self::AddressReserved { holder, .. } => format!("choose another address, or take it from {holder} first"),
            Self::AddressLeased { .. } => "choose another address, or repeat this when the lease has ended".into(),
            Self::BadAddress { .. } => "choose a free host address of a configured subnet".into(),
            Self::BadLabel { .. } => {
                "keys: up to 63 letters, digits, '.', '_', '-' and '/'; values: up to 255 printable characters".into()
            }
            Self::BadArguments(_) => {
                "write kernel arguments as one line of printable ASCII, such as console=ttyS1,115200".into()
            }
            Self::NothingEarlier(name) => {
                format!("`bennu image history {name}` shows where it pointed; `bennu image tag` points it anywhere")
            }
            Self::NoSource(_) => "leave --source out: the image itself can be exported".into(),
            Self::Assigned { .. } => "assign these machines another image first".into(),
            Self::NamedByPolicy(_) => {
                "set boot.unknown in the configuration to something else, and restart bennu".into()
            }
            Self::Booting { .. } => "repeat this when they are up".into(),
            Self::UnknownToken(_) => "`bennu token list` shows every token with its id".into(),
            Self::TokenExists { id, .. } => format!("choose another name, or `bennu token revoke {id}` first"),
            Self::BadLifetime { most, .. } => {
                format!("write 1 to {most} days, or none for a token that lasts until it is revoked")
            }
            Self::UnknownMetadata(_) => "`bennu metadata list` shows what there is".into(),
            Self::ChangedMetadata(_) => "look at it again, then repeat the change with its new ETag".into(),
            Self::BadMetadata { .. } => "mend the document, and write it again; nothing was changed".into(),
            Self::TooMuchMetadata { .. } => "put what belongs together into one document, with conditions".into(),
            Self::TooLongMetadata { .. } => "put large files into images; documents say what differs".into(),
            Self::UnknownSecret(_) => "`bennu secret list` shows every secret's name".into(),
            Self::BadSecret { .. } => String::new(),
            Self::SecretInUse { .. } => "take it out of them first, or remove them".into(),
            Self::TooManySecrets(_) => "remove secrets that no machine needs, or put several values in one file".into(),
            Self::NoScope => "name at least one: read, assign, images, power or admin".into(),
            Self::BadLimit(_) => {
                "limit tokens with the scopes read, assign and power, to labels, such as rack=r1".into()
            }
            Self::NoTokenId => "try again; if it stays so, revoke tokens that nobody uses".into(),
            Self::AssignedByRule { .. } => "give these rules another image, or remove them: bennu rule list".into(),
            Self::UnknownRule(_) => "`bennu rule list` shows every rule; `bennu rule set` adds one".into(),
            Self::RuleChanged(_) => "look at the rule again, then repeat the change with its new ETag".into(),
            Self::BadRule { .. } => "describe it in one line".into(),
            Self::UnknownRole(_) => "`bennu token roles` shows every role; a document of kind Role adds one".into(),
            Self::BadRole { .. } => "mend the role, and write it again; nothing was changed".into(),
            Self::RoleInUse { .. } => "revoke them first, or keep the role".into(),
            Self::TooManyRoles => "remove those that no token has".into(),
            Self::UnknownProfile(_) => {
                "`bennu profile list` shows them; those from Bennu can be overruled, not removed".into()
            }
            Self::BadProfile { .. } => "mend the profile, and write it again; nothing was changed".into(),
            Self::TooManyProfiles => "remove those of models that are gone, or let one mean several: '*'".into(),
            Self::RoleAndScopes(_) => "leave out the scopes and the limit, or the role".into(),
            Self::Stale { .. } => "look at it again, then repeat the change with its new ETag".into(),
            Self::IsThere { .. } => "leave `If-None-Match` out to change what is there, or choose another name".into(),
            Self::TooManyRules => {
                "remove rules that nobody needs, or let one name more machines: role in (web,api)".into()
            }
        }
    }
}

/// The version of a record: changes whenever the record does. Whoever labels machines chooses what is hashed, so no
/// other record may come to the same version.
pub(crate) fn version(record: &impl serde::Serialize) -> String {
    let json = serde_json::to_vec(record).unwrap_or_default();
    digest(&SHA256, &json).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A list that stays legible.
fn list<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut text = items.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}

/// The image that a person named, or which ones they may have meant.
pub fn find_image(reference: &ImageReference, records: &dyn Records) -> Result<Digest, Refusal> {
    crate::assignment::lookup(reference, records).ok_or_else(|| Refusal::UnknownImage {
        reference: reference.clone(),
        near: match reference {
            ImageReference::Name(name) => near(name, records),
            ImageReference::Digest(_) => Vec::new(),
        },
    })
}

/// Tags that look like `name`: the same image under other tags, and names a slip of the finger away.
fn near(name: &ImageName, records: &dyn Records) -> Vec<ImageName> {
    let wanted = name.to_string();
    let distance = |known: &ImageName| match known.name() == name.name() {
        true => 0,
        false => strsim::damerau_levenshtein(&wanted, &known.to_string()),
    };
    let mut tags: Vec<ImageName> = records.tags().into_iter().map(|tag| tag.name).collect();
    tags.retain(|known| distance(known) <= 1 + wanted.len() / 3);
    tags.sort_by_key(distance);
    tags.truncate(5);
    tags
}
