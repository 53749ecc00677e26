//! `/metrics` in Prometheus' text format: what was counted, and how things are at that moment.

use super::{WELL_FORMED, register};
use crate::{appliance::Appliance, ledger::Fault};
use bennu_rules::{
    MacAddress,
    boot::State,
    journey::{Trouble, trouble},
};
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

/// Everything, as text.
pub fn text(appliance: &Appliance) -> Result<String, Fault> {
    let registry = Registry::new();
    register(&registry, appliance.metrics.collectors());
    register(&registry, appliance.ledger.meters().collectors());
    plain_counters(&registry, appliance);
    service(&registry, appliance);
    records(&registry, appliance)?;
    boots(&registry, appliance);
    Ok(TextEncoder::new().encode_to_string(&registry.gather()).expect(WELL_FORMED))
}

/// What is counted without kinds.
fn plain_counters(registry: &Registry, appliance: &Appliance) {
    let counters = &appliance.counters;
    let all: [(&str, &str, &AtomicU64); 19] = [
        ("bennu_dhcp_received_total", "DHCP packets received.", &counters.dhcp_received),
        ("bennu_dhcp_malformed_total", "Packets on DHCP's ports that were no DHCP requests.", &counters.dhcp_malformed),
        ("bennu_dhcp_unsent_total", "DHCP answers that could not be sent.", &counters.dhcp_unsent),
        ("bennu_ndp_received_total", "IPv6 router solicitations received.", &counters.ndp_received),
        ("bennu_ndp_answered_total", "IPv6 router solicitations answered.", &counters.ndp_answered),
        ("bennu_ndp_silent_total", "IPv6 router solicitations left unanswered.", &counters.ndp_silent),
        ("bennu_ndp_malformed_total", "Packets that were no IPv6 router solicitations.", &counters.ndp_malformed),
        ("bennu_ndp_unsent_total", "Router advertisements that could not be sent.", &counters.ndp_unsent),
        ("bennu_tftp_started_total", "TFTP transfers begun.", &counters.tftp_started),
        ("bennu_tftp_refused_total", "TFTP requests that were refused.", &counters.tftp_refused),
        ("bennu_tftp_ignored_total", "TFTP packets that got no answer.", &counters.tftp_ignored),
        ("bennu_tftp_malformed_total", "Datagrams that were no TFTP packets.", &counters.tftp_malformed),
        ("bennu_http_refused_total", "Requests of booting machines that were refused.", &counters.http_refused),
        ("bennu_http_malformed_total", "Requests of booting machines that were no HTTP.", &counters.http_malformed),
        ("bennu_api_malformed_total", "Requests of the management plane that were no HTTP.", &counters.api_malformed),
        (
            "bennu_sessions_refused_total",
            "Keys refused that do not own the boot whose secrets they asked for.",
            &counters.sessions_refused,
        ),
        (
            "bennu_reports_refused_total",
            "Reports refused that were not from the session of their boot.",
            &counters.reports_refused,
        ),
        (
            "bennu_tokens_refused_total",
            "Requests whose token was wrong, expired or not good for them.",
            &counters.tokens_refused,
        ),
        (
            "bennu_tokens_limited_total",
            "Requests refused unseen after too many wrong tokens.",
            &counters.tokens_limited,
        ),
    ];
    for (name, help, value) in all {
        let counter = IntCounter::new(name, help).expect(WELL_FORMED);
        counter.inc_by(value.load(Ordering::Relaxed));
        register(registry, vec![Box::new(counter)]);
    }
}

fn service(registry: &Registry, appliance: &Appliance) {
    let started = SystemTime::now().checked_sub(appliance.started.elapsed());
    let started = started.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    gauge(registry, "bennu_start_time_seconds", "When the service started, since 1970.", started.as_secs());
    gauge(registry, "bennu_store_free_bytes", "Bytes free where images are kept.", appliance.store.free());
    gauge(registry, "bennu_resident_memory_bytes", "Memory that the service holds.", resident_memory());
    gauge(registry, "bennu_ledger_closed", "1 if a disk fault closed the ledger.", appliance.ledger.is_closed().into());
    gauge(registry, "bennu_ledger_full", "1 while the ledger's disk is full.", appliance.ledger.is_full().into());
    let interfaces = appliance.interfaces.now();
    let standing_by = interfaces.iter().filter(|interface| appliance.stands_by(&interface.name).is_some()).count();
    let help = "Interfaces on which no DHCP is answered because another Bennu does.";
    gauge(registry, "bennu_interfaces_standing_by", help, standing_by as u64);
    let build = IntGaugeVec::new(Opts::new("bennu_build_info", "Always 1; the label tells the version."), &["version"]);
    let build = build.expect(WELL_FORMED);
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    register(registry, vec![Box::new(build)]);
}

fn records(registry: &Registry, appliance: &Appliance) -> Result<(), Fault> {
    let images = appliance.ledger.stored(|records| records.image_count())?;
    gauge(registry, "bennu_images", "Images on record.", images as u64);
    let mut counts: BTreeMap<&str, u64> = STATES.iter().map(|state| (*state, 0)).collect();
    for (state, count) in machines_by_state(appliance)? {
        *counts.entry(state).or_default() += count;
    }
    gauges(registry, "bennu_machines", "Machines on record by the state of their latest boot.", "state", counts);
    Ok(())
}

/// The states of machines: `never` booted, or as their latest boot.
const STATES: [&str; 11] =
    ["never", "firmware", "loader", "waiting", "script", "stage1", "init", "up", "local", "failed", "superseded"];

fn name_of(state: State) -> &'static str {
    match state {
        State::Firmware => "firmware",
        State::Loader => "loader",
        State::Waiting => "waiting",
        State::Script => "script",
        State::Stage1 => "stage1",
        State::Init => "init",
        State::Up => "up",
        State::Local => "local",
        State::Failed => "failed",
        State::Superseded => "superseded",
    }
}

/// How many machines are in each state.
pub fn machines_by_state(appliance: &Appliance) -> Result<BTreeMap<&'static str, u64>, Fault> {
    let ids: Vec<MacAddress> = appliance.ledger.stored(|records| records.machine_ids())?;
    // Nearly every machine's latest boot is in memory; a look into the ledger for each boot there ever was is too much
    // for what is asked every few seconds.
    let live: BTreeMap<MacAddress, State> =
        appliance.ledger.live(|live, _| live.boots().map(|boot| (boot.machine, boot.state)).collect());
    let mut states = BTreeMap::new();
    for id in ids {
        let state = match live.get(&id) {
            Some(state) => Some(*state),
            None => appliance.ledger.latest_boot(id)?.map(|boot| boot.state),
        };
        *states.entry(state.map_or("never", name_of)).or_default() += 1;
    }
    Ok(states)
}

fn boots(registry: &Registry, appliance: &Appliance) {
    let (mut open, mut troubles) = (BTreeMap::new(), BTreeMap::new());
    for state in ["firmware", "loader", "waiting", "script", "stage1", "init", "failed"] {
        open.insert(state, 0);
    }
    for kind in Trouble::ALL {
        troubles.insert(kind.name(), 0);
    }
    appliance.ledger.live(|live, now| {
        for boot in live.boots().filter(|boot| boot.is_open()) {
            *open.entry(name_of(boot.state)).or_default() += 1;
            if let Some(kind) = trouble(boot, now) {
                *troubles.entry(kind.name()).or_default() += 1;
            }
        }
    });
    gauges(registry, "bennu_boots_open", "Boots that go on, by how far they are.", "state", open);
    let help = "Boots that go on and are in trouble, by diagnosis.";
    gauges(registry, "bennu_boots_in_trouble", help, "diagnosis", troubles);
}

fn gauge(registry: &Registry, name: &str, help: &str, value: u64) {
    let gauge = IntGauge::new(name, help).expect(WELL_FORMED);
    gauge.set(value.min(i64::MAX as u64) as i64);
    register(registry, vec![Box::new(gauge)]);
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str, values: BTreeMap<&str, u64>) {
    let family = IntGaugeVec::new(Opts::new(name, help), &[label]).expect(WELL_FORMED);
    for (value, count) in values {
        family.with_label_values(&[value]).set(count as i64);
    }
    register(registry, vec![Box::new(family)]);
}

/// `VmRSS` of this process (`proc(5)`); 0 where the system does not say.
pub fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64) * 1024
}
