//! How the data plane tells what it saw, without knowing who listens.

use crate::appliance::Appliance;
use bennu_rules::journey::Seen;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

/// Takes what was seen of whoever has an address.
pub type Observe = Arc<dyn Fn(IpAddr, Seen) + Send + Sync>;

/// Tells the appliance, and counts the bytes.
pub fn to(appliance: &Arc<Appliance>) -> Observe {
    let appliance = appliance.clone();
    Arc::new(move |address, seen| {
        appliance.counters.bytes_sent.fetch_add(seen.bytes_moved(), Ordering::Relaxed);
        appliance.observe_peer(address, seen);
    })
}

/// The same, of what left over HTTP.
pub fn over_http(appliance: &Arc<Appliance>) -> Observe {
    let (appliance, tell) = (appliance.clone(), to(appliance));
    Arc::new(move |address, seen| {
        appliance.metrics.sent_over_http(&seen);
        tell(address, seen);
    })
}

/// Tells nobody: readers of the registry are no machines that boot.
pub fn to_nobody() -> Observe {
    Arc::new(|_, _| ())
}
