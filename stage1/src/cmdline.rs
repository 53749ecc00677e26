//! The kernel's command line: what the loader told us, and what concerns modules and init.

use crate::net::Mac;
use bennu_plan::{ARG_BOOT, ARG_BOOTIF, ARG_IP, ARG_LOGS, LogsWanted};
use std::net::Ipv4Addr;

/// What stage 1 reads from `/proc/cmdline`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Base URL of the boot, with its final slash.
    pub base: Option<String>,
    /// The address the loader holds.
    pub address: Option<HandedAddress>,
    /// The interface the firmware booted from.
    pub boot_mac: Option<Mac>,
    /// `init=`.
    pub init: Option<String>,
    /// Modules that must not be loaded for devices (`modprobe.blacklist=`, `module_blacklist=`).
    pub blacklist: Vec<String>,
    /// `module.parameter=value`, as (module, `parameter=value`).
    pub parameters: Vec<(String, String)>,
    /// Whose logs stay here (`bennu.logs=`).
    pub logs_kept: LogsKept,
    /// What was there and could not be read, in words for the console.
    pub complaints: Vec<String>,
}

/// Whose logs stay on the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogsKept {
    /// Nobody's.
    #[default]
    None,
    /// Those of the booted system.
    System,
    /// Those of stage 1, too.
    All,
}

impl LogsKept {
    /// What is forwarded of what the appliance wants.
    pub fn leave(self, wanted: LogsWanted) -> Option<LogsWanted> {
        match self {
            Self::None => Some(wanted),
            Self::System => Some(LogsWanted { system: false, ..wanted }),
            Self::All => None,
        }
    }
}

/// An address handed on by the loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedAddress {
    /// Ours.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// Reads the command line. Later arguments win over earlier ones, as in the kernel.
pub fn parse(line: &str) -> Arguments {
    let mut arguments = Arguments::default();
    for word in words(line) {
        if word == "--" {
            break;
        }
        if let Some((key, value)) = word.split_once('=') {
            arguments.take(key, value);
        }
    }
    arguments
}

impl Arguments {
    fn take(&mut self, key: &str, value: &str) {
        match key {
            ARG_BOOT if value.is_empty() => self.base = None,
            ARG_BOOT => self.base = Some(format!("{}/", value.trim_end_matches('/'))),
            ARG_IP => match address(value) {
                Ok(read) => self.address = read,
                Err(why) => self.complaints.push(format!("{ARG_IP}={value}: {why}")),
            },
            ARG_BOOTIF => match boot_mac(value) {
                Some(mac) => self.boot_mac = Some(mac),
                None => self.complaints.push(format!("{ARG_BOOTIF}={value} is not a hardware address")),
            },
            ARG_LOGS => match value {
                "on" => self.logs_kept = LogsKept::None,
                "stage1" => self.logs_kept = LogsKept::System,
                "off" => self.logs_kept = LogsKept::All,
                _ => self.complaints.push(format!("{ARG_LOGS}={value}: it may be on, stage1 or off")),
            },
            "init" if !value.is_empty() => self.init = Some(value.to_owned()),
            "modprobe.blacklist" | "module_blacklist" => {
                self.blacklist
                    .extend(value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")));
            }
            _ => {
                if let Some((module, parameter)) = key.split_once('.') {
                    self.parameters.push((module.replace('-', "_"), format!("{parameter}={value}")));
                }
            }
        }
    }

    /// The parameters of one module, in the form the kernel takes them.
    pub fn parameters_of(&self, module: &str) -> String {
        let own: Vec<&str> =
            self.parameters.iter().filter(|(name, _)| name == module).map(|(_, p)| p.as_str()).collect();
        own.join(" ")
    }
}

/// Splits like the kernel: at white space, except inside double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `<address>/<netmask>/<gateway>/<dns>`; an empty address means that the loader held none.
fn address(value: &str) -> Result<Option<HandedAddress>, String> {
    let mut fields = value.split('/').map(str::trim);
    let mut next = || fields.next().unwrap_or_default();
    let read = |field: &str| -> Result<Option<Ipv4Addr>, String> {
        if field.is_empty() {
            return Ok(None);
        }
        let address = field.parse::<Ipv4Addr>().map_err(|_| format!("{field} is not an IPv4 address"))?;
        Ok(Some(address).filter(|address| !address.is_unspecified()))
    };
    let Some(address) = read(next())? else { return Ok(None) };
    let prefix = match read(next())? {
        None => 24,
        Some(mask) => prefix_of(mask).ok_or_else(|| format!("{mask} is not a netmask"))?,
    };
    let gateway = read(next())?;
    let dns = next().split(',').map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    Ok(Some(HandedAddress { address, prefix, gateway, dns }))
}

/// The prefix length of a netmask whose ones stand together.
pub fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(bits.leading_ones() as u8)
}

/// PXELINUX's form has the ARP hardware type (Ethernet: 01) before the address.
fn boot_mac(value: &str) -> Option<Mac> {
    Mac::parse(value).or_else(|| Mac::parse(value.split_once(['-', ':'])?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_loader_says() {
        let read = parse(
            "console=ttyS0 bennu.boot=http://10.77.0.1/boot/abc bennu.ip=10.77.0.50/255.255.255.0/10.77.0.1/10.77.0.1 \
             BOOTIF=01-52-54-00-12-34-56 quiet\n",
        );
        assert_eq!(read.base.as_deref(), Some("http://10.77.0.1/boot/abc/"));
        assert_eq!(read.boot_mac, Mac::parse("52:54:00:12:34:56"));
        let address = read.address.unwrap();
        assert_eq!((address.address, address.prefix), (Ipv4Addr::new(10, 77, 0, 50), 24));
        assert_eq!(address.gateway, Some(Ipv4Addr::new(10, 77, 0, 1)));
        assert_eq!(address.dns, [Ipv4Addr::new(10, 77, 0, 1)]);
        assert!(read.complaints.is_empty());
    }

    #[test]
    fn empty_fields_are_allowed() {
        let read = parse("bennu.ip=10.0.0.7/255.255.252.0//").address.unwrap();
        assert_eq!((read.prefix, read.gateway, read.dns.len()), (22, None, 0));
        assert_eq!(parse("bennu.ip=///").address, None);
        assert!(parse("bennu.ip=///").complaints.is_empty());
        assert_eq!(parse("bennu.ip=10.0.0.7").address.unwrap().prefix, 24);
    }

    #[test]
    fn nonsense_is_complained_about_and_left_out() {
        let read = parse("bennu.ip=${net0/ip}/x BOOTIF=01- bennu.boot=");
        assert_eq!((read.base, read.address.is_none(), read.boot_mac), (None, true, None));
        assert_eq!(read.complaints.len(), 2, "{:?}", read.complaints);
        assert_eq!(prefix_of(Ipv4Addr::new(255, 0, 255, 0)), None);
        assert_eq!(prefix_of(Ipv4Addr::UNSPECIFIED), Some(0));
        assert_eq!(prefix_of(Ipv4Addr::BROADCAST), Some(32));
    }

    #[test]
    fn logs_stay_where_they_are_told_to() {
        let wanted = LogsWanted { port: 514, system: true };
        let left = |line: &str| parse(line).logs_kept.leave(wanted);
        assert_eq!((left(""), left("bennu.logs=off bennu.logs=on")), (Some(wanted), Some(wanted)));
        assert_eq!(left("bennu.logs=stage1"), Some(LogsWanted { system: false, ..wanted }));
        assert_eq!(left("bennu.logs=off"), None);
        assert_eq!(parse("bennu.logs=maybe").complaints.len(), 1);
    }

    #[test]
    fn later_wins_quotes_hold_and_nothing_after_two_dashes_counts() {
        let read = parse("init=/a init=/b foo.x=\"1 2\" nvme-core.y=3 modprobe.blacklist=a-b,c -- init=/c");
        assert_eq!(read.init.as_deref(), Some("/b"));
        assert_eq!(read.parameters_of("foo"), "x=1 2");
        assert_eq!(read.parameters_of("nvme_core"), "y=3");
        assert_eq!(read.blacklist, ["a_b", "c"]);
    }
}
