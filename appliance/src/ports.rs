//! Who holds a port, for messages that say what to do about it.

use std::{fs, path::Path};

/// A kind of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The processes that hold a port of this host, as `name (pid 123)`; empty when none does, or when we may not look.
pub fn holders(transport: Transport, port: u16) -> Vec<String> {
    let table = match transport {
        Transport::Udp => "/proc/net/udp",
        Transport::Tcp => "/proc/net/tcp",
    };
    let inodes = fs::read_to_string(table).map(|table| inodes_of(&table, port)).unwrap_or_default();
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<String> = processes().filter(|(pid, _)| holds(*pid, &inodes)).map(named).collect();
    found.sort();
    found
}

fn named((pid, name): (u32, String)) -> String {
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
    fn our_own_sockets_are_found() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let us = format!("(pid {})", std::process::id());
        let found = holders(Transport::Udp, udp.local_addr().unwrap().port());
        assert!(found.iter().any(|holder| holder.ends_with(&us)), "{found:?}");
        let found = holders(Transport::Tcp, tcp.local_addr().unwrap().port());
        assert!(found.iter().any(|holder| holder.ends_with(&us)), "{found:?}");
    }
}
