//! Which boots were counted already: each counts once for what it came to.

use bennu_rules::{
    Live, MacAddress,
    boot::{Boot, BootId, State},
    decision::MAX_OPEN_BOOTS,
};
use std::collections::BTreeMap;

/// What a boot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// The booted system said so.
    Up,
    /// It was sent to its own disk.
    Local,
    /// It failed; stage 1 may still try again.
    Failed,
    /// The firmware started again before anything else was seen.
    Superseded,
}

impl Came {
    /// Every end.
    pub const ALL: [Self; 4] = [Self::Up, Self::Local, Self::Failed, Self::Superseded];

    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Local => "local",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }

    fn of(boot: &Boot) -> Option<Self> {
        match boot.state {
            State::Up => Some(Self::Up),
            State::Local => Some(Self::Local),
            State::Failed => Some(Self::Failed),
            State::Superseded => Some(Self::Superseded),
            State::Firmware | State::Loader | State::Waiting | State::Script | State::Stage1 | State::Init => None,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// For the latest boot of each machine, what was counted of it.
#[derive(Debug, Default)]
pub struct Tally {
    counted: BTreeMap<MacAddress, (BootId, u8)>,
}

impl Tally {
    /// What a boot came to, where that was not counted yet.
    pub fn take(&mut self, boot: &Boot) -> Option<Came> {
        let came = Came::of(boot)?;
        let (latest, counted) = self.counted.entry(boot.machine).or_insert_with(|| (boot.id.clone(), 0));
        // Boots' names sort by time. One that could not be stored comes again, after its successor.
        if *latest > boot.id {
            return None;
        }
        if *latest < boot.id {
            (*latest, *counted) = (boot.id.clone(), 0);
        }
        let is_new = *counted & came.bit() == 0;
        *counted |= came.bit();
        is_new.then_some(came)
    }

    /// Forgets machines of which no boot is remembered: cards that were invented must not fill the memory.
    pub fn prune(&mut self, live: &Live) {
        if self.counted.len() > 2 * MAX_OPEN_BOOTS {
            self.counted.retain(|machine, _| live.boot(*machine).is_some());
        }
    }
}
