//! The stored state as a plain struct: for tests, fuzzing and simulations.

use crate::{
    Change, MacAddress, Machine, Records,
    backup::Noted,
    boot::{Boot, BootId},
    image::{Digest, Image, ImageName, Tag},
    lease::{Lease, LeaseKey},
    metadata::{Document, MetadataName, Rendered},
    order::Order,
    profile::{Profile, ProfileName},
    registry::{Artifact, Push},
    role::{Role, RoleName},
    rule::{Rule, RuleName},
    secret::{HostKeys, Secret, SecretName},
    token::{Token, TokenId},
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Records held in memory, with the ledger's semantics.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    machines: BTreeMap<MacAddress, Machine>,
    macs: BTreeMap<MacAddress, MacAddress>,
    reservations: BTreeMap<Ipv4Addr, MacAddress>,
    leases: BTreeMap<LeaseKey, Lease>,
    addresses: BTreeMap<Ipv4Addr, LeaseKey>,
    images: BTreeMap<Digest, Image>,
    tags: BTreeMap<ImageName, Tag>,
    artifacts: BTreeMap<Digest, Artifact>,
    pushes: BTreeMap<ImageName, Push>,
    boots: BTreeMap<BootId, Boot>,
    tokens: BTreeMap<TokenId, Token>,
    metadata: BTreeMap<MetadataName, Document>,
    rendered: BTreeMap<MacAddress, Rendered>,
    secrets: BTreeMap<SecretName, Secret>,
    host_keys: BTreeMap<MacAddress, HostKeys>,
    rules: BTreeMap<RuleName, Rule>,
    profiles: BTreeMap<ProfileName, Profile>,
    roles: BTreeMap<RoleName, Role>,
    backup: Option<Noted>,
    order: Option<Order>,
}

impl Memory {
    /// Performs one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutMachine(machine) => self.put_machine(machine),
            Change::RemoveMachine(id) => {
                self.remove_machine(id);
                self.rendered.remove(&id);
            }
            Change::PutLease(lease) => {
                if let Some(earlier) = self.addresses.get(&lease.address).copied() {
                    self.remove_lease(&earlier);
                }
                self.remove_lease(&lease.key);
                self.addresses.insert(lease.address, lease.key);
                self.leases.insert(lease.key, lease);
            }
            Change::RemoveLease(key) => self.remove_lease(&key),
            Change::PutImage(image) => drop(self.images.insert(image.digest, image)),
            Change::RemoveImage(digest) => drop(self.images.remove(&digest)),
            Change::PutTag(tag) => drop(self.tags.insert(tag.name.clone(), tag)),
            Change::RemoveTag(name) => drop(self.tags.remove(&name)),
            Change::PutArtifact(artifact) => drop(self.artifacts.insert(artifact.digest, artifact)),
            Change::RemoveArtifact(digest) => drop(self.artifacts.remove(&digest)),
            Change::PutPush(push) => drop(self.pushes.insert(push.name.clone(), push)),
            Change::RemovePush(name) => drop(self.pushes.remove(&name)),
            Change::PutBoot(boot) => drop(self.boots.insert(boot.id.clone(), boot)),
            Change::PutToken(token) => drop(self.tokens.insert(token.id, token)),
            Change::RemoveToken(id) => drop(self.tokens.remove(&id)),
            Change::PutMetadata(document) => drop(self.metadata.insert(document.name.clone(), document)),
            Change::RemoveMetadata(name) => drop(self.metadata.remove(&name)),
            Change::PutRendered(rendered) => drop(self.rendered.insert(rendered.machine, rendered)),
            Change::PutSecret(secret) => drop(self.secrets.insert(secret.name.clone(), secret)),
            Change::RemoveSecret(name) => drop(self.secrets.remove(&name)),
            Change::PutHostKeys(keys) => drop(self.host_keys.insert(keys.machine, keys)),
            Change::RemoveHostKeys(machine) => drop(self.host_keys.remove(&machine)),
            Change::PutRule(rule) => drop(self.rules.insert(rule.name.clone(), rule)),
            Change::RemoveRule(name) => drop(self.rules.remove(&name)),
            Change::PutProfile(profile) => drop(self.profiles.insert(profile.name.clone(), profile)),
            Change::RemoveProfile(name) => drop(self.profiles.remove(&name)),
            Change::PutRole(role) => drop(self.roles.insert(role.name.clone(), role)),
            Change::RemoveRole(name) => drop(self.roles.remove(&name)),
            Change::NoteBackup(noted) => self.backup = Some(noted),
            Change::PutOrder(order) => self.order = Some(order),
        }
    }

    fn put_machine(&mut self, machine: Machine) {
        self.remove_machine(machine.id);
        self.macs.extend(machine.macs.iter().map(|mac| (*mac, machine.id)));
        self.reservations.extend(machine.reservation.map(|address| (address, machine.id)));
        self.machines.insert(machine.id, machine);
    }

    fn remove_machine(&mut self, id: MacAddress) {
        let Some(machine) = self.machines.remove(&id) else { return };
        for mac in &machine.macs {
            self.macs.remove(mac);
        }
        if let Some(address) = machine.reservation {
            self.reservations.remove(&address);
        }
    }

    fn remove_lease(&mut self, key: &LeaseKey) {
        if let Some(lease) = self.leases.remove(key) {
            self.addresses.remove(&lease.address);
        }
    }

    /// Every lease, ended ones too.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }
}

impl Records for Memory {
    fn machine(&self, mac: MacAddress) -> Option<Machine> {
        self.machines.get(self.macs.get(&mac)?).cloned()
    }

    fn reservation(&self, address: Ipv4Addr) -> Option<MacAddress> {
        self.reservations.get(&address).copied()
    }

    fn lease(&self, key: &LeaseKey) -> Option<Lease> {
        self.leases.get(key).cloned()
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        self.leases.get(self.addresses.get(&address)?).cloned()
    }

    fn tag(&self, name: &ImageName) -> Option<Tag> {
        self.tags.get(name).cloned()
    }

    fn image(&self, digest: &Digest) -> Option<Image> {
        self.images.get(digest).cloned()
    }

    fn artifact(&self, digest: &Digest) -> Option<Artifact> {
        self.artifacts.get(digest).cloned()
    }

    fn push(&self, name: &ImageName) -> Option<Push> {
        self.pushes.get(name).cloned()
    }

    fn boot(&self, id: &BootId) -> Option<Boot> {
        self.boots.get(id).cloned()
    }

    fn machines_with_uuid(&self, uuid: &str) -> Vec<Machine> {
        self.machines.values().filter(|machine| machine.facts.sane_uuid().as_deref() == Some(uuid)).cloned().collect()
    }

    fn machines(&self) -> Vec<Machine> {
        self.machines.values().cloned().collect()
    }

    fn tags(&self) -> Vec<Tag> {
        self.tags.values().cloned().collect()
    }

    fn images(&self) -> Vec<Image> {
        self.images.values().cloned().collect()
    }

    fn artifacts(&self) -> Vec<Artifact> {
        self.artifacts.values().cloned().collect()
    }

    fn pushes(&self) -> Vec<Push> {
        self.pushes.values().cloned().collect()
    }

    fn token(&self, id: TokenId) -> Option<Token> {
        self.tokens.get(&id).cloned()
    }

    fn tokens(&self) -> Vec<Token> {
        self.tokens.values().cloned().collect()
    }

    fn metadata(&self, name: &MetadataName) -> Option<Document> {
        self.metadata.get(name).cloned()
    }

    fn all_metadata(&self) -> Vec<Document> {
        self.metadata.values().cloned().collect()
    }

    fn metadata_for(&self, macs: &[MacAddress]) -> Vec<Document> {
        let applies = |document: &&Document| document.machine.is_none_or(|machine| macs.contains(&machine));
        self.metadata.values().filter(applies).cloned().collect()
    }

    fn rendered(&self, machine: MacAddress) -> Option<Rendered> {
        self.rendered.get(&machine).cloned()
    }

    fn secret(&self, name: &SecretName) -> Option<Secret> {
        self.secrets.get(name).cloned()
    }

    fn secrets(&self) -> Vec<Secret> {
        self.secrets.values().cloned().collect()
    }

    fn host_keys(&self, machine: MacAddress) -> Option<HostKeys> {
        self.host_keys.get(&machine).cloned()
    }

    fn rule(&self, name: &RuleName) -> Option<Rule> {
        self.rules.get(name).cloned()
    }

    fn rules(&self) -> Vec<Rule> {
        self.rules.values().cloned().collect()
    }

    fn profiles(&self) -> Vec<Profile> {
        self.profiles.values().cloned().collect()
    }

    fn role(&self, name: &RoleName) -> Option<Role> {
        self.roles.get(name).cloned()
    }

    fn roles(&self) -> Vec<Role> {
        self.roles.values().cloned().collect()
    }

    fn backup(&self) -> Option<Noted> {
        self.backup.clone()
    }

    fn order(&self) -> Option<Order> {
        self.order.clone()
    }
}
