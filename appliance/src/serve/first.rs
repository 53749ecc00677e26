//! Before the first service on a wire: nobody else may give addresses there, and another Bennu goes first.

use super::interface::Bound;
use crate::{appliance::Appliance, interfaces::Interface, wire::refusal};
use anyhow::{Result, bail};
use bennu_rules::settings::DhcpMode;
use futures_util::future::join_all;
use std::collections::BTreeSet;

/// Looks who is there, on all wires at the same time. Where another Bennu serves this one stands by. Refuses where addresses
/// are ours to give, none was ever given, and any other server answers. With leases on record the machines of that wire are
/// ours: they are served as good as at once, and other servers are only noticed.
pub async fn look(appliance: &Appliance, bound: &mut [Bound]) -> Result<()> {
    let new = match appliance.settings().dhcp {
        DhcpMode::Full => without_leases(appliance)?,
        DhcpMode::Proxy | DhcpMode::Off => Vec::new(),
    };
    let looks = bound.iter_mut().map(async |bound| {
        if new.contains(bound.interface()) {
            return refused(bound, appliance).await;
        }
        bound.look_for_bennus(appliance).await;
        None
    });
    // One at a time is mended.
    match join_all(looks).await.into_iter().flatten().next() {
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

async fn refused(bound: &mut Bound, appliance: &Appliance) -> Option<String> {
    let name = bound.interface().name.clone();
    let watch = bound.watch()?;
    tracing::info!(interface = name, "no lease is on record: looking for other DHCP servers for four seconds");
    match watch.look(appliance).await {
        Ok(others) => {
            let strangers = others.iter().filter(|other| other.heard.appliance.is_none());
            let mut refused = strangers.filter(|other| other.heard.notice(&name, appliance.settings()).is_some());
            refused.next().map(|other| refusal(&name, other))
        }
        Err(error) => {
            tracing::warn!(interface = name, %error, "other DHCP servers could not be looked for");
            None
        }
    }
}
