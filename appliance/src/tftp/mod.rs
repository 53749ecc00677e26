//! TFTP: sockets, time and the bytes of files around the rules of `bennu_rules::tftp`.

mod content;
mod engine;
mod grub;
mod registry;
mod sender;
mod server;
mod session;
#[cfg(test)]
mod tests;

use crate::{
    appliance::{Appliance, Counters},
    interfaces::Interface,
    neighbours, observe,
    ports::{self, Transport},
};
use bennu_rules::tftp::peer::{self, Proof, Standing, Wire};
pub use server::Event;
pub use server::Listener;
use server::Service;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

const PORT: u16 = 69;

/// Port 69 cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve TFTP on {local} ({device}): {reason}. {advice}")]
pub struct BindError {
    local: SocketAddr,
    device: String,
    reason: String,
    advice: &'static str,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "Stop that server",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "Look at the interface and its address (ip address)",
    }
}

/// Binds port 69 on an interface's address.
pub fn bind(interface: &Interface) -> Result<Listener, BindError> {
    let local = SocketAddr::from((interface.address, PORT));
    Listener::bind(local, Some(&interface.name)).map_err(|error| BindError {
        local,
        device: interface.name.clone(),
        reason: ports::why(Transport::Udp, PORT, &error),
        advice: advice(&error),
    })
}

/// Serves until it is stopped.
pub async fn serve(listener: Listener, appliance: Arc<Appliance>, stop: CancellationToken) -> io::Result<()> {
    let counted = appliance.clone();
    let service = Service {
        routes: Arc::new(content::routes(&appliance)),
        observe: observe::to(&appliance),
        count: Arc::new(move |event| {
            counted.metrics.tftp(&event);
            Counters::count(match event {
                Event::Ended { complete: true, .. } => return,
                Event::Started => &counted.counters.tftp_started,
                Event::Refused => &counted.counters.tftp_refused,
                Event::Ended { complete: false, .. } => &counted.counters.tftp_failed,
                Event::Ignored => &counted.counters.tftp_ignored,
                Event::Malformed => &counted.counters.tftp_malformed,
            });
        }),
        judge: judge(&appliance, listener.device().unwrap_or_default()),
        shutdown: stop,
    };
    listener.serve(service).await
}

/// Judges sources of requests on an interface, by leases and the kernel's neighbours.
fn judge(appliance: &Arc<Appliance>, interface: &str) -> Arc<dyn Fn(SocketAddr) -> Standing + Send + Sync> {
    let (appliance, interface) = (appliance.clone(), interface.to_owned());
    Arc::new(move |peer| {
        let IpAddr::V4(address) = peer.ip().to_canonical() else { return Standing::Foreign };
        let interfaces = appliance.interfaces.now();
        let Some(on) = interfaces.iter().find(|known| known.name == interface) else { return Standing::Foreign };
        let neighbour = on.network.contains(&address) && neighbours::has(address, &on.name);
        let lease = !neighbour && appliance.has_lease(address);
        let wire = Wire { own: on.address, network: on.network, subnets: &appliance.settings().subnets };
        peer::standing(peer, wire, Proof { lease, neighbour })
    })
}
