//! What is known of a machine's hardware, and the firmware's own words for it.

use bennu_plan::Inventory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Architecture {
    X86,
    X86_64,
    Arm32,
    Arm64,
    Riscv32,
    Riscv64,
    Loongarch32,
    Loongarch64,
}

/// What runs before any loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Firmware {
    Bios,
    Uefi,
}

/// How the firmware fetches its first program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Transport {
    Tftp,
    Http,
}

/// One kind of network-booting firmware: a row of [`CLIENT_SYSTEMS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientSystem {
    /// Instruction set.
    pub architecture: Architecture,
    /// BIOS or UEFI.
    pub firmware: Firmware,
    /// TFTP or HTTP.
    pub transport: Transport,
}

/// Client system architecture types of option 93: RFC 4578 §2.1 with the IANA registry "Processor
/// Architecture Types" that RFC 5970 §3.3 opened. Types 7 and 9 are both x86-64: the registry swapped
/// the two names long after firmware had shipped with 7 (errata 4625), so both mean it.
#[rustfmt::skip]
pub const CLIENT_SYSTEMS: &[(u16, ClientSystem)] = {
    use Architecture::{Arm32, Arm64, Loongarch32, Loongarch64, Riscv32, Riscv64, X86, X86_64};
    use Firmware::{Bios, Uefi};
    use Transport::{Http, Tftp};
    const fn row(architecture: Architecture, firmware: Firmware, transport: Transport) -> ClientSystem {
        ClientSystem { architecture, firmware, transport }
    }
    &[
        (0,  row(X86_64, Bios, Tftp)),
        (6,  row(X86, Uefi, Tftp)),
        (7,  row(X86_64, Uefi, Tftp)),
        (9,  row(X86_64, Uefi, Tftp)),
        (10, row(Arm32, Uefi, Tftp)),
        (11, row(Arm64, Uefi, Tftp)),
        (15, row(X86, Uefi, Http)),
        (16, row(X86_64, Uefi, Http)),
        (18, row(Arm32, Uefi, Http)),
        (19, row(Arm64, Uefi, Http)),
        (20, row(X86_64, Bios, Http)),
        (25, row(Riscv32, Uefi, Tftp)),
        (26, row(Riscv32, Uefi, Http)),
        (27, row(Riscv64, Uefi, Tftp)),
        (28, row(Riscv64, Uefi, Http)),
        (37, row(Loongarch32, Uefi, Tftp)),
        (38, row(Loongarch32, Uefi, Http)),
        (39, row(Loongarch64, Uefi, Tftp)),
        (40, row(Loongarch64, Uefi, Http)),
    ]
};

impl ClientSystem {
    /// The row for a type code of option 93; `None` for types nobody gave us a loader for.
    pub fn from_code(code: u16) -> Option<Self> {
        CLIENT_SYSTEMS.iter().find(|(known, _)| *known == code).map(|(_, system)| *system)
    }
}

/// What is known of a machine's hardware, from DHCP options, iPXE's settings and the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Facts {
    /// SMBIOS UUID, lower case.
    pub uuid: Option<String>,
    /// SMBIOS system serial number.
    pub serial: Option<String>,
    /// SMBIOS system manufacturer.
    pub manufacturer: Option<String>,
    /// SMBIOS product name.
    pub product: Option<String>,
    /// SMBIOS asset tag.
    pub asset: Option<String>,
    /// Instruction set.
    pub architecture: Option<Architecture>,
    /// The firmware of the last boot.
    pub firmware: Option<Firmware>,
    /// What discovery found.
    pub inventory: Option<Inventory>,
}

/// Control characters, and the two that YAML 1.1 takes as line breaks besides.
pub fn ends_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

impl Facts {
    /// What iPXE said of the hardware, in the keys of the query that our entry script composes. Values are cut to a
    /// length and lose their control characters: they end up in records and on terminals.
    pub fn from_loader(said: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| {
            let value: String = said.get(key)?.trim().chars().filter(|c| !ends_a_line(*c)).take(128).collect();
            (!value.is_empty()).then_some(value)
        };
        let firmware = match text("platform").as_deref() {
            Some("pcbios") => Some(Firmware::Bios),
            Some("efi") => Some(Firmware::Uefi),
            _ => None,
        };
        // undionly.kpxe calls itself i386 on every PC, so a BIOS says nothing of the processor.
        let architecture = match (firmware, text("arch").as_deref()) {
            (Some(Firmware::Bios), _) | (_, Some("x86_64")) => Some(Architecture::X86_64),
            (_, Some("i386")) => Some(Architecture::X86),
            (_, Some("arm64")) => Some(Architecture::Arm64),
            (_, Some("arm32")) => Some(Architecture::Arm32),
            (_, Some("riscv64")) => Some(Architecture::Riscv64),
            (_, Some("loong64")) => Some(Architecture::Loongarch64),
            _ => None,
        };
        Self {
            uuid: text("uuid").map(|uuid| uuid.to_lowercase()),
            serial: text("serial"),
            manufacturer: text("manufacturer"),
            product: text("product"),
            asset: text("asset"),
            architecture,
            firmware,
            inventory: None,
        }
    }

    /// Takes over every fact that `newer` states and keeps the rest.
    pub fn absorb(&mut self, newer: &Self) {
        fn take<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        take(&mut self.uuid, &newer.uuid);
        take(&mut self.serial, &newer.serial);
        take(&mut self.manufacturer, &newer.manufacturer);
        take(&mut self.product, &newer.product);
        take(&mut self.asset, &newer.asset);
        take(&mut self.architecture, &newer.architecture);
        take(&mut self.firmware, &newer.firmware);
        take(&mut self.inventory, &newer.inventory);
    }

    /// The 32 digits of its UUID, unless many boards say the same.
    pub fn sane_uuid(&self) -> Option<String> {
        self.uuid.as_deref().and_then(sane_uuid)
    }
}

/// The 32 digits of an SMBIOS UUID that can name one machine: vendors ship boards whose UUID is all zero, all FF, or a
/// counting pattern, and OVMF without `-uuid` says all zero.
fn sane_uuid(text: &str) -> Option<String> {
    const PLACEHOLDER: &str = "03000200040005000006000700080009";
    let digits: String = text.trim().to_ascii_lowercase().chars().filter(|c| *c != '-').collect();
    let well_formed = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let one_digit = digits.bytes().all(|b| digits.starts_with(char::from(b)));
    (well_formed && !one_digit && digits != PLACEHOLDER).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_table_has_one_row_a_code() {
        for (index, (code, _)) in CLIENT_SYSTEMS.iter().enumerate() {
            assert!(CLIENT_SYSTEMS[index + 1..].iter().all(|(other, _)| other > code), "{code} out of order");
        }
        assert_eq!(ClientSystem::from_code(7), ClientSystem::from_code(9));
        assert_eq!(ClientSystem::from_code(0xffff), None);
    }

    #[test]
    fn placeholder_uuids_identify_nobody() {
        assert!(sane_uuid("00000000-0000-0000-0000-000000000000").is_none());
        assert!(sane_uuid("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF").is_none());
        assert!(sane_uuid("03000200-0400-0500-0006-000700080009").is_none());
        assert!(sane_uuid("not a uuid").is_none());
        assert_eq!(
            sane_uuid("4C4C4544-0042-4710-8051-B4C04F4D3132").as_deref(),
            Some("4c4c4544004247108051b4c04f4d3132")
        );
    }
}
