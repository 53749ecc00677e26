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
use bennu_rules::{MacAddress, Records, notice::Noticed, settings::DhcpMode};
use http::header;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, net::Ipv4Addr, sync::atomic::Ordering};

/// How the appliance is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of the service.
    pub version: String,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InterfaceShown {
    /// Its name.
    pub name: String,
    /// Our address.
    pub address: Ipv4Addr,
    /// The network.
    pub network: ipnet::Ipv4Net,
}

/// `GET /v1/status`
pub async fn show(State(api): Shared) -> Answer<Json<Status>> {
    Ok(Json(status(&api)?))
}

fn status(api: &Api) -> Answer<Status> {
    let (machines, images, notices) =
        api.ledger.read(|records, live| (records.machines(), records.images().len(), live.notices().to_vec()))?;
    let interface = |interface: &crate::interfaces::Interface| InterfaceShown {
        name: interface.name.clone(),
        address: interface.address,
        network: interface.network.trunc(),
    };
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: api.started.elapsed().as_millis() as u64,
        pid: std::process::id(),
        dhcp: api.settings().dhcp,
        interfaces: api.interfaces.now().iter().map(interface).collect(),
        http_port: api.settings().http_port,
        machines: machines.len(),
        machines_by_state: by_state(api, machines.iter().map(|machine| machine.id))?,
        images,
        disk_free: api.store.free(),
        memory: resident_memory(),
        ledger_closed: api.ledger.is_closed(),
        ledger_full: api.ledger.is_full(),
        notices,
        api: api.remote.clone(),
        privileges: crate::privileges::now().cloned(),
        counters: counters(api).into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
    })
}

fn by_state(api: &Api, machines: impl Iterator<Item = MacAddress>) -> Answer<BTreeMap<String, usize>> {
    // Newest first, so the first that is met of a machine is its latest.
    let mut latest = BTreeMap::new();
    for boot in api.ledger.boots(None)? {
        latest.entry(boot.machine).or_insert(boot.state);
    }
    let mut states = BTreeMap::new();
    for machine in machines {
        let state = latest.get(&machine).map_or("never".to_owned(), ToString::to_string);
        *states.entry(state).or_insert(0) += 1;
    }
    Ok(states)
}

fn counters(api: &Api) -> [(&'static str, u64); 22] {
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
    ]
    .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
}

/// `VmRSS` of this process (`proc(5)`); 0 where the system does not say.
fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64) * 1024
}

/// `GET /metrics`, in Prometheus' text format
pub async fn metrics(State(api): Shared) -> Answer<Response> {
    let status = status(&api)?;
    let mut text = String::new();
    for (name, count) in &status.counters {
        sample(&mut text, &format!("bennu_{name}_total"), "counter", &[("", *count)]);
    }
    let gauges = [
        ("bennu_uptime_seconds", status.uptime_ms / 1000),
        ("bennu_images", status.images as u64),
        ("bennu_disk_free_bytes", status.disk_free),
        ("bennu_memory_bytes", status.memory),
        ("bennu_ledger_closed", u64::from(status.ledger_closed)),
        ("bennu_ledger_full", u64::from(status.ledger_full)),
    ];
    for (name, value) in gauges {
        sample(&mut text, name, "gauge", &[("", value)]);
    }
    let states: Vec<(String, u64)> = status
        .machines_by_state
        .iter()
        .map(|(state, count)| (format!("{{state=\"{state}\"}}"), *count as u64))
        .collect();
    let states: Vec<(&str, u64)> = states.iter().map(|(labels, count)| (labels.as_str(), *count)).collect();
    sample(&mut text, "bennu_machines", "gauge", &states);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn sample(text: &mut String, name: &str, kind: &str, samples: &[(&str, u64)]) {
    let _ = writeln!(text, "# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// `GET /healthz`: the process answers.
pub async fn healthy() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the ledger takes writes.
pub async fn ready(State(api): Shared) -> Answer<&'static str> {
    api.ledger.read(|records, _| records.tags().len())?;
    if api.ledger.is_full() {
        return Err(Problem::new(Kind::Unavailable, "the ledger's disk is full", "make room; it heals by itself"));
    }
    if api.ledger.is_closed() || api.shutdown.is_cancelled() {
        let detail = if api.ledger.is_closed() { "a disk fault closed the ledger" } else { "the service is stopping" };
        return Err(Problem::new(Kind::Unavailable, detail, "look at the service's log, then restart it"));
    }
    Ok("ready\n")
}
