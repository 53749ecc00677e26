//! What Prometheus is told: counters by kind, and how long things take. Labels come from lists that are known when Bennu
//! is built, never from clients, so that nothing on the wire decides how many series there are; each is there from the
//! start, at zero, so that the first of its kind is seen as an increase.

mod boots;
mod scrape;
#[cfg(test)]
mod tests;

pub use boots::{Came, Tally};
pub use scrape::{machines_by_state, resident_memory, text};

use crate::{http::metered::RESOURCES, tftp::Event};
use bennu_rules::{
    boot::Boot,
    dhcp::{Reason, reply::Verdict},
    journey::{Seen, Stage, Trouble, stages},
};
use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Collector};
use std::time::Duration;

/// A silence that is not of the rules: every address that was tried for an offer answered.
pub const ADDRESSES_IN_USE: &str = "addresses_in_use";

/// Seconds, for what takes a part of a second.
const QUICK: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Seconds, for what people and machines wait for.
const SLOW: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0];
/// Proposals of one commit; 512 is the most.
const CROWD: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// What the servers count.
#[derive(Debug)]
pub struct Metrics {
    dhcp_answers: IntCounterVec,
    dhcp_silences: IntCounterVec,
    tftp_transfers: IntCounterVec,
    tftp_bytes: IntCounter,
    tftp_resends: IntCounter,
    tftp_duration: Histogram,
    http_requests: IntCounterVec,
    http_bytes: IntCounter,
    http_duration: Histogram,
    api_requests: IntCounterVec,
    api_duration: Histogram,
    imports: IntCounterVec,
    import_duration: Histogram,
    log_lines: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let silences: Vec<&str> = Reason::NAMES.into_iter().chain([ADDRESSES_IN_USE]).collect();
        let http = family(
            "bennu_http_requests_total",
            "Requests of booting machines by what they asked for and the answer's class.",
            &["resource", "class"],
        );
        for resource in RESOURCES {
            for class in ["2xx", "3xx", "4xx", "5xx"] {
                let _ = http.with_label_values(&[resource, class]);
            }
        }
        Self {
            dhcp_answers: counters(
                "bennu_dhcp_answers_total",
                "DHCP answers sent, by their kind.",
                "kind",
                &["offer", "ack", "nak", "bootp"],
            ),
            dhcp_silences: counters(
                "bennu_dhcp_silences_total",
                "DHCP requests that were left unanswered, by reason.",
                "reason",
                &silences,
            ),
            tftp_transfers: counters(
                "bennu_tftp_transfers_total",
                "TFTP transfers that are over, by what became of them.",
                "outcome",
                &["complete", "failed", "refused"],
            ),
            tftp_bytes: counter("bennu_tftp_sent_bytes_total", "Bytes of files that TFTP clients received."),
            tftp_resends: counter("bennu_tftp_resent_blocks_total", "Blocks that TFTP sent again."),
            tftp_duration: histogram(
                "bennu_tftp_transfer_duration_seconds",
                "How long complete TFTP transfers took.",
                SLOW,
            ),
            http_requests: http,
            http_bytes: counter(
                "bennu_http_sent_bytes_total",
                "Bytes of blobs and loaders sent to booting machines over HTTP.",
            ),
            http_duration: histogram(
                "bennu_http_transfer_duration_seconds",
                "How long complete transfers of blobs and loaders over HTTP took.",
                SLOW,
            ),
            api_requests: counters(
                "bennu_api_requests_total",
                "Requests of the management plane by the status of the answer.",
                "code",
                &["200", "204", "400", "401", "403", "404", "409", "412", "429", "500", "503"],
            ),
            api_duration: histogram(
                "bennu_api_request_duration_seconds",
                "How long requests of the management plane waited for the head of their answer.",
                QUICK,
            ),
            imports: counters(
                "bennu_imports_total",
                "Imports of images, by what became of them.",
                "outcome",
                &["complete", "failed"],
            ),
            log_lines: counters(
                "bennu_log_lines_total",
                "Syslog messages of machines, by what became of them.",
                "outcome",
                &crate::logs::Outcome::NAMES,
            ),
            import_duration: histogram("bennu_import_duration_seconds", "How long complete imports took.", SLOW),
        }
    }
}

impl Metrics {
    /// A DHCP answer was sent; BOOTP's have no kind.
    pub fn dhcp_answer(&self, verdict: Option<Verdict>) {
        let kind = match verdict {
            Some(Verdict::Offer) => "offer",
            Some(Verdict::Ack) => "ack",
            Some(Verdict::Nak) => "nak",
            None => "bootp",
        };
        self.dhcp_answers.with_label_values(&[kind]).inc();
    }

    /// A DHCP request was left unanswered.
    pub fn dhcp_silence(&self, reason: &'static str) {
        self.dhcp_silences.with_label_values(&[reason]).inc();
    }

    /// Something happened to a TFTP transfer.
    pub fn tftp(&self, event: &Event) {
        match event {
            Event::Refused => self.tftp_transfers.with_label_values(&["refused"]).inc(),
            Event::Ended { complete, bytes, resent, took_ms } => {
                self.tftp_transfers.with_label_values(&[if *complete { "complete" } else { "failed" }]).inc();
                self.tftp_bytes.inc_by(*bytes);
                self.tftp_resends.inc_by(*resent);
                if *complete {
                    self.tftp_duration.observe(seconds(*took_ms));
                }
            }
            Event::Started | Event::Ignored | Event::Malformed => {}
        }
    }

    /// A blob or loader left over HTTP.
    pub fn sent_over_http(&self, seen: &Seen) {
        self.http_bytes.inc_by(seen.bytes_moved());
        if let Seen::LoaderRead { complete: true, took_ms, .. } | Seen::BlobRead { complete: true, took_ms, .. } = seen
        {
            self.http_duration.observe(seconds(*took_ms));
        }
    }

    /// A booting machine was answered.
    pub fn http_request(&self, resource: &'static str, status: StatusCode) {
        let class = match status.as_u16() {
            ..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http_requests.with_label_values(&[resource, class]).inc();
    }

    /// A client of the management plane was answered.
    pub fn api_request(&self, status: StatusCode, took: Duration) {
        self.api_requests.with_label_values(&[status.as_str()]).inc();
        self.api_duration.observe(took.as_secs_f64());
    }

    /// An import is over.
    pub fn import(&self, complete: bool, took: Duration) {
        self.imports.with_label_values(&[if complete { "complete" } else { "failed" }]).inc();
        if complete {
            self.import_duration.observe(took.as_secs_f64());
        }
    }

    /// A machine said something.
    pub fn log_line(&self, outcome: &'static str) {
        self.log_lines.with_label_values(&[outcome]).inc();
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.log_lines.clone()),
            Box::new(self.dhcp_answers.clone()),
            Box::new(self.dhcp_silences.clone()),
            Box::new(self.tftp_transfers.clone()),
            Box::new(self.tftp_bytes.clone()),
            Box::new(self.tftp_resends.clone()),
            Box::new(self.tftp_duration.clone()),
            Box::new(self.http_requests.clone()),
            Box::new(self.http_bytes.clone()),
            Box::new(self.http_duration.clone()),
            Box::new(self.api_requests.clone()),
            Box::new(self.api_duration.clone()),
            Box::new(self.imports.clone()),
            Box::new(self.import_duration.clone()),
        ]
    }
}

/// What the ledger measures: of its disk, and of the boots that pass it.
#[derive(Debug)]
pub struct LedgerMeters {
    commit: Histogram,
    crowd: Histogram,
    boots: IntCounterVec,
    failures: IntCounterVec,
    stages: HistogramVec,
    whole: Histogram,
}

impl Default for LedgerMeters {
    fn default() -> Self {
        let stages = HistogramVec::new(
            HistogramOpts::new(
                "bennu_boot_stage_duration_seconds",
                "How long boots took for each stage, named after what it ends with; of boots that are over.",
            )
            .buckets(SLOW.to_vec()),
            &["stage"],
        )
        .expect(WELL_FORMED);
        for stage in Stage::ALL {
            let _ = stages.with_label_values(&[stage.name()]);
        }
        let troubles = Trouble::ALL.map(Trouble::name);
        Self {
            commit: histogram(
                "bennu_ledger_commit_duration_seconds",
                "How long commits of the ledger took, sync included.",
                QUICK,
            ),
            crowd: histogram(
                "bennu_ledger_commit_proposals",
                "Proposals that one commit of the ledger made durable.",
                CROWD,
            ),
            boots: counters(
                "bennu_boots_total",
                "Boots by what they came to; one that failed and came up later counts in both.",
                "outcome",
                &Came::ALL.map(Came::name),
            ),
            failures: counters("bennu_boot_failures_total", "Boots that failed, by diagnosis.", "diagnosis", &troubles),
            stages,
            whole: histogram(
                "bennu_boot_duration_seconds",
                "How long boots took from the first packet until they were up.",
                SLOW,
            ),
        }
    }
}

impl LedgerMeters {
    /// A batch was committed.
    pub fn commit(&self, took: Duration, proposals: usize) {
        self.commit.observe(took.as_secs_f64());
        self.crowd.observe(proposals as f64);
    }

    /// A boot came to something.
    pub fn boot(&self, boot: &Boot, came: Option<Came>) {
        let Some(came) = came else { return };
        self.boots.with_label_values(&[came.name()]).inc();
        if came == Came::Failed {
            let trouble = bennu_rules::journey::trouble(boot, boot.opened).unwrap_or(Trouble::Reported);
            self.failures.with_label_values(&[trouble.name()]).inc();
            return;
        }
        for (stage, took) in stages(boot) {
            self.stages.with_label_values(&[stage.name()]).observe(seconds(took));
        }
        if let (Came::Up, Some(closed)) = (came, boot.closed) {
            self.whole.observe(seconds(closed.since(boot.opened)));
        }
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.commit.clone()),
            Box::new(self.crowd.clone()),
            Box::new(self.boots.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.stages.clone()),
            Box::new(self.whole.clone()),
        ]
    }
}

const WELL_FORMED: &str = "names of metrics are well formed";

fn family(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(WELL_FORMED)
}

fn counters(name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
    let family = family(name, help, &[label]);
    for value in values {
        let _ = family.with_label_values(&[value]);
    }
    family
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(WELL_FORMED)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(WELL_FORMED)
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn register(registry: &Registry, collectors: Vec<Box<dyn Collector>>) {
    for collector in collectors {
        registry.register(collector).expect("each metric is there once");
    }
}
