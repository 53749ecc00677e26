//! DHCP: receives, asks the rules, answers.

mod desk;
mod inbox;
mod socket;

use crate::{
    appliance::{Appliance, Counters},
    interfaces::Interface,
    ledger::Fault,
    ports::{self, Transport},
    wire::{Hints, Prober},
};
use bennu_rules::{
    dhcp::{BOOT_SERVER_PORT, Received, Request, SERVER_PORT},
    settings::DhcpMode,
};
use desk::Desk;
use futures_util::{FutureExt, StreamExt, poll, stream::FuturesUnordered};
use inbox::Inbox;
use socket::DhcpSocket;
use std::{io, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A port of one interface, ready to serve.
pub struct Listener(Arc<DhcpSocket>);

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "port {port}/udp on {interface} is in use by {}. Stop that server, or set boot.dhcp = \"off\" \
         (\"proxy\" is for a DHCP server on another host)",
        ports::named(holders)
    )]
    InUse {
        /// The port.
        port: u16,
        /// Where.
        interface: String,
        /// By whom, as far as can be told.
        holders: Vec<String>,
    },
    /// Ports below 1024 take a privilege.
    #[error(
        "port {port}/udp on {interface} may not be bound; run bennu as root, or give it CAP_NET_BIND_SERVICE and CAP_NET_RAW"
    )]
    Forbidden {
        /// The port.
        port: u16,
        /// Where.
        interface: String,
    },
    /// Anything else.
    #[error(
        "port {port}/udp on {interface} cannot be bound: {source}. Look at the interface and its address (ip address)"
    )]
    Other {
        /// The port.
        port: u16,
        /// Where.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Packets that wait for the disk or the wire at once. Behind an ACK others are not to wait, and the more wait together,
/// the more go into one commit. Beyond this the kernel's buffer holds them.
const AT_ONCE: usize = 1024;
/// A socket that fails is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds what the mode needs on an interface: 67, and 4011 for firmware that asks a boot server. In full mode too: a
/// stray option 60 of another server sends it there.
pub fn bind(interface: &Interface, mode: DhcpMode) -> Result<Vec<Listener>, BindError> {
    let ports: &[u16] = match mode {
        DhcpMode::Off => &[],
        DhcpMode::Full | DhcpMode::Proxy => &[SERVER_PORT, BOOT_SERVER_PORT],
    };
    let bind = |port: &u16| {
        let socket = DhcpSocket::bind(interface, *port).map_err(|error| explain(interface, *port, error))?;
        Ok(Listener(Arc::new(socket)))
    };
    ports.iter().map(bind).collect()
}

fn explain(interface: &Interface, port: u16, source: io::Error) -> BindError {
    let interface = interface.name.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { port, interface, holders: ports::others(Transport::Udp, port) },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { port, interface },
        _ => BindError::Other { port, interface, source },
    }
}

/// What a DHCP server has on its wire beside its ports; nothing where addresses are not ours to give.
#[derive(Clone, Default)]
pub struct Beside {
    /// Looks for addresses before they are offered.
    pub prober: Option<Arc<Prober>>,
    /// Hears of other servers.
    pub hints: Option<Hints>,
}

/// Serves one port until it is stopped. Ends by itself only when the ledger has failed for good: an address that cannot
/// be stored must not be promised.
pub async fn serve(
    listener: Listener,
    beside: Beside,
    appliance: Arc<Appliance>,
    stop: CancellationToken,
) -> Result<(), Fault> {
    let Listener(socket) = listener;
    // Polled here and not by tasks of their own: one commit of the ledger wakes this task once for all that it answers.
    let mut waiting = FuturesUnordered::new();
    let (failed, mut failure) = mpsc::channel::<Fault>(1);
    let desk = Arc::new(Desk { socket: socket.clone(), beside, appliance: appliance.clone(), failed });
    let mut inbox = Inbox::new();
    let outcome = loop {
        let received = tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(fault) = failure.recv() => break Err(fault),
            Some(()) = waiting.next() => {
                while let Some(Some(())) = waiting.next().now_or_never() {}
                continue;
            }
            received = socket.receive(&mut inbox), if waiting.len() < AT_ONCE => received,
        };
        if let Err(error) = received {
            tracing::warn!(interface = socket.interface(), port = socket.port(), %error, "the DHCP port cannot be read");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        for packet in inbox.packets() {
            let Some(request) = read(packet.bytes, &socket.received(&packet), &appliance.counters) else { continue };
            // What needs neither the disk nor the wire is answered here and now.
            let mut answering = Box::pin(desk.clone().serve(request));
            if poll!(answering.as_mut()).is_pending() {
                waiting.push(answering);
            }
        }
    };
    while waiting.next().await.is_some() {}
    outcome
}

fn read(bytes: &[u8], received: &Received, counters: &Counters) -> Option<Request> {
    Counters::count(&counters.dhcp_received);
    match Request::parse(bytes, received) {
        Ok(request) => Some(request),
        Err(malformed) => {
            Counters::count(&counters.dhcp_malformed);
            tracing::debug!(interface = received.interface, source = %received.source, %malformed, "dropped a packet");
            None
        }
    }
}
