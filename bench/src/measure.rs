//! Taking measurements: a load on a server, with what it cost the server beside it.

use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{self, Lab},
    load::{Figures, Load, TICKS},
    servers::Running,
};

const MIB: f64 = 1_048_576.0;
/// Memory is looked at this often.
const PACE: Duration = Duration::from_millis(100);

/// One measurement.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Sample {
    /// In which round.
    pub round: u32,
    /// What was measured.
    pub test: String,
    /// Of whom.
    pub server: String,
    /// What came out.
    pub figures: Figures,
}

/// Everything that was measured in one run.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Samples(pub Vec<Sample>);

impl Samples {
    /// Notes a measurement and shows it.
    pub fn add(&mut self, round: u32, test: &str, server: &str, figures: Figures) {
        let shown =
            ["per_s", "mb_per_s", "wall_s", "machine_p99_s", "read_p99_s", "p99_ms", "first_offer_s", "transfer_s"]
                .iter()
                .filter_map(|name| Some(format!("{name} {:.4}", figures.get(name)?)))
                .chain(figures.get("failed").filter(|failed| *failed > 0.0).map(|failed| format!("FAILED {failed}")))
                .chain(figures.errors.iter().map(|(error, count)| format!("[{count} x {error}]")))
                .collect::<Vec<_>>();
        println!("  {round}  {test:34} {server:16} {}", shown.join("  "));
        self.0.push(Sample { round, test: test.to_owned(), server: server.to_owned(), figures });
    }

    /// Values of a figure in all rounds.
    pub fn values(&self, test: &str, server: &str, figure: &str) -> Vec<f64> {
        let of = |sample: &&Sample| sample.test == test && sample.server == server;
        self.0.iter().filter(of).filter_map(|sample| sample.figures.get(figure)).collect()
    }

    /// Their median.
    pub fn median(&self, test: &str, server: &str, figure: &str) -> Option<f64> {
        median(self.values(test, server, figure))
    }

    /// The median, over the rounds, of one server's value as a multiple of the other's in the same round: both were
    /// measured within seconds of each other, while a machine may be twice as slow a minute later.
    pub fn ratio(&self, test: &str, figure: &str, of: &str, to: &str) -> Option<f64> {
        let in_round = |round, server: &str| {
            let is_meant = |sample: &&Sample| sample.round == round && sample.test == test && sample.server == server;
            self.0.iter().find(is_meant)?.figures.get(figure)
        };
        let rounds: BTreeSet<u32> = self.0.iter().map(|sample| sample.round).collect();
        median(rounds.into_iter().filter_map(|round| Some(in_round(round, of)? / in_round(round, to)?)).collect())
    }
}

/// The middle value, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Runs a load on running servers.
pub fn measure(lab: &Lab, servers: &Running<'_>, load: &Load) -> Result<Figures> {
    let (cpu, busy, started) = (servers.cpu_seconds(), busy_seconds(), Instant::now());
    let mut child = lab.command(load)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut peak = servers.resident();
    while child.try_wait()?.is_none() {
        thread::sleep(PACE.min(started.elapsed().max(Duration::from_millis(2))));
        peak = peak.max(servers.resident());
    }
    let (wall, cpu) = (started.elapsed().as_secs_f64(), servers.cpu_seconds() - cpu);
    let mut figures = ended(child)?;
    figures.set("server_cpu_s", cpu);
    figures.set("rss_mib", servers.resident() / MIB);
    figures.set("rss_peak_mib", peak / MIB);
    if let Some(bytes) = figures.get("bytes").filter(|bytes| *bytes > 0.0) {
        figures.set("cpu_s_per_gb", cpu / bytes * 1e9);
    }
    if let Some(done) = figures.get("done").filter(|done| *done > 0.0) {
        figures.set("cpu_us_each", cpu / done * 1e6);
    }
    let foreign = busy_seconds() - busy - cpu - figures.get("client_cpu_s").unwrap_or(0.0);
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    figures.set("foreign_percent", (foreign / (wall * cores) * 100.0).max(0.0));
    Ok(figures)
}

fn ended(child: Child) -> Result<Figures> {
    lab::figures(child.wait_with_output().context("a load was lost")?)
}

/// CPU time that the whole machine has spent on anything.
fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().sum::<f64>() - idle) / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn servers_are_compared_round_by_round() {
        let mut samples = Samples::default();
        for (round, ours, theirs) in [(1, 30.0, 20.0), (2, 14.0, 10.0), (3, 12.0, 20.0)] {
            for (server, value) in [("ours", ours), ("theirs", theirs)] {
                let mut figures = Figures::default();
                figures.set("per_s", value);
                samples.add(round, "test", server, figures);
            }
        }
        assert_eq!(samples.ratio("test", "per_s", "ours", "theirs"), Some(1.4), "the medians' own ratio is 0.7");
        assert_eq!(samples.ratio("test", "per_s", "ours", "nobody"), None);
    }

    #[test]
    fn a_busy_process_is_seen() {
        let before = busy_seconds();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(200) {
            std::hint::black_box(started);
        }
        assert!(busy_seconds() > before);
    }
}
