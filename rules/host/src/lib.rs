//! What a host is told about itself where no distribution does: the appliance's own ISO reads it from `[host]` of the
//! configuration.

pub mod console;
pub mod door;
pub mod reset;
pub mod setup;
pub mod slots;
pub mod vault;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vault::Encryption;

/// The exit status of a service whose state cannot be read: whoever keeps it running asks a person what to do.
pub const EXIT_DAMAGED: u8 = 4;

/// `[host]` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// The host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// The default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// The serial number of the disk that becomes the state disk, `auto` for the only empty one, or `stick` for what is free on
    /// the medium; without it none does. A disk with anything on it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_disk: Option<String>,
    /// What opens a state disk that is made.
    #[serde(skip_serializing_if = "Encryption::is_none")]
    pub state_encryption: Encryption,
    /// What the consoles show once the service is ready.
    #[serde(skip_serializing_if = "Console::is_default")]
    pub console: Console,
    /// The time zone in which the consoles show times, by its name in IANA's database; UTC without one. Logs and the API are in
    /// UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Interfaces and their addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interface: Vec<HostInterface>,
}

/// What the host's consoles show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Console {
    /// `bennu console`, on all of the screen.
    #[default]
    View,
    /// Lines as they are said, which a serial line's other end may record.
    Plain,
}

impl Console {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostInterface {
    /// The kernel's name for it.
    pub name: String,
    /// Its address, with the length of its network's prefix.
    pub address: Ipv4Net,
}

impl Host {
    /// Checks what a reader of TOML cannot.
    pub fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.hostname {
            let is_label = |label: &str| {
                let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
                label.len() <= 63
                    && ends(label.chars().next())
                    && ends(label.chars().last())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            if name.len() > 64 || !name.split('.').all(is_label) {
                return Err("host.hostname: write a host name of letters, digits and '-', such as bennu1".into());
            }
        }
        for (at, interface) in self.interface.iter().enumerate() {
            let here = |text: String| Err(format!("host.interface {}: {text}", at + 1));
            let name = &interface.name;
            if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
                return here(format!("'{name}' is no interface's name; write the kernel's, such as eth0"));
            }
            let (address, network) = (interface.address.addr(), interface.address);
            let is_host =
                network.prefix_len() >= 31 || (address != network.network() && address != network.broadcast());
            if network.prefix_len() == 0 || !is_host || address.is_multicast() || address.is_loopback() {
                return here(format!("{network} is no host's address; write it with its prefix, such as 10.77.0.1/24"));
            }
            if self.interface[..at].iter().any(|earlier| earlier.address.contains(&address)) {
                return here(format!(
                    "{network} is in the network of an interface above; give each a network of its own"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, address: &str) -> Host {
        let interface = HostInterface { name: name.into(), address: address.parse().unwrap() };
        Host { interface: vec![interface], ..Host::default() }
    }

    #[test]
    fn what_cannot_be_an_address_or_a_name_is_refused() {
        assert_eq!(with("eth0", "10.77.0.1/24").check(), Ok(()));
        assert_eq!(with("eth0", "10.77.0.0/31").check(), Ok(()));
        for bad in ["10.77.0.0/24", "10.77.0.255/24", "127.0.0.1/8", "224.0.0.1/4", "10.0.0.1/0"] {
            assert!(with("eth0", bad).check().is_err(), "{bad}");
        }
        for bad in ["", "a b", "../eth0", "a-name-of-16-char"] {
            assert!(with(bad, "10.77.0.1/24").check().is_err(), "{bad}");
        }
        for (name, good) in [("bennu-1.example", true), ("-a", false), ("a..b", false), ("a_b", false)] {
            let host = Host { hostname: Some(name.into()), ..Host::default() };
            assert_eq!(host.check().is_ok(), good, "{name}");
        }
    }

    #[test]
    fn two_interfaces_share_no_network() {
        let mut host = with("eth0", "10.77.0.1/16");
        host.interface.push(HostInterface { name: "eth1".into(), address: "10.77.3.1/24".parse().unwrap() });
        assert!(host.check().unwrap_err().starts_with("host.interface 2"));
    }
}
