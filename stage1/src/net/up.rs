//! Bringing the network up: the firmware's interface, its link, an address. Goes on until it succeeds, and says what it waits for.

use super::dhcp::Terms;
use super::lease::{Client, NoLease};
use super::link::{self, Interface};
use super::{Mac, netlink};
use crate::cmdline::{Arguments, HandedAddress};
use crate::console;
use crate::modules::{Devices, Modules};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the firmware's interface may take to appear before others are tried. USB adapters and slow firmware loads come late.
const APPEAR: Duration = Duration::from_secs(45);
/// What takes no longer than this is not worth a word.
const SAY_FIRST: Duration = Duration::from_secs(4);
/// How often a wait is said again.
const SAY_EVERY: Duration = Duration::from_secs(10);
const DHCP_PATIENCE: Duration = Duration::from_secs(40);
const PROBE: Duration = Duration::from_secs(8);

/// Where an address came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The loader held it and named it on the command line.
    Handed,
    /// Our own DHCP.
    Dhcp(Terms),
}

/// An interface with an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The interface.
    pub interface: Interface,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Where all this came from.
    pub origin: Origin,
}

/// Why an interface gives no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    /// The kernel refused something.
    #[error("cannot {what} on {interface}: {source}")]
    Kernel {
        /// What.
        what: &'static str,
        /// Where.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// No address.
    #[error("{interface}: {source}")]
    Lease {
        /// Where.
        interface: String,
        /// Why.
        source: NoLease,
    },
    /// An address, but not the appliance.
    #[error("{interface} reaches no appliance at {server}: {source}")]
    Unreached {
        /// Where.
        interface: String,
        /// Which appliance.
        server: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Connection {
    fn handed(interface: Interface, handed: &HandedAddress) -> Self {
        Self {
            interface,
            address: handed.address,
            prefix: handed.prefix,
            gateway: handed.gateway,
            dns: handed.dns.clone(),
            origin: Origin::Handed,
        }
    }

    fn leased(interface: Interface, terms: &Terms) -> Self {
        let mut connection = Self {
            interface,
            address: terms.address,
            prefix: terms.prefix,
            gateway: None,
            dns: Vec::new(),
            origin: Origin::Handed,
        };
        connection.take(terms);
        connection
    }

    /// Takes over what a lease says.
    pub fn take(&mut self, terms: &Terms) {
        self.address = terms.address;
        self.prefix = terms.prefix;
        self.gateway = terms.gateway;
        self.dns.clone_from(&terms.dns);
        self.origin = Origin::Dhcp(terms.clone());
    }

    /// For consoles and reports.
    pub fn describe(&self) -> String {
        let Interface { name, mac, driver, speed, .. } = &self.interface;
        let speed = if *speed > 0 { format!(", {speed} Mbit/s") } else { String::new() };
        let origin = match &self.origin {
            Origin::Handed => "handed on by the loader".to_owned(),
            Origin::Dhcp(terms) => format!("by DHCP from {}", terms.server),
        };
        format!("{name} ({mac}, {driver}{speed}) has {}/{}, {origin}", self.address, self.prefix)
    }
}

/// Brings the network up. Returns only with a connection.
pub fn bring_up(modules: &mut Modules, arguments: &Arguments, server: SocketAddr) -> Connection {
    /// The loopback is always the first interface of a network namespace.
    const LOOPBACK: u32 = 1;
    drop(netlink::set_up(LOOPBACK, true));
    let started = Instant::now();
    let mut said = None;
    loop {
        modules.coldplug(Devices::Network);
        let all = link::interfaces(Path::new("/sys"));
        let waits_for_own = started.elapsed() < APPEAR;
        let tries = choose(&all, arguments.boot_mac, waits_for_own);
        for interface in &tries {
            if let Err(source) = netlink::set_up(interface.index, true) {
                console::say(&format!("{} does not come up: {source}", interface.name));
            }
        }
        wait_for_carrier(&tries);
        let all = link::interfaces(Path::new("/sys"));
        let tries = choose(&all, arguments.boot_mac, waits_for_own);
        for interface in tries.iter().filter(|interface| interface.carrier) {
            let own = arguments.boot_mac.is_none_or(|mac| mac == interface.mac);
            let handed = arguments.address.as_ref().filter(|_| own);
            match connect(interface, handed, server, tries.len() > 1) {
                Ok(connection) => {
                    for other in all.iter().filter(|other| other.physical && other.index != interface.index) {
                        drop(netlink::set_up(other.index, false));
                    }
                    return connection;
                }
                Err(error) => console::say(&error.to_string()),
            }
        }
        if started.elapsed() >= SAY_FIRST && said.is_none_or(|said: Instant| said.elapsed() >= SAY_EVERY) {
            said = Some(Instant::now());
            console::say(&waiting_for(&all, &tries, arguments.boot_mac, started.elapsed().as_secs(), modules.known()));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The interfaces to try now: the firmware's; others only when it does not appear in time, or is not known.
fn choose(all: &[Interface], boot_mac: Option<Mac>, waits_for_own: bool) -> Vec<Interface> {
    let own = boot_mac.and_then(|mac| link::with_mac(all, mac));
    match (own, boot_mac) {
        (Some(own), _) => vec![own.clone()],
        (None, Some(_)) if waits_for_own => Vec::new(),
        _ => link::candidates(all).into_iter().cloned().collect(),
    }
}

/// Waits a little for a link on any of them; negotiation takes seconds.
fn wait_for_carrier(tries: &[Interface]) {
    let until = Instant::now() + Duration::from_secs(if tries.is_empty() { 0 } else { 6 });
    while Instant::now() < until {
        let now = link::interfaces(Path::new("/sys"));
        if now.iter().any(|interface| interface.carrier && tries.iter().any(|t| t.index == interface.index)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn connect(
    interface: &Interface,
    handed: Option<&HandedAddress>,
    server: SocketAddr,
    probe: bool,
) -> Result<Connection, NoConnection> {
    let connection = match handed {
        Some(handed) => Connection::handed(interface.clone(), handed),
        None => {
            console::say(&format!("asking DHCP for an address on {} ({})", interface.name, interface.mac));
            let lease = |source| NoConnection::Lease { interface: interface.name.clone(), source };
            let client = Client::open(&interface.name, interface.mac).map_err(lease)?;
            Connection::leased(interface.clone(), &client.acquire(DHCP_PATIENCE).map_err(lease)?)
        }
    };
    configure(&connection)?;
    if probe && let Err(source) = TcpStream::connect_timeout(&server, PROBE) {
        unconfigure(&connection);
        return Err(NoConnection::Unreached { interface: interface.name.clone(), server, source });
    }
    Ok(connection)
}

/// Gives the interface its address and route.
pub fn configure(connection: &Connection) -> Result<(), NoConnection> {
    let Interface { index, name, .. } = &connection.interface;
    let failed = |what| move |source| NoConnection::Kernel { what, interface: name.clone(), source };
    netlink::add_address(*index, connection.address, connection.prefix).map_err(failed("set the address"))?;
    if let Some(gateway) = connection.gateway {
        netlink::set_default_route(*index, gateway).map_err(failed("set the default route"))?;
    }
    Ok(())
}

/// Takes the address away again; the routes go with it.
pub fn unconfigure(connection: &Connection) {
    drop(netlink::remove_address(connection.interface.index, connection.address, connection.prefix));
}

impl Connection {
    /// Leaves the interface as the kernel made it, so that the image's own configuration can name and configure it.
    /// udev cannot rename an interface that is up (before Linux 6.3).
    pub fn release(&self) {
        unconfigure(self);
        drop(netlink::set_up(self.interface.index, false));
    }
}

fn waiting_for(all: &[Interface], tries: &[Interface], boot_mac: Option<Mac>, seconds: u64, modules: usize) -> String {
    let physical: Vec<&Interface> = all.iter().filter(|interface| interface.physical).collect();
    let names: Vec<String> = physical.iter().map(|i| format!("{} ({}, {})", i.name, i.mac, i.driver)).collect();
    let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    match (tries, boot_mac) {
        ([], _) if modules == 0 => format!(
            "no network interface, and this initrd carries no modules for the running kernel: is the image's modules initrd loaded? ({seconds} s)"
        ),
        ([], Some(mac)) => format!(
            "the interface {mac} that the firmware booted from has not appeared; its driver or firmware file may be missing. Found: {found} ({seconds} s)"
        ),
        ([], None) => {
            format!("no network interface has appeared; its driver may be missing from the image ({seconds} s)")
        }
        _ => {
            let without: Vec<&str> = tries.iter().filter(|t| !t.carrier).map(|t| t.name.as_str()).collect();
            if without.is_empty() {
                format!("no address yet, trying again ({seconds} s)")
            } else {
                format!("no link on {}: check the cable and the switch port ({seconds} s)", without.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, last: u8, carrier: bool) -> Interface {
        Interface {
            name: name.into(),
            index: u32::from(last),
            mac: Mac([0x52, 0x54, 0, 0, 0, last]),
            physical: true,
            subordinate: false,
            carrier,
            speed: 0,
            driver: "e1000".into(),
        }
    }

    #[test]
    fn the_firmwares_interface_is_waited_for_then_others_are_tried() {
        let all = [interface("eth0", 1, false), interface("eth1", 2, true)];
        let names = |boot, waits| choose(&all, boot, waits).into_iter().map(|i| i.name).collect::<Vec<_>>();
        assert_eq!(names(Some(all[0].mac), true), ["eth0"]);
        assert_eq!(names(Some(all[0].mac), false), ["eth0"], "its own interface is never given up for another");
        assert!(names(Some(Mac([9; 6])), true).is_empty());
        assert_eq!(names(Some(Mac([9; 6])), false), ["eth1", "eth0"]);
        assert_eq!(names(None, true), ["eth1", "eth0"]);
    }

    #[test]
    fn a_wait_names_its_reason() {
        let all = [interface("eth0", 1, false)];
        let say = |tries: &[Interface], boot, modules| waiting_for(&all, tries, boot, 12, modules);
        assert!(say(&all, None, 9).contains("no link on eth0"));
        assert!(say(&[], Some(Mac([9; 6])), 9).contains("09:09:09:09:09:09"));
        assert!(say(&[], None, 0).contains("modules initrd"));
    }
}
