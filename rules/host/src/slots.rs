//! The two slots of the state disk that hold discs, and what GRUB and the appliance tell each other of them.
//!
//! A disc that is installed in a slot has one try: GRUB takes it away before it starts that disc, and the disc's first
//! process makes the slot the good one once the service is ready. A disc that does not get so far has no try left, so the
//! next start goes back to what ran before, whoever or whatever caused it.
//!
//! What both remember is in GRUB's environment block, a file of a fixed size that each of them writes in place.

use crate::door::{InSlot, Standing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of GRUB's environment block (the manual's section "The GRUB environment block").
pub const BLOCK: usize = 1024;
const HEAD: &str = "# GRUB Environment Block\n";

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`, as GRUB, file names and the kernel's arguments have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The slot of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.name() == name)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.name())
    }
}

/// A disc.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What it calls itself.
    pub version: String,
    /// When its contents were made, in seconds since 1970: a later disc has a greater number.
    pub built: u64,
}

/// A disc in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub release: Release,
    /// The medium is started instead when it was built after this: when the disc was built itself, or, where an older one
    /// was asked for, when that was built which it took the place of.
    pub rank: u64,
}

/// What is known of both slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// What is in them.
    pub held: BTreeMap<Slot, Held>,
    /// The one that starts.
    pub good: Option<Slot>,
    /// The one that is tried at the next start, or is being tried, and whether its try is left.
    pub trial: Option<(Slot, bool)>,
    /// The one that did not become ready when it was tried.
    pub failed: Option<Slot>,
}

/// What is no environment block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoBlock;

/// Variables of the block. GRUB's configuration (`iso/src/grub.rs`) has the same names.
const GOOD: &str = "good";
const TRIAL: &str = "trial";
const TRIES: &str = "tries";
const FAILED: &str = "failed";

impl Slots {
    /// Reads an environment block. Variables that are not known, or make no sense, are left out.
    pub fn read(block: &[u8]) -> Result<Self, NoBlock> {
        let text = block.strip_prefix(HEAD.as_bytes()).ok_or(NoBlock)?;
        let variables = variables(&String::from_utf8_lossy(text));
        let value = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
        let held = Slot::ALL.into_iter().filter_map(|slot| {
            let of = |what: &str| value(&format!("{}_{what}", slot.name()));
            let built = of("built").parse().ok()?;
            let rank = of("rank").parse().unwrap_or(built);
            Some((slot, Held { release: Release { version: of("version").to_owned(), built }, rank }))
        });
        let held: BTreeMap<Slot, Held> = held.collect();
        let named = |name: &str| Slot::of(value(name)).filter(|slot| held.contains_key(slot));
        let (good, failed) = (named(GOOD), named(FAILED));
        let trial = named(TRIAL).map(|slot| (slot, value(TRIES) == "1"));
        Ok(Self { held, good, trial, failed })
    }

    /// The block; `None` when it has no room for the versions' names.
    pub fn write(&self) -> Option<Vec<u8>> {
        let name = |slot: Option<Slot>| slot.map(Slot::name).unwrap_or_default().to_owned();
        let mut variables = vec![
            (GOOD.to_owned(), name(self.good)),
            (TRIAL.to_owned(), name(self.trial.map(|(slot, _)| slot))),
            (TRIES.to_owned(), if matches!(self.trial, Some((_, true))) { "1" } else { "0" }.to_owned()),
            (FAILED.to_owned(), name(self.failed)),
        ];
        for (slot, held) in &self.held {
            let of = |what: &str| format!("{}_{what}", slot.name());
            variables.push((of("version"), held.release.version.clone()));
            variables.push((of("built"), held.release.built.to_string()));
            variables.push((of("rank"), held.rank.to_string()));
        }
        let mut text = HEAD.to_owned();
        for (name, value) in variables {
            let value = value.replace('\\', "\\\\").replace('\n', "\\\n");
            text += &format!("{name}={value}\n");
        }
        let mut block = text.into_bytes();
        (block.len() <= BLOCK).then(|| {
            block.resize(BLOCK, b'#');
            block
        })
    }

    /// Where a new disc goes: never over what runs, nor over what would be gone back to.
    pub fn free(&self, running: Option<Slot>) -> Slot {
        running.or(self.good).map_or(Slot::A, Slot::other)
    }

    /// A slot is about to be written: nothing of it counts.
    pub fn cleared(mut self, slot: Slot) -> Self {
        self.held.remove(&slot);
        self.good = self.good.filter(|good| *good != slot);
        self.trial = self.trial.filter(|(trial, _)| *trial != slot);
        self.failed = self.failed.filter(|failed| *failed != slot);
        self
    }

    /// A disc is in a slot, and is tried at the next start.
    pub fn installed(self, slot: Slot, release: Release, running: &Release) -> Self {
        let mut slots = self.cleared(slot);
        let rank = release.built.max(running.built);
        slots.held.insert(slot, Held { release, rank });
        slots.trial = Some((slot, true));
        slots.failed = None;
        slots
    }

    /// The appliance has started from a slot, or from the medium: a trial whose try is gone has failed when something else runs.
    pub fn started(mut self, running: Option<Slot>) -> Self {
        if let Some((trial, false)) = self.trial
            && running != Some(trial)
        {
            self.trial = None;
            self.failed = Some(trial);
        }
        self
    }

    /// The service is ready: what runs is good.
    pub fn ready(mut self, running: Option<Slot>) -> Self {
        if let Some((trial, _)) = self.trial
            && running == Some(trial)
        {
            self.trial = None;
            self.failed = None;
            self.good = Some(trial);
        }
        self
    }

    /// What becomes of each.
    pub fn standing(&self) -> Vec<InSlot> {
        let standing = |slot| match slot {
            slot if self.trial.is_some_and(|(trial, _)| trial == slot) => Standing::Trial,
            slot if self.good == Some(slot) => Standing::Good,
            slot if self.failed == Some(slot) => Standing::Failed,
            _ => Standing::Kept,
        };
        let shown = |(slot, held): (&Slot, &Held)| InSlot {
            slot: *slot,
            release: held.release.clone(),
            standing: standing(*slot),
        };
        self.held.iter().map(shown).collect()
    }

    /// What to say of an upgrade that failed.
    pub fn failure(&self) -> Option<&Release> {
        self.failed.and_then(|slot| self.held.get(&slot)).map(|held| &held.release)
    }
}

/// The variables after the block's head. A backslash takes the meaning from the character after it.
fn variables(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut line = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => line.extend(chars.next()),
            '\n' => {
                if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                    variables.insert(name.to_owned(), value.to_owned());
                }
                line.clear();
            }
            c => line.push(c),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, built: u64) -> Release {
        Release { version: version.into(), built }
    }

    #[test]
    fn what_is_written_is_read() {
        let slots = Slots::default().installed(Slot::B, release("0.2 \\x=1", 7), &release("0.1", 5));
        let block = slots.write().unwrap();
        assert_eq!(block.len(), BLOCK);
        assert_eq!(Slots::read(&block), Ok(slots));
        assert_eq!(Slots::read(&Slots::default().write().unwrap()), Ok(Slots::default()));
        assert_eq!(Slots::read(b"# something else\n"), Err(NoBlock));
        let long = Slots::default().installed(Slot::A, release(&"x".repeat(BLOCK), 7), &release("0.1", 5));
        assert_eq!(long.write(), None);
    }

    #[test]
    fn a_slot_that_holds_nothing_is_neither_good_nor_tried() {
        let block = format!("{HEAD}# a remark\ngood=a\ntrial=b\ntries=1\nfailed=c\nb_version=2\nb_built=seven\n####");
        assert_eq!(Slots::read(block.as_bytes()), Ok(Slots::default()));
    }

    #[test]
    fn an_upgrade_that_becomes_ready_is_good() {
        let (old, new) = (release("1", 10), release("2", 20));
        let slots = Slots::default();
        assert_eq!(slots.free(None), Slot::A);
        let slots = slots.installed(Slot::A, new.clone(), &old);
        assert_eq!(slots.trial, Some((Slot::A, true)));
        // GRUB takes the try away.
        let tried = Slots { trial: Some((Slot::A, false)), ..slots };
        let running = tried.started(Some(Slot::A));
        assert_eq!(running.trial, Some((Slot::A, false)));
        let good = running.ready(Some(Slot::A));
        assert_eq!((good.good, good.trial, good.failed), (Some(Slot::A), None, None));
        assert_eq!(good.free(Some(Slot::A)), Slot::B);
        // From the medium, what is good is not written over either.
        assert_eq!(good.free(None), Slot::B);
    }

    #[test]
    fn an_upgrade_that_does_not_become_ready_has_failed_and_the_good_one_stays() {
        let good = Slots::default().installed(Slot::A, release("2", 20), &release("1", 10)).ready(Some(Slot::A));
        let slots = good.installed(Slot::B, release("3", 30), &release("2", 20));
        assert_eq!(slots.good, Some(Slot::A));
        // Its try is left: the power was cut before GRUB saw it.
        assert_eq!(slots.clone().started(Some(Slot::A)), slots);
        let tried = Slots { trial: Some((Slot::B, false)), ..slots };
        let back = tried.started(Some(Slot::A)).ready(Some(Slot::A));
        assert_eq!((back.good, back.trial, back.failed), (Some(Slot::A), None, Some(Slot::B)));
        assert_eq!(back.failure().unwrap().version, "3");
        // The next one forgets it.
        assert_eq!(back.installed(Slot::B, release("4", 40), &release("2", 20)).failed, None);
    }

    #[test]
    fn an_older_one_that_was_asked_for_counts_as_what_it_replaces() {
        let slots = Slots::default().installed(Slot::A, release("1", 10), &release("2", 20));
        assert_eq!(slots.held[&Slot::A].rank, 20);
    }
}
