//! Who holds a port, for messages that say what to do about it.

use std::{fs, io, path::Path, sync::OnceLock};

/// A kind of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The processes that hold a port of this host, as `name (pid 123)`; empty when none does, or when we may not look.
pub fn holders(transport: Transport, port: u16) -> Vec<String> {
    // A server that listens on all addresses of both families is in the second table alone.
    let tables = match transport {
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let inodes: Vec<String> = tables.flat_map(|table| inodes_of(&table, port)).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<String> = processes().filter(|(pid, _)| holds(*pid, &inodes)).map(process).collect();
    found.sort();
    found
}

/// The same without this process, which may hold the port on another interface.
pub fn others(transport: Transport, port: u16) -> Vec<String> {
    let us = format!(" (pid {})", std::process::id());
    let mut found = holders(transport, port);
    found.retain(|holder| !holder.ends_with(&us));
    if found.is_empty() {
        let of_port = |held: &&(Transport, u16, Vec<String>)| held.0 == transport && held.1 == port;
        let remembered = REMEMBERED.get().and_then(|all| all.iter().find(of_port));
        found = remembered.map(|held| held.2.clone()).unwrap_or_default();
    }
    found
}

/// Who held our ports when the service started and was still root: later we may not see it.
static REMEMBERED: OnceLock<Vec<(Transport, u16, Vec<String>)>> = OnceLock::new();

/// Looks who holds these ports now, for [`others`] to tell.
pub fn remember(ports: &[u16]) {
    let both = ports.iter().flat_map(|port| [(Transport::Udp, *port), (Transport::Tcp, *port)]);
    let held = both.map(|(transport, port)| (transport, port, others(transport, port)));
    let _ = REMEMBERED.set(held.filter(|(_, _, holders)| !holders.is_empty()).collect());
}

/// Why a port cannot be bound, as the end of a sentence.
pub fn why(transport: Transport, port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("the port is in use by {}", named(&others(transport, port)))
        }
        _ => error.to_string(),
    }
}

/// Holders of a port in a sentence.
pub fn named(holders: &[String]) -> String {
    if holders.is_empty() { "a program that we may not see".to_owned() } else { holders.join(", ") }
}

fn process((pid, name): (u32, String)) -> String {
    format!("{name} (pid {pid})")
}

/// The socket inodes of a local port in a table of `/proc/net` (`proc_net(5)`: local address in column 2, inode in 10).
fn inodes_of(table: &str, port: u16) -> Vec<String> {
    let is_local =
        |address: &str| address.rsplit(':').next().is_some_and(|hex| u16::from_str_radix(hex, 16) == Ok(port));
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let inode = columns.get(9)?;
            is_local(columns.get(1)?).then(|| format!("socket:[{inode}]"))
        })
        .collect()
}

fn processes() -> impl Iterator<Item = (u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some((pid, name.trim().to_owned()))
    })
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    let descriptors = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| sockets.iter().any(|socket| socket == target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn our_own_sockets_are_found_and_told_from_others() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let us = format!("(pid {})", std::process::id());
        let ours = |holders: &[String]| holders.iter().any(|holder| holder.ends_with(&us));
        let udp = (Transport::Udp, udp.local_addr().unwrap().port());
        let tcp = (Transport::Tcp, tcp.local_addr().unwrap().port());
        for (transport, port) in [udp, tcp] {
            let found = holders(transport, port);
            assert!(ours(&found), "{found:?}");
            assert!(!ours(&others(transport, port)));
        }
    }
}
