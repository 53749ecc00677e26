//! Before the first service on a wire: nobody else may give addresses there.

use crate::{
    appliance::Appliance,
    interfaces::Interface,
    wire::{Ear, refusal},
};
use anyhow::{Result, bail};
use bennu_rules::settings::DhcpMode;
use futures_util::future::join_all;

/// Refuses where addresses are ours to give, none was ever given, and somebody else answers. With leases on record the
/// machines of that wire are ours: they are served at once, and others are only noticed. Wires are asked at the same time.
pub async fn look(appliance: &Appliance) -> Result<()> {
    if appliance.settings().dhcp != DhcpMode::Full {
        return Ok(());
    }
    let interfaces = without_leases(appliance)?;
    let refusals = join_all(interfaces.iter().map(|interface| refused(interface, appliance))).await;
    match refusals.into_iter().flatten().reduce(|all, more| format!("{all}\n{more}")) {
        Some(refusal) => bail!(refusal),
        None => Ok(()),
    }
}

fn without_leases(appliance: &Appliance) -> Result<Vec<Interface>> {
    let leases = appliance.ledger.read(|records, _| records.leases())?;
    let is_new = |interface: &&Interface| {
        let subnet = appliance.settings().subnet_of(interface.address);
        subnet.is_some_and(|subnet| leases.iter().all(|lease| lease.key.subnet != subnet.network))
    };
    Ok(appliance.interfaces.now().iter().filter(is_new).cloned().collect())
}

async fn refused(interface: &Interface, appliance: &Appliance) -> Option<String> {
    let name = &interface.name;
    let others = match Ear::open(name) {
        Ok(None) => return None,
        Ok(Some(ear)) => {
            tracing::info!(interface = name, "no lease is on record: looking for other DHCP servers for four seconds");
            ear.look().await
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
