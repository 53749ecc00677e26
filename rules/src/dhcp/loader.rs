//! Which file a client is sent to.

use super::{
    client::{Client, System},
    request::Request,
};
use crate::{
    boot::{
        Boot,
        chain::{self, Chain},
    },
    facts::{Architecture, Firmware},
    journey::Seen,
    profile::BootSettings,
};
use std::net::Ipv4Addr;

/// The loader of each kind of firmware. `None`: a row that waits for its loader.
///
/// `undionly` and `snponly` drive the card through the firmware that has just proved able to, so the link stays
/// up and no driver of the loader's own is needed.
#[rustfmt::skip]
pub const LOADERS: &[(Architecture, Firmware, Option<&str>)] = &[
    (Architecture::X86_64,      Firmware::Bios, Some("undionly.kpxe")),
    (Architecture::X86_64,      Firmware::Uefi, Some("snponly.efi")),
    (Architecture::X86,         Firmware::Uefi, None),
    (Architecture::Arm32,       Firmware::Uefi, None),
    (Architecture::Arm64,       Firmware::Uefi, None),
    (Architecture::Riscv32,     Firmware::Uefi, None),
    (Architecture::Riscv64,     Firmware::Uefi, None),
    (Architecture::Loongarch32, Firmware::Uefi, None),
    (Architecture::Loongarch64, Firmware::Uefi, None),
];

/// Loaders handed to one boot's iPXE before the next one is taken for a loop. More than one, because a transfer
/// may fail and a machine may be switched off and on within a boot.
pub const MAX_LOADERS_CHAINED: u32 = 3;

/// Where a client finds what it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// A file name for TFTP, or a URL.
    pub name: String,
    /// Who serves it.
    pub server: Ipv4Addr,
}

/// What a client is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Our loader.
    Loader(BootFile),
    /// The boot script.
    Script(BootFile),
    /// Nothing: it boots nothing.
    Nothing,
    /// Nothing, though it asks for it.
    NoLoader(System),
}

impl Next {
    /// The file, if there is one.
    pub fn file(&self) -> Option<&BootFile> {
        match self {
            Self::Loader(file) | Self::Script(file) => Some(file),
            Self::Nothing | Self::NoLoader(_) => None,
        }
    }
}

/// Chooses for one client.
pub fn choose(
    request: &Request,
    client: &Client,
    boot: Option<&Boot>,
    profile: Option<&BootSettings>,
    http_port: u16,
) -> Next {
    let server = request.received.interface_address;
    let url = |path: &str| BootFile { name: url(server, http_port, path), server };
    let loader = |system: &System| {
        let known = system.known?;
        let of_table = LOADERS.iter().find(|row| (row.0, row.1) == (known.architecture, known.firmware));
        // A profile names loaders of x86-64 machines, the only ones with a choice.
        let of_profile = profile
            .and_then(|profile| profile.loader(known.firmware))
            .filter(|_| matches!(known.architecture, Architecture::X86_64));
        of_profile.or_else(|| of_table.and_then(|row| row.2)).map(str::to_owned)
    };
    match client {
        Client::System => Next::Nothing,
        Client::Ipxe { has_http, system } if gets_our_loader(request, *has_http, boot, profile) => {
            loader(system).map_or(Next::NoLoader(*system), |name| Next::Loader(BootFile { name, server }))
        }
        Client::Ipxe { .. } => Next::Script(url("boot.ipxe")),
        Client::Firmware(system) => {
            let chain = boot.map(|boot| boot.chain).filter(|chain| chain.signed && has_signed_loader(system));
            let name = chain.map(|chain| shim(&chain)).or_else(|| loader(system));
            name.map_or(Next::NoLoader(*system), |name| Next::Loader(BootFile { name, server }))
        }
        // Debian's signed GRUB cannot load over HTTP: there is no signed chain for HTTP boot.
        Client::HttpFirmware(system) => {
            loader(system).map_or(Next::NoLoader(*system), |name| Next::Loader(url(&format!("loader/{name}"))))
        }
    }
}

/// Whether there is a signed chain of loaders for this firmware.
pub fn has_signed_loader(system: &System) -> bool {
    system.known.is_some_and(|known| (known.architecture, known.firmware) == (Architecture::X86_64, Firmware::Uefi))
}

/// shim's name: Bennu's own, or that of an image. shim asks for GRUB beside itself.
fn shim(chain: &Chain) -> String {
    match chain.image {
        None => chain::SHIM.to_owned(),
        Some(image) => format!("{}/{}/{}", chain::OF_IMAGES, image.hex(), chain::SHIM),
    }
}

/// Whether an iPXE is one of a ROM that our own shall replace: it lacks HTTP, or its model's profile says so.
fn gets_our_loader(request: &Request, has_http: bool, boot: Option<&Boot>, profile: Option<&BootSettings>) -> bool {
    let chained = boot.map_or(0, |boot| boot.loaders_chained);
    let same_conversation = boot.is_some_and(|boot| boot.chained_xid == Some(request.xid));
    if same_conversation {
        return true;
    }
    if !has_http {
        return chained < MAX_LOADERS_CHAINED;
    }
    profile.is_some_and(|profile| profile.replace_rom_ipxe) && chained == 0 && !boot.is_some_and(came_from_firmware)
}

/// Whether a firmware that is no iPXE began the boot: the iPXE that follows is the loader we gave it.
fn came_from_firmware(boot: &Boot) -> bool {
    boot.timeline
        .iter()
        .any(|seen| matches!(&seen.seen, Seen::DhcpDiscover { asker, .. } if asker == "pxe" || asker == "http"))
}

/// A URL of our provisioning HTTP server. Absolute and by address: the client may have no resolver, and iPXE of
/// 2019 cannot chain a relative URL from its first script.
pub fn url(server: Ipv4Addr, port: u16, path: &str) -> String {
    match port {
        80 => format!("http://{server}/{path}"),
        port => format!("http://{server}:{port}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::CLIENT_SYSTEMS;

    #[test]
    fn line_39_every_client_system_has_a_row_for_its_loader() {
        for (code, system) in CLIENT_SYSTEMS {
            let rows = LOADERS.iter().filter(|row| (row.0, row.1) == (system.architecture, system.firmware));
            assert_eq!(rows.count(), 1, "architecture {code}");
        }
    }

    #[test]
    fn urls_name_the_port_only_where_needed() {
        assert_eq!(url(Ipv4Addr::new(10, 0, 0, 1), 80, "boot.ipxe"), "http://10.0.0.1/boot.ipxe");
        assert_eq!(url(Ipv4Addr::new(10, 0, 0, 1), 8080, "boot.ipxe"), "http://10.0.0.1:8080/boot.ipxe");
    }
}
