//! This host: its interfaces, ports, disk and tools.

use super::Finding;
use crate::{
    cli::output::bytes,
    config::Config,
    interfaces::Interface,
    loaders::{Loader, Loaders},
    ports::{Transport, holders},
};
use bennu_images::squashfs::{Mksquashfs, RootBuilder};
use bennu_rules::settings::DhcpMode;
use rustix::fs::statvfs;
use socket2::{Domain, Socket, Type};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

/// A provisioning interface: there, with an address and a link.
pub fn interface(name: &str, config: &Config, tell: &mut dyn FnMut(Finding)) -> Option<Interface> {
    let check = format!("interface {name}");
    let interface = match Interface::find(name) {
        Ok(interface) => interface,
        Err(error) => {
            let help = "set boot.interface to an interface of this host, and give it an address of its boot.subnet";
            tell(Finding::fail(check, error.to_string(), help));
            return None;
        }
    };
    let detail = format!("{}/{}", interface.address, interface.network.prefix_len());
    // Reading carrier fails on an interface that is down.
    let carrier = fs::read_to_string(format!("/sys/class/net/{name}/carrier")).unwrap_or_default();
    let served = config.settings.subnet_of(interface.address).is_some();
    tell(if carrier.trim() != "1" {
        let help = format!("set it up (ip link set {name} up), then look at the cable and the switch port");
        Finding::fail(check, format!("{detail}, without a link"), help)
    } else if config.settings.dhcp == DhcpMode::Full && !served {
        let help = format!("add a [[boot.subnet]] with network = \"{}\"", interface.network.trunc());
        Finding::fail(check, format!("{detail}, which no boot.subnet holds"), help)
    } else {
        Finding::ok(check, format!("{detail}, link is up"))
    });
    Some(interface)
}

/// The ports that serve one interface.
pub fn ports(interface: &Interface, config: &Config, tell: &mut dyn FnMut(Finding)) {
    let dhcp: &[u16] = match config.settings.dhcp {
        DhcpMode::Full => &[67],
        DhcpMode::Proxy => &[67, 4011],
        DhcpMode::Off => &[],
    };
    for port in dhcp {
        // DHCP listens on the interface, whatever its address: broadcasts come to none.
        tell(port_of(interface, Transport::Udp, *port, Ipv4Addr::UNSPECIFIED));
    }
    tell(port_of(interface, Transport::Udp, 69, interface.address));
    tell(port_of(interface, Transport::Tcp, config.settings.http_port, interface.address));
}

fn port_of(interface: &Interface, transport: Transport, port: u16, address: Ipv4Addr) -> Finding {
    let kind = match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    };
    let check = format!("port {port}/{kind} on {}", interface.name);
    let device = address.is_unspecified().then_some(interface.name.as_str());
    let held = match bind(transport, device, SocketAddrV4::new(address, port)) {
        Ok(()) => return Finding::ok(check, "free"),
        Err(error) => error,
    };
    let holders = holders(transport, port);
    match held.kind() {
        io::ErrorKind::AddrInUse if holders.iter().any(|holder| holder.starts_with("bennu ")) => {
            Finding::ok(check, format!("held by {}", holders.join(", ")))
        }
        io::ErrorKind::AddrInUse => {
            let holder = if holders.is_empty() { "another process".to_owned() } else { holders.join(", ") };
            Finding::fail(check, format!("held by {holder}"), format!("stop it, or keep it off {}", interface.name))
        }
        io::ErrorKind::PermissionDenied => {
            Finding::warn(check, "not looked at: only root may bind it", "run this with sudo")
        }
        _ => Finding::fail(check, held.to_string(), "look at the interface's address"),
    }
}

/// Binds as the service does, and lets go.
fn bind(transport: Transport, device: Option<&str>, address: SocketAddrV4) -> io::Result<()> {
    let kind = match transport {
        Transport::Udp => Type::DGRAM,
        Transport::Tcp => Type::STREAM,
    };
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    if transport == Transport::Tcp {
        // Connections that ended a minute ago hold nobody up.
        socket.set_reuse_address(true)?;
    }
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    match transport {
        Transport::Udp => Ok(()),
        Transport::Tcp => socket.listen(1),
    }
}

/// Room for images. An import needs about twice its source.
pub fn disk(state: &Path, tell: &mut dyn FnMut(Finding)) {
    const LITTLE: u64 = 10 << 30;
    const TOO_LITTLE: u64 = 1 << 30;
    // Before the first start there is no such directory yet: look at the one it will be made in.
    let there = state.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let check = format!("disk at {}", state.display());
    let stat = match statvfs(there) {
        Ok(stat) => stat,
        Err(error) => {
            return tell(Finding::fail(check, error.to_string(), "look at the disk, or choose another state_dir"));
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let detail = format!("{} free", bytes(free));
    let help = "remove images (bennu image remove), enlarge the disk, or choose another state_dir";
    tell(match free {
        0..TOO_LITTLE => Finding::fail(check, detail, help),
        TOO_LITTLE..LITTLE => Finding::warn(check, detail, help),
        _ => Finding::ok(check, detail),
    });
}

/// The boot programs that firmware fetches.
pub fn loaders(directory: Option<&Path>, tell: &mut dyn FnMut(Finding)) {
    const NEEDED: [&str; 2] = ["undionly.kpxe", "snponly.efi"];
    let help = "mend or remove boot.loaders_dir: bennu carries loaders of its own";
    let loaders = match Loaders::with_directory(directory) {
        Ok(loaders) => loaders,
        Err(error) => return tell(Finding::fail("loaders", error.to_string(), help)),
    };
    if let Some(missing) = NEEDED.iter().find(|name| loaders.get(name).is_none()) {
        return tell(Finding::fail("loaders", format!("there is no {missing}"), help));
    }
    // Files of loaders_dir do not tell their version: where they lie says more.
    let origin =
        |loader: &Loader| if loader.version == "unknown" { loader.source.clone() } else { loader.version.clone() };
    let named: Vec<String> = loaders.iter().map(|loader| format!("{} ({})", loader.name, origin(loader))).collect();
    tell(Finding::ok("loaders", named.join(", ")));
}

/// The tool that makes root filesystems.
pub fn mksquashfs(tell: &mut dyn FnMut(Finding)) {
    tell(match Mksquashfs::find() {
        Ok(builder) => {
            let (tool, version) = builder.tool();
            Finding::ok("squashfs tools", format!("{tool} {version}"))
        }
        Err(error) => {
            Finding::fail("squashfs tools", error.to_string(), "install them: apt-get install squashfs-tools")
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn loopback() -> Interface {
        Interface { name: "lo".into(), index: 1, address: Ipv4Addr::LOCALHOST, network: "127.0.0.1/8".parse().unwrap() }
    }

    #[test]
    fn a_port_that_is_held_names_its_holder() {
        // An address of its own: other tests take and free ports of 127.0.0.1 meanwhile.
        let address = Ipv4Addr::new(127, 77, 0, 1);
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = port_of(&loopback(), Transport::Tcp, port, address);
        let ours = holders(Transport::Tcp, port);
        assert!(ours.iter().any(|holder| held.detail.contains(holder.as_str())), "{held:?} {ours:?}");
        drop(listener);
        // Children that other tests start hold the listener too, from their fork to their exec.
        let free = || port_of(&loopback(), Transport::Tcp, port, address).verdict == Verdict::Ok;
        let freed = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            free()
        });
        assert!(freed, "the port is free again");
    }
}
