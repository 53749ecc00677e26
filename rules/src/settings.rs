//! The configuration as the rules use it: checked, complete, nothing optional that has a default.

use crate::{
    dhcp::SiteOptions,
    facts::Facts,
    image::ImageReference,
    profile::{self, Profile},
    signature::SignaturePolicy,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

/// How DHCP is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DhcpMode {
    /// Addresses and loaders.
    Full,
    /// Loaders only, beside the site's DHCP server.
    Proxy,
    /// Nothing: somebody else's DHCP points at us.
    Off,
}

/// How long images are kept that no tag points at and nothing boots. Without a rule nothing goes by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many of the last images that each tag pointed at.
    pub keep_last: Option<u32>,
    /// All that ran within so many days.
    pub keep_days: Option<u32>,
}

/// What a BOOTP client gets (RFC 1534 §2 leaves it to the server).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootpPolicy {
    /// No answer: it would hold an address for ever.
    Refuse,
    /// The address reserved for its machine, for ever; without a reservation no answer.
    Reserved,
}

/// What an unassigned machine gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// The discovery image, then it waits for its assignment.
    Discover,
    /// Its own disk.
    Local,
    /// No answer at all.
    Ignore,
    /// This image.
    Image(ImageReference),
}

impl FromStr for UnknownPolicy {
    type Err = crate::image::BadReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "discover" => Ok(Self::Discover),
            "local" => Ok(Self::Local),
            "ignore" => Ok(Self::Ignore),
            image => image.parse().map(Self::Image),
        }
    }
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discover => f.write_str("discover"),
            Self::Local => f.write_str("local"),
            Self::Ignore => f.write_str("ignore"),
            Self::Image(image) => image.fmt(f),
        }
    }
}

/// Whether UEFI firmware is given the signed chain of loaders (shim and GRUB).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBoot {
    /// Where a hardware profile says so, or the firmware was seen to refuse an unsigned loader.
    #[default]
    Auto,
    /// To every UEFI firmware that boots by PXE.
    Always,
    /// To none.
    Never,
}

impl FromStr for SecureBoot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(()),
        }
    }
}

/// One provisioning network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network, its host bits zero.
    pub network: Ipv4Net,
    /// Addresses to lease; `None`: reservations only (and always in proxy mode).
    pub range: Option<RangeInclusive<Ipv4Addr>>,
    /// Option 3.
    pub router: Option<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Seconds; option 51.
    pub lease_seconds: u32,
    /// The wire it shares with others: subnets of one name are on one wire.
    pub shared_network: Option<String>,
    /// Option 42, for those who ask.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 119, for those who ask.
    pub domain_search: Vec<String>,
    /// Option 26, for those who ask.
    pub mtu: Option<u16>,
    /// Options by number, for everybody.
    pub options: SiteOptions,
}

impl Subnet {
    /// A network that leases nothing and has nothing to say.
    pub fn new(network: Ipv4Net) -> Self {
        Self {
            network,
            range: None,
            router: None,
            dns: Vec::new(),
            domain: None,
            lease_seconds: 3600,
            shared_network: None,
            ntp: Vec::new(),
            domain_search: Vec::new(),
            mtu: None,
            options: SiteOptions::new(),
        }
    }
}

impl Subnet {
    /// Whether an address of the network is one that a host may have.
    pub fn is_a_host(&self, address: Ipv4Addr) -> bool {
        let network = &self.network;
        let is_an_end = network.prefix_len() < 31 && (address == network.network() || address == network.broadcast());
        network.contains(&address) && !is_an_end && self.router != Some(address)
    }
}

/// Everything that rules need to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How DHCP is served.
    pub dhcp: DhcpMode,
    /// Networks, without overlaps.
    pub subnets: Vec<Subnet>,
    /// Port of the provisioning HTTP server.
    pub http_port: u16,
    /// What an unassigned machine gets.
    pub unknown: UnknownPolicy,
    /// The image that discovery boots.
    pub discovery_image: ImageReference,
    /// Hardware profiles, most specific first.
    pub profiles: Vec<Profile>,
    /// Hardware profiles that people keep here. The ledger fills it: no file of start-up's names them.
    pub kept_profiles: Vec<Profile>,
    /// Size limit of the writable overlay in bytes; `None`: half of the machine's free memory.
    pub overlay_limit: Option<u64>,
    /// Other DHCP servers that may answer on these wires.
    pub allow_servers: Vec<Ipv4Addr>,
    /// Whether an address is looked for on its wire before it is first offered (RFC 2131 §3.1).
    pub probe_addresses: bool,
    /// Whether UEFI firmware is given signed loaders.
    pub secure_boot: SecureBoot,
    /// What a BOOTP client gets.
    pub bootp: BootpPolicy,
    /// What becomes of images that no trusted key has signed.
    pub signatures: SignaturePolicy,
    /// How long images are kept that nothing names.
    pub retention: Retention,
    /// Whether clients that ask for a log server are told that we are one.
    pub hears_logs: bool,
}

impl Default for Settings {
    /// Full mode without a network: what a configuration that says nothing more means.
    fn default() -> Self {
        Self {
            dhcp: DhcpMode::Full,
            subnets: Vec::new(),
            http_port: 80,
            unknown: UnknownPolicy::Discover,
            discovery_image: ImageReference::discovery(),
            profiles: Vec::new(),
            kept_profiles: Vec::new(),
            overlay_limit: None,
            allow_servers: Vec::new(),
            probe_addresses: true,
            secure_boot: SecureBoot::Auto,
            bootp: BootpPolicy::Refuse,
            signatures: SignaturePolicy::Off,
            retention: Retention::default(),
            hears_logs: true,
        }
    }
}

impl Settings {
    /// The hardware profile of a machine. What people keep here goes before what Bennu brings along.
    pub fn profile(&self, facts: &Facts) -> Option<&Profile> {
        profile::find(&self.kept_profiles, facts).or_else(|| profile::find(&self.profiles, facts))
    }

    /// The subnet that holds `address`.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.network.contains(&address))
    }

    /// The subnets of the wire that `address` is on, its own first.
    pub fn wire_of(&self, address: Ipv4Addr) -> impl Iterator<Item = &Subnet> {
        let first = self.subnet_of(address);
        let name = first.and_then(|subnet| subnet.shared_network.as_deref());
        let shares = move |subnet: &&Subnet| {
            name.is_some() && subnet.shared_network.as_deref() == name && !subnet.network.contains(&address)
        };
        first.into_iter().chain(self.subnets.iter().filter(shares))
    }
}
