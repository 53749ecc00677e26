//! `[[boot.subnet]]`, as written and as used.

use bennu_rules::{
    dhcp::{OptionCode, OptionValue, SiteOptions},
    settings::{DhcpMode, Subnet},
};
use ipnet::Ipv4Net;
use serde::Deserialize;
use std::{collections::BTreeMap, net::Ipv4Addr, ops::RangeInclusive};

/// Leases last this long unless the subnet says otherwise.
const DEFAULT_LEASE_SECONDS: u32 = 3600;

/// The smallest MTU that IPv4 knows (RFC 791), which is the least that option 26 may say (RFC 2132 §5.1).
const LEAST_MTU: u16 = 68;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSubnet {
    network: Option<String>,
    range: Option<String>,
    router: Option<Ipv4Addr>,
    #[serde(default)]
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    lease_seconds: Option<u32>,
    shared_network: Option<String>,
    #[serde(default)]
    ntp: Vec<Ipv4Addr>,
    #[serde(default)]
    domain_search: Vec<String>,
    mtu: Option<u16>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

impl WrittenSubnet {
    pub fn check(&self, dhcp: DhcpMode) -> Result<Subnet, String> {
        let network = self.network()?;
        let range = self.range.as_deref().map(|text| parse_range(text, &network)).transpose()?;
        if dhcp == DhcpMode::Proxy && range.is_some() {
            return Err("range: in proxy mode the site's DHCP server gives the addresses; remove the range".into());
        }
        if let Some(router) = self.router.filter(|router| !network.contains(router)) {
            return Err(format!("router: {router} is not in {network}; write the router's address on this network"));
        }
        if let Some(domain) = self.domain.as_deref().filter(|domain| !is_domain(domain)) {
            return Err(format!("domain: '{domain}' is no domain name; write one such as rack.example.com"));
        }
        if let Some(domain) = self.domain_search.iter().find(|domain| !is_domain(domain)) {
            return Err(format!("domain_search: '{domain}' is no domain name; write one such as rack.example.com"));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < LEAST_MTU) {
            return Err(format!("mtu: {mtu} is less than IPv4 can do with; write {LEAST_MTU} or more, such as 1500"));
        }
        if self.shared_network.as_deref().is_some_and(str::is_empty) {
            return Err("shared_network: the name is empty; write one name for every subnet of the wire".into());
        }
        let lease_seconds = self.lease_seconds.unwrap_or(DEFAULT_LEASE_SECONDS);
        if lease_seconds < 60 {
            return Err(format!("lease_seconds: {lease_seconds} is under a minute; write 60 or more"));
        }
        Ok(Subnet {
            network,
            range,
            router: self.router,
            dns: self.dns.clone(),
            domain: self.domain.clone(),
            lease_seconds,
            shared_network: self.shared_network.clone(),
            ntp: self.ntp.clone(),
            domain_search: self.domain_search.clone(),
            mtu: self.mtu,
            options: self.options()?,
        })
    }

    fn network(&self) -> Result<Ipv4Net, String> {
        let text = self.network.as_deref().ok_or("network is missing; write it, such as network = \"10.77.0.0/24\"")?;
        let written: Ipv4Net =
            text.parse().map_err(|_| format!("network: '{text}' is no network; write one such as 10.77.0.0/24"))?;
        let network = written.trunc();
        if network != written {
            return Err(format!("network: {written} has host bits; write {network}"));
        }
        if !(8..=30).contains(&network.prefix_len()) {
            return Err(format!(
                "network: /{} is too wide or too narrow; write a network of /8 to /30",
                network.prefix_len()
            ));
        }
        Ok(network)
    }

    fn options(&self) -> Result<SiteOptions, String> {
        let option = |(code, value): (&String, &String)| {
            let code: OptionCode = code.parse().map_err(|bad| format!("options: {bad}"))?;
            if let Some(key) = code.key() {
                return Err(format!("options: option {code} has a key of its own; write {key} = … in the subnet"));
            }
            let value: OptionValue = value.parse().map_err(|bad| format!("options.{code}: {bad}"))?;
            Ok((code, value))
        };
        self.options.iter().map(option).collect()
    }
}

/// Labels of 1 to 63 bytes, together under 254 (RFC 1035 §2.3.4).
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() < 254 && text.split('.').all(is_label)
}

fn parse_range(text: &str, network: &Ipv4Net) -> Result<RangeInclusive<Ipv4Addr>, String> {
    let refuse = || {
        format!("range: '{text}' is not two addresses; write the first and the last, such as 10.77.0.50-10.77.0.199")
    };
    let (first, last) = text.split_once('-').ok_or_else(refuse)?;
    let first: Ipv4Addr = first.trim().parse().map_err(|_| refuse())?;
    let last: Ipv4Addr = last.trim().parse().map_err(|_| refuse())?;
    if first > last {
        return Err(format!("range: {first} comes after {last}; write the lower address first"));
    }
    for address in [first, last] {
        if !network.contains(&address) || address == network.network() || address == network.broadcast() {
            return Err(format!("range: {address} is not a host of {network}; write addresses of that network"));
        }
    }
    Ok(first..=last)
}

pub(super) fn check_overlaps(subnets: &[Subnet]) -> Result<(), String> {
    for (index, subnet) in subnets.iter().enumerate() {
        let overlap = |other: &&Subnet| {
            other.network.contains(&subnet.network.network()) || subnet.network.contains(&other.network.network())
        };
        if let Some(other) = subnets[..index].iter().find(overlap) {
            return Err(format!(
                "boot.subnet: {} and {} overlap; keep one of them, or write networks that do not",
                other.network, subnet.network
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn parse(of_subnet: &str) -> Result<super::Subnet, String> {
        let text = format!("[boot]\ninterface = \"eno2\"\n[[boot.subnet]]\nnetwork = \"10.77.0.0/24\"\n{of_subnet}");
        Config::parse(&text).map(|config| config.settings.subnets[0].clone())
    }

    #[test]
    fn a_subnet_says_all_that_dhcp_can() {
        let subnet = parse(
            "shared_network = \"hall\"\nntp = [\"10.77.0.3\"]\nmtu = 9000\n\
             domain_search = [\"a.example\", \"example\"]\n\
             [boot.subnet.options]\n100 = \"text:CET\"\n150 = \"addresses:10.77.0.1\"",
        )
        .unwrap();
        assert_eq!((subnet.shared_network.as_deref(), subnet.mtu), (Some("hall"), Some(9000)));
        assert_eq!((subnet.ntp.len(), subnet.domain_search.len()), (1, 2));
        let options: Vec<String> = subnet.options.iter().map(|(code, value)| format!("{code}={value}")).collect();
        assert_eq!(options, ["100=text:CET", "150=addresses:10.77.0.1"]);
    }

    #[test]
    fn a_wrong_subnet_says_what_to_write() {
        for (text, says) in [
            ("mtu = 60", "boot.subnet 1: mtu: 60 is less than IPv4 can do with; write 68 or more, such as 1500"),
            (
                "domain_search = [\"a..b\"]",
                "boot.subnet 1: domain_search: 'a..b' is no domain name; write one such as rack.example.com",
            ),
            (
                "[boot.subnet.options]\n42 = \"addresses:10.0.0.1\"",
                "boot.subnet 1: options: option 42 has a key of its own; write ntp = … in the subnet",
            ),
            (
                "[boot.subnet.options]\n67 = \"text:x\"",
                "boot.subnet 1: options: option 67 cannot be set: it says what a machine boots, which Bennu decides; leave it away",
            ),
            (
                "[boot.subnet.options]\n100 = \"CET\"",
                "boot.subnet 1: options.100: 'CET': the form is missing; write text:…, hex:…, addresses:A,B, u8:N, u16:N or u32:N",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), says);
        }
    }
}
