//! What every server of the appliance shares.

use crate::{
    config::Config, door::Door, interfaces::Interfaces, ledger::Ledger, loaders::Loaders, logs::Logs, metrics::Metrics,
    registry::Registry, secrets::Keyring,
};
use bennu_images::store::Store;
use bennu_rules::{MacAddress, Records, Timestamp, image::BlobRef, journey::Seen, lease::LeaseKey, settings::Settings};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The appliance's parts, one of each.
pub struct Appliance {
    /// The configuration.
    pub config: Config,
    /// The owner of state.
    pub ledger: Ledger,
    /// The blobs.
    pub store: Store,
    /// What is on its way into the store.
    pub registry: Registry,
    /// The key that secrets are kept under.
    pub keyring: Keyring,
    /// Boot programs.
    pub loaders: Loaders,
    /// The initrd that holds stage 1, in the store.
    pub stage1: BlobRef,
    /// The provisioning interfaces, as they are now.
    pub interfaces: Interfaces,
    /// Where the API is reached over the network, if it is.
    pub remote: Option<Mutex<Remote>>,
    /// What was counted since the start.
    pub counters: Counters,
    /// What is counted by kind, and how long things take.
    pub metrics: Metrics,
    /// What machines said.
    pub logs: Logs,
    /// The way to the first process of an appliance that runs from its disc.
    pub door: Door,
    /// When it started.
    pub started: Instant,
    /// Ends every task.
    pub shutdown: CancellationToken,
    /// Asks for a new start: what was put aside counts from then on.
    pub restart: CancellationToken,
}

/// Where the API is reached over the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Remote {
    /// The addresses that it listens on.
    #[schema(value_type = Vec<String>)]
    pub listen: Vec<SocketAddr>,
    /// The certificate's file on the appliance's host.
    #[schema(value_type = String)]
    pub certificate: PathBuf,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// When the certificate ends, as far as that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Why what its files hold now is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Counts since the start.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub dhcp_received: AtomicU64,
    pub dhcp_answered: AtomicU64,
    pub dhcp_silent: AtomicU64,
    pub dhcp_malformed: AtomicU64,
    pub dhcp_unsent: AtomicU64,
    pub ndp_received: AtomicU64,
    pub ndp_answered: AtomicU64,
    pub ndp_silent: AtomicU64,
    pub ndp_malformed: AtomicU64,
    pub ndp_unsent: AtomicU64,
    pub tftp_started: AtomicU64,
    pub tftp_refused: AtomicU64,
    pub tftp_failed: AtomicU64,
    pub tftp_ignored: AtomicU64,
    pub tftp_malformed: AtomicU64,
    pub http_requests: AtomicU64,
    pub http_refused: AtomicU64,
    pub http_malformed: AtomicU64,
    pub api_malformed: AtomicU64,
    pub tokens_refused: AtomicU64,
    pub tokens_limited: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub sessions_refused: AtomicU64,
    pub reports_refused: AtomicU64,
}

impl Counters {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Appliance {
    /// Where the API is reached over the network, as it is now.
    pub fn remote_now(&self) -> Option<Remote> {
        self.remote.as_ref().map(|remote| remote.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Notes what has become of the API's certificate.
    pub fn certificate_is(&self, note: impl FnOnce(&mut Remote)) {
        if let Some(remote) = &self.remote {
            note(&mut remote.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What rules see of the configuration.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.config.settings
    }

    /// The Bennu that answers DHCP on an interface in our place, if one does.
    pub fn stands_by(&self, interface: &str) -> Option<Ipv4Addr> {
        self.ledger.live(|live, _| live.stands_by(interface).map(|peer| peer.server))
    }

    /// Notes something seen of whoever has `address` now, if that is a machine we know of.
    pub fn observe_peer(&self, address: IpAddr, seen: Seen) {
        if let Some(mac) = self.machine_at(address) {
            self.ledger.observe(mac, seen);
        }
    }

    /// The machine behind an address: by its lease, else by the kernel's neighbour table.
    pub fn machine_at(&self, address: IpAddr) -> Option<MacAddress> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        self.lease_holder(address).or_else(|| self.neighbour(address))
    }

    /// The card that sends from an address: by the neighbour table on our own wires, where an address can be taken, else by
    /// its lease.
    pub fn card_at(&self, address: IpAddr) -> Option<MacAddress> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        self.neighbour(address).or_else(|| self.lease_holder(address))
    }

    /// The card that has an address on one of our own wires, as the kernel knows it.
    pub fn neighbour(&self, address: Ipv4Addr) -> Option<MacAddress> {
        let interfaces = self.interfaces.now();
        let on_wire = interfaces.iter().filter(|interface| interface.network.contains(&address));
        on_wire.into_iter().find_map(|interface| crate::neighbours::mac_of(address, &interface.name))
    }

    /// Whether a lease of ours on this address is active.
    pub fn has_lease(&self, address: Ipv4Addr) -> bool {
        self.lease_holder(address).is_some()
    }

    fn lease_holder(&self, address: Ipv4Addr) -> Option<MacAddress> {
        let lease = self.ledger.stored(|records| records.lease_at(address)).ok()??;
        if lease.declined || !lease.is_active(self.ledger.now()) {
            return None;
        }
        let LeaseKey { mac, .. } = lease.key;
        Some(mac)
    }

    /// Our address towards a client: the interface whose network holds it, else the first.
    pub fn address_for(&self, client: Ipv4Addr) -> Ipv4Addr {
        let interfaces = self.interfaces.now();
        let near = interfaces.iter().find(|interface| interface.network.contains(&client));
        near.or(interfaces.first()).map_or(Ipv4Addr::LOCALHOST, |interface| interface.address)
    }

    /// Where that address serves HTTP.
    pub fn origin_for(&self, client: Ipv4Addr) -> String {
        crate::config::http_origin(self.address_for(client), self.config.settings.http_port)
    }
}
