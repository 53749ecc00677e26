//! The one shape of a rule, and what it may see and say.

mod boots;
mod limits;
mod live;
mod offers;

pub use boots::MAX_OPEN_BOOTS;
pub use limits::{DECLINES_OF_A_SUBNET, DECLINES_OF_ONE, STRANGERS_A_SECOND, STRANGERS_AT_ONCE};
pub use live::{Live, MAX_CLAIMS, MAX_VETTED};
pub use offers::{MAX_OFFERS, Offer};

use crate::{
    MacAddress, Machine, Timestamp,
    backup::Noted,
    boot::{Boot, BootId},
    dhcp::standby::Post,
    image::{Digest, Image, ImageName, Tag},
    journey::Observation,
    lease::{Lease, LeaseKey},
    metadata::{Document, MetadataName, Rendered},
    notice::Notice,
    order::Order,
    profile::{Profile, ProfileName},
    registry::{Artifact, Push},
    role::{Role, RoleName},
    rule::{Rule, RuleName},
    secret::{HostKeys, Secret, SecretName},
    settings::Settings,
    token::{Token, TokenId},
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, sync::Arc};

/// When a decision is taken, with what chance and under which configuration.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// Fresh random bytes, for tokens and ids; never used twice.
    pub entropy: [u8; 32],
    /// The configuration.
    pub settings: Arc<Settings>,
}

/// The stored state. A database's read or write transaction implements it, and a plain struct in tests
/// ([`crate::memory::Memory`]).
pub trait Records {
    /// The machine that owns `mac`.
    fn machine(&self, mac: MacAddress) -> Option<Machine>;
    /// The machine for which `address` is held.
    fn reservation(&self, address: Ipv4Addr) -> Option<MacAddress>;
    /// A client's lease, ended or not.
    fn lease(&self, key: &LeaseKey) -> Option<Lease>;
    /// The latest lease of an address, ended or not.
    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease>;
    /// A tag.
    fn tag(&self, name: &ImageName) -> Option<Tag>;
    /// An image.
    fn image(&self, digest: &Digest) -> Option<Image>;
    /// What the registry holds under a digest.
    fn artifact(&self, digest: &Digest) -> Option<Artifact>;
    /// What was pushed under a name.
    fn push(&self, name: &ImageName) -> Option<Push>;
    /// A boot that was made durable.
    fn boot(&self, id: &BootId) -> Option<Boot>;
    /// The machines whose firmware says this UUID ([`crate::facts::Facts::sane_uuid`]), ordered by id.
    fn machines_with_uuid(&self, uuid: &str) -> Vec<Machine>;
    /// Machines, ordered by id. For commands of people, not for packets.
    fn machines(&self) -> Vec<Machine>;
    /// Every tag, ordered by name. For commands of people, not for packets.
    fn tags(&self) -> Vec<Tag>;
    /// Every image, ordered by digest. For commands of people, not for packets.
    fn images(&self) -> Vec<Image>;
    /// Everything the registry holds, ordered by digest. For commands of people, not for packets.
    fn artifacts(&self) -> Vec<Artifact>;
    /// Every tag of the registry, ordered by name. For commands of people, not for packets.
    fn pushes(&self) -> Vec<Push>;
    /// A token.
    fn token(&self, id: TokenId) -> Option<Token>;
    /// Every token, ordered by id. For commands of people.
    fn tokens(&self) -> Vec<Token>;
    /// A metadata document.
    fn metadata(&self, name: &MetadataName) -> Option<Document>;
    /// Every metadata document, ordered by name. For commands of people.
    fn all_metadata(&self) -> Vec<Document>;
    /// The metadata documents for every machine, and those of the machine with these MACs.
    fn metadata_for(&self, macs: &[MacAddress]) -> Vec<Document>;
    /// What a machine's latest boot was given.
    fn rendered(&self, machine: MacAddress) -> Option<Rendered>;
    /// A secret, sealed.
    fn secret(&self, name: &SecretName) -> Option<Secret>;
    /// Every secret, ordered by name.
    fn secrets(&self) -> Vec<Secret>;
    /// The SSH host keys of a machine, by its id.
    fn host_keys(&self, machine: MacAddress) -> Option<HostKeys>;
    /// An assignment rule.
    fn rule(&self, name: &RuleName) -> Option<Rule>;
    /// Every assignment rule, ordered by name; at most [`crate::rule::MAX_RULES`].
    fn rules(&self) -> Vec<Rule>;
    /// Every hardware profile that people keep here, ordered by name; at most [`crate::profile::MAX_PROFILES`].
    fn profiles(&self) -> Vec<Profile>;
    /// A role of tokens.
    fn role(&self, name: &RoleName) -> Option<Role>;
    /// Every role, ordered by name; at most [`crate::role::MAX_ROLES`].
    fn roles(&self) -> Vec<Role>;
    /// The last that happened with backups.
    fn backup(&self) -> Option<Noted>;
    /// What was last asked of the appliance's host.
    fn order(&self) -> Option<Order>;
}

/// What a look at the wire told of an address (RFC 2131 §3.1 step 2, RFC 5227).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vetted {
    /// Which.
    pub address: Ipv4Addr,
    /// The card that answers for it; `None`: nobody does.
    pub taken_by: Option<MacAddress>,
    /// Until when that counts.
    pub until: Timestamp,
}

/// What a rule may see.
pub struct View<'a> {
    /// Stored state.
    pub records: &'a dyn Records,
    /// Volatile state.
    pub live: &'a Live,
}

/// What a rule decided.
#[derive(Debug, Clone)]
pub struct Decision<A> {
    /// For the asker. Leaves only after every change is durable.
    pub answer: A,
    /// For the ledger.
    pub changes: Vec<Change>,
    /// For the volatile state.
    pub volatile: Vec<Volatile>,
    /// What was seen, by machine; delays no answer.
    pub observed: Vec<(MacAddress, Observation)>,
    /// What a person should know; delays no answer.
    pub noticed: Vec<Notice>,
}

impl<A> Decision<A> {
    /// An answer that changes nothing.
    pub fn just(answer: A) -> Self {
        Self { answer, changes: Vec::new(), volatile: Vec::new(), observed: Vec::new(), noticed: Vec::new() }
    }

    /// The same with another answer.
    pub fn map<B>(self, to: impl FnOnce(A) -> B) -> Decision<B> {
        Decision {
            answer: to(self.answer),
            changes: self.changes,
            volatile: self.volatile,
            observed: self.observed,
            noticed: self.noticed,
        }
    }
}

/// One change of the stored state.
#[expect(clippy::large_enum_variant, reason = "a decision holds a few of them for an instant")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Adds or replaces a machine.
    PutMachine(Machine),
    /// Forgets a machine.
    RemoveMachine(MacAddress),
    /// Adds or replaces a lease. The record of the address's earlier holder goes.
    PutLease(Lease),
    /// Forgets a lease.
    RemoveLease(LeaseKey),
    /// Adds an image.
    PutImage(Image),
    /// Removes an image.
    RemoveImage(Digest),
    /// Adds or moves a tag.
    PutTag(Tag),
    /// Removes a tag.
    RemoveTag(ImageName),
    /// Adds or replaces what the registry holds under a digest.
    PutArtifact(Artifact),
    /// Removes it.
    RemoveArtifact(Digest),
    /// Adds or replaces what was pushed under a name.
    PutPush(Push),
    /// Removes it.
    RemovePush(ImageName),
    /// Writes a boot.
    PutBoot(Boot),
    /// Adds or replaces a token.
    PutToken(Token),
    /// Ends a token.
    RemoveToken(TokenId),
    /// Adds or replaces a metadata document.
    PutMetadata(Document),
    /// Removes a metadata document.
    RemoveMetadata(MetadataName),
    /// Holds what a boot's machine is given, in place of what its last boot was.
    PutRendered(Rendered),
    /// Adds or replaces a secret.
    PutSecret(Secret),
    /// Removes a secret.
    RemoveSecret(SecretName),
    /// Adds or replaces the SSH host keys of a machine.
    PutHostKeys(HostKeys),
    /// Removes them.
    RemoveHostKeys(MacAddress),
    /// Adds or replaces an assignment rule.
    PutRule(Rule),
    /// Removes an assignment rule.
    RemoveRule(RuleName),
    /// Adds or replaces a hardware profile.
    PutProfile(Profile),
    /// Removes a hardware profile.
    RemoveProfile(ProfileName),
    /// Adds or replaces a role of tokens.
    PutRole(Role),
    /// Removes a role of tokens.
    RemoveRole(RoleName),
    /// Remembers the last that happened with backups.
    NoteBackup(Noted),
    /// Notes what is asked of the appliance's host.
    PutOrder(Order),
}

/// One change of the volatile state.
#[expect(clippy::large_enum_variant, reason = "a decision holds two or three of them for an instant")]
#[derive(Debug, Clone, PartialEq)]
pub enum Volatile {
    /// Holds an address for a while.
    PutOffer(Offer),
    /// Drops what was held for a client.
    DropOffer(LeaseKey),
    /// Opens a boot or replaces what is known of it.
    PutBoot(Boot),
    /// Forgets the open boot of a machine.
    DropBoot(MacAddress),
    /// Notes whether an address is in use on its wire.
    Vet(Vetted),
    /// Counts a card that nobody knows and that is answered.
    Admit(Timestamp),
    /// Counts a client's word that an address is taken.
    CountDecline {
        /// The subnet of the address.
        subnet: Ipv4Net,
        /// Who said so.
        client: MacAddress,
        /// When.
        at: Timestamp,
    },
    /// Notes whether DHCP is answered on an interface.
    PutPost {
        /// The interface's name.
        interface: String,
        /// Whether it is.
        post: Post,
    },
    /// Notes that a range was searched and had nothing.
    Exhausted {
        /// The subnet.
        subnet: Ipv4Net,
        /// For clients on record, or for strangers.
        is_known: bool,
        /// When.
        at: Timestamp,
    },
}

/// The key of a client's lease in a subnet.
pub fn lease_key(subnet: Ipv4Net, mac: MacAddress) -> LeaseKey {
    LeaseKey { subnet, mac }
}
