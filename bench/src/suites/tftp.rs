//! Loaders: one client, many clients, a path that loses packets, and clients that never answer.

use anyhow::Result;
use std::{fs, net::Ipv4Addr, thread, time::Duration};

use super::{Run, rotated};
use crate::{
    contenders::{self, ATFTPD, OURS, Ours, leased},
    lab::{Lab, POOL, SERVER, unleased},
    load::{Figures, HalfOpen, Load, Transfers},
    servers::{Running, Serves, Spec},
};

/// Clients of the largest test.
const CLIENTS: u32 = 200;
/// Requests that stay open.
const OPEN: u32 = 10_000;

/// What stands behind a test's name for a window of this many blocks.
pub fn named(test: &str, window: u16) -> String {
    format!("{test}, window {window}")
}

/// One client, a loader's size.
pub const SMALL: &str = "1 MB";
/// One client, a kernel's size.
pub const LARGE: &str = "64 MB";
/// A rack.
pub const MANY: &str = "200 clients x 1 MB";
/// A path that loses packets.
pub const LOSSY: &str = "300 KB at 5 % loss";
/// Clients that never answer.
pub const HALF_OPEN: &str = "10,000 half-open requests";

/// A round of all servers.
pub fn round(run: &mut Run<'_>, round: u32) -> Result<()> {
    let lab = run.lab;
    let servers = [ours(lab)?, contenders::dnsmasq(lab, &[Serves::Tftp("ready")])?, contenders::tftpd_hpa(lab)?];
    let stacks = servers.into_iter().chain([contenders::atftpd(lab)?]).map(|spec| vec![spec]).collect();
    for stack in rotated(stacks, round) {
        let servers = Running::start(lab, &stack)?;
        // Machines that the server knows, where it knows any: a boot loader's address is a lease.
        let clients = if servers.name() == OURS { leased(lab, 0, CLIENTS)? } else { unleased(CLIENTS) };
        transfers(run, round, &servers, &clients)?;
        lossy(run, round, &servers, &clients)?;
    }
    half_open(run, round)
}

fn ours(lab: &Lab) -> Result<Spec> {
    let serves = &[Serves::Dhcp, Serves::Tftp("ready")];
    Ours { home: "tftp", pool: POOL, loaders: Some("tftp"), unknown: "discover", serves }.spec(lab)
}

/// dnsmasq and tftpd-hpa know no windows: they would answer as for a window of 1.
fn windows(server: &str) -> &'static [u16] {
    if [OURS, ATFTPD].contains(&server) { &[1, 16] } else { &[1] }
}

fn load(lab: &Lab, addresses: &[Ipv4Addr], file: &str, window: u16) -> Transfers {
    Transfers {
        server: SERVER,
        addresses: addresses.to_vec(),
        file: file.to_owned(),
        copy: lab.files().path(&format!("tftp/{file}")),
        compare: true,
        reads: 1,
        window,
        loss: 0.0,
        timeout_ms: 1000,
        seed: 0,
    }
}

fn transfers(run: &mut Run<'_>, round: u32, servers: &Running<'_>, clients: &[Ipv4Addr]) -> Result<()> {
    let lab = run.lab;
    for &window in windows(servers.name()) {
        let small = Transfers { reads: 10, ..load(lab, &clients[..1], "1m.bin", window) };
        run.measure(round, &named(SMALL, window), servers, &Load::Transfers(small))?;
        let large = Transfers { compare: false, ..load(lab, &clients[..1], "64m.bin", window) };
        run.measure(round, &named(LARGE, window), servers, &Load::Transfers(large))?;
        let many = load(lab, clients, "1m.bin", window);
        run.measure(round, &named(MANY, window), servers, &Load::Transfers(many))?;
    }
    Ok(())
}

/// Ruled by timers, not by the machine's noise: the peers, which take long, run once.
fn lossy(run: &mut Run<'_>, round: u32, servers: &Running<'_>, clients: &[Ipv4Addr]) -> Result<()> {
    let is_ours = servers.name() == OURS;
    if !is_ours && (round > 1 || run.quick) {
        return Ok(());
    }
    for &window in windows(servers.name()) {
        let clients = &clients[..if is_ours { 100 } else { 20 }];
        let load = load(run.lab, clients, "snponly.efi", window);
        let lossy = Transfers { loss: 0.05, seed: u64::from(round), ..load };
        run.measure(round, &named(LOSSY, window), servers, &Load::Transfers(lossy))?;
    }
    Ok(())
}

/// Memory of a freshly started server of ours, before and while the requests are open.
fn half_open(run: &mut Run<'_>, round: u32) -> Result<()> {
    let lab = run.lab;
    let dir = lab.home().dir().join("half-open");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let serves = &[Serves::Dhcp, Serves::Tftp("snponly.efi")];
    let spec =
        Ours { home: "half-open", pool: POOL, loaders: Some("loader"), unknown: "discover", serves }.spec(lab)?;
    let servers = Running::start(lab, &[spec])?;
    let addresses = leased(lab, 0, OPEN)?;
    let (idle, sockets) = (servers.resident(), servers.udp_sockets());
    let flood = HalfOpen { server: SERVER, addresses, file: "snponly.efi".to_owned(), per_s: 10_000, hold_ms: 500 };
    let mut child = lab.command(&Load::HalfOpen(flood))?.stdout(std::process::Stdio::piped()).spawn()?;
    let (mut peak, mut open) = (idle, sockets);
    while child.try_wait()?.is_none() {
        thread::sleep(Duration::from_millis(50));
        (peak, open) = (peak.max(servers.resident()), open.max(servers.udp_sockets()));
    }
    let mut figures: Figures = crate::lab::figures(child.wait_with_output()?)?;
    let open = open.saturating_sub(sockets) as f64;
    figures.set("open", open);
    figures.set("rss_mib", idle / 1_048_576.0);
    figures.set("rss_peak_mib", peak / 1_048_576.0);
    if open > 0.0 {
        figures.set("kib_each", (peak - idle) / 1024.0 / open);
    }
    run.samples.add(round, HALF_OPEN, servers.name(), figures);
    Ok(())
}
