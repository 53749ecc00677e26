//! `/v1/status`, `/metrics`, `/healthz` and `/readyz`: how the appliance is.

use super::{
    Api, Shared,
    problem::{Answer, Kind, Problem},
};
use crate::{appliance::Remote, privileges::Privileges};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use bennu_rules::{Records, notice::Noticed, settings::DhcpMode};
use http::header;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::atomic::Ordering};

/// How the appliance is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Of the service.
    pub version: String,
    /// What the host is called.
    #[serde(default)]
    pub hostname: String,
    /// The time zone in which people at its consoles read times, by its name in IANA's database; `null`: UTC.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Since its start.
    pub uptime_ms: u64,
    /// Its process id.
    pub pid: u32,
    /// How DHCP is served.
    pub dhcp: DhcpMode,
    /// The provisioning interfaces.
    pub interfaces: Vec<InterfaceShown>,
    /// Port of the provisioning HTTP server.
    pub http_port: u16,
    /// Machines on record.
    pub machines: usize,
    /// Machines by the state of their latest boot; those that never booted are `never`.
    pub machines_by_state: BTreeMap<String, usize>,
    /// Images on record.
    pub images: usize,
    /// Bytes free where images are kept.
    pub disk_free: u64,
    /// Bytes of memory the service holds.
    pub memory: u64,
    /// Whether the state is kept in memory, and gone when the host is switched off.
    #[serde(default)]
    pub state_in_memory: bool,
    /// Whether a disk fault closed the ledger.
    pub ledger_closed: bool,
    /// Whether the ledger's disk is full. It heals by itself when there is room again.
    #[serde(default)]
    pub ledger_full: bool,
    /// What a person should know of the wire and the host, the latest last.
    #[serde(default)]
    pub notices: Vec<Noticed>,
    /// Where the API is reached over the network.
    #[serde(default)]
    pub api: Option<Remote>,
    /// What the service may do to its host.
    #[serde(default)]
    pub privileges: Option<Privileges>,
    /// Counted since the start.
    pub counters: BTreeMap<String, u64>,
}

/// A provisioning interface.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InterfaceShown {
    /// Its name.
    pub name: String,
    /// Our address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// The network.
    #[schema(value_type = String)]
    pub network: ipnet::Ipv4Net,
    /// Whether its cable leads to something; `null`: the system does not say.
    #[serde(default)]
    pub link: Option<bool>,
    /// The Bennu that answers DHCP there while this one stands by.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub stands_by_for: Option<Ipv4Addr>,
}

/// `GET /v1/status`
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "appliance",
    responses((status = OK, body = Status))
)]
pub async fn show(State(api): Shared) -> Answer<Json<Status>> {
    Ok(Json(status(&api)?))
}

/// The same, for whoever is in the same process.
pub(super) fn status(api: &Api) -> Answer<Status> {
    let (machines, images) = api.ledger.stored(|records| (records.machine_count(), records.image_count()))?;
    let notices = api.ledger.live(|live, _| live.notices().to_vec());
    let interface = |interface: &crate::interfaces::Interface| InterfaceShown {
        name: interface.name.clone(),
        address: interface.address,
        network: interface.network.trunc(),
        link: crate::interfaces::link(&interface.name),
        stands_by_for: api.stands_by(&interface.name),
    };
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        time_zone: api.config.time_zone.clone(),
        uptime_ms: api.started.elapsed().as_millis() as u64,
        pid: std::process::id(),
        dhcp: api.settings().dhcp,
        interfaces: api.interfaces.now().iter().map(interface).collect(),
        http_port: api.settings().http_port,
        machines,
        machines_by_state: crate::metrics::machines_by_state(api)?
            .into_iter()
            .map(|(state, count)| (state.to_owned(), count as usize))
            .collect(),
        images,
        disk_free: api.store.free(),
        memory: crate::metrics::resident_memory(),
        state_in_memory: in_memory(&api.config.state_dir),
        ledger_closed: api.ledger.is_closed(),
        ledger_full: api.ledger.is_full(),
        notices,
        api: api.remote_now(),
        privileges: crate::privileges::now().cloned(),
        counters: counters(api).into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
    })
}

/// Whether what is written there is in memory alone (statfs(2)).
fn in_memory(directory: &std::path::Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::statfs(directory).is_ok_and(|found| matches!(found.f_type as u64, TMPFS | RAMFS))
}

fn counters(api: &Api) -> [(&'static str, u64); 24] {
    let counters = &api.counters;
    [
        ("dhcp_received", &counters.dhcp_received),
        ("dhcp_answered", &counters.dhcp_answered),
        ("dhcp_silent", &counters.dhcp_silent),
        ("dhcp_malformed", &counters.dhcp_malformed),
        ("dhcp_unsent", &counters.dhcp_unsent),
        ("ndp_received", &counters.ndp_received),
        ("ndp_answered", &counters.ndp_answered),
        ("ndp_silent", &counters.ndp_silent),
        ("ndp_malformed", &counters.ndp_malformed),
        ("ndp_unsent", &counters.ndp_unsent),
        ("tftp_started", &counters.tftp_started),
        ("tftp_refused", &counters.tftp_refused),
        ("tftp_failed", &counters.tftp_failed),
        ("tftp_ignored", &counters.tftp_ignored),
        ("tftp_malformed", &counters.tftp_malformed),
        ("http_requests", &counters.http_requests),
        ("http_refused", &counters.http_refused),
        ("http_malformed", &counters.http_malformed),
        ("api_malformed", &counters.api_malformed),
        ("tokens_refused", &counters.tokens_refused),
        ("tokens_limited", &counters.tokens_limited),
        ("bytes_sent", &counters.bytes_sent),
        ("sessions_refused", &counters.sessions_refused),
        ("reports_refused", &counters.reports_refused),
    ]
    .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
}

/// `GET /metrics`, in Prometheus' text format
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "appliance",
    responses((status = OK, content_type = "text/plain; version=0.0.4; charset=utf-8", body = String, description = "Prometheus' text format."))
)]
pub async fn metrics(State(api): Shared) -> Answer<Response> {
    let text = crate::metrics::text(&api)?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

/// `GET /healthz`: the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "appliance",
    responses((status = OK, body = String)),
    security(())
)]
pub async fn healthy() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the ledger takes writes.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "appliance",
    responses((status = OK, body = String)),
    security(())
)]
pub async fn ready(State(api): Shared) -> Answer<&'static str> {
    api.ledger.stored(|records| records.tags().len())?;
    if api.ledger.is_full() {
        return Err(Problem::new(Kind::Unavailable, "the ledger's disk is full", "make room; it heals by itself"));
    }
    if api.ledger.is_closed() || api.shutdown.is_cancelled() {
        let detail = if api.ledger.is_closed() { "a disk fault closed the ledger" } else { "the service is stopping" };
        return Err(Problem::new(Kind::Unavailable, detail, "look at the service's log, then restart it"));
    }
    Ok("ready\n")
}
