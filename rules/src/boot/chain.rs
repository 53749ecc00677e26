//! Which chain of loaders a UEFI firmware is given: iPXE alone, or shim and GRUB with their signatures.
//!
//! No DHCP option tells whether Secure Boot is on. What tells is the firmware's conduct: it fetches an unsigned loader
//! to its last byte and does not run it. So, unless a setting says otherwise, a machine is given the plain loader
//! first; where that was fetched and never heard of, the next boot is given the signed chain; and what was learnt stays
//! on the machine's record once the signed chain has come to its boot script.

use super::{Boot, State};
use crate::{
    Machine,
    image::Digest,
    journey::{Diagnosis, Seen},
    settings::{SecureBoot, Settings},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// shim, as the firmware asks for it.
pub const SHIM: &str = "shimx64.efi";
/// GRUB, as shim asks for it: shim puts this name in the place of its own (`DEFAULT_LOADER` in its sources).
pub const GRUB: &str = "grubx64.efi";
/// Where the signed loaders of images are served, each image's under its digest.
pub const OF_IMAGES: &str = "signed";

/// What a boot's firmware is given, and what led to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chain {
    /// Whether it is shim and GRUB.
    pub signed: bool,
    /// Why.
    pub why: Why,
    /// Loaders that were fetched and never heard of in the boots before this one.
    pub unheard: Unheard,
    /// The image whose vendor's shim and GRUB it is; Bennu's own without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
}

/// Why a chain was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nothing speaks against the plain loader.
    #[default]
    Plain,
    /// `boot.secure_boot` says so.
    Setting,
    /// The hardware profile says so.
    Profile,
    /// The machine's record says so.
    Record,
    /// The plain loader was not run in the boot before.
    Refused,
    /// Neither was run: one after the other is tried.
    Alternates,
}

/// How often loaders of each kind were fetched whole and never heard of, in boots one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Unheard {
    pub plain: u32,
    pub signed: u32,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "nothing tells of Secure Boot",
            Self::Setting => "the setting boot.secure_boot says so",
            Self::Profile => "its hardware profile says so",
            Self::Record => "its firmware once refused an unsigned loader, and booted through shim",
            Self::Refused => "its firmware did not run the unsigned loader",
            Self::Alternates => "its firmware ran neither the unsigned loader nor shim: they take turns",
        })
    }
}

/// Once both have failed twice, each fourth boot is the plain loader's. The others are shim's, since shim runs with Secure
/// Boot off as well as with the right certificate enrolled: whichever of the two a person mends, the machine boots.
const TURN: u32 = 4;

impl Chain {
    /// Chooses for a boot that begins now, after `last`.
    pub fn choose(record: Option<&Machine>, last: Option<&Boot>, settings: &Settings) -> Self {
        let profile = record.and_then(|machine| settings.profile(&machine.facts));
        let unheard = last.map(after).unwrap_or_default();
        let of = |signed, why| Self { signed, why, unheard, image: None };
        match settings.secure_boot {
            SecureBoot::Always => return of(true, Why::Setting),
            SecureBoot::Never => return of(false, Why::Setting),
            SecureBoot::Auto if profile.is_some_and(|found| found.settings.signed_loader) => {
                return of(true, Why::Profile);
            }
            SecureBoot::Auto => {}
        }
        let remembered = record.is_some_and(|machine| machine.signed_loader.is_some());
        match unheard.plain + unheard.signed {
            0 => of(remembered, if remembered { Why::Record } else { Why::Plain }),
            1 if !remembered => of(true, Why::Refused),
            turn @ 1..=2 => of(remembered == (turn == 2), Why::Alternates),
            turn => of(turn % TURN != 2, Why::Alternates),
        }
    }

    /// The choice as the end of a sentence.
    pub fn describe(&self) -> String {
        let given = if self.signed { "shim and GRUB" } else { "the unsigned loader" };
        format!("{given}: {}", self.why)
    }

    /// What a machine's record learns of its firmware when a loader asks for its script: GRUB after the plain loader was
    /// not run, or iPXE after shim was not. `None`: nothing new.
    pub fn learn(&self, asks_grub: bool, known: bool) -> Option<bool> {
        let Unheard { plain, signed } = self.unheard;
        match (self.signed, asks_grub) {
            (true, true) if !known && plain > 0 => Some(true),
            (false, false) if known && signed > 0 => Some(false),
            _ => None,
        }
    }

    /// Whether the next boot may get the other chain.
    fn may_change(&self) -> bool {
        !matches!(self.why, Why::Setting | Why::Profile)
    }
}

/// What is to be known after a boot that ended, or that goes on no more.
fn after(last: &Boot) -> Unheard {
    let mut unheard = last.chain.unheard;
    match stuck_at(last) {
        Some(Stuck { signed: true, .. }) => unheard.signed += 1,
        // HTTP boot has no signed chain to change to, so it is no turn of its own.
        Some(Stuck { by_http: true, .. }) => unheard.plain = unheard.plain.max(1),
        Some(_) => unheard.plain += 1,
        None if last.state > State::Loader || was_heard(last) => unheard = Unheard::default(),
        None => {}
    }
    unheard
}

/// The last loader that a firmware fetched whole, where nothing was heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    file: String,
    signed: bool,
    by_http: bool,
}

/// Whether a loader spoke: iPXE asks DHCP, and every loader asks for its script.
fn was_heard(boot: &Boot) -> bool {
    boot.timeline.iter().any(|line| match &line.seen {
        Seen::DhcpDiscover { asker, .. } => asker == "ipxe",
        Seen::ScriptRead { .. } | Seen::Reported { .. } => true,
        _ => false,
    })
}

/// Where a boot is stuck whose firmware fetched a loader that was never heard of.
pub fn stuck_at(boot: &Boot) -> Option<Stuck> {
    let is_of_uefi = boot.system.is_some_and(|system| system.firmware == crate::facts::Firmware::Uefi);
    if !is_of_uefi || boot.token.is_some() || was_heard(boot) {
        return None;
    }
    boot.timeline.iter().rev().find_map(|line| match &line.seen {
        Seen::LoaderRead { by, file, complete: true, .. } => {
            Some(Stuck { signed: is_signed(file), by_http: by == "http", file: file.clone() })
        }
        _ => None,
    })
}

/// Whether a file is of the signed chain.
pub fn is_signed(file: &str) -> bool {
    matches!(file.rsplit('/').next(), Some(SHIM | GRUB | "grub.efi")) || file.ends_with("grub.cfg")
}

impl Stuck {
    /// What happened, for the timeline.
    pub fn reason(&self) -> String {
        let Self { file, .. } = self;
        if !self.signed {
            return format!("the firmware fetched {file} and did not run it: Secure Boot refuses unsigned loaders");
        }
        match file.rsplit('/').next() {
            Some(SHIM) => format!(
                "the firmware fetched {file} and shim did not ask for GRUB: the firmware does not trust shim's \
                 signature (Microsoft's \"3rd Party UEFI CA\")"
            ),
            Some(GRUB | "grub.efi") => format!(
                "shim fetched {file} and GRUB did not ask for its configuration: shim does not trust this GRUB, or has \
                 revoked it (SBAT)"
            ),
            _ => format!("GRUB fetched {file} and did not ask for the machine's script"),
        }
    }

    /// What to do, and what the next boot does by itself.
    pub fn diagnose(&self, chain: &Chain) -> Diagnosis {
        let both =
            chain.unheard.plain + u32::from(!self.signed) > 0 && chain.unheard.signed + u32::from(self.signed) > 0;
        let advice = if self.by_http {
            "Debian's signed GRUB cannot load over HTTP, so Secure Boot needs PXE: put PXE (IPv4) before HTTP boot in \
             the firmware's boot order; its next boot by PXE uses shim and GRUB."
        } else if both && chain.may_change() {
            "Neither the unsigned loader nor shim and GRUB ran; later boots try them in turn. In the firmware's setup, \
             allow Microsoft's 3rd party UEFI CA, or switch Secure Boot off; then power-cycle the machine."
        } else if !chain.may_change() && !self.signed {
            "If Secure Boot is on, write secure_boot = \"auto\" under [boot] in the configuration and restart Bennu, or \
             switch Secure Boot off in the firmware's setup. If it is off, the loader cannot drive this network card: \
             set another one in the machine's hardware profile."
        } else if !self.signed {
            "The next boot uses shim and GRUB: power-cycle the machine if it does not start again by itself. If Secure \
             Boot is off, the loader cannot drive this network card, and GRUB may."
        } else if chain.may_change() {
            "The next boot uses the unsigned loader. If Secure Boot is on, allow Microsoft's 3rd party UEFI CA in the \
             firmware's setup."
        } else {
            "In the firmware's setup, allow Microsoft's 3rd party UEFI CA, or switch Secure Boot off."
        };
        Diagnosis { reason: self.reason(), advice: advice.to_owned() }
    }
}
