//! What has to be reached, and whether it was.

use std::fmt;

use crate::{
    contenders::{ATFTPD, DNSMASQ, KEA, NGINX, OURS, TFTPD_HPA},
    measure::Samples,
    suites::{dhcp, http, lossy, storm, tftp},
};

/// Syncs a second below which a disk, and not a server, decides how many leases are made durable.
const SLOW_DISK: f64 = 1000.0;

/// A bar and what was measured.
#[derive(Debug)]
pub struct Bar {
    /// What was asked.
    pub asked: String,
    /// What came out.
    pub found: String,
    /// Whether that is enough.
    pub verdict: Verdict,
}

/// Whether a bar is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// The machine cannot tell.
    Void,
    /// It was not measured in this run.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::Void => "void",
            Self::NotMeasured => "not measured",
        })
    }
}

impl Bar {
    fn new(asked: &str, found: String, is_met: bool) -> Self {
        let verdict = if is_met { Verdict::Met } else { Verdict::NotMet };
        Self { asked: asked.to_owned(), found, verdict }
    }

    fn not_measured(asked: &str) -> Self {
        Self { asked: asked.to_owned(), found: "-".to_owned(), verdict: Verdict::NotMeasured }
    }
}

/// Every bar, judged on medians over the rounds.
pub fn judge(samples: &Samples) -> Vec<Bar> {
    [of_dhcp(samples), of_tftp(samples), of_http(samples), of_storm(samples), of_lossy(samples)]
        .into_iter()
        .flatten()
        .collect()
}

/// A figure in every sample of a test, with its worst value: for what must not happen even once.
fn worst(samples: &Samples, test: &str, server: &str, figure: &str) -> Option<f64> {
    samples.values(test, server, figure).into_iter().reduce(f64::max)
}

/// Ours must reach this part of each other's value, in the median of the rounds; the one that comes closest is named.
fn at_least(samples: &Samples, asked: &str, test: &str, figure: &str, part: f64, others: &[&str]) -> Bar {
    let ratios = others.iter().filter_map(|other| Some((samples.ratio(test, figure, OURS, other)?, *other)));
    let Some((ratio, best)) = ratios.min_by(|a, b| a.0.total_cmp(&b.0)) else { return Bar::not_measured(asked) };
    Bar::new(asked, compared(samples, test, figure, best, ratio), ratio >= part)
}

/// Ours must not exceed the other's value, in the median of the rounds.
fn at_most(samples: &Samples, asked: &str, test: &str, figure: &str, other: &str) -> Bar {
    let Some(ratio) = samples.ratio(test, figure, OURS, other) else { return Bar::not_measured(asked) };
    Bar::new(asked, compared(samples, test, figure, other, ratio), ratio <= 1.0)
}

fn compared(samples: &Samples, test: &str, figure: &str, other: &str, ratio: f64) -> String {
    let value = |server| samples.median(test, server, figure).map_or("-".to_owned(), short);
    format!("{} and {} ({other}): {ratio:.2}", value(OURS), value(other))
}

/// A value of ours must not exceed a limit.
fn limit(asked: &str, found: Option<f64>, limit: f64, unit: &str) -> Bar {
    let Some(found) = found else { return Bar::not_measured(asked) };
    Bar::new(asked, format!("{}{unit}", short(found)), found <= limit)
}

fn of_dhcp(samples: &Samples) -> Vec<Bar> {
    let slow = samples.median(dhcp::DISK, "disk", "per_s").is_some_and(|rate| rate < SLOW_DISK);
    let mut bars: Vec<Bar> = [(dhcp::NEW_32, 32), (dhcp::NEW_256, 256)]
        .iter()
        .map(|(test, in_flight)| {
            let asked = format!("DHCP, new leases/s at 10,000 machines, {in_flight} in flight: 1.0 x Kea");
            let mut bar = at_least(samples, &asked, test, "per_s", 1.0, &[KEA]);
            if slow && bar.verdict == Verdict::NotMet {
                bar.verdict = Verdict::Void;
            }
            bar
        })
        .collect();
    let first = [dhcp::START, dhcp::RESTART].map(|test| samples.median(test, OURS, "first_offer_s"));
    bars.push(limit(
        "DHCP, 1,000 DISCOVERs at once: none sent again, in any round",
        worst(samples, dhcp::BURST, OURS, "unanswered"),
        0.0,
        " messages unanswered after 1 s",
    ));
    bars.push(limit(
        "DHCP, resident memory at 10,000 leases: 32 MiB",
        samples.median(dhcp::NEW_256, OURS, "rss_mib"),
        32.0,
        " MiB",
    ));
    bars.push(limit(
        "DHCP, first offer after a start with 100,000 leases, after SIGKILL too: 2 s",
        first.into_iter().flatten().reduce(f64::max),
        2.0,
        " s",
    ));
    bars
}

fn of_tftp(samples: &Samples) -> Vec<Bar> {
    let cases = [tftp::SMALL, tftp::LARGE, tftp::MANY];
    let lockstep = cases.map(|case| {
        let asked = format!("TFTP, {case}, window 1: the best of the three");
        let others = &[DNSMASQ, TFTPD_HPA, ATFTPD];
        at_least(samples, &asked, &tftp::named(case, 1), "mb_per_s", 1.0, others)
    });
    let windowed = cases.map(|case| {
        let asked = format!("TFTP, {case}, window 16: 1.0 x atftpd");
        at_least(samples, &asked, &tftp::named(case, 16), "mb_per_s", 1.0, &[ATFTPD])
    });
    let lossy = [1, 16].map(|window| {
        let found = samples.median(&tftp::named(tftp::LOSSY, window), OURS, "read_p99_s");
        limit(&format!("TFTP, 300 KB at 5 % loss, window {window}, client's timer 1 s: p99 2 s"), found, 2.0, " s")
    });
    let each = samples.median(tftp::HALF_OPEN, OURS, "kib_each");
    let half_open = limit("TFTP, memory of a half-open transfer: 8 KiB", each, 8.0, " KiB");
    lockstep.into_iter().chain(windowed).chain(lossy).chain([half_open]).collect()
}

fn of_http(samples: &Samples) -> Vec<Bar> {
    let mut bars = Vec::new();
    for test in [http::ALONE, http::EIGHT] {
        let asked = format!("HTTP, {test}: 0.97 x nginx");
        bars.push(at_least(samples, &asked, test, "mb_per_s", 0.97, &[NGINX]));
        let asked = format!("HTTP, {test}: no more CPU for a byte than nginx");
        bars.push(at_most(samples, &asked, test, "cpu_s_per_gb", NGINX));
    }
    let asked = "HTTP, boot scripts, repeated: 20,000/s";
    bars.push(match samples.median(http::SCRIPTS, OURS, "per_s") {
        Some(rate) => Bar::new(asked, format!("{}/s", short(rate)), rate >= 20_000.0),
        None => Bar::not_measured(asked),
    });
    bars
}

fn of_storm(samples: &Samples) -> Vec<Bar> {
    let peers = storm::peers();
    vec![
        at_most(samples, "Storm, 200 machines: wall of dnsmasq + nginx", storm::STORM, "wall_s", &peers),
        at_most(samples, "Storm, 200 machines: p99 of dnsmasq + nginx", storm::STORM, "machine_p99_s", &peers),
        limit(
            "Storm, 200 machines: no failure, in any round",
            worst(samples, storm::STORM, OURS, "failed"),
            0.0,
            " failed",
        ),
        limit(
            "Storm, 200 machines: resident memory 64 MiB",
            samples.median(storm::STORM, OURS, "rss_peak_mib"),
            64.0,
            " MiB",
        ),
    ]
}

fn of_lossy(samples: &Samples) -> Vec<Bar> {
    [(lossy::FIFTIETH, 20.0, "79 s"), (lossy::TENTH, 60.0, "more than 240 s")]
        .map(|(test, most, theirs)| {
            let asked = format!("{test}: {most} s (dnsmasq once took {theirs})");
            limit(&asked, samples.median(test, OURS, "transfer_s"), most, " s")
        })
        .into()
}

/// A number with as many digits as are worth reading.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Figures;

    fn note(samples: &mut Samples, test: &str, server: &str, figure: &str, value: f64) {
        let mut figures = Figures::default();
        figures.set(figure, value);
        samples.add(1, test, server, figures);
    }

    fn verdict(samples: &Samples, part: &str) -> Verdict {
        judge(samples).iter().find(|bar| bar.asked.contains(part)).unwrap().verdict
    }

    #[test]
    fn nothing_measured_meets_nothing() {
        let bars = judge(&Samples::default());
        assert!(bars.len() > 20 && bars.iter().all(|bar| bar.verdict == Verdict::NotMeasured));
    }

    #[test]
    fn ours_is_compared_with_the_best_other() {
        let mut samples = Samples::default();
        let test = tftp::named(tftp::SMALL, 1);
        for (server, rate) in [(DNSMASQ, 49.0), (ATFTPD, 51.0)] {
            note(&mut samples, &test, server, "mb_per_s", rate);
        }
        let mut faster = samples.clone();
        note(&mut samples, &test, OURS, "mb_per_s", 50.0);
        note(&mut faster, &test, OURS, "mb_per_s", 52.0);
        assert_eq!(verdict(&samples, "1 MB, window 1:"), Verdict::NotMet);
        assert_eq!(verdict(&faster, "1 MB, window 1:"), Verdict::Met);
    }

    #[test]
    fn a_slow_disk_voids_a_bar_and_only_one_that_is_not_met() {
        let mut samples = Samples::default();
        note(&mut samples, dhcp::NEW_32, OURS, "per_s", 900.0);
        note(&mut samples, dhcp::NEW_32, KEA, "per_s", 5000.0);
        note(&mut samples, dhcp::NEW_256, OURS, "per_s", 6000.0);
        note(&mut samples, dhcp::NEW_256, KEA, "per_s", 5000.0);
        assert_eq!(verdict(&samples, "32 in flight"), Verdict::NotMet);
        note(&mut samples, dhcp::DISK, "disk", "per_s", 200.0);
        assert_eq!(verdict(&samples, "32 in flight"), Verdict::Void);
        assert_eq!(verdict(&samples, "256 in flight"), Verdict::Met);
    }

    #[test]
    fn one_retransmission_in_one_round_is_one_too_many() {
        let mut samples = Samples::default();
        note(&mut samples, dhcp::BURST, OURS, "unanswered", 0.0);
        assert_eq!(verdict(&samples, "at once"), Verdict::Met);
        note(&mut samples, dhcp::BURST, OURS, "unanswered", 1.0);
        assert_eq!(verdict(&samples, "at once"), Verdict::NotMet);
    }
}
