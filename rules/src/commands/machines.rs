//! Commands about machines.

pub use super::precondition::Expected;

use super::{
    Refusal, find_image, precondition,
    text::{check_arguments, check_label, check_labels},
};
use crate::{
    Change, Decision, MacAddress, Machine, Moment, Records, Timestamp, View, Volatile,
    assignment::Assignment,
    boot::Boot,
    dhcp::{OptionCode, OptionValue},
    image::{Content, ImageReference},
    settings::Settings,
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// The version of a record: changes whenever the record does.
pub fn version(machine: &Machine) -> String {
    super::version(machine)
}

/// Assigns an image or the own disk, or takes the assignment away.
#[derive(Debug, Clone)]
pub struct Assign {
    /// Any MAC of the machine; one that nobody knows declares a machine.
    pub mac: MacAddress,
    /// What to boot; `None` leaves it to the policy for unknown machines.
    pub assignment: Option<Assignment>,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Changes what people say about a machine.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Labels to set, or to remove.
    pub labels: BTreeMap<String, Option<String>>,
    /// The address to hold; `Some(None)` holds none any more.
    pub reservation: Option<Option<Ipv4Addr>>,
    /// Kernel arguments.
    pub arguments: Option<String>,
    /// DHCP options to set, or to remove.
    pub options: BTreeMap<OptionCode, Option<OptionValue>>,
    /// MACs that are this machine's too. Those of another machine bring its record along.
    pub join: Vec<MacAddress>,
}

/// An [`Edit`] of one machine.
#[derive(Debug, Clone)]
pub struct EditMachine {
    /// Any MAC of the machine; one that nobody knows declares a machine.
    pub mac: MacAddress,
    /// What to change.
    pub edit: Edit,
    /// Our own addresses, which no machine can have.
    pub own_addresses: Vec<Ipv4Addr>,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Removes a machine's record.
#[derive(Debug, Clone)]
pub struct Forget {
    /// Any MAC of the machine.
    pub mac: MacAddress,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// A command's answer: the machine as it is now.
pub type Answer = Result<Machine, Refusal>;

/// Carries out [`Assign`].
pub fn assign(request: &Assign, view: &View<'_>, at: &Moment) -> Decision<Answer> {
    settle(|| {
        let (old, mut machine) = match &request.assignment {
            Some(_) => known_or_new(request.mac, &request.expected, view.records, at.now)?,
            None => known(request.mac, &request.expected, view.records).map(|old| (Some(old.clone()), old))?,
        };
        if let Some(Assignment::Image(reference)) = &request.assignment {
            check_bootable(reference, view.records)?;
        }
        machine.assignment = request.assignment.clone();
        Ok(stored(old, machine))
    })
}

/// Carries out [`EditMachine`].
pub fn edit(request: &EditMachine, view: &View<'_>, at: &Moment) -> Decision<Answer> {
    settle(|| {
        let (old, mut machine) = known_or_new(request.mac, &request.expected, view.records, at.now)?;
        let mut joined = Vec::new();
        for mac in &request.edit.join {
            joined.extend(join(&mut machine, *mac, view.records)?);
        }
        for (key, value) in &request.edit.labels {
            check_label(key, value.as_deref())?;
            match value {
                Some(value) => drop(machine.labels.insert(key.clone(), value.clone())),
                None => drop(machine.labels.remove(key)),
            }
        }
        check_labels(machine.labels.len(), request.edit.labels.keys().next_back())?;
        if let Some(arguments) = &request.edit.arguments {
            check_arguments(arguments)?;
            machine.arguments = arguments.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        for (code, value) in &request.edit.options {
            match value {
                Some(value) => drop(machine.options.insert(*code, value.clone())),
                None => drop(machine.options.remove(code)),
            }
        }
        if let Some(reservation) = request.edit.reservation {
            if let Some(address) = reservation {
                check_reservation(address, &machine, &request.own_addresses, view.records, at)?;
            }
            machine.reservation = reservation;
        }
        let volatile = joined.iter().flat_map(|id| move_boot(*id, machine.id, view)).collect();
        let host_keys: Vec<Change> =
            joined.iter().flat_map(|id| super::secrets::join_host_keys(machine.id, *id, view)).collect();
        let mut decision = stored(old, machine);
        decision.changes.splice(..0, joined.into_iter().map(Change::RemoveMachine));
        decision.changes.extend(host_keys);
        Ok(Decision { volatile, ..decision })
    })
}

/// Carries out [`Forget`]. Its boots stay as history, its leases end by themselves; its SSH host keys go.
pub fn forget(request: &Forget, view: &View<'_>, _at: &Moment) -> Decision<Answer> {
    settle(|| {
        let machine = known(request.mac, &request.expected, view.records)?;
        let volatile = vec![Volatile::DropBoot(machine.id)];
        let mut changes = vec![Change::RemoveMachine(machine.id)];
        changes.extend(view.records.host_keys(machine.id).map(|keys| Change::RemoveHostKeys(keys.machine)));
        Ok(Decision { changes, volatile, ..Decision::just(machine) })
    })
}

/// A refusal as a decision that changes nothing.
fn settle(decide: impl FnOnce() -> Result<Decision<Machine>, Refusal>) -> Decision<Answer> {
    decide().map_or_else(|refusal| Decision::just(Err(refusal)), |decision| decision.map(Ok))
}

/// Writes `machine` unless it is as it was.
fn stored(old: Option<Machine>, machine: Machine) -> Decision<Machine> {
    let same = old.as_ref() == Some(&machine);
    let changes = if same { Vec::new() } else { vec![Change::PutMachine(machine.clone())] };
    Decision { changes, ..Decision::just(machine) }
}

/// The open boot of a machine that is no more goes on under the one it joined, unless that has one itself.
fn move_boot(from: MacAddress, to: MacAddress, view: &View<'_>) -> Vec<Volatile> {
    let busy = view.live.boot(to).is_some_and(Boot::is_open);
    match view.live.boot(from).filter(|_| !busy) {
        Some(boot) => vec![Volatile::DropBoot(from), Volatile::PutBoot(Boot { machine: to, ..boot.clone() })],
        None => Vec::new(),
    }
}

fn known(mac: MacAddress, expected: &Option<Expected>, records: &dyn Records) -> Result<Machine, Refusal> {
    let machine = records.machine(mac).ok_or(Refusal::UnknownMachine(mac))?;
    let found = expected.as_ref().map(|_| version(&machine));
    let what = format_args!("machine {}", machine.id);
    found.map_or(Ok(()), |found| precondition::check(expected, Some(found), what, |_| Refusal::Changed(mac)))?;
    Ok(machine)
}

fn known_or_new(
    mac: MacAddress,
    expected: &Option<Expected>,
    records: &dyn Records,
    now: Timestamp,
) -> Result<(Option<Machine>, Machine), Refusal> {
    match known(mac, expected, records) {
        Ok(machine) => Ok((Some(machine.clone()), machine)),
        Err(Refusal::UnknownMachine(_)) if expected.as_ref().is_none_or(|expected| expected.is_met(None)) => {
            Ok((None, Machine::new(mac, now)))
        }
        Err(Refusal::UnknownMachine(_)) => Err(Refusal::Changed(mac)),
        Err(refusal) => Err(refusal),
    }
}

/// A machine can boot it: it exists, and is more than a kernel.
pub(super) fn check_bootable(reference: &ImageReference, records: &dyn Records) -> Result<(), Refusal> {
    let digest = find_image(reference, records)?;
    match records.image(&digest).map(|image| image.config.content) {
        Some(Content::Kernel { .. }) => Err(Refusal::KernelOnly(reference.clone())),
        _ => Ok(()),
    }
}

/// Adds a MAC; returns the id of the machine whose it was, whose record is taken in.
fn join(machine: &mut Machine, mac: MacAddress, records: &dyn Records) -> Result<Option<MacAddress>, Refusal> {
    machine.unvouched.remove(&mac);
    if machine.macs.contains(&mac) {
        return Ok(None);
    }
    let Some(other) = records.machine(mac) else {
        machine.macs.push(mac);
        return Ok(None);
    };
    let conflict = |what| Refusal::Conflict { machine: machine.id, other: other.id, what };
    if matches!((&machine.assignment, &other.assignment), (Some(ours), Some(theirs)) if ours != theirs) {
        return Err(conflict("assignment"));
    }
    if matches!((machine.reservation, other.reservation), (Some(ours), Some(theirs)) if ours != theirs) {
        return Err(conflict("reservation"));
    }
    if !machine.arguments.is_empty() && !other.arguments.is_empty() && machine.arguments != other.arguments {
        return Err(conflict("arguments"));
    }
    Ok(Some(absorb(machine, other)))
}

fn absorb(machine: &mut Machine, other: Machine) -> MacAddress {
    machine.macs.extend(other.macs);
    machine.unvouched.extend(other.unvouched);
    for (key, value) in other.labels {
        machine.labels.entry(key).or_insert(value);
    }
    for (code, value) in other.options {
        machine.options.entry(code).or_insert(value);
    }
    machine.assignment = machine.assignment.take().or(other.assignment);
    machine.reservation = machine.reservation.or(other.reservation);
    if machine.arguments.is_empty() {
        machine.arguments = other.arguments;
    }
    let mut facts = other.facts;
    facts.absorb(&machine.facts);
    machine.facts = facts;
    machine.first_seen = machine.first_seen.min(other.first_seen);
    other.id
}

fn check_reservation(
    address: Ipv4Addr,
    machine: &Machine,
    own: &[Ipv4Addr],
    records: &dyn Records,
    at: &Moment,
) -> Result<(), Refusal> {
    check_is_a_host(address, own, &at.settings)?;
    if let Some(holder) = records.reservation(address).filter(|holder| !machine.macs.contains(holder)) {
        return Err(Refusal::AddressReserved { address, holder });
    }
    let others = |lease: &crate::lease::Lease| lease.is_active(at.now) && !machine.macs.contains(&lease.key.mac);
    match records.lease_at(address).filter(others) {
        Some(lease) => Err(Refusal::AddressLeased { address, holder: lease.key.mac, until: lease.expires }),
        None => Ok(()),
    }
}

/// An address of a configured network that a machine can have.
pub(super) fn check_is_a_host(address: Ipv4Addr, own: &[Ipv4Addr], settings: &Settings) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::BadAddress { address, reason });
    let Some(subnet) = settings.subnet_of(address) else {
        return refuse("no configured boot.subnet holds it".into());
    };
    let network = subnet.network;
    if address == network.network() || address == network.broadcast() {
        return refuse(format!("it is the network or broadcast address of {network}"));
    }
    if subnet.router == Some(address) {
        return refuse(format!("it is the router of {network}"));
    }
    if own.contains(&address) {
        return refuse("it is Bennu's own address".into());
    }
    if subnet.dns.contains(&address) {
        return refuse(format!("it is a name server of {network}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
