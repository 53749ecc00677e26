//! Records in tables: keys, versioned values, and the view that rules get of them.

use super::storage::{Batch, Fault, Snapshot, Span, Table};
use bennu_rules::{
    Change, MacAddress, Machine, Records,
    backup::Noted,
    boot::{Boot, BootId},
    image::{Digest, Image, ImageName, Tag},
    lease::{Lease, LeaseKey},
    metadata::{Document, MetadataName, Rendered},
    order::Order,
    profile::Profile,
    registry::{Artifact, Push},
    role::{Role, RoleName},
    rule::{Rule, RuleName},
    secret::{HostKeys, Secret, SecretName},
    token::{Token, TokenId},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{cell::RefCell, collections::BTreeSet, net::Ipv4Addr, ops::ControlFlow};

/// First byte of every value. A record whose fields change in a way that serde's defaults cannot read gets
/// the next number, and `decode` an arm that opens the old one.
pub const VERSION: u8 = 1;

/// Where the last that happened with backups is remembered.
const BACKUP_KEY: &[u8] = b"backup";
const ORDER_KEY: &[u8] = b"order";

/// Boots kept per machine; older ones go when a new one begins.
const BOOTS_KEPT: usize = 50;

/// A value as bytes.
pub fn encode<T: Serialize>(table: Table, record: &T) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, record).map_err(|error| Fault::Record { table, reason: error.to_string() })?;
    Ok(bytes)
}

/// A value from bytes of any version that was ever written.
pub fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, Fault> {
    match bytes.split_first() {
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| Fault::Record { table, reason: error.to_string() })
        }
        Some((version, _)) => Err(Fault::Record { table, reason: format!("version {version} is not known") }),
        None => Err(Fault::Record { table, reason: "it is empty".into() }),
    }
}

fn lease_key(key: &LeaseKey) -> [u8; 11] {
    let mut bytes = [0; 11];
    bytes[..4].copy_from_slice(&key.subnet.addr().octets());
    bytes[4] = key.subnet.prefix_len();
    bytes[5..].copy_from_slice(&key.mac.0);
    bytes
}

fn boot_of_machine_key(machine: MacAddress, id: &BootId) -> Vec<u8> {
    [&machine.0[..], id.0.as_bytes()].concat()
}

/// Several machines may say the same UUID. All are of one length.
fn uuid_key(machine: &Machine) -> Option<Vec<u8>> {
    machine.facts.sane_uuid().map(|uuid| [uuid.as_bytes(), &machine.id.0].concat())
}

/// The stored state as rules see it. A rule cannot fail, so a fault met while it looks is kept, and
/// its decision is thrown away by whoever ran it.
pub struct Stored<'a> {
    snapshot: &'a dyn Snapshot,
    fault: RefCell<Option<Fault>>,
}

impl<'a> Stored<'a> {
    /// A view of `snapshot`.
    pub fn new(snapshot: &'a dyn Snapshot) -> Self {
        Self { snapshot, fault: RefCell::new(None) }
    }

    /// What the looking met.
    pub fn check(&self) -> Result<(), Fault> {
        self.fault.borrow().clone().map_or(Ok(()), Err)
    }

    fn keep<T>(&self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.fault.borrow_mut().get_or_insert(fault).clone()).ok()
    }

    pub(super) fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Option<T> {
        let bytes = self.keep(self.snapshot.get(table, key))??;
        self.keep(decode(table, &bytes))
    }

    pub(super) fn all<T: DeserializeOwned>(&self, table: Table) -> Vec<T> {
        let mut found = Vec::new();
        self.each(table, Span::default(), |_, record| {
            found.push(record);
            ControlFlow::Continue(())
        });
        found
    }

    /// Shows records and their keys, one after the other, until `look` has seen enough.
    pub(super) fn each<T: DeserializeOwned>(
        &self,
        table: Table,
        span: Span<'_>,
        mut look: impl FnMut(&[u8], T) -> ControlFlow<()>,
    ) {
        let walked = self.snapshot.walk(table, span, &mut |key, bytes| match self.keep(decode(table, bytes)) {
            Some(record) => look(key, record),
            None => ControlFlow::Break(()),
        });
        self.keep(walked);
    }

    /// The same of what is not read: keys, and values as they are.
    pub(super) fn pairs(&self, table: Table, span: Span<'_>, mut look: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        self.keep(self.snapshot.walk(table, span, &mut look));
    }

    pub(super) fn count(&self, table: Table) -> usize {
        self.keep(self.snapshot.count(table)).unwrap_or_default() as usize
    }

    /// The id of the machine that owns a card.
    pub fn machine_id(&self, card: MacAddress) -> Option<MacAddress> {
        let id = self.keep(self.snapshot.get(Table::Macs, &card.0))??;
        id.try_into().ok().map(MacAddress)
    }

    /// Every lease, ended ones too.
    pub fn leases(&self) -> Vec<Lease> {
        self.all(Table::Leases)
    }

    /// The ids of the keys that anything is sealed under.
    pub fn sealing_keys(&self) -> BTreeSet<String> {
        let secrets = self.secrets().into_iter().map(|secret| secret.value.key);
        secrets.chain(self.all::<HostKeys>(Table::HostKeys).into_iter().map(|keys| keys.pairs.key)).collect()
    }

    /// The durable boots of one machine or of all, oldest first.
    pub fn boots(&self, machine: Option<MacAddress>) -> Vec<Boot> {
        let Some(machine) = machine else { return self.all(Table::Boots) };
        let ids = self.keep(self.snapshot.scan(Table::BootsOfMachine, &machine.0)).unwrap_or_default();
        ids.iter().filter_map(|(key, _)| self.get(Table::Boots, &key[6..])).collect()
    }

    /// The name of a machine's newest durable boot: boots' names sort by time.
    pub fn latest_boot_id(&self, machine: MacAddress) -> Option<BootId> {
        let mut latest = None;
        self.pairs(Table::BootsOfMachine, Span::down(&machine.0), |key, _| {
            latest = key.get(6..).map(|id| BootId(String::from_utf8_lossy(id).into_owned()));
            ControlFlow::Break(())
        });
        latest
    }
}

impl Records for Stored<'_> {
    fn machine(&self, mac: MacAddress) -> Option<Machine> {
        let id = self.keep(self.snapshot.get(Table::Macs, &mac.0))??;
        self.get(Table::Machines, &id)
    }

    fn reservation(&self, address: Ipv4Addr) -> Option<MacAddress> {
        let id = self.keep(self.snapshot.get(Table::Reservations, &address.octets()))??;
        id.try_into().ok().map(MacAddress)
    }

    fn lease(&self, key: &LeaseKey) -> Option<Lease> {
        self.get(Table::Leases, &lease_key(key))
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        let key = self.keep(self.snapshot.get(Table::Addresses, &address.octets()))??;
        self.get(Table::Leases, &key)
    }

    fn tag(&self, name: &ImageName) -> Option<Tag> {
        self.get(Table::Tags, name.to_string().as_bytes())
    }

    fn image(&self, digest: &Digest) -> Option<Image> {
        self.get(Table::Images, &digest.0)
    }

    fn artifact(&self, digest: &Digest) -> Option<Artifact> {
        self.get(Table::Artifacts, &digest.0)
    }

    fn push(&self, name: &ImageName) -> Option<Push> {
        self.get(Table::Pushes, name.to_string().as_bytes())
    }

    fn boot(&self, id: &BootId) -> Option<Boot> {
        self.get(Table::Boots, id.0.as_bytes())
    }

    fn machines_with_uuid(&self, uuid: &str) -> Vec<Machine> {
        let found = self.keep(self.snapshot.scan(Table::Uuids, uuid.as_bytes())).unwrap_or_default();
        found.into_iter().filter_map(|(key, _)| self.get(Table::Machines, key.get(uuid.len()..)?)).collect()
    }

    fn machines(&self) -> Vec<Machine> {
        self.all(Table::Machines)
    }

    fn tags(&self) -> Vec<Tag> {
        self.all(Table::Tags)
    }

    fn images(&self) -> Vec<Image> {
        self.all(Table::Images)
    }

    fn artifacts(&self) -> Vec<Artifact> {
        self.all(Table::Artifacts)
    }

    fn pushes(&self) -> Vec<Push> {
        self.all(Table::Pushes)
    }

    fn token(&self, id: TokenId) -> Option<Token> {
        self.get(Table::Tokens, &id.0)
    }

    fn tokens(&self) -> Vec<Token> {
        self.all(Table::Tokens)
    }

    fn metadata(&self, name: &MetadataName) -> Option<Document> {
        self.get(Table::Metadata, name.as_str().as_bytes())
    }

    fn all_metadata(&self) -> Vec<Document> {
        self.all(Table::Metadata)
    }

    fn metadata_for(&self, macs: &[MacAddress]) -> Vec<Document> {
        let whose = [EVERY].into_iter().chain(macs.iter().map(|mac| mac.0));
        let names = whose.flat_map(|whose| {
            let names = self.keep(self.snapshot.scan(Table::MetadataOf, &whose)).unwrap_or_default();
            names.into_iter().filter_map(|(key, _)| Some(key.get(6..)?.to_vec()))
        });
        names.filter_map(|name| self.get(Table::Metadata, &name)).collect()
    }

    fn rendered(&self, machine: MacAddress) -> Option<Rendered> {
        self.get(Table::Rendered, &machine.0)
    }

    fn secret(&self, name: &SecretName) -> Option<Secret> {
        self.get(Table::Secrets, name.to_string().as_bytes())
    }

    fn secrets(&self) -> Vec<Secret> {
        self.all(Table::Secrets)
    }

    fn host_keys(&self, machine: MacAddress) -> Option<HostKeys> {
        self.get(Table::HostKeys, &machine.0)
    }

    fn rule(&self, name: &RuleName) -> Option<Rule> {
        self.get(Table::Rules, name.to_string().as_bytes())
    }

    fn rules(&self) -> Vec<Rule> {
        self.all(Table::Rules)
    }

    fn profiles(&self) -> Vec<Profile> {
        self.all(Table::Profiles)
    }

    fn role(&self, name: &RoleName) -> Option<Role> {
        self.get(Table::Roles, name.to_string().as_bytes())
    }

    fn roles(&self) -> Vec<Role> {
        self.all(Table::Roles)
    }

    fn backup(&self) -> Option<Noted> {
        self.get(Table::Meta, BACKUP_KEY)
    }

    fn order(&self) -> Option<Order> {
        self.get(Table::Meta, ORDER_KEY)
    }
}

/// Performs one change, its indexes included.
pub fn perform(batch: &mut dyn Batch, change: &Change) -> Result<(), Fault> {
    match change {
        Change::PutMachine(machine) => put_machine(batch, machine),
        Change::RemoveMachine(id) => {
            batch.delete(Table::Rendered, &id.0)?;
            remove_machine(batch, *id)
        }
        Change::PutLease(lease) => put_lease(batch, lease),
        Change::RemoveLease(key) => remove_lease(batch, key),
        Change::PutImage(image) => batch.put(Table::Images, &image.digest.0, &encode(Table::Images, image)?),
        Change::RemoveImage(digest) => batch.delete(Table::Images, &digest.0),
        Change::PutTag(tag) => batch.put(Table::Tags, tag.name.to_string().as_bytes(), &encode(Table::Tags, tag)?),
        Change::RemoveTag(name) => batch.delete(Table::Tags, name.to_string().as_bytes()),
        Change::PutArtifact(artifact) => {
            batch.put(Table::Artifacts, &artifact.digest.0, &encode(Table::Artifacts, artifact)?)
        }
        Change::RemoveArtifact(digest) => batch.delete(Table::Artifacts, &digest.0),
        Change::PutPush(push) => {
            batch.put(Table::Pushes, push.name.to_string().as_bytes(), &encode(Table::Pushes, push)?)
        }
        Change::RemovePush(name) => batch.delete(Table::Pushes, name.to_string().as_bytes()),
        Change::PutBoot(boot) => put_boot(batch, boot),
        Change::PutToken(token) => batch.put(Table::Tokens, &token.id.0, &encode(Table::Tokens, token)?),
        Change::RemoveToken(id) => batch.delete(Table::Tokens, &id.0),
        Change::PutMetadata(document) => put_metadata(batch, document),
        Change::RemoveMetadata(name) => remove_metadata(batch, name),
        Change::PutRendered(rendered) => {
            batch.put(Table::Rendered, &rendered.machine.0, &encode(Table::Rendered, rendered)?)
        }
        Change::PutSecret(secret) => {
            batch.put(Table::Secrets, secret.name.to_string().as_bytes(), &encode(Table::Secrets, secret)?)
        }
        Change::RemoveSecret(name) => batch.delete(Table::Secrets, name.to_string().as_bytes()),
        Change::PutHostKeys(keys) => batch.put(Table::HostKeys, &keys.machine.0, &encode(Table::HostKeys, keys)?),
        Change::RemoveHostKeys(machine) => batch.delete(Table::HostKeys, &machine.0),
        Change::PutRule(rule) => {
            batch.put(Table::Rules, rule.name.to_string().as_bytes(), &encode(Table::Rules, rule)?)
        }
        Change::RemoveRule(name) => batch.delete(Table::Rules, name.to_string().as_bytes()),
        Change::PutProfile(profile) => {
            batch.put(Table::Profiles, profile.name.as_str().as_bytes(), &encode(Table::Profiles, profile)?)
        }
        Change::RemoveProfile(name) => batch.delete(Table::Profiles, name.as_str().as_bytes()),
        Change::PutRole(role) => {
            batch.put(Table::Roles, role.name.to_string().as_bytes(), &encode(Table::Roles, role)?)
        }
        Change::RemoveRole(name) => batch.delete(Table::Roles, name.to_string().as_bytes()),
        Change::NoteBackup(noted) => batch.put(Table::Meta, BACKUP_KEY, &encode(Table::Meta, noted)?),
        Change::PutOrder(order) => batch.put(Table::Meta, ORDER_KEY, &encode(Table::Meta, order)?),
    }
}

fn put_machine(batch: &mut dyn Batch, machine: &Machine) -> Result<(), Fault> {
    remove_machine(batch, machine.id)?;
    batch.put(Table::Machines, &machine.id.0, &encode(Table::Machines, machine)?)?;
    for mac in &machine.macs {
        batch.put(Table::Macs, &mac.0, &machine.id.0)?;
    }
    if let Some(key) = uuid_key(machine) {
        batch.put(Table::Uuids, &key, &[])?;
    }
    match machine.reservation {
        Some(address) => batch.put(Table::Reservations, &address.octets(), &machine.id.0),
        None => Ok(()),
    }
}

fn remove_machine(batch: &mut dyn Batch, id: MacAddress) -> Result<(), Fault> {
    let Some(bytes) = batch.get(Table::Machines, &id.0)? else { return Ok(()) };
    let machine: Machine = decode(Table::Machines, &bytes)?;
    for mac in &machine.macs {
        batch.delete(Table::Macs, &mac.0)?;
    }
    if let Some(key) = uuid_key(&machine) {
        batch.delete(Table::Uuids, &key)?;
    }
    if let Some(address) = machine.reservation {
        batch.delete(Table::Reservations, &address.octets())?;
    }
    batch.delete(Table::Machines, &id.0)
}

fn put_lease(batch: &mut dyn Batch, lease: &Lease) -> Result<(), Fault> {
    let key = lease_key(&lease.key);
    if let Some(earlier) = batch.get(Table::Addresses, &lease.address.octets())?
        && earlier != key
    {
        batch.delete(Table::Leases, &earlier)?;
    }
    if let Some(bytes) = batch.get(Table::Leases, &key)? {
        let old: Lease = decode(Table::Leases, &bytes)?;
        if old.address != lease.address {
            batch.delete(Table::Addresses, &old.address.octets())?;
        }
    }
    batch.put(Table::Leases, &key, &encode(Table::Leases, lease)?)?;
    batch.put(Table::Addresses, &lease.address.octets(), &key)
}

fn remove_lease(batch: &mut dyn Batch, key: &LeaseKey) -> Result<(), Fault> {
    let key = lease_key(key);
    if let Some(bytes) = batch.get(Table::Leases, &key)? {
        let lease: Lease = decode(Table::Leases, &bytes)?;
        batch.delete(Table::Addresses, &lease.address.octets())?;
    }
    batch.delete(Table::Leases, &key)
}

fn put_boot(batch: &mut dyn Batch, boot: &Boot) -> Result<(), Fault> {
    let key = boot.id.0.as_bytes();
    let earlier = batch.get(Table::Boots, key)?.map(|bytes| decode::<Boot>(Table::Boots, &bytes)).transpose()?;
    batch.put(Table::Boots, key, &encode(Table::Boots, boot)?)?;
    match earlier {
        Some(earlier) if earlier.machine == boot.machine => return Ok(()),
        // Its machine joined another, and takes its boots along.
        Some(earlier) => batch.delete(Table::BootsOfMachine, &boot_of_machine_key(earlier.machine, &boot.id))?,
        None => {}
    }
    batch.put(Table::BootsOfMachine, &boot_of_machine_key(boot.machine, &boot.id), &[])?;
    let kept = batch.scan(Table::BootsOfMachine, &boot.machine.0)?;
    for (index, _) in kept.iter().take(kept.len().saturating_sub(BOOTS_KEPT)) {
        batch.delete(Table::Boots, &index[6..])?;
        batch.delete(Table::BootsOfMachine, index)?;
    }
    Ok(())
}

/// Stands for a MAC in the index of documents that are for every machine. No machine has it.
const EVERY: [u8; 6] = [0; 6];

fn metadata_of_key(document: &Document) -> Vec<u8> {
    let whose = document.machine.map_or(EVERY, |mac| mac.0);
    [&whose[..], document.name.as_str().as_bytes()].concat()
}

fn put_metadata(batch: &mut dyn Batch, document: &Document) -> Result<(), Fault> {
    remove_metadata(batch, &document.name)?;
    batch.put(Table::Metadata, document.name.as_str().as_bytes(), &encode(Table::Metadata, document)?)?;
    batch.put(Table::MetadataOf, &metadata_of_key(document), &[])
}

fn remove_metadata(batch: &mut dyn Batch, name: &MetadataName) -> Result<(), Fault> {
    let key = name.as_str().as_bytes();
    let Some(bytes) = batch.get(Table::Metadata, key)? else { return Ok(()) };
    let old: Document = decode(Table::Metadata, &bytes)?;
    batch.delete(Table::MetadataOf, &metadata_of_key(&old))?;
    batch.delete(Table::Metadata, key)
}
