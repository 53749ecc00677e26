//! Who is asking, read once from options 60, 77, 93 and 175.

use super::request::Request;
use crate::{
    boot::Asker,
    facts::{ClientSystem, Firmware},
};

/// A kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A PXE ROM or UEFI's PXE client.
    Firmware(System),
    /// UEFI's HTTP boot client.
    HttpFirmware(System),
    /// iPXE: our own, or one in a ROM.
    Ipxe {
        /// Whether it can fetch over HTTP.
        has_http: bool,
        /// What it runs on.
        system: System,
    },
    /// Stage 1, an operating system, anything that boots nothing by what we answer.
    System,
}

/// The client system architecture as the client gave it, and its row in the table if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System {
    /// The type code (option 93, else from the class).
    pub code: Option<u16>,
    /// The row.
    pub known: Option<ClientSystem>,
}

/// iPXE tells its features as sub-options of option 175, named by number and holding a version; 19 is HTTP
/// (ipxe.org/howto/dhcpd, "ipxe.http").
const IPXE_FEATURE_HTTP: u8 = 19;

impl Client {
    /// Reads who asks.
    pub fn of(request: &Request) -> Self {
        let class = request.class.as_deref().unwrap_or("");
        let system = System::of(request);
        let is_pxe = class.starts_with("PXEClient");
        let says_ipxe = request.user_classes.iter().any(|class| class == "iPXE");
        // Option 175 without the class is not iPXE's: the number is free for anybody's use.
        if says_ipxe || (is_pxe && request.ipxe.is_some()) {
            let features = request.ipxe.as_ref();
            let has_http = features.is_none_or(|features| features.get(&IPXE_FEATURE_HTTP).is_some_and(|v| v != &[0]));
            return Self::Ipxe { has_http, system };
        }
        if is_pxe {
            return Self::Firmware(system);
        }
        if class.starts_with("HTTPClient") {
            return Self::HttpFirmware(system);
        }
        Self::System
    }

    /// Who that is to a boot.
    pub fn asker(&self) -> Asker {
        match self {
            Self::Firmware(_) | Self::HttpFirmware(_) => Asker::Firmware,
            Self::Ipxe { .. } => Asker::Loader,
            Self::System => Asker::System,
        }
    }

    /// Its name in a timeline.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Firmware(_) => "pxe",
            Self::HttpFirmware(_) => "http",
            Self::Ipxe { .. } => "ipxe",
            Self::System => "system",
        }
    }

    /// What it runs on; `None` for a system, which does not say.
    pub fn system(&self) -> Option<System> {
        match self {
            Self::Firmware(system) | Self::HttpFirmware(system) | Self::Ipxe { system, .. } => Some(*system),
            Self::System => None,
        }
    }

    /// Whether it boots by what we answer.
    pub fn network_boots(&self) -> bool {
        !matches!(self, Self::System)
    }
}

impl System {
    /// The first type of the list that has a row, else the first one; the class's own field where a client
    /// sends no option 93 (PXE 2.1 §2.2.3 has both, some ROMs only the class).
    fn of(request: &Request) -> Self {
        let from_class = || request.class.as_deref()?.split(':').nth(2)?.parse().ok();
        let codes = &request.architectures;
        let known = codes.iter().copied().find(|code| ClientSystem::from_code(*code).is_some());
        let code = known.or_else(|| codes.first().copied()).or_else(from_class);
        Self { code, known: code.and_then(ClientSystem::from_code) }
    }

    /// What a person calls it.
    pub fn describe(&self) -> String {
        match (self.known, self.code) {
            (Some(system), Some(code)) => {
                let firmware = if system.firmware == Firmware::Bios { "BIOS" } else { "UEFI" };
                format!("architecture {code} ({:?} {firmware})", system.architecture)
            }
            (_, Some(code)) => format!("architecture {code}, which is not in the table"),
            _ => "an architecture it does not tell".to_owned(),
        }
    }
}
