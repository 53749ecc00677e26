//! The answers of the set-up, what can be said of each by itself, and the configuration that they make.

use super::wizard::Place;
use bennu_host::vault::{Encryption, STICK};
use ipnet::Ipv4Net;
use std::{fmt::Write, net::Ipv4Addr};

/// The time zone where none is named.
pub const UTC: &str = "UTC";

/// How DHCP is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Full,
    Proxy,
    Off,
}

impl Mode {
    /// In the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::Full, Self::Proxy, Self::Off];

    /// As the configuration has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Proxy => "proxy",
            Self::Off => "off",
        }
    }
}

/// What was answered, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pub interface: String,
    pub address: String,
    pub mode: Mode,
    pub range: String,
    pub router: String,
    pub dns: String,
    pub hostname: String,
    pub zone: String,
    pub place: Place,
    pub encryption: Encryption,
}

impl Answers {
    /// Our address, with its network.
    pub fn network(&self) -> Result<Ipv4Net, String> {
        let text = self.address.trim();
        let network: Ipv4Net =
            text.parse().map_err(|_| format!("'{text}' is no address with a prefix. Write such as 10.77.0.1/24."))?;
        if !(8..=30).contains(&network.prefix_len()) {
            return Err(format!("/{} is too wide or too narrow. Write a network of /8 to /30.", network.prefix_len()));
        }
        let interface = bennu_host::HostInterface { name: "eth0".into(), address: network };
        let host = bennu_host::Host { interface: vec![interface], ..Default::default() };
        host.check().map(|()| network)
    }

    /// The first and the last address that are given away.
    pub fn check_range(&self) -> Result<(), String> {
        let (network, text) = (self.network()?, self.range.trim());
        let ends = text
            .split_once('-')
            .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
        let (first, last): (Ipv4Addr, Ipv4Addr) =
            ends.ok_or_else(|| format!("'{text}' is no range. Write such as {}.", proposed_range(network)))?;
        if (first..=last).contains(&network.addr()) {
            return Err(format!("This appliance's own address, {}, is in the range. Leave it out.", network.addr()));
        }
        Ok(())
    }

    fn router_address(&self) -> Result<Option<Ipv4Addr>, String> {
        match self.router.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("'{text}' is no address. Write one, or nothing.")),
        }
    }

    /// A router is on the network, and somebody else.
    pub fn check_router(&self) -> Result<(), String> {
        let (network, router) = (self.network()?, self.router_address()?);
        match router {
            Some(router) if !network.contains(&router) => {
                Err(format!("{router} is not in {}. Write the router's address there, or nothing.", network.trunc()))
            }
            Some(router) if router == network.addr() => {
                Err(format!("{router} is this appliance's own address. Write the router's, or nothing."))
            }
            _ => Ok(()),
        }
    }

    /// The name servers.
    pub fn name_servers(&self) -> Result<Vec<Ipv4Addr>, String> {
        let words = self.dns.split([' ', ',']).filter(|word| !word.is_empty());
        words
            .map(|word| word.parse().map_err(|_| format!("'{word}' is no address. Write addresses, or nothing.")))
            .collect()
    }

    /// The configuration. What cannot be read is in it as it was typed, for the check of the whole to name it.
    pub fn text(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.trim().to_owned()).to_string();
        let network = self.network().ok();
        let address = self.address.trim();
        let (router, dns) = (self.router_address().ok().flatten(), self.name_servers().unwrap_or_default());
        let dns: Vec<String> = dns.iter().map(|server| quoted(&server.to_string())).collect();
        let mut to_outside = String::new();
        if let Some(router) = router {
            let _ = writeln!(to_outside, "router = \"{router}\"");
        }
        if !dns.is_empty() {
            let _ = writeln!(to_outside, "dns = [{}]", dns.join(", "));
        }
        let (interface, mode) = (quoted(&self.interface), self.mode.word());
        let mut text = format!("# Made by the set-up.\n[boot]\ninterface = {interface}\ndhcp = \"{mode}\"\n");
        if self.mode == Mode::Full {
            let network = network.map(|network| network.trunc().to_string()).unwrap_or_default();
            let range = self.range.replace(' ', "");
            let _ = write!(text, "[[boot.subnet]]\nnetwork = \"{network}\"\nrange = {}\n{to_outside}", quoted(&range));
        }
        let ip = address.split('/').next().unwrap_or_default();
        let _ = writeln!(text, "[api]\nlisten = {}", quoted(&format!("{ip}:8443")));
        let _ = write!(text, "[host]\nhostname = {}\n{to_outside}", quoted(&self.hostname));
        if ![UTC, ""].contains(&self.zone.trim()) {
            let _ = writeln!(text, "time_zone = {}", quoted(&self.zone));
        }
        let disk = match &self.place {
            Place::Disk(disk) => Some(disk.serial.as_str()),
            Place::Stick(_) => Some(STICK),
            Place::Kept | Place::Memory => None,
        };
        if let Some(disk) = disk {
            let _ = writeln!(text, "state_disk = {}", quoted(disk));
        }
        if !self.encryption.is_none() {
            let _ = writeln!(text, "state_encryption = \"{}\"", self.encryption.word());
        }
        let _ = write!(text, "[[host.interface]]\nname = {interface}\naddress = {}\n", quoted(address));
        text
    }
}

/// An address to begin with: beside a server that was heard, near the end of what is most often its network.
pub fn proposed_address(server: Option<Ipv4Addr>) -> String {
    let Some(server) = server else { return "10.77.0.1/24".into() };
    let [a, b, c, d] = server.octets();
    let own = if d == 250 { 251 } else { 250 };
    format!("{a}.{b}.{c}.{own}/24")
}

/// The middle of a network, without our own address.
pub fn proposed_range(network: Ipv4Net) -> String {
    let size = u64::from(u32::MAX >> network.prefix_len()) + 1;
    let at = |share: u64| (u64::from(network.network().to_bits()) + (size * share / 256).max(1)) as u32;
    let (mut first, mut last) = (at(50), at(199).min(network.broadcast().to_bits() - 1));
    let own = network.addr().to_bits();
    if (first..=last).contains(&own) {
        // The longer side of it.
        match own - first > last - own {
            true => last = own - 1,
            false => first = own + 1,
        }
    }
    format!("{}-{}", Ipv4Addr::from(first), Ipv4Addr::from(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_lie_in_the_network_and_beside_us() {
        for (address, range) in [
            ("10.77.0.1/24", "10.77.0.50-10.77.0.199"),
            ("10.77.0.100/24", "10.77.0.101-10.77.0.199"),
            ("10.77.0.150/24", "10.77.0.50-10.77.0.149"),
            ("10.0.0.1/16", "10.0.50.0-10.0.199.0"),
            ("10.0.0.1/30", "10.0.0.2-10.0.0.2"),
        ] {
            assert_eq!(proposed_range(address.parse().unwrap()), range, "{address}");
        }
        assert_eq!(proposed_address(None), "10.77.0.1/24");
        assert_eq!(proposed_address(Some(Ipv4Addr::new(192, 168, 1, 250))), "192.168.1.251/24");
    }
}
