//! The boots that are going on.

use crate::{
    MacAddress, Timestamp,
    boot::{Boot, Token},
    journey::Observation,
};
use std::collections::{BTreeMap, BTreeSet};

/// Boots remembered at once, so that a flood of invented addresses cannot fill the memory.
pub const MAX_OPEN_BOOTS: usize = 8192;

/// What a boot is worth keeping for; the least goes first: those of strangers that were given no script yet, then those
/// that are over, then those without a script, and among equals the oldest.
type Worth = (bool, bool, bool, Timestamp);

/// Boots, each found by its machine, by its token, and by what it is worth.
#[derive(Debug, Clone, Default)]
pub(super) struct Boots {
    /// Boxed: a node of the tree has places for eleven, and half of them stay empty.
    held: BTreeMap<MacAddress, Box<Boot>>,
    tokens: BTreeMap<Token, MacAddress>,
    order: BTreeSet<(Worth, MacAddress)>,
    ended: Vec<Boot>,
}

fn worth(boot: &Boot) -> Worth {
    let has_script = boot.token.is_some();
    (has_script || !boot.is_a_strangers, boot.is_open(), has_script, boot.opened)
}

impl Boots {
    pub fn of(&self, machine: MacAddress) -> Option<&Boot> {
        self.held.get(&machine).map(Box::as_ref)
    }

    pub fn by_token(&self, token: &Token) -> Option<&Boot> {
        self.held.get(self.tokens.get(token)?).map(Box::as_ref)
    }

    pub fn all(&self) -> impl Iterator<Item = &Boot> {
        self.held.values().map(Box::as_ref)
    }

    pub fn observe(&mut self, machine: MacAddress, observation: Observation) -> Option<&Boot> {
        let boot = self.held.get_mut(&machine)?;
        let before = worth(boot);
        boot.observe(observation);
        let after = worth(boot);
        if before != after {
            self.order.remove(&(before, machine));
            self.order.insert((after, machine));
        }
        Some(boot)
    }

    pub fn put(&mut self, boot: Boot) {
        if let Some(mut earlier) = self.held.get(&boot.machine).filter(|earlier| earlier.id != boot.id).cloned() {
            earlier.give_way(&boot);
            self.keep_ended(*earlier);
        }
        self.insert(boot);
    }

    /// Holds a boot in the place of its machine's earlier one, of which nothing is said.
    pub fn insert(&mut self, boot: Boot) {
        self.remove(boot.machine);
        if self.held.len() >= MAX_OPEN_BOOTS
            && let Some((_, machine)) = self.order.first().copied()
        {
            self.remove(machine);
        }
        if let Some(token) = &boot.token {
            self.tokens.insert(token.clone(), boot.machine);
        }
        self.order.insert((worth(&boot), boot.machine));
        self.held.insert(boot.machine, Box::new(boot));
    }

    pub fn remove(&mut self, machine: MacAddress) {
        let Some(boot) = self.held.remove(&machine) else { return };
        self.order.remove(&(worth(&boot), machine));
        if let Some(token) = boot.token {
            self.tokens.remove(&token);
        }
    }

    pub fn keep_ended(&mut self, boot: Boot) {
        if self.ended.len() < MAX_OPEN_BOOTS {
            self.ended.push(boot);
        }
    }

    pub fn take_ended(&mut self) -> Vec<Boot> {
        std::mem::take(&mut self.ended)
    }
}
