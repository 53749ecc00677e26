//! TFTP transfers of many clients at once.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Figures, tftp_client::Read};

/// Clients that read one file, each again and again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfers {
    /// The server.
    pub server: Ipv4Addr,
    /// The clients' addresses, one for each.
    pub addresses: Vec<Ipv4Addr>,
    /// The file's name.
    pub file: String,
    /// A copy of the file, to compare the bytes with.
    pub copy: PathBuf,
    /// Whether to compare them: it costs the client time.
    pub compare: bool,
    /// Reads of each.
    pub reads: u32,
    /// Asked window.
    pub window: u16,
    /// Part of the packets to the client that is lost.
    pub loss: f64,
    /// The client's timer.
    pub timeout_ms: u64,
    /// Decides what is lost.
    pub seed: u64,
}

impl Transfers {
    pub(super) fn run(&self) -> Result<Figures> {
        let bytes = fs::read(&self.copy).with_context(|| format!("cannot read {}", self.copy.display()))?;
        let size = bytes.len() as u64;
        let read = Read {
            server: (self.server, 69).into(),
            bind: Ipv4Addr::UNSPECIFIED,
            file: self.file.clone(),
            window: self.window,
            timeout: Duration::from_millis(self.timeout_ms),
            deadline: Duration::from_secs(60),
            loss: self.loss,
            seed: 0,
            expected: self.compare.then(|| Arc::new(bytes)),
        };
        let started = Instant::now();
        let clients: Vec<_> = (0_u64..)
            .zip(&self.addresses)
            .map(|(client, &bind)| {
                let (read, seed, reads) = (read.clone(), self.seed * 1_000_003, u64::from(self.reads));
                let program = move || -> Vec<_> {
                    let seed = |turn| seed + client * reads + turn;
                    (0..reads).map(|turn| Read { bind, seed: seed(turn), ..read.clone() }.run()).collect()
                };
                thread::Builder::new().stack_size(256 << 10).spawn(program)
            })
            .collect::<Result<_, _>>()
            .context("cannot start a client's thread")?;
        let mut figures = Figures::default();
        let (mut seconds, mut total, mut timeouts) = (Vec::new(), 0, 0);
        for client in clients {
            for outcome in client.join().unwrap_or_else(|_| vec![Err("the client crashed".to_owned())]) {
                match outcome {
                    Ok(done) if done.bytes == size => {
                        total += done.bytes;
                        timeouts += done.timeouts;
                        seconds.push(done.seconds);
                    }
                    Ok(done) => figures.count_error(&format!("{} of {size} bytes", done.bytes)),
                    Err(error) => figures.count_error(&error),
                }
            }
        }
        let wall = started.elapsed().as_secs_f64();
        figures.set("failed", figures.errors.values().sum::<u64>() as f64);
        figures.set("wall_s", wall);
        figures.set("bytes", total as f64);
        figures.set("mb_per_s", total as f64 / wall / 1e6);
        figures.set("client_timeouts", timeouts as f64);
        figures.spread("read", seconds);
        Ok(figures)
    }
}
