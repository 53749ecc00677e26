//! Before the first service on a wire: nobody else may give addresses there.

use crate::{
    appliance::Appliance,
    interfaces::Interface,
    wire::{Ear, refusal},
};
use anyhow::{Result, bail};
use bennu_rules::{dhcp::others::Looks, settings::DhcpMode};
use futures_util::future::join_all;
use std::collections::BTreeSet;

/// Refuses where addresses are ours to give, none was ever given, and somebody else answers. With leases on record the
/// machines of that wire are ours: they are served at once, and others are only noticed. Wires are asked at the same time.
pub async fn look(appliance: &Appliance) -> Result<()> {
    if appliance.settings().dhcp != DhcpMode::Full {
        return Ok(());
    }
    let interfaces = without_leases(appliance)?;
    let refusals = join_all(interfaces.iter().map(|interface| refused(interface, appliance))).await;
    // One at a time is mended.
    match refusals.into_iter().flatten().next() {
        Some(refusal) => bail!(refusal),
        None => Ok(()),
    }
}

/// A lease behind a relay does not tell through which interface it came, so it counts for each: a site whose machines
/// are all behind relays is served at once too.
fn without_leases(appliance: &Appliance) -> Result<Vec<Interface>> {
    let (settings, interfaces) = (appliance.settings(), appliance.interfaces.now());
    let leases = appliance.ledger.stored(|records| records.leases())?;
    let leased: BTreeSet<_> = leases.iter().map(|lease| lease.key.subnet).collect();
    let on_a_wire: BTreeSet<_> =
        interfaces.iter().flat_map(|interface| settings.wire_of(interface.address)).map(|near| near.network).collect();
    if leased.iter().any(|subnet| !on_a_wire.contains(subnet)) {
        return Ok(Vec::new());
    }
    let is_new =
        |interface: &&Interface| settings.wire_of(interface.address).all(|subnet| !leased.contains(&subnet.network));
    Ok(interfaces.iter().filter(is_new).cloned().collect())
}

async fn refused(interface: &Interface, appliance: &Appliance) -> Option<String> {
    let name = &interface.name;
    let others = match Ear::open(name) {
        Ok(None) => return None,
        Ok(Some(ear)) => {
            tracing::info!(interface = name, "no lease is on record: looking for other DHCP servers for four seconds");
            ear.look(Looks::AndBegins).await
        }
        Err(error) => Err(error),
    };
    match others {
        Ok(others) => others.iter().find_map(|other| {
            let notice = other.heard.notice(name, appliance.settings())?;
            Some(refusal(name, other, &notice))
        }),
        Err(error) => {
            tracing::warn!(interface = name, %error, "other DHCP servers could not be looked for");
            None
        }
    }
}
