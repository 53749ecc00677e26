//! The configuration file: as written (`Written`), and as used ([`Config`]).

mod api;
mod logs;
#[cfg(test)]
mod manual;
mod retention;
mod signatures;
mod subnet;

pub use api::{ApiSettings, CertificateFiles, DEFAULT_SOCKET};
use logs::SYSLOG;
pub use logs::{Forward, LogSettings};
pub use signatures::TrustedKeys;

use api::WrittenApi;
use bennu_host::Host;
use bennu_rules::{
    image::ImageReference,
    settings::{BootpPolicy, DhcpMode, Settings},
};
use logs::WrittenLogs;
use retention::WrittenRetention;
use serde::Deserialize;
use signatures::WrittenSignatures;
use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use subnet::WrittenSubnet;

/// Where the configuration is read from unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/bennu/bennu.toml";

/// Who the service runs as unless the configuration says otherwise.
const DEFAULT_USER: &str = "bennu";

/// The configuration as the appliance uses it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file's text, for backups.
    pub text: String,
    /// Ledger and images.
    pub state_dir: PathBuf,
    /// The key that secrets are kept under; `None`: one of ours in the state directory.
    pub secrets_key: Option<PathBuf>,
    /// Whether machines keep their SSH host keys over reimages.
    pub ssh_host_keys: bool,
    /// Who the service runs as, when root starts it.
    pub user: String,
    /// Interfaces of the provisioning plane.
    pub interfaces: Vec<String>,
    /// Files here win over the embedded loaders.
    pub loaders_dir: Option<PathBuf>,
    /// Socket of the management plane.
    pub socket: PathBuf,
    /// How the management plane is reached over the network.
    pub api: ApiSettings,
    /// The time zone in which people at consoles read times; `None`: UTC.
    pub time_zone: Option<String>,
    /// What rules see.
    pub settings: Arc<Settings>,
    /// How images are made.
    pub import: ImportSettings,
    /// Whose signatures of images count.
    pub signatures: TrustedKeys,
    /// What is kept of what machines say.
    pub logs: LogSettings,
}

/// How images are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSettings {
    /// zstd level of root filesystems.
    pub compression_level: u32,
    /// The kernel image for container images that have no kernel; the discovery image unless named.
    pub kernel: Option<ImageReference>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("cannot read {path}: {reason}; write one (the README has an example), or name another with --config")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A key or value is wrong.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which key, and what to write.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    state_dir: Option<PathBuf>,
    secrets_key: Option<PathBuf>,
    user: Option<String>,
    // What must be there is looked for after the reading: a key that is missing is most often one that is misspelt,
    // and the reading names that one with its nearest.
    #[serde(default)]
    boot: WrittenBoot,
    #[serde(default)]
    api: WrittenApi,
    #[serde(default)]
    import: WrittenImport,
    #[serde(default)]
    signatures: WrittenSignatures,
    #[serde(default)]
    retention: WrittenRetention,
    #[serde(default)]
    logs: WrittenLogs,
    // For the appliance's own ISO, whose init does what it says; elsewhere the distribution does.
    #[serde(default)]
    host: Host,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenBoot {
    interface: Option<OneOrMany<String>>,
    dhcp: Option<String>,
    http_port: Option<u16>,
    unknown: Option<String>,
    discovery_image: Option<String>,
    loaders_dir: Option<PathBuf>,
    overlay_limit_mib: Option<u64>,
    secure_boot: Option<String>,
    allow_servers: Vec<Ipv4Addr>,
    probe_addresses: Option<bool>,
    bootp: Option<String>,
    ssh_host_keys: Option<bool>,
    subnet: Vec<WrittenSubnet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenImport {
    compression_level: Option<u32>,
    kernel: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of them")]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), reason: error.to_string() })?;
        let parsed = Self::parse(&text).and_then(|mut config| config.signatures.read().map(|()| config));
        parsed.map_err(|reason| ConfigError::Invalid { path: path.to_owned(), reason })
    }

    /// Checks a configuration's text, without the files that it names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| explain(&error, text))?;
        written.host.check()?;
        written.host.time_zone.as_deref().map_or(Ok(()), crate::zone::check)?;
        let boot = written.boot;
        let interfaces = match boot.interface {
            None => return Err(
                "boot.interface is missing; write the interface that machines boot over, such as interface = \"eno2\""
                    .into(),
            ),
            Some(OneOrMany::One(name)) => vec![name],
            Some(OneOrMany::Many(names)) => names,
        };
        if interfaces.is_empty() || interfaces.iter().any(|name| name.is_empty() || name.len() > 15) {
            return Err(
                "boot.interface: a name is empty, too long or missing; name network interfaces, such as \"eno2\""
                    .into(),
            );
        }
        if let Some(twice) = interfaces.iter().enumerate().find(|(at, name)| interfaces[..*at].contains(name)) {
            return Err(format!("boot.interface: '{}' is there twice; name each interface once", twice.1));
        }
        let dhcp = match boot.dhcp.as_deref() {
            None | Some("full") => DhcpMode::Full,
            Some("proxy") => DhcpMode::Proxy,
            Some("off") => DhcpMode::Off,
            Some(other) => return Err(format!("boot.dhcp: '{other}' is no mode; write full, proxy or off")),
        };
        let subnets = boot
            .subnet
            .iter()
            .enumerate()
            .map(|(index, subnet)| subnet.check(dhcp).map_err(|reason| format!("boot.subnet {}: {reason}", index + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        subnet::check_overlaps(&subnets)?;
        if subnets.is_empty() && dhcp == DhcpMode::Full {
            return Err("boot.subnet: dhcp = \"full\" needs a subnet, and there is none; add a [[boot.subnet]] with its network and range, \
                        or write dhcp = \"proxy\" beside a DHCP server of your site"
                .into());
        }
        let bootp = match boot.bootp.as_deref() {
            None | Some("refuse") => BootpPolicy::Refuse,
            Some("reserved") => BootpPolicy::Reserved,
            Some(other) => return Err(format!("boot.bootp: '{other}' is no policy; write refuse or reserved")),
        };
        if boot.http_port == Some(0) {
            return Err("boot.http_port: 0 is no port; write 80, or one that your loaders can reach".into());
        }
        if boot.overlay_limit_mib.is_some_and(|mib| !(16..=1 << 30).contains(&mib)) {
            return Err(
                "boot.overlay_limit_mib: write how many MiB a machine may write to its root, at least 16".into()
            );
        }
        let written_secure_boot = boot.secure_boot.as_deref().unwrap_or("auto");
        let secure_boot = written_secure_boot.parse().map_err(|()| {
            format!("boot.secure_boot: '{written_secure_boot}' is no choice; write auto, always or never")
        })?;
        let (signature_policy, signatures) = written.signatures.check()?;
        let logs = written.logs.check()?;
        let settings = Settings {
            dhcp,
            subnets,
            http_port: boot.http_port.unwrap_or(80),
            unknown: parsed("boot.unknown", boot.unknown.as_deref().unwrap_or("discover"))?,
            discovery_image: parsed(
                "boot.discovery_image",
                boot.discovery_image.as_deref().unwrap_or("discovery:latest"),
            )?,
            profiles: bennu_hardware_profiles::all(),
            kept_profiles: Vec::new(),
            overlay_limit: boot.overlay_limit_mib.map(|mib| mib << 20),
            allow_servers: boot.allow_servers,
            probe_addresses: boot.probe_addresses.unwrap_or(true),
            secure_boot,
            bootp,
            signatures: signature_policy,
            retention: written.retention.check()?,
            hears_logs: logs.port == Some(SYSLOG),
        };
        let compression_level = written.import.compression_level.unwrap_or(15);
        if !(1..=22).contains(&compression_level) {
            return Err(format!("import.compression_level: {compression_level} is no level of zstd; write 1 to 22"));
        }
        let kernel = written.import.kernel.map(|kernel| kernel.parse()).transpose();
        let kernel = kernel.map_err(|error| format!("import.kernel: {error}"))?;
        let user = written.user.unwrap_or_else(|| DEFAULT_USER.into());
        if user.is_empty() || user.contains([':', '/', '\0', '\n']) {
            return Err(format!(
                "user: '{user}' is no user's name; write one of this host, such as \"bennu\", or \"root\""
            ));
        }
        let socket = written.api.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
        Ok(Self {
            text: text.to_owned(),
            user,
            secrets_key: written.secrets_key,
            ssh_host_keys: boot.ssh_host_keys.unwrap_or(true),
            time_zone: written.host.time_zone,
            state_dir: written.state_dir.unwrap_or_else(|| "/var/lib/bennu".into()),
            interfaces,
            loaders_dir: boot.loaders_dir,
            socket,
            api: written.api.check()?,
            settings: Arc::new(settings),
            import: ImportSettings { compression_level, kernel },
            signatures,
            logs,
        })
    }
}

fn parsed<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|error| format!("{key}: {error}"))
}

/// What is wrong with the text, with the nearest key for one that is unknown.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let told = match quoted[..] {
        [unknown, ref known @ ..] if message.starts_with("unknown field") => {
            let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(unknown, known));
            format!("there is no key '{unknown}' here; did you mean '{}'?", nearest.copied().unwrap_or_default())
        }
        _ => format!("{}; mend this line", message.replace('\n', ", ")),
    };
    format!("line {line}: {told}")
}

/// Where the provisioning HTTP server of one interface is reached.
pub fn http_origin(address: Ipv4Addr, port: u16) -> String {
    match port {
        80 => format!("http://{address}"),
        port => format!("http://{}", SocketAddr::from((address, port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::{image::ImageReference, settings::UnknownPolicy};

    const GOOD: &str = r#"
        [boot]
        interface = "eno2"
        [[boot.subnet]]
        network = "10.77.0.0/24"
        range = "10.77.0.50-10.77.0.199"
    "#;

    #[test]
    fn the_smallest_configuration_gets_every_default() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/bennu"));
        assert_eq!(config.user, "bennu");
        assert_eq!(config.settings.http_port, 80);
        assert_eq!(config.settings.unknown, UnknownPolicy::Discover);
        assert_eq!(config.settings.discovery_image, "discovery:latest".parse::<ImageReference>().unwrap());
    }

    #[test]
    fn wrong_configurations_say_what_to_write() {
        for (change, with, says) in [
            ("[boot]", "[bot]", "line 2: there is no key 'bot' here; did you mean 'boot'?"),
            ("network", "netwrok", "line 5: there is no key 'netwrok' here; did you mean 'network'?"),
            ("10.77.0.0/24", "10.77.0.1/24", "boot.subnet 1: network: 10.77.0.1/24 has host bits; write 10.77.0.0/24"),
            (
                "10.77.0.199",
                "10.77.1.199",
                "boot.subnet 1: range: 10.77.1.199 is not a host of 10.77.0.0/24; write addresses of that network",
            ),
            (
                "10.77.0.199",
                "10.77.0.9",
                "boot.subnet 1: range: 10.77.0.50 comes after 10.77.0.9; write the lower address first",
            ),
            (
                "interface = \"eno2\"",
                "interface = []",
                "boot.interface: a name is empty, too long or missing; name network interfaces, such as \"eno2\"",
            ),
            (
                "interface = \"eno2\"",
                "interface = \"e\"\ndhcp = \"on\"",
                "boot.dhcp: 'on' is no mode; write full, proxy or off",
            ),
            (
                "interface = \"eno2\"",
                "interface = \"e\"\nsecure_boot = \"on\"",
                "boot.secure_boot: 'on' is no choice; write auto, always or never",
            ),
        ] {
            assert_eq!(Config::parse(&GOOD.replacen(change, with, 1)).unwrap_err(), says);
        }
        let twice = format!("{GOOD}\n[[boot.subnet]]\nnetwork = \"10.77.0.128/25\"");
        assert_eq!(
            Config::parse(&twice).unwrap_err(),
            "boot.subnet: 10.77.0.0/24 and 10.77.0.128/25 overlap; keep one of them, or write networks that do not"
        );
    }
}
