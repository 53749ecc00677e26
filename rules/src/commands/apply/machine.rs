//! Documents of kind Machine.

use super::{Kind, Wrong, desk::Desk, escaped, read, schema};
use crate::{
    Change, MacAddress, Machine, Records,
    assignment::Assignment,
    commands::{
        Refusal,
        machines::check_is_a_host,
        text::{check_arguments, check_label, check_labels},
    },
    dhcp::{OptionCode, OptionValue, SiteOptions},
    facts::Facts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// What people say about a machine.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MachineDocument {
    /// Any of its MAC addresses; one that nobody knows declares a machine.
    #[schemars(with = "String")]
    name: MacAddress,
    /// Further MAC addresses. Those that are not named stay its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    macs: Vec<MacAddress>,
    /// Key and value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// An address held for this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reservation: Option<Ipv4Addr>,
    /// What it boots: `name:tag`, `sha256:…` or `local`; what rules or the policy say, if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    image: Option<Assignment>,
    /// Kernel arguments of this machine alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    arguments: String,
    /// DHCP options of this machine alone, by number, such as `"12": "text:web1"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<String, String>,
}

impl MachineDocument {
    fn of(machine: &Machine) -> Self {
        Self {
            name: machine.id,
            macs: machine
                .macs
                .iter()
                .copied()
                .filter(|mac| *mac != machine.id)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            labels: machine.labels.clone(),
            reservation: machine.reservation,
            image: machine.assignment.clone(),
            arguments: machine.arguments.clone(),
            options: machine.options.iter().map(|(code, value)| (code.to_string(), value.to_string())).collect(),
        }
    }

    /// Whether people said nothing of the machine that a document could keep.
    fn is_bare(&self) -> bool {
        self.macs.is_empty() && !self.is_configured()
    }

    fn is_configured(&self) -> bool {
        let Self { name: _, macs: _, labels, reservation, image, arguments, options } = self;
        !labels.is_empty() || reservation.is_some() || image.is_some() || !arguments.is_empty() || !options.is_empty()
    }
}

/// A machine before and after, and which document says so.
struct Changed {
    place: Option<usize>,
    before: Option<Machine>,
    after: Machine,
}

pub(super) struct Machines;

impl Kind for Machines {
    fn name(&self) -> &'static str {
        "Machine"
    }

    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        // By every MAC, since a machine has several names.
        let mut seen: BTreeMap<MacAddress, usize> = BTreeMap::new();
        let mut changed = Vec::new();
        for (place, document) in documents {
            let document: MachineDocument = read(place, document)?;
            let before = desk.view.records.machine(document.name);
            let after = self.machine(place, &document, before.as_ref(), desk)?;
            for mac in &after.macs {
                if let Some(first) = seen.insert(*mac, place) {
                    return Err(Wrong::twice(place, first, &format!("the machine {}", after.id)));
                }
            }
            self.note(Changed { place: Some(place), before, after }, &mut changed, desk);
        }
        if desk.prunes(self.name()) {
            self.prune(&seen, &mut changed, desk);
        }
        check_reservations(&changed, desk)?;
        // Who takes an address comes after who gives it up: the ledger's index of addresses follows the order.
        let moves = |changed: &&Changed| {
            changed
                .before
                .as_ref()
                .is_some_and(|before| before.reservation.is_some() && before.reservation != changed.after.reservation)
        };
        // They stay on record meanwhile: what their boots were given goes with a machine that is removed.
        let without = |changed: &Changed| changed.before.clone().map(|before| Machine { reservation: None, ..before });
        let freed: Vec<Change> = changed.iter().filter(moves).filter_map(without).map(Change::PutMachine).collect();
        desk.changes.extend(freed);
        desk.changes.extend(changed.into_iter().map(|changed| Change::PutMachine(changed.after)));
        Ok(())
    }

    fn export(&self, records: &dyn Records) -> Vec<Value> {
        let documents = records.machines().into_iter().map(|machine| MachineDocument::of(&machine));
        documents
            .filter(|document| !document.is_bare())
            .filter_map(|document| serde_json::to_value(document).ok())
            .collect()
    }

    fn schema(&self) -> Value {
        schema::of::<MachineDocument>()
    }
}

impl Machines {
    /// The machine as a document has it, checked by itself.
    fn machine(
        &self,
        place: usize,
        document: &MachineDocument,
        before: Option<&Machine>,
        desk: &Desk<'_>,
    ) -> Result<Machine, Wrong> {
        let mut machine = before.cloned().unwrap_or_else(|| Machine::new(document.name, desk.at.now));
        for (key, value) in &document.labels {
            let refuse = |refusal| Wrong::refused(place, format!("/labels/{}", escaped(key)), &refusal);
            check_label(key, Some(value)).map_err(refuse)?;
        }
        check_labels(document.labels.len(), document.labels.keys().next_back())
            .map_err(|refusal| Wrong::refused(place, "/labels", &refusal))?;
        check_arguments(&document.arguments).map_err(|refusal| Wrong::refused(place, "/arguments", &refusal))?;
        if let Some(assignment) = &document.image {
            desk.check_assignment(place, assignment)?;
        }
        for (index, mac) in document.macs.iter().enumerate().filter(|(_, mac)| !machine.macs.contains(*mac)) {
            if let Some(other) = desk.view.records.machine(*mac) {
                let reason = format!("{mac} is a card of the machine {}", other.id);
                let advice = format!("join them first: bennu machine join {} {mac}", machine.id);
                return Err(Wrong::new(place, format!("/macs/{index}"), reason, advice));
            }
        }
        let new: BTreeSet<MacAddress> =
            document.macs.iter().copied().filter(|mac| !machine.macs.contains(mac)).collect();
        machine.macs.extend(new);
        machine.labels.clone_from(&document.labels);
        machine.assignment.clone_from(&document.image);
        machine.arguments = document.arguments.split_whitespace().collect::<Vec<_>>().join(" ");
        machine.options = options(place, document)?;
        machine.reservation = document.reservation;
        Ok(machine)
    }

    fn note(&self, changed: Changed, all: &mut Vec<Changed>, desk: &mut Desk<'_>) {
        let before = changed.before.as_ref().map(MachineDocument::of);
        let after = MachineDocument::of(&changed.after);
        if desk.note(self.name(), &changed.after.id, before.as_ref(), Some(&after)) {
            all.push(changed);
        }
    }

    /// Takes away what people said of machines that no document names. What the appliance saw of them stays; of those
    /// that it never saw there is nothing else.
    fn prune(&self, seen: &BTreeMap<MacAddress, usize>, changed: &mut Vec<Changed>, desk: &mut Desk<'_>) {
        for before in desk.view.records.machines() {
            let document = MachineDocument::of(&before);
            if seen.contains_key(&before.id) || !document.is_configured() {
                continue;
            }
            let is_known = before.facts != Facts::default() || desk.view.live.boot(before.id).is_some();
            desk.note(self.name(), &before.id, Some(&document), None);
            if !is_known && before.macs.len() == 1 {
                desk.changes.push(Change::RemoveMachine(before.id));
                let keys = desk.view.records.host_keys(before.id);
                desk.changes.extend(keys.map(|keys| Change::RemoveHostKeys(keys.machine)));
                continue;
            }
            let mut after = Machine::new(before.id, before.first_seen);
            (after.macs, after.facts) = (before.macs.clone(), before.facts.clone());
            after.signed_loader = before.signed_loader;
            changed.push(Changed { place: None, before: Some(before), after });
        }
    }
}

fn options(place: usize, document: &MachineDocument) -> Result<SiteOptions, Wrong> {
    let option = |(code, value): (&String, &String)| {
        let refuse = |bad: crate::dhcp::site::BadOption| {
            Wrong::new(place, format!("/options/{}", escaped(code)), bad.to_string(), "")
        };
        Ok((code.parse::<OptionCode>().map_err(refuse)?, value.parse::<OptionValue>().map_err(refuse)?))
    };
    document.options.iter().map(option).collect()
}

/// No address is held for two machines when all is done, and each new one can be held.
fn check_reservations(changed: &[Changed], desk: &Desk<'_>) -> Result<(), Wrong> {
    let records = desk.view.records;
    let mut takers: BTreeMap<Ipv4Addr, MacAddress> = BTreeMap::new();
    let gone = |holder: MacAddress| {
        changed.iter().any(|changed| changed.after.id == holder)
            || desk.changes.contains(&Change::RemoveMachine(holder))
    };
    let news = changed.iter().filter_map(|changed| {
        let address = changed.after.reservation?;
        let had = changed.before.as_ref().and_then(|before| before.reservation);
        Some((changed.place?, &changed.after, address, had == Some(address)))
    });
    for (place, machine, address, is_old) in news {
        let refuse = |refusal: Refusal| Wrong::refused(place, "/reservation", &refusal);
        if let Some(holder) = takers.insert(address, machine.id) {
            return Err(refuse(Refusal::AddressReserved { address, holder }));
        }
        if is_old {
            continue;
        }
        check_is_a_host(address, desk.own_addresses, &desk.at.settings).map_err(refuse)?;
        if let Some(holder) = records.reservation(address).filter(|holder| !gone(*holder)) {
            return Err(refuse(Refusal::AddressReserved { address, holder }));
        }
        let of_others =
            |lease: &crate::lease::Lease| lease.is_active(desk.at.now) && !machine.macs.contains(&lease.key.mac);
        if let Some(lease) = records.lease_at(address).filter(of_others) {
            let (holder, until) = (lease.key.mac, lease.expires);
            return Err(refuse(Refusal::AddressLeased { address, holder, until }));
        }
    }
    Ok(())
}
