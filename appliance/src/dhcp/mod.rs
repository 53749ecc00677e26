//! DHCP: receives, asks the rules, answers.

mod socket;

use crate::{
    appliance::{Appliance, Counters},
    interfaces::Interface,
    ledger::Fault,
    ports::{self, Transport},
};
use bennu_rules::{
    dhcp::{BOOT_SERVER_PORT, DhcpAnswer, Received, Request, SERVER_PORT, decide},
    settings::DhcpMode,
};
use socket::DhcpSocket;
use std::{io, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

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

/// Packets that are being decided at once. An ACK waits for the disk; behind it others are not to wait, and the more
/// wait together, the more go into one commit. Beyond this the kernel's buffer holds them.
const AT_ONCE: usize = 1024;
/// More than any client sends: EDK2 says 65280 and sends some 400 bytes.
const LARGEST: usize = 4096;
/// A socket that fails is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds what the mode needs on every interface: 67, and 4011 for firmware that asks a boot server. In full mode too: a
/// stray option 60 of another server sends it there.
pub fn bind(interfaces: &[Interface], mode: DhcpMode) -> Result<Vec<Listener>, BindError> {
    let ports: &[u16] = match mode {
        DhcpMode::Off => &[],
        DhcpMode::Full | DhcpMode::Proxy => &[SERVER_PORT, BOOT_SERVER_PORT],
    };
    let wanted = interfaces.iter().flat_map(|interface| ports.iter().map(move |port| (interface, *port)));
    wanted
        .map(|(interface, port)| {
            let socket = DhcpSocket::bind(interface, port).map_err(|error| explain(interface, port, error))?;
            Ok(Listener(Arc::new(socket)))
        })
        .collect()
}

fn explain(interface: &Interface, port: u16, source: io::Error) -> BindError {
    let interface = interface.name.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { port, interface, holders: ports::others(Transport::Udp, port) },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { port, interface },
        _ => BindError::Other { port, interface, source },
    }
}

/// Serves one port until the appliance shuts down. Ends by itself only when the ledger has failed for good: an
/// address that cannot be stored must not be promised.
pub async fn serve(listener: Listener, appliance: Arc<Appliance>) -> Result<(), Fault> {
    let Listener(socket) = listener;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let tasks = TaskTracker::new();
    let (failed, mut failure) = mpsc::channel::<Fault>(1);
    let mut buffer = vec![0; LARGEST];
    let outcome = loop {
        let received = tokio::select! {
            () = appliance.shutdown.cancelled() => break Ok(()),
            Some(fault) = failure.recv() => break Err(fault),
            received = socket.receive(&mut buffer) => received,
        };
        let request = match received {
            Ok((length, received)) => read(&buffer[..length], &received, &appliance.counters),
            Err(error) => {
                tracing::warn!(interface = socket.interface(), port = socket.port(), %error, "the DHCP port cannot be read");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(request) = request else { continue };
        let Ok(place) = places.clone().acquire_owned().await else { break Ok(()) };
        let (socket, appliance, failed) = (socket.clone(), appliance.clone(), failed.clone());
        tasks.spawn(async move {
            if let Err(fault) = answer(request, &socket, &appliance).await {
                tracing::error!(%fault, "a DHCP request could not be decided");
                if appliance.ledger.is_closed() {
                    let _ = failed.try_send(fault);
                }
            }
            drop(place);
        });
    };
    tasks.close();
    tasks.wait().await;
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

async fn answer(request: Request, socket: &DhcpSocket, appliance: &Appliance) -> Result<(), Fault> {
    let (mac, kind) = (request.mac, request.kind);
    match appliance.ledger.decide(request, decide).await? {
        DhcpAnswer::Silence(reason) => {
            Counters::count(&appliance.counters.dhcp_silent);
            tracing::debug!(%mac, %kind, %reason, interface = socket.interface(), "no answer");
        }
        DhcpAnswer::Reply { packet, send_to, .. } => {
            let to = send_to.address();
            match socket.send(&packet, send_to).await {
                Ok(()) => {
                    Counters::count(&appliance.counters.dhcp_answered);
                    tracing::debug!(%mac, %kind, %to, interface = socket.interface(), "answered");
                }
                Err(error) => {
                    Counters::count(&appliance.counters.dhcp_unsent);
                    tracing::warn!(%mac, %kind, %to, %error, "an answer could not be sent");
                }
            }
        }
    }
    Ok(())
}
