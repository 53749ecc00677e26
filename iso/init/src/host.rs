//! The host's name, links, addresses and route.

use crate::logs::say;
use crate::root::NAMES;
use bennu_host::{Host, HostInterface};
use bennu_stage1::net::{self, Interface, netlink};
use std::path::Path;
use std::time::{Duration, Instant};

/// Cards may need their firmware first, and switches their time.
const APPEAR: Duration = Duration::from_secs(30);
/// The loopback interface is always the first.
const LOOPBACK: u32 = 1;

/// Does what `[host]` says. What cannot be done is said, and the service then says what it lacks.
pub fn configure(host: &Host) {
    let hostname = host.hostname.as_deref().unwrap_or("bennu");
    if let Err(error) = rustix::system::sethostname(hostname.as_bytes()) {
        say(&format!("cannot set the host's name: {error}"));
    }
    let resolvers: String = host.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (file, text) in [
        ("hostname", format!("{hostname}\n")),
        ("hosts", format!("127.0.0.1 localhost\n127.0.1.1 {hostname}\n")),
        ("resolv.conf", resolvers),
    ] {
        let file = Path::new(NAMES).join(file);
        if let Err(error) = std::fs::write(&file, text) {
            say(&format!("cannot write {}: {error}", file.display()));
        }
    }
    if let Err(error) = netlink::set_up(LOOPBACK, true) {
        say(&format!("the loopback interface does not come up: {error}"));
    }
    for interface in &host.interface {
        match wait_for(&interface.name) {
            Some(found) => bring_up(interface, &found, host),
            None => say(&missing(&interface.name)),
        }
    }
}

fn wait_for(name: &str) -> Option<Interface> {
    let until = Instant::now() + APPEAR;
    loop {
        let found = net::interfaces(Path::new("/sys")).into_iter().find(|interface| interface.name == name);
        if found.is_some() || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn bring_up(wanted: &HostInterface, found: &Interface, host: &Host) {
    let (address, prefix) = (wanted.address.addr(), wanted.address.prefix_len());
    let done = netlink::set_up(found.index, true).and_then(|()| netlink::add_address(found.index, address, prefix));
    let route = host.router.filter(|router| wanted.address.contains(router));
    let done = done.and_then(|()| route.map_or(Ok(()), |router| netlink::set_default_route(found.index, router)));
    match done {
        Ok(()) => say(&format!("network: {} ({}, {}) has {}", found.name, found.mac, found.driver, wanted.address)),
        Err(error) => say(&format!("{} cannot have {}: {error}", found.name, wanted.address)),
    }
}

/// Which interfaces there are instead, with what tells them apart.
fn missing(name: &str) -> String {
    let all = net::interfaces(Path::new("/sys"));
    let others: Vec<String> = all.iter().map(|i| format!("{} ({}, {})", i.name, i.mac, i.driver)).collect();
    match others.as_slice() {
        [] => format!("there is no interface {name}, and no other: is the network card's driver or firmware missing?"),
        others => format!("there is no interface {name}; there are: {}", others.join(", ")),
    }
}
