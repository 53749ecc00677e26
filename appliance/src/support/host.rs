//! What the kernel says of the host.

use super::Part;
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// Bytes of one file.
const MOST: u64 = 256 << 10;

/// Addresses, routes, neighbours, use of memory and disks, limits.
const FILES: [&str; 26] = [
    "/etc/os-release",
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/net/arp",
    "/proc/net/dev",
    "/proc/net/fib_trie",
    "/proc/net/if_inet6",
    "/proc/net/ipv6_route",
    "/proc/net/netstat",
    "/proc/net/route",
    "/proc/net/snmp",
    "/proc/net/sockstat",
    "/proc/net/softnet_stat",
    "/proc/net/udp",
    "/proc/partitions",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/self/limits",
    "/proc/self/mounts",
    "/proc/self/status",
    "/proc/uptime",
    "/proc/version",
];

/// Every part of it.
pub fn parts(state: &Path) -> impl Iterator<Item = Part> {
    let files = FILES.into_iter().map(|path| {
        let name = format!("host{path}");
        match head(Path::new(path)) {
            Ok(text) => Part::text(name, &text),
            Err(error) => Part::missing(name, format!("cannot read {path}: {error}")),
        }
    });
    let made = [Part::document("host/interfaces.json", interfaces()), Part::document("host/disk.json", disk(state))];
    files.chain(made).chain([kernel_log()])
}

fn head(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is known of each card beside its addresses.
fn interfaces() -> Value {
    const FACTS: [&str; 8] = ["address", "operstate", "carrier", "carrier_changes", "mtu", "speed", "duplex", "flags"];
    let mut all = Map::new();
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let of = |fact: &str| fs::read_to_string(entry.path().join(fact)).ok().map(|text| json!(text.trim()));
        let mut facts: Map<String, Value> =
            FACTS.iter().filter_map(|fact| Some(((*fact).to_owned(), of(fact)?))).collect();
        let driver = fs::read_link(entry.path().join("device/driver")).ok();
        if let Some(name) = driver.as_deref().and_then(Path::file_name) {
            facts.insert("driver".into(), json!(name.to_string_lossy()));
        }
        all.insert(entry.file_name().to_string_lossy().into_owned(), Value::Object(facts));
    }
    Value::Object(all)
}

/// Room, and what takes it.
fn disk(state: &Path) -> Value {
    let room = rustix::fs::statvfs(state).ok().map(|found| {
        json!({"bytes": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize, "files_free": found.f_favail})
    });
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    let sizes: Map<String, Value> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), json!(size(&entry.path(), 6))))
        .collect();
    json!({"state_dir": state, "room": room, "bytes_of": sizes})
}

fn size(path: &Path, depth: u32) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() || depth == 0 {
        return found.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path(), depth - 1)).sum()
}

/// The kernel's log, where it lets the service read it.
fn kernel_log() -> Part {
    const NAME: &str = "log/kernel.log";
    match kernel::log() {
        Ok(text) => Part::text(NAME, &text),
        Err(error) => Part::missing(NAME, format!("the service may not read it ({error}): add what `dmesg` prints")),
    }
}

#[allow(unsafe_code)]
mod kernel {
    use std::io;

    /// `SYSLOG_ACTION_READ_ALL` of syslog(2).
    const READ_ALL: libc::c_int = 3;
    const MOST: usize = 512 << 10;

    /// The end of the kernel's log.
    pub fn log() -> io::Result<String> {
        let mut buffer = vec![0_u8; MOST];
        // SAFETY: the kernel writes at most as many bytes as it is told, which the buffer has.
        let length = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), MOST as libc::c_int) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
