//! TFTP: sockets, time and the bytes of files around the rules of `bennu_rules::tftp`.

mod content;
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
    observe,
    ports::{self, Transport},
};
pub use server::Listener;
use server::{Event, Service};
use std::{io, net::SocketAddr, sync::Arc};
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
            Counters::count(match event {
                Event::Started => &counted.counters.tftp_started,
                Event::Refused => &counted.counters.tftp_refused,
                Event::Failed => &counted.counters.tftp_failed,
                Event::Ignored => &counted.counters.tftp_ignored,
                Event::Malformed => &counted.counters.tftp_malformed,
            });
        }),
        shutdown: stop,
    };
    listener.serve(service).await
}
