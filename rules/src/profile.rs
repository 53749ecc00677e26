//! Hardware profiles: facts about a model → boot settings.

use crate::{
    facts::{Facts, Firmware},
    image::serde_as_text,
};
use serde::{Deserialize, Serialize, de};
use std::{fmt, str::FromStr};

/// Profiles that people keep. Every packet of a machine may look at all of them.
pub const MAX_PROFILES: usize = 128;

/// A text that names no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a hardware profile's name; write up to 63 letters, digits, spaces, '.', '_' and '-', such as Dell PowerEdge"
)]
pub struct BadProfileName(String);

/// What people call a profile; its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(String);

impl ProfileName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ProfileName {
    type Err = BadProfileName;

    fn from_str(text: &str) -> Result<Self, BadProfileName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b' ');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || text.ends_with(' ') || text.len() > 63 || !text.bytes().all(allowed) {
            return Err(BadProfileName(text.chars().filter(|c| !c.is_control()).take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

serde_as_text!(ProfileName);

/// What is known of one model of server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = HardwareProfile)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// Which machines it is of.
    #[serde(rename = "match")]
    pub matches: Match,
    /// How they boot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: BootSettings,
    /// Facts of a real machine of this model: the profile's own test.
    #[serde(default, skip_serializing_if = "is_default")]
    pub example: Fingerprint,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// SMBIOS patterns; all that are given must match. `*` stands for anything, case does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ProfileMatch)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// System manufacturer, such as `Dell Inc.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Product name, such as `PowerEdge*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// How a model boots. What is not given stays as it is by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BootSettings {
    /// The loader its UEFI firmware gets, such as `ipxe.efi`; default `snponly.efi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uefi_loader: Option<String>,
    /// The loader its BIOS gets; default `undionly.kpxe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bios_loader: Option<String>,
    /// Values of `console=`, the last one being `/dev/console`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<String>,
    /// Further kernel arguments.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// Whether an iPXE in ROM is replaced by our loader even when it can do HTTP.
    #[serde(skip_serializing_if = "is_default")]
    pub replace_rom_ipxe: bool,
    /// Whether its UEFI firmware is given shim and GRUB, which Secure Boot accepts, by PXE.
    #[serde(skip_serializing_if = "is_default")]
    pub signed_loader: bool,
}

/// Facts a model shows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ProfileExample)]
#[serde(deny_unknown_fields, default)]
pub struct Fingerprint {
    /// System manufacturer.
    pub manufacturer: String,
    /// Product name.
    pub product: String,
}

impl Match {
    pub(crate) fn is_met_by(&self, facts: &Facts) -> bool {
        let met = |pattern: &Option<String>, fact: &Option<String>| match (pattern, fact) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(pattern), Some(fact)) => glob(&pattern.to_lowercase(), &fact.trim().to_lowercase()),
        };
        let says_anything = self.manufacturer.is_some() || self.product.is_some();
        says_anything && met(&self.manufacturer, &facts.manufacturer) && met(&self.product, &facts.product)
    }

    /// How much of the pattern is text: the longer, the more specific.
    fn weight(&self) -> usize {
        let text = |pattern: &Option<String>| pattern.as_ref().map_or(0, |p| p.chars().filter(|c| *c != '*').count());
        text(&self.manufacturer) + text(&self.product)
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = text.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut rest = rest;
    let mut ends_open = !pattern.contains('*');
    for part in parts.clone() {
        ends_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let last = pattern.rsplit('*').next().unwrap_or("");
    ends_open || text.len() >= last.len() && text.ends_with(last)
}

/// The most specific profile that matches.
pub fn find<'a>(profiles: &'a [Profile], facts: &Facts) -> Option<&'a Profile> {
    profiles.iter().filter(|profile| profile.matches.is_met_by(facts)).max_by_key(|profile| profile.matches.weight())
}

impl BootSettings {
    /// The loader for a firmware, as the profile has it.
    pub fn loader(&self, firmware: Firmware) -> Option<&str> {
        match firmware {
            Firmware::Bios => self.bios_loader.as_deref(),
            Firmware::Uefi => self.uefi_loader.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_a_person_expects() {
        for (pattern, text, fits) in [
            ("qemu", "qemu", true),
            ("qemu", "qemu2", false),
            ("poweredge*", "poweredge r640", true),
            ("*pc*", "standard pc (i440fx)", true),
            ("a*b", "ab", true),
            ("a*b", "a-b-c", false),
            ("a*b", "a-b-b", true),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
