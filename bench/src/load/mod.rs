//! The load programs. Each runs as a process of its own in the client's network namespace: `bench load`
//! reads a [`Load`] as JSON and prints its [`Figures`] as one line of JSON.

mod dhcp;
mod half_open;
mod http;
mod machine;
mod relay;
mod scripts;
mod storm;
mod tftp;
mod tftp_client;

pub use dhcp::{Exchanges, FirstOffer};
pub use half_open::HalfOpen;
pub use http::Streams;
pub use scripts::Scripts;
pub use storm::{Fetch, Storm, Wanted};
pub use tftp::Transfers;

use anyhow::Result;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs};

/// One load on a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Load {
    /// DHCP exchanges of many machines.
    Exchanges(Exchanges),
    /// Asks until a server that starts gives its first offer.
    FirstOffer(FirstOffer),
    /// TFTP transfers.
    Transfers(Transfers),
    /// TFTP requests that nobody follows up.
    HalfOpen(HalfOpen),
    /// Large downloads over HTTP.
    Streams(Streams),
    /// Small requests over connections that stay open.
    Scripts(Scripts),
    /// Machines that boot at once.
    Storm(Storm),
}

impl Load {
    /// Runs it to its end.
    pub fn run(self) -> Result<Figures> {
        allow_many_sockets();
        let mut figures = match self {
            Self::Exchanges(load) => load.run(),
            Self::FirstOffer(load) => load.run(),
            Self::Transfers(load) => load.run(),
            Self::HalfOpen(load) => load.run(),
            Self::Streams(load) => load.run(),
            Self::Scripts(load) => load.run(),
            Self::Storm(load) => load.run(),
        }?;
        figures.set("client_cpu_s", own_cpu_seconds());
        Ok(figures)
    }
}

/// What a load found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Figures by name; the name ends in the unit.
    pub values: BTreeMap<String, f64>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// Different errors that a load tells of.
const MOST_ERRORS: usize = 16;

impl Figures {
    /// Notes a figure.
    pub fn set(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// A figure, when it was measured.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// Counts something that went wrong. A few ways of going wrong say enough, and what a load prints must fit into a
    /// pipe that nobody reads before it ends.
    pub fn count_error(&mut self, what: &str) {
        let is_told = self.errors.len() < MOST_ERRORS || self.errors.contains_key(what);
        *self.errors.entry(if is_told { what } else { "others" }.to_owned()).or_insert(0) += 1;
    }

    /// Notes how some times (in seconds) spread.
    pub fn spread(&mut self, name: &str, mut seconds: Vec<f64>) {
        seconds.sort_by(f64::total_cmp);
        for (suffix, part) in [("p50_s", 0.5), ("p99_s", 0.99), ("max_s", 1.0)] {
            self.set(&format!("{name}_{suffix}"), quantile(&seconds, part));
        }
    }
}

/// The smallest value with at least this part of the sorted values at or below it.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// The hardware address of the simulated machine of this number.
pub fn mac(number: u32) -> [u8; 6] {
    let [_, a, b, c] = number.to_be_bytes();
    [0x02, 0x50, 0x58, a, b, c]
}

/// The same, as listings write it.
pub fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The same, as Bennu's URLs write it.
pub fn hyphened(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join("-")
}

fn allow_many_sockets() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A load that then runs out of sockets says so itself.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The kernel's unit of time towards programs (USER_HZ) is the same on every architecture that Debian is for.
pub const TICKS: f64 = 100.0;

/// CPU time of this process, of all its threads and in the kernel too.
fn own_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (100.0, 198.0, 200.0));
        assert_eq!((quantile(&[7.0], 0.99), quantile(&[], 0.5)), (7.0, 0.0));
    }

    #[test]
    fn a_load_survives_its_way_to_the_process_that_runs_it() {
        let load = Load::Exchanges(Exchanges {
            server: Ipv4Addr::LOCALHOST,
            relay: Ipv4Addr::LOCALHOST,
            first: 7,
            count: 1,
            in_flight: 1,
            patience_ms: 1,
            most_s: 1.5,
        });
        let told = serde_json::to_string(&load).unwrap();
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Load>(&told).unwrap()).unwrap(), told);
    }
}
