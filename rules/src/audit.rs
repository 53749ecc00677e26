//! The audit log: which changes of the stored state are people's, and what is kept of each.
//!
//! Nothing has to remember to write it. The ledger asks [`target`] about every change that it performs, looks at the
//! target before and after ([`look`]), and keeps a record of what differs, in the batch of the change itself. Leases,
//! boots, observations and when a token was last used are no writes of people.

use crate::{
    Change, MacAddress, Machine, Records, Timestamp,
    assignment::Assignment,
    dhcp::site::SiteOptions,
    image::{Digest, ImageName, serde_as_text},
    metadata::MetadataName,
    profile::ProfileName,
    role::RoleName,
    rule::RuleName,
    secret::{Secret, SecretName},
    selector::Selector,
    token::{Token, TokenId, TokenName},
};
use serde::{Deserialize, Serialize, de};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

/// Who wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditWho)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Who {
    /// A user of the appliance's host, over the local socket.
    Local {
        /// Its id, as the kernel tells it.
        uid: Option<u32>,
        /// Its name, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// The bearer of a token.
    Token {
        /// The token's id.
        id: TokenId,
        /// Its name then.
        name: TokenName,
    },
    /// The appliance itself.
    Bennu {
        /// Whose wish it carried out later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_behalf_of: Option<String>,
    },
    /// It was not said; a fault of Bennu's.
    Unknown,
}

impl Who {
    /// Whether `text` means them: a kind, a user's name or id, a token's name or id.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Local { uid, user } => {
                text == "local" || user.as_deref() == Some(text) || uid.is_some_and(|uid| uid.to_string() == text)
            }
            Self::Token { id, name } => name.to_string() == text || id.to_string() == text,
            Self::Bennu { on_behalf_of } => text == "bennu" || on_behalf_of.as_deref() == Some(text),
            Self::Unknown => text == "unknown",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid: None, .. } => f.write_str("local"),
            Self::Local { uid: Some(uid), user: None } => write!(f, "local (uid {uid})"),
            Self::Local { uid: Some(uid), user: Some(user) } => write!(f, "{user} (uid {uid})"),
            Self::Token { id, name } => write!(f, "{name} (token {id})"),
            Self::Bennu { on_behalf_of: None } => f.write_str("bennu"),
            Self::Bennu { on_behalf_of: Some(whose) } => write!(f, "bennu for {whose}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Who wrote, from where, and what they asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub who: Who,
    /// The address that the request came from, or `socket`; `appliance` for what nobody asked just then.
    pub from: String,
    /// The request's method and path.
    pub request: String,
    /// The machines that they may change; `None`: all, and what belongs to no machine.
    pub limit: Option<Selector>,
}

impl Author {
    /// The appliance, for what it does later on somebody's behalf, or of itself.
    pub fn bennu(on_behalf_of: Option<String>) -> Self {
        Self { who: Who::Bennu { on_behalf_of }, from: "appliance".into(), request: String::new(), limit: None }
    }

    /// For a write that nobody was named for.
    pub fn unknown() -> Self {
        Self { who: Who::Unknown, from: "appliance".into(), request: String::new(), limit: None }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditAction)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was not there before.
    Created,
    /// It is another now.
    Changed,
    /// It is gone.
    Removed,
    /// The oldest records of the audit log itself went.
    Trimmed,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Trimmed => "trimmed",
        })
    }
}

/// One thing of people's in the stored state. As text, its kind and its name: `tag web:v1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// What people say about a machine.
    Machine(MacAddress),
    /// An image.
    Image(Digest),
    /// A tag.
    Tag(ImageName),
    /// What the registry holds under a digest.
    Artifact(Digest),
    /// What was pushed under a name.
    Push(ImageName),
    /// A token.
    Token(TokenId),
    /// A metadata document.
    Metadata(MetadataName),
    /// A secret.
    Secret(SecretName),
    /// An assignment rule.
    Rule(RuleName),
    /// A hardware profile.
    Profile(ProfileName),
    /// A role of tokens.
    Role(RoleName),
    /// What happened with backups.
    Backup,
    /// The appliance's own host.
    Host,
}

/// A target as a record names it: of a kind that a later Bennu may have and this one does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetName {
    /// `machine`, `image`, `tag`, …
    pub kind: String,
    /// Which.
    pub name: String,
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(' ').ok_or_else(|| format!("'{text}' names no kind and no name"))?;
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

serde_as_text!(TargetName);

impl Target {
    /// As a record names it.
    pub fn name(&self) -> TargetName {
        let (kind, name) = match self {
            Self::Machine(id) => ("machine", id.to_string()),
            Self::Image(digest) => ("image", digest.to_string()),
            Self::Tag(name) => ("tag", name.to_string()),
            Self::Artifact(digest) => ("artifact", digest.to_string()),
            Self::Push(name) => ("push", name.to_string()),
            Self::Token(id) => ("token", id.to_string()),
            Self::Metadata(name) => ("metadata", name.to_string()),
            Self::Secret(name) => ("secret", name.to_string()),
            Self::Rule(name) => ("rule", name.to_string()),
            Self::Profile(name) => ("profile", name.to_string()),
            Self::Role(name) => ("role", name.to_string()),
            Self::Backup => ("backup", "last".into()),
            Self::Host => ("appliance", "host".to_owned()),
        };
        TargetName { kind: kind.to_owned(), name }
    }
}

/// What of people's a change changes. Whoever adds a change says here whether it is theirs.
pub fn target(change: &Change) -> Option<Target> {
    Some(match change {
        Change::PutMachine(machine) => Target::Machine(machine.id),
        Change::RemoveMachine(id) => Target::Machine(*id),
        Change::PutImage(image) => Target::Image(image.digest),
        Change::RemoveImage(digest) => Target::Image(*digest),
        Change::PutTag(tag) => Target::Tag(tag.name.clone()),
        Change::RemoveTag(name) => Target::Tag(name.clone()),
        Change::PutArtifact(artifact) => Target::Artifact(artifact.digest),
        Change::RemoveArtifact(digest) => Target::Artifact(*digest),
        Change::PutPush(push) => Target::Push(push.name.clone()),
        Change::RemovePush(name) => Target::Push(name.clone()),
        Change::PutToken(token) => Target::Token(token.id),
        Change::RemoveToken(id) => Target::Token(*id),
        Change::PutMetadata(document) => Target::Metadata(document.name.clone()),
        Change::RemoveMetadata(name) => Target::Metadata(name.clone()),
        Change::PutSecret(secret) => Target::Secret(secret.name.clone()),
        Change::RemoveSecret(name) => Target::Secret(name.clone()),
        // They are made at a boot, and go with their machine, whose change is here.
        Change::PutHostKeys(_) | Change::RemoveHostKeys(_) => return None,
        // What a boot was given comes of documents and labels, whose changes are here.
        Change::PutRendered(_) => return None,
        Change::PutRule(rule) => Target::Rule(rule.name.clone()),
        Change::RemoveRule(name) => Target::Rule(name.clone()),
        Change::PutProfile(profile) => Target::Profile(profile.name.clone()),
        Change::RemoveProfile(name) => Target::Profile(name.clone()),
        Change::PutRole(role) => Target::Role(role.name.clone()),
        Change::RemoveRole(name) => Target::Role(name.clone()),
        Change::NoteBackup(_) => Target::Backup,
        Change::PutOrder(_) => Target::Host,
        Change::PutLease(_) | Change::RemoveLease(_) | Change::PutBoot(_) => return None,
    })
}

/// Whether a change that came without an author may be a person's. Machines come on record by themselves, and what is
/// known of their hardware changes with every boot.
pub fn may_be_of_a_person(change: &Change, records: &dyn Records) -> bool {
    match change {
        Change::PutMachine(machine) => {
            let before = records.machine(machine.id).unwrap_or_else(|| Machine::new(machine.id, Timestamp::default()));
            Declared::of(machine) != Declared::of(&before)
        }
        // A machine that is found to be another's card goes into that one's record.
        Change::RemoveMachine(id) => records
            .machine(*id)
            .is_some_and(|machine| Declared::of(&machine) != Declared::of(&Machine::new(*id, Timestamp::default()))),
        _ => true,
    }
}

/// What people say about a machine, and so what a record shows of it: not what it was seen to be.
#[derive(PartialEq, Serialize)]
struct Declared<'a> {
    labels: &'a BTreeMap<String, String>,
    reservation: &'a Option<Ipv4Addr>,
    assignment: &'a Option<Assignment>,
    arguments: &'a str,
    options: &'a SiteOptions,
}

impl<'a> Declared<'a> {
    fn of(machine: &'a Machine) -> Self {
        // Without `..`: whoever adds a field says here whether people write it.
        let Machine {
            id: _,
            macs: _,
            unvouched: _,
            labels,
            reservation,
            assignment,
            arguments,
            options,
            facts: _,
            first_seen: _,
            signed_loader: _,
        } = machine;
        Self { labels, reservation, assignment, arguments, options }
    }
}

/// What a record shows of a target; `None`: it is not there. Never a secret, nor the digest of one.
pub fn look(target: &Target, records: &dyn Records) -> Option<Value> {
    match target {
        Target::Machine(id) => records.machine(*id).filter(|machine| machine.id == *id).map(|machine| {
            let mut shown = json!(Declared::of(&machine));
            shown["macs"] = json!(machine.macs);
            shown
        }),
        Target::Image(digest) => records.image(digest).map(|image| {
            json!({
                "source": image.source, "architecture": image.config.architecture, "size": image.size(),
                "imported": image.imported, "verdict": image.verdict,
            })
        }),
        Target::Rule(name) => records.rule(name).map(|rule| json!(rule)),
        Target::Profile(name) => {
            records.profiles().into_iter().find(|profile| profile.name == *name).map(|profile| json!(profile))
        }
        Target::Role(name) => records.role(name).map(|role| json!(role)),
        Target::Backup => records.backup().map(|noted| json!(noted)),
        // When it was asked tells one restart from the next.
        Target::Host => records.order().map(|order| json!(order)),
        // Its history is these records.
        Target::Tag(name) => records.tag(name).map(|tag| json!({ "digest": tag.digest, "others": tag.others })),
        Target::Artifact(digest) => records.artifact(digest).map(|artifact| {
            json!({
                "media_type": artifact.media_type, "kind": artifact.kind, "size": artifact.size,
                "subject": artifact.subject, "repositories": artifact.repositories,
            })
        }),
        Target::Push(name) => records
            .push(name)
            .map(|push| json!({ "digest": push.digest, "at": push.at, "by": push.by, "outcome": push.outcome })),
        Target::Token(id) => records.token(*id).map(|token| {
            let Token { id: _, name, scopes, limit, role, secret: _, created, by, expires, last_used: _ } = token;
            let mut shown = json!({
                "name": name, "scopes": scopes, "limit": limit, "created": created, "by": by, "expires": expires,
            });
            if let Some(role) = role {
                shown["role"] = json!(role);
            }
            shown
        }),
        Target::Metadata(name) => records.metadata(name).map(|document| json!(document)),
        // When it was set tells that it is another one.
        Target::Secret(name) => records.secret(name).map(|secret| {
            let Secret { name: _, target, file, value: _, set, by } = secret;
            json!({ "for": target, "file": file, "set": set, "by": by })
        }),
    }
}

/// One write, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditRecord {
    /// Its place in the log: 1, 2, 3, …
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who wrote.
    pub who: Who,
    /// From where: an address and port, `socket`, or `appliance`.
    pub from: String,
    /// The request's method and path; empty for what the appliance did by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// What was done.
    pub action: Action,
    /// To what.
    #[schema(value_type = String)]
    pub target: TargetName,
    /// How it was; `null`: it was not there.
    pub before: Option<Value>,
    /// How it is since; `null`: it is gone.
    pub after: Option<Value>,
    /// The hash of the record before this; of the first, zeros.
    pub previous: Digest,
    /// SHA-256 of all the above as canonical JSON.
    pub hash: Digest,
}

impl AuditRecord {
    /// Whether it is about the machine that has `mac`, or had it.
    pub fn concerns(&self, mac: MacAddress) -> bool {
        let mac = mac.to_string();
        let holds = |value: &Option<Value>| {
            let macs = value.as_ref().and_then(|value| value["macs"].as_array());
            macs.is_some_and(|macs| macs.iter().any(|known| known.as_str() == Some(&mac)))
        };
        self.target.kind == "machine" && (self.target.name == mac || holds(&self.before) || holds(&self.after))
    }
}

/// JSON with the keys of every object in their order and without blanks, so that the same value has the same bytes
/// whoever writes it.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = fields.into_iter().map(|(key, value)| format!("{}:{}", json!(key), canonical(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests;
