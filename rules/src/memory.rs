//! The stored state as a plain struct: for tests, fuzzing and simulations.

use crate::{
    Change, MacAddress, Machine, Records,
    boot::{Boot, BootId},
    image::{Digest, Image, ImageName, Tag},
    lease::{Lease, LeaseKey},
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Records held in memory, with the ledger's semantics.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    machines: BTreeMap<MacAddress, Machine>,
    leases: BTreeMap<LeaseKey, Lease>,
    images: BTreeMap<Digest, Image>,
    tags: BTreeMap<ImageName, Tag>,
    boots: BTreeMap<BootId, Boot>,
}

impl Memory {
    /// Performs one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutMachine(machine) => drop(self.machines.insert(machine.id, machine)),
            Change::RemoveMachine(id) => drop(self.machines.remove(&id)),
            Change::PutLease(lease) => {
                self.leases.retain(|key, held| held.address != lease.address || *key == lease.key);
                self.leases.insert(lease.key, lease);
            }
            Change::RemoveLease(key) => drop(self.leases.remove(&key)),
            Change::PutImage(image) => drop(self.images.insert(image.digest, image)),
            Change::RemoveImage(digest) => drop(self.images.remove(&digest)),
            Change::PutTag(tag) => drop(self.tags.insert(tag.name.clone(), tag)),
            Change::RemoveTag(name) => drop(self.tags.remove(&name)),
            Change::PutBoot(boot) => drop(self.boots.insert(boot.id.clone(), boot)),
        }
    }

    /// Every lease, ended ones too.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }
}

impl Records for Memory {
    fn machine(&self, mac: MacAddress) -> Option<Machine> {
        self.machines.values().find(|machine| machine.macs.contains(&mac)).cloned()
    }

    fn reservation(&self, address: Ipv4Addr) -> Option<MacAddress> {
        self.machines.values().find(|machine| machine.reservation == Some(address)).map(|machine| machine.id)
    }

    fn lease(&self, key: &LeaseKey) -> Option<Lease> {
        self.leases.get(key).cloned()
    }

    fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        self.leases.values().find(|lease| lease.address == address).cloned()
    }

    fn tag(&self, name: &ImageName) -> Option<Tag> {
        self.tags.get(name).cloned()
    }

    fn image(&self, digest: &Digest) -> Option<Image> {
        self.images.get(digest).cloned()
    }

    fn boot(&self, id: &BootId) -> Option<Boot> {
        self.boots.get(id).cloned()
    }

    fn machines(&self) -> Vec<Machine> {
        self.machines.values().cloned().collect()
    }

    fn tags(&self) -> Vec<Tag> {
        self.tags.values().cloned().collect()
    }
}
