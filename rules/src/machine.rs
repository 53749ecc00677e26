//! Machines and their hardware addresses.

use crate::{Timestamp, assignment::Assignment, dhcp::SiteOptions, facts::Facts};
use serde::{Deserialize, Serialize, de};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    str::FromStr,
};

/// An Ethernet address. Written in lower case with colons; read in every form that tools write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// A text that is not a machine's MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address; write six hex pairs, such as 52:54:00:12:34:56")]
pub struct NotAMacAddress(pub String);

impl MacAddress {
    /// The form of file names and of `BOOTIF`: `52-54-00-12-34-56`.
    pub fn hyphened(self) -> String {
        String::from_utf8_lossy(&self.digits(b'-')).into_owned()
    }

    /// Every lease and boot is keyed and told by addresses, so that formatting one byte at a time is felt.
    fn digits(self, between: u8) -> [u8; 17] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [between; 17];
        for (place, byte) in self.0.into_iter().enumerate() {
            text[3 * place] = HEX[usize::from(byte >> 4)];
            text[3 * place + 1] = HEX[usize::from(byte & 15)];
        }
        text
    }

    /// Whether a network card can own it: neither a group address nor all zero.
    pub const fn is_a_station(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.digits(b':')))
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    /// Takes `52:54:…`, `52-54-…`, `5254.0012.3456`, bare digits, and `52%3A54%3A…`, which old iPXE writes in URLs.
    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let refuse = || NotAMacAddress(text.chars().take(64).collect());
        let plain = text.replace("%3A", ":").replace("%3a", ":");
        let separators = plain.bytes().filter(|b| matches!(b, b':' | b'-' | b'.')).count();
        if !matches!(separators, 0 | 2 | 5) {
            return Err(refuse());
        }
        let mut digits = plain.bytes().filter(|b| !matches!(b, b':' | b'-' | b'.'));
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let mut digit = || digits.next().and_then(|d| (d as char).to_digit(16)).ok_or_else(refuse);
            *byte = (digit()? * 16 + digit()?) as u8;
        }
        let mac = Self(bytes);
        if digits.next().is_some() || !mac.is_a_station() {
            return Err(refuse());
        }
        Ok(mac)
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A physical server: what is declared and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Machine {
    /// The first MAC seen or declared.
    pub id: MacAddress,
    /// Every MAC that is this machine's, the id among them.
    pub macs: Vec<MacAddress>,
    /// Those that joined by themselves, by the UUID that they said: firmware broadcasts it, so anybody may say it. They boot,
    /// and get no secret until somebody joins them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unvouched: BTreeSet<MacAddress>,
    /// Key and value pairs that people give.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// An address held for this machine alone.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub reservation: Option<Ipv4Addr>,
    /// What it boots; `None`: what the policy for unknown machines says.
    #[serde(default)]
    pub assignment: Option<Assignment>,
    /// Kernel arguments of this machine alone; they win over the image's and the profile's.
    #[serde(default)]
    pub arguments: String,
    /// DHCP options of this machine alone; they win over the subnet's.
    #[serde(default, skip_serializing_if = "SiteOptions::is_empty")]
    #[schema(value_type = BTreeMap<String, crate::dhcp::OptionValue>)]
    pub options: SiteOptions,
    /// Its hardware.
    #[serde(default)]
    pub facts: Facts,
    /// When it was first seen or declared.
    pub first_seen: Timestamp,
    /// Since when it is known that its firmware runs no unsigned loader, and boots through shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_loader: Option<Timestamp>,
}

impl Machine {
    /// A machine of which only the address is known.
    pub fn new(id: MacAddress, at: Timestamp) -> Self {
        Self {
            id,
            macs: vec![id],
            unvouched: BTreeSet::new(),
            labels: BTreeMap::new(),
            reservation: None,
            assignment: None,
            arguments: String::new(),
            options: SiteOptions::new(),
            facts: Facts::default(),
            first_seen: at,
            signed_loader: None,
        }
    }
}

/// What long lists show of a machine, read out of its record without the rest: an inventory is most of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct Outline {
    pub id: MacAddress,
    pub macs: Vec<MacAddress>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub assignment: Option<Assignment>,
    #[serde(default)]
    pub facts: Model,
}

/// What hardware calls itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct Model {
    #[serde(default)]
    pub serial: Option<String>,
    #[serde(default)]
    pub manufacturer: Option<String>,
    #[serde(default)]
    pub product: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_is_read_out_of_a_record() {
        let mut machine = Machine::new(MacAddress([2, 0, 0, 0, 0, 1]), Timestamp(1));
        machine.labels.insert("rack".into(), "r1".into());
        machine.assignment = Some("web:v1".parse().unwrap());
        machine.facts.serial = Some("S1".into());
        machine.facts.product = Some("R7525".into());
        let outline: Outline = serde_json::from_slice(&serde_json::to_vec(&machine).unwrap()).unwrap();
        let model = Model { serial: Some("S1".into()), manufacturer: None, product: Some("R7525".into()) };
        let Machine { id, macs, labels, assignment, .. } = machine;
        assert_eq!(outline, Outline { id, macs, labels, assignment, facts: model });
    }

    #[test]
    fn every_way_to_write_a_mac_is_read() {
        for text in
            ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "525400abcd01", "5254.00ab.cd01", "52%3A54%3a00%3AAB%3ACD%3A01"]
        {
            assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), "52:54:00:ab:cd:01", "{text}");
        }
        for text in ["", "52:54", "52:54:00:ab:cd:0g", "52:54:00:ab:cd:01:02", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"]
        {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
