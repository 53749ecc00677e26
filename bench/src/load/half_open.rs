//! TFTP requests whose clients never answer: a forged flood, or a rack that lost its network.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, net::UdpSocket, thread, time::Duration};

use super::{Figures, tftp_client::request};

/// Requests from as many addresses, which stay open for a while.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HalfOpen {
    /// The server.
    pub server: Ipv4Addr,
    /// The clients' addresses, one for each.
    pub addresses: Vec<Ipv4Addr>,
    /// The file's name.
    pub file: String,
    /// Requests a second.
    pub per_s: u32,
    /// The clients' ports stay open for this long after the last request.
    pub hold_ms: u64,
}

impl HalfOpen {
    pub(super) fn run(&self) -> Result<Figures> {
        let request = request(&self.file, 1);
        let mut sockets = Vec::with_capacity(self.addresses.len());
        let burst = (self.per_s / 100).max(1);
        for (number, address) in (0..).zip(&self.addresses) {
            let socket = UdpSocket::bind((*address, 0)).with_context(|| format!("cannot bind {address}"))?;
            socket.set_nonblocking(true)?;
            socket.send_to(&request, (self.server, 69)).context("cannot send a request")?;
            sockets.push(socket);
            if number % burst == burst - 1 {
                thread::sleep(Duration::from_millis(10));
            }
        }
        thread::sleep(Duration::from_millis(self.hold_ms));
        let mut buffer = [0; 2048];
        let answered = sockets.iter().filter(|socket| socket.recv(&mut buffer).is_ok()).count();
        let mut figures = Figures::default();
        figures.set("requests", self.addresses.len() as f64);
        figures.set("answered", answered as f64);
        Ok(figures)
    }
}
