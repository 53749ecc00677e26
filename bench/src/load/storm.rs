//! A rack whose machines are all switched on at once: each takes an address, a loader by TFTP, and files by HTTP.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Figures, http, hyphened, mac,
    machine::Machine,
    relay::{Relay, Reply},
    tftp_client::Read,
};

/// Machines that boot at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Storm {
    /// The server.
    pub server: Ipv4Addr,
    /// Address of the relay that speaks for the machines.
    pub relay: Ipv4Addr,
    /// Number of the first machine.
    pub first: u32,
    /// Machines.
    pub machines: u32,
    /// The loader's name.
    pub loader: String,
    /// What follows over HTTP.
    pub fetches: Vec<Fetch>,
}

/// A file that every machine fetches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fetch {
    /// For the report.
    pub name: String,
    /// Its path; `{mac}` stands for the machine's hardware address.
    pub path: String,
    /// What it must be.
    pub wanted: Wanted,
}

/// How a fetched file is checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Wanted {
    /// It has so many bytes; they are thrown away.
    Bytes(u64),
    /// It is a text that contains this.
    Text(String),
}

/// One machine's boot.
#[derive(Default)]
struct Boot {
    stages: Vec<(String, f64)>,
    seconds: f64,
    bytes: u64,
    resends: u32,
    timeouts: u64,
    error: Option<String>,
}

/// Firmware reads its loader block by block.
const WINDOW: u16 = 1;

impl Storm {
    pub(super) fn run(&self) -> Result<Figures> {
        let relay = Arc::new(Relay::open(self.server, self.relay, Duration::from_millis(500))?);
        let salt = std::process::id() << 20;
        let (senders, receivers): (Vec<Sender<Reply>>, Vec<Receiver<Reply>>) =
            (0..self.machines).map(|_| channel()).unzip();
        // The thread ends with the process.
        let heard = relay.clone();
        thread::spawn(move || dispatch(&heard, salt, &senders));
        let started = Instant::now();
        let machines: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(number, replies)| {
                let (storm, relay) = (self.clone(), relay.clone());
                let program = move || storm.boot(number as u32, salt | number as u32, &relay, &replies);
                thread::Builder::new().stack_size(256 << 10).spawn(program)
            })
            .collect::<Result<_, _>>()
            .context("cannot start a machine's thread")?;
        let crashed = |_| Boot { error: Some("the client crashed".to_owned()), ..Boot::default() };
        let boots: Vec<Boot> = machines.into_iter().map(|machine| machine.join().unwrap_or_else(crashed)).collect();
        Ok(figures(&boots, started.elapsed().as_secs_f64()))
    }

    fn boot(&self, number: u32, xid: u32, relay: &Relay, replies: &Receiver<Reply>) -> Boot {
        let (started, mut boot) = (Instant::now(), Boot::default());
        if let Err(error) = self.stages(number, xid, relay, replies, &mut boot) {
            boot.error = Some(error);
        }
        boot.seconds = started.elapsed().as_secs_f64();
        boot
    }

    fn stages(
        &self,
        number: u32,
        xid: u32,
        relay: &Relay,
        replies: &Receiver<Reply>,
        boot: &mut Boot,
    ) -> Result<(), String> {
        let mac = mac(self.first + number);
        let mut stage_began = Instant::now();
        let mut stage_done = |boot: &mut Boot, name: &str| {
            boot.stages.push((name.to_owned(), stage_began.elapsed().as_secs_f64()));
            stage_began = Instant::now();
        };
        let mut machine = Machine { mac, xid, relay, replies, resends: 0 };
        let address = machine.take_address();
        boot.resends = machine.resends;
        let address = address.map_err(|error| format!("dhcp: {error}"))?;
        stage_done(boot, "dhcp");
        let read = Read {
            server: (self.server, 69).into(),
            bind: address,
            file: self.loader.clone(),
            window: WINDOW,
            timeout: Duration::from_secs(1),
            deadline: Duration::from_secs(120),
            loss: 0.0,
            seed: 0,
            expected: None,
        };
        let done = read.run().map_err(|error| format!("tftp: {error}"))?;
        boot.bytes += done.bytes;
        boot.timeouts = done.timeouts;
        stage_done(boot, "tftp");
        for fetch in &self.fetches {
            let path = fetch.path.replace("{mac}", &hyphened(mac));
            boot.bytes +=
                fetch.wanted.fetch(self.server, &path, address).map_err(|error| format!("{}: {error}", fetch.name))?;
            stage_done(boot, &fetch.name);
        }
        Ok(())
    }
}

impl Wanted {
    fn fetch(&self, server: Ipv4Addr, path: &str, address: Ipv4Addr) -> Result<u64, String> {
        match self {
            Self::Bytes(size) => match http::get(server, path, address)? {
                bytes if bytes == *size => Ok(bytes),
                bytes => Err(format!("{bytes} of {size} bytes")),
            },
            Self::Text(part) => match http::text(server, path, address)? {
                text if text.contains(part) => Ok(text.len() as u64),
                text => Err(format!("another answer: {:.200}", text.replace('\n', "; "))),
            },
        }
    }
}

/// Hands each answer to the machine that it is for.
fn dispatch(relay: &Relay, salt: u32, machines: &[Sender<Reply>]) {
    loop {
        let Some(reply) = relay.receive() else { continue };
        if let Some(machine) = machines.get((reply.xid ^ salt) as usize) {
            let _ = machine.send(reply);
        }
    }
}

fn figures(boots: &[Boot], wall: f64) -> Figures {
    let mut figures = Figures::default();
    let mut stages: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for boot in boots {
        if let Some(error) = &boot.error {
            figures.count_error(error);
        }
        for (name, seconds) in &boot.stages {
            stages.entry(name).or_default().push(*seconds);
        }
    }
    let total: u64 = boots.iter().map(|boot| boot.bytes).sum();
    figures.set("failed", boots.iter().filter(|boot| boot.error.is_some()).count() as f64);
    figures.set("wall_s", wall);
    figures.set("bytes", total as f64);
    figures.set("dhcp_resends", boots.iter().map(|boot| f64::from(boot.resends)).sum());
    figures.set("tftp_timeouts", boots.iter().map(|boot| boot.timeouts as f64).sum());
    for (name, seconds) in stages {
        figures.spread(name, seconds);
    }
    figures.spread("machine", boots.iter().filter(|boot| boot.error.is_none()).map(|boot| boot.seconds).collect());
    figures
}
