//! What selectors are asked about: labels that people gave, and what is known of the hardware.
//!
//! | key | values |
//! |---|---|
//! | `bennu.arch` | `x86_64`, `arm64`, … |
//! | `bennu.firmware` | `bios`, `uefi` |
//! | `bennu.profile` | the name of the hardware profile that matches |
//! | `bennu.manufacturer`, `bennu.product`, `bennu.serial` | as SMBIOS has them; case does not count |
//! | `bennu.mac` | any of the machine's MAC addresses, in any usual form |

use crate::{
    MacAddress, Machine,
    facts::{Architecture, Facts, Firmware},
    settings::Settings,
};
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error};
use std::{cell::OnceCell, collections::BTreeMap};

/// What keys that Bennu derives begin with. No label of a person may.
pub const RESERVED: &str = "bennu.";

/// The keys that Bennu derives.
pub const DERIVED: [&str; 7] = [
    "bennu.arch",
    "bennu.firmware",
    "bennu.mac",
    "bennu.manufacturer",
    "bennu.product",
    "bennu.profile",
    "bennu.serial",
];

/// Whether a key is one of those that Bennu derives or may derive one day.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with(RESERVED)
}

/// Who may be meant by a selector.
pub struct Subject<'a> {
    labels: &'a BTreeMap<String, String>,
    hardware: Option<Hardware<'a>>,
}

struct Hardware<'a> {
    macs: &'a [MacAddress],
    facts: &'a Facts,
    settings: &'a Settings,
    profile: OnceCell<Option<&'a str>>,
}

impl<'a> Subject<'a> {
    /// Labels alone.
    pub fn of_labels(labels: &'a BTreeMap<String, String>) -> Self {
        Self { labels, hardware: None }
    }

    /// A machine's labels and hardware.
    pub fn of_machine(machine: &'a Machine, settings: &'a Settings) -> Self {
        let Machine { macs, labels, facts, .. } = machine;
        Self { labels, hardware: Some(Hardware { macs, facts, settings, profile: OnceCell::new() }) }
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        if !is_reserved(key) {
            return self.labels.contains_key(key);
        }
        self.hardware.as_ref().is_some_and(|hardware| hardware.knows(key))
    }

    pub(super) fn has(&self, key: &str, value: &str) -> bool {
        if !is_reserved(key) {
            return self.labels.get(key).is_some_and(|own| own == value);
        }
        self.hardware.as_ref().is_some_and(|hardware| hardware.has(key, value))
    }
}

impl<'a> Hardware<'a> {
    fn profile(&self) -> Option<&'a str> {
        let find = || self.settings.profile(self.facts).map(|profile| profile.name.as_str());
        *self.profile.get_or_init(find)
    }

    fn knows(&self, key: &str) -> bool {
        match key {
            "bennu.arch" => self.facts.architecture.is_some(),
            "bennu.firmware" => self.facts.firmware.is_some(),
            "bennu.mac" => !self.macs.is_empty(),
            "bennu.manufacturer" => self.facts.manufacturer.is_some(),
            "bennu.product" => self.facts.product.is_some(),
            "bennu.profile" => self.profile().is_some(),
            "bennu.serial" => self.facts.serial.is_some(),
            _ => false,
        }
    }

    fn has(&self, key: &str, value: &str) -> bool {
        let says = |fact: &Option<String>| fact.as_ref().is_some_and(|fact| same_text(fact, value));
        match key {
            "bennu.arch" => self.facts.architecture.is_some() && self.facts.architecture == word::<Architecture>(value),
            "bennu.firmware" => self.facts.firmware.is_some() && self.facts.firmware == word::<Firmware>(value),
            "bennu.mac" => value.parse().is_ok_and(|mac: MacAddress| self.macs.contains(&mac)),
            "bennu.manufacturer" => says(&self.facts.manufacturer),
            "bennu.product" => says(&self.facts.product),
            "bennu.profile" => self.profile() == Some(value),
            "bennu.serial" => says(&self.facts.serial),
            _ => false,
        }
    }
}

fn same_text(fact: &str, value: &str) -> bool {
    fact.trim().to_lowercase() == value.trim().to_lowercase()
}

/// One of an enum's words, as its records write it.
fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(IntoDeserializer::<Error>::into_deserializer(text)).ok()
}

/// Why a derived key can never have a value, if it cannot.
pub(super) fn impossible(key: &str, value: &str) -> Option<&'static str> {
    match key {
        "bennu.arch" if word::<Architecture>(value).is_none() => {
            Some("is no architecture; write one such as x86_64, arm64 or riscv64")
        }
        "bennu.firmware" if word::<Firmware>(value).is_none() => Some("is no firmware; write bios or uefi"),
        "bennu.mac" if value.parse::<MacAddress>().is_err() => Some("is no MAC address; write six hex pairs"),
        _ => None,
    }
}
