//! The wire checklist, line by line, against the running appliance: a client of raw frames, a TFTP client that
//! misbehaves, and an HTTP client of bytes.

pub mod ask;
pub mod client;
mod dhcp_addresses;
mod dhcp_packets;
mod dhcp_paths;
mod durable;
mod files;
pub mod frames;
pub mod got;
mod http;
pub mod link;
mod networks;
pub mod place;
mod pxe;
mod report;
mod table;
mod tftp;
mod tftp_client;

pub use self::{frames::Datagram, link::Link};

use anyhow::{Result, anyhow};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use self::{
    place::{Bench, Place},
    table::{Shown, TESTED, Test, WRITTEN_LIST},
};
use crate::{
    appliance::Config,
    harness::{Life, Story},
    rack::Rack,
};

/// Every line, and the list of them.
pub const LINES: Life = Life { name: "conformance", shows: table::NAMES, live: lines };

/// Lines at a time: most of them wait for silence.
const AT_ONCE: usize = 12;

/// The appliances that the lines share.
#[derive(Debug)]
pub struct Places {
    /// It gives addresses, on its wire and behind relays.
    pub full: Place,
    /// It stands beside the site's DHCP server.
    pub proxy: Place,
    /// It gives no addresses, and serves files of the tests' own.
    pub loaders: Place,
}

fn lines(story: &mut Story) -> Result<()> {
    let full = Bench::new(full(), &["10.80.0.0/12", "10.96.0.0/11", "10.128.0.0/12", "172.16.0.0/16"])?;
    let proxy = Bench::new(Config::proxy(), &[])?;
    let rack = Rack::new()?;
    let directory = rack.home().dir().join("loaders");
    files::write(&directory)?;
    let loaders = Bench::new(Config::off().boot(&format!("loaders_dir = {:?}", directory.display().to_string())), &[])?;
    let places = Places { full: full.place.clone(), proxy: proxy.place.clone(), loaders: loaders.place.clone() };

    let mut passed = BTreeMap::new();
    run(&places, |test, took, outcome| {
        passed.insert(test.name, outcome.is_ok());
        let _ = story.showed(test.name, took, outcome);
    });
    for (name, bench) in [("full", &full), ("proxy", &proxy), ("off", &loaders)] {
        if bench.place.log().contains("panicked") {
            return Err(anyhow!("the appliance in mode {name} panicked:\n{}", bench.bennu.log_tail(20)));
        }
    }
    if passed.values().any(|passed| !passed) {
        eprintln!("the appliance in mode full logged at last:\n{}", full.bennu.log_tail(20));
    }
    let begun = Instant::now();
    let written = report::write(&passed);
    story.showed(WRITTEN_LIST, begun.elapsed(), written)
}

/// A subnet of its own for each line that must not be disturbed, and one each with short leases and with much to tell.
fn full() -> Config {
    let wire = [
        "range = \"10.77.0.32-10.77.0.252\"",
        "router = \"10.77.0.1\"",
        "dns = [\"10.77.0.253\"]",
        "domain = \"rack.example\"",
    ];
    let mut config = wire.into_iter().fold(Config::full().boot("bootp = \"reserved\""), Config::subnet);
    let names: Vec<String> = (1..=60).map(|host| format!("\"10.9.9.{host}\"")).collect();
    let domain = ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join(".");
    for (subnet, range, more) in [
        (88, "50-10.88.0.199", "lease_seconds = 60".to_owned()),
        (90, "50-10.90.0.199", format!("dns = [{}]\ndomain = \"{domain}\"", names.join(", "))),
        (112, "50-10.112.0.199", String::new()),
        (114, "50-10.114.0.199", String::new()),
        (115, "50-10.115.0.199", String::new()),
        (116, "50-10.116.0.199", String::new()),
        (120, "50-10.120.0.199", String::new()),
        (122, "50-10.122.0.51", String::new()),
        (123, "50-10.123.0.199", String::new()),
        (130, "50-10.130.0.50", "shared_network = \"hall\"".to_owned()),
        (131, "50-10.131.0.60", "shared_network = \"hall\"".to_owned()),
        (132, "50-10.132.0.199", BY_NUMBER.to_owned()),
    ] {
        config = config.more(&format!(
            "[[boot.subnet]]\nnetwork = \"10.{subnet}.0.0/24\"\nrange = \"10.{subnet}.0.{range}\"\n\
             router = \"10.{subnet}.0.1\"\n{more}"
        ));
    }
    config
}

/// What one subnet has to say beyond the usual.
const BY_NUMBER: &str = "ntp = [\"10.9.9.9\"]\nmtu = 9000\ndomain_search = [\"rack.example\", \"example\"]\n\
                         [boot.subnet.options]\n100 = \"text:CET\"\n150 = \"addresses:10.77.0.1,10.77.0.2\"\n224 = \"hex:0a0b\"";

/// Runs every test, some at a time; `ended` hears of each in the order of the list.
fn run(places: &Places, mut ended: impl FnMut(Test, Duration, Result<String>)) {
    let tests = TESTED.iter().filter_map(|line| match line.shown {
        Shown::By(test) => Some(test),
        Shown::DoesNotApply(_) => None,
    });
    let (waiting, results): (VecDeque<_>, Vec<_>) = tests
        .map(|test| {
            let (tell, told) = mpsc::channel();
            ((test, tell), (test, told))
        })
        .unzip();
    // From the end: the last lines of TFTP take the longest.
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
                    let Some((test, tell)) = next else { return };
                    let begun = Instant::now();
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (test.run)(places)));
                    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("panicked")));
                    let _ = tell.send((begun.elapsed(), outcome));
                }
            });
        }
        for (test, told) in results {
            let (took, outcome) = told.recv().unwrap_or_else(|_| (Duration::ZERO, Err(anyhow!("never ended"))));
            ended(test, took, outcome);
        }
    });
}
