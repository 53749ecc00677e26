//! TFTP requests that nobody means to follow up, while a machine boots.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    bad_input::probe::SERVER,
    slow_http::{Machine, post_report},
};
use crate::{appliance::Appliance, wire::Namespace};

/// Requests at once, each from a port of its own.
const REQUESTS: usize = 10_000;
/// Requests a second from then on: the appliance keeps a transfer whose client is silent for a quarter of a second where
/// its address has many of them.
const AGAIN: f64 = 5000.0;
const BOOTS: usize = 11;
const LOADER: &str = "snponly.efi";
const MORE_MEMORY: u64 = 96 << 20;

/// Boots are as quick as before, and nothing is held afterwards.
pub fn half_open(bennu: &Appliance, machine: &Machine, foe: &Namespace, from: &[Ipv4Addr]) -> Result<String> {
    let quiet = boot_time(machine)?;
    let (memory, sockets) = (bennu.memory()?, udp_sockets(bennu)?);
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (loaded, most) = thread::scope(|scope| {
        let siege = scope.spawn(|| foe.inside(|| besiege(from, &stop, &sent)));
        let held = (|| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while sent.load(Ordering::Relaxed) < REQUESTS {
                ensure!(Instant::now() < deadline, "the requests do not get out");
                thread::sleep(Duration::from_millis(5));
            }
            let mut most = udp_sockets(bennu)?;
            let mut boots = Vec::new();
            for _ in 0..BOOTS {
                boots.push(boot(machine)?);
                most = most.max(udp_sockets(bennu)?);
            }
            boots.sort();
            Ok((boots[BOOTS / 2], most.saturating_sub(sockets)))
        })();
        stop.store(true, Ordering::Relaxed);
        siege.join().unwrap_or_else(|_| bail!("the siege panicked"))?;
        held
    })?;
    let sent = sent.into_inner();
    ensure!(most >= REQUESTS / 8, "only {most} transfers were half open: too few to show anything");
    ensure!(loaded <= quiet.mul_f64(1.5), "a boot takes {loaded:?} beside them, and {quiet:?} without");
    let grown = bennu.memory()?.saturating_sub(memory);
    ensure!(grown <= MORE_MEMORY, "{} MiB more are held", grown >> 20);
    let deadline = Instant::now() + Duration::from_secs(20);
    while udp_sockets(bennu)? > sockets + 4 {
        ensure!(Instant::now() < deadline, "transfers that nobody follows up stay");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(format!("{sent} requests, up to {most} half open, boot {loaded:.0?} (quiet {quiet:.0?}), {} MiB", grown >> 20))
}

fn boot_time(machine: &Machine) -> Result<Duration> {
    let mut boots = (0..BOOTS).map(|_| boot(machine)).collect::<Result<Vec<_>>>()?;
    boots.sort();
    Ok(boots[BOOTS / 2])
}

/// The loader by TFTP, then all that comes over HTTP.
fn boot(machine: &Machine) -> Result<Duration> {
    let begun = Instant::now();
    let length = machine.inside(load)?;
    let loaded = begun.elapsed();
    ensure!(length > 100_000, "{LOADER} has only {length} bytes");
    let (took, _, report) = machine.boots()?;
    // It runs, or the next boots would look like a loop.
    post_report(machine, &report)?;
    Ok(loaded + took)
}

/// Reads the loader as iPXE does: blocks of 1468 bytes, one at a time; how long it is.
fn load() -> Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (mut buffer, mut length, mut expected) = ([0; 2048], 0, 1_u16);
    socket.send_to(&request(), (SERVER, 69))?;
    loop {
        let (size, from) = socket.recv_from(&mut buffer).context("the loader stopped for a second")?;
        match buffer[..size] {
            [0, 6, ..] => drop(socket.send_to(&[0, 4, 0, 0], from)?),
            [0, 3, high, low, ref data @ ..] if u16::from_be_bytes([high, low]) == expected => {
                length += data.len();
                socket.send_to(&[0, 4, high, low], from)?;
                expected = expected.wrapping_add(1);
                if data.len() < 1468 {
                    return Ok(length);
                }
            }
            [0, 3, ..] => {}
            _ => bail!("{:?} came", &buffer[..size]),
        }
    }
}

fn request() -> Vec<u8> {
    format!("\0\u{1}{LOADER}\0octet\0tsize\x000\0blksize\x001468\0").into_bytes()
}

/// Asks from all sockets in turn, and answers nothing.
fn besiege(from: &[Ipv4Addr], stop: &AtomicBool, sent: &AtomicUsize) -> Result<()> {
    let sockets = (0..REQUESTS)
        .map(|number| UdpSocket::bind((from[number % from.len()], 0)))
        .collect::<std::io::Result<Vec<_>>>()
        .context("the requests' ports")?;
    let (request, begun) = (request(), Instant::now());
    for (number, socket) in sockets.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The first time all at once, and then a hundred at a time.
        if number % 100 == 0 {
            let due = Duration::from_secs_f64(number.saturating_sub(REQUESTS) as f64 / AGAIN);
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        let _ = socket.send_to(&request, (SERVER, 69));
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// UDP sockets of the appliance's namespace: one for each transfer.
fn udp_sockets(bennu: &Appliance) -> Result<usize> {
    let pid = bennu.pid().context("it does not run")?;
    Ok(fs::read_to_string(format!("/proc/{pid}/net/udp"))?.lines().count())
}
