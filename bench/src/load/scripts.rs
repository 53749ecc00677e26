//! Small answers over connections that stay open, one request in flight on each.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Instant,
};

use super::{
    Figures,
    http::{body, connect, head, request},
    hyphened, mac,
};

/// Requests of `path`, in which `{mac}` stands for a machine's hardware address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scripts {
    /// The server.
    pub server: Ipv4Addr,
    /// The connections' own addresses, one for each.
    pub addresses: Vec<Ipv4Addr>,
    /// The path.
    pub path: String,
    /// Number of the first machine.
    pub first: u32,
    /// Machines.
    pub machines: u32,
    /// Requests of each machine, all machines in turn.
    pub turns: u32,
    /// What every answer must contain.
    pub contains: String,
}

/// Threads that share the connections.
const THREADS: u32 = 2;

impl Scripts {
    pub(super) fn run(&self) -> Result<Figures> {
        let started = Instant::now();
        let threads: Vec<_> = (0..THREADS)
            .map(|part| {
                let load = self.clone();
                thread::spawn(move || load.part(part))
            })
            .collect();
        let (mut figures, mut waits) = (Figures::default(), Vec::new());
        for thread in threads {
            let outcome = thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client crashed")))?;
            waits.extend(outcome.0);
            for error in outcome.1 {
                figures.count_error(&error);
            }
        }
        let wall = started.elapsed().as_secs_f64();
        figures.set("failed", figures.errors.values().sum::<u64>() as f64);
        figures.set("done", waits.len() as f64);
        figures.set("per_s", waits.len() as f64 / wall);
        figures.set("wall_s", wall);
        figures.spread("answer", waits);
        Ok(figures)
    }

    /// One thread's machines and connections: asks on all connections, then reads on all.
    fn part(&self, part: u32) -> Result<(Vec<f64>, Vec<String>)> {
        let mine = self.addresses.iter().skip(part as usize).step_by(THREADS as usize);
        let mut connections: Vec<TcpStream> = mine
            .map(|address| connect(*address, (self.server, 80).into()))
            .collect::<Result<_, _>>()
            .context("cannot connect")?;
        let all = (0..self.turns).flat_map(|_| (part..self.machines).step_by(THREADS as usize));
        let machines: Vec<u32> = all.map(|number| self.first + number).collect();
        let (mut waits, mut errors) = (Vec::with_capacity(machines.len()), Vec::new());
        for batch in machines.chunks(connections.len().max(1)) {
            let asked = Instant::now();
            for (machine, connection) in batch.iter().zip(&mut connections) {
                let path = self.path.replace("{mac}", &hyphened(mac(*machine)));
                connection.write_all(request(self.server, &path, "").as_bytes()).context("cannot ask")?;
            }
            for connection in connections.iter_mut().take(batch.len()) {
                match head(connection).and_then(|head| body(connection, head)) {
                    Ok(body) if body.contains(&self.contains) => waits.push(asked.elapsed().as_secs_f64()),
                    Ok(body) => errors.push(format!("another answer: {:.200}", body.replace('\n', "; "))),
                    Err(error) => return Err(anyhow::anyhow!(error)),
                }
            }
        }
        Ok((waits, errors))
    }
}
