//! What the view knows, where its reader is, and what a key does. It asks nobody and draws nothing.

use crate::{
    cli::terminal::Key,
    http::{
        api::{
            boots::{BootShown, BootSummary},
            status::Status,
        },
        ui::states::look,
    },
};
use bennu_rules::{MacAddress, Timestamp, boot::BootId};
use std::collections::{BTreeMap, VecDeque};

/// Events that are kept.
const EVENTS: usize = 200;
/// A host's name (gethostname(2)).
const LONGEST_NAME: usize = 64;

/// What is known of the appliance.
#[derive(Debug, Default)]
pub struct Facts {
    /// How it is, as it said last.
    pub status: Option<Status>,
    /// Why it does not answer now.
    pub trouble: Option<String>,
    /// Machines that boot or wait, then those that failed.
    pub machines: Vec<Row>,
    /// What happened, the latest last.
    pub events: VecDeque<Event>,
    /// The first token, for as long as it is to be seen.
    pub token: Option<String>,
    /// The boot whose timeline is looked at.
    pub boot: Option<BootShown>,
    /// The present, by the clock of this host.
    pub now: Timestamp,
    /// What this machine is called, where it is the appliance's.
    pub host_name: String,
}

/// What a machine is on this screen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It boots.
    Booting,
    /// It waits for an assignment.
    Waiting,
    /// Its boot failed, or is stuck.
    Failed,
}

/// A machine by its latest boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub boot: BootId,
    pub machine: MacAddress,
    /// What people call it; empty: nothing.
    pub name: String,
    pub kind: Kind,
    pub image: String,
    pub stage: &'static str,
    pub percent: u8,
    pub opened: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    pub reason: String,
    pub advice: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub at: Timestamp,
    /// Of whom: a machine, or a part of this host.
    pub of: String,
    pub text: String,
}

impl Row {
    /// `None`: nobody at the console needs to see it.
    pub fn of(boot: &BootSummary, name: String, root: Option<u64>) -> Option<Self> {
        let look = look(Some(boot.state), boot.diagnosis.is_some());
        let kind = match look.kind {
            "failed" => Kind::Failed,
            "waiting" => Kind::Waiting,
            "booting" if boot.closed.is_none() => Kind::Booting,
            _ => return None,
        };
        let diagnosis = boot.diagnosis.clone();
        let (reason, advice) = diagnosis.map_or_else(Default::default, |found| (found.reason, found.advice));
        Some(Self {
            boot: boot.id.clone(),
            machine: boot.machine,
            name,
            kind,
            image: boot.image.as_ref().map(|image| image.reference.to_string()).unwrap_or_default(),
            stage: look.word,
            percent: boot.furthest.percent(root),
            opened: boot.opened,
            last_seen: boot.last_seen,
            reason: if reason.is_empty() { boot.last.clone() } else { reason },
            advice,
        })
    }
}

/// The latest boots of their machines: those that boot, by when they began, and those that failed, the latest first.
pub fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| match row.kind {
        Kind::Failed => (row.kind, u64::MAX - row.last_seen.0, row.machine),
        _ => (row.kind, row.opened.0, row.machine),
    });
    rows
}

/// How many machines are how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub up: usize,
    pub booting: usize,
    pub waiting: usize,
    pub failed: usize,
    pub local: usize,
    pub never: usize,
}

impl Counts {
    /// Of what the appliance says of its machines' states.
    pub fn of(states: &BTreeMap<String, usize>) -> Self {
        let mut counts = Self::default();
        for (state, count) in states {
            *match state.as_str() {
                "up" => &mut counts.up,
                "waiting" => &mut counts.waiting,
                "failed" => &mut counts.failed,
                "local" => &mut counts.local,
                "never" => &mut counts.never,
                _ => &mut counts.booting,
            } += count;
        }
        counts
    }
}

impl Facts {
    /// Something happened.
    pub fn tell(&mut self, event: Event) {
        self.events.push_back(event);
        while self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// What a machine goes by.
    pub fn name(&self, machine: MacAddress) -> String {
        let named = self.machines.iter().find(|row| row.machine == machine && !row.name.is_empty());
        named.map_or_else(|| machine.to_string(), |row| row.name.clone())
    }
}

/// What is asked of the machine that this runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Off,
    Restart,
    /// Everything goes that it keeps.
    Reset,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of it.
    Overview,
    /// One boot, from this line on.
    Timeline(usize),
    /// The keys.
    Help,
    /// A question before the machine ends; `true`: for the second time.
    Asking(Power, bool),
    /// The host's name is typed, to have everything go.
    Naming,
}

/// What has to be done for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    None,
    /// End the view.
    Leave,
    /// Draw everything anew.
    Redraw,
    /// The terminal said how large it is: rows, columns.
    Size(u16, u16),
    /// Show a boot.
    Look(BootId),
    /// Nobody needs to see the first token any more.
    PutTokenAway,
    Power(Power),
}

/// The reader's place.
#[derive(Debug)]
pub struct View {
    pub facts: Facts,
    pub mode: Mode,
    /// Of the machines, by boot, so that it stays where it is when others come and go.
    pub selected: Option<BootId>,
    /// Whether this is the host's own console: nothing is behind it, and its power may be switched.
    pub on_disc: bool,
    /// What is typed of the host's name.
    pub typed: String,
    /// What the last key could not do.
    pub remark: Option<&'static str>,
}

impl View {
    /// At its beginning.
    pub fn new(on_disc: bool) -> Self {
        Self {
            facts: Facts::default(),
            mode: Mode::Overview,
            selected: None,
            on_disc,
            typed: String::new(),
            remark: None,
        }
    }

    /// The place of the selected machine, if it is still there.
    pub fn place(&self) -> Option<usize> {
        self.facts.machines.iter().position(|row| Some(&row.boot) == self.selected.as_ref())
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Action {
        self.remark = None;
        match (self.mode, key) {
            (_, Key::Cursor(rows, columns)) => return Action::Size(rows, columns),
            (_, Key::Control('l')) => return Action::Redraw,
            (Mode::Asking(what, again), _) => return self.answered(what, again, key),
            (Mode::Naming, _) => return self.named(key),
            (Mode::Help, _) => self.mode = Mode::Overview,
            (_, Key::Text('?')) => self.mode = Mode::Help,
            (_, Key::Text('q') | Key::Control('c')) => return self.leave(),
            (_, Key::Text('p')) if self.on_disc => self.mode = Mode::Asking(Power::Off, false),
            (_, Key::Text('r')) if self.on_disc => self.mode = Mode::Asking(Power::Restart, false),
            (_, Key::Text('F')) if self.on_disc => self.mode = Mode::Asking(Power::Reset, false),
            (Mode::Timeline(from), _) => self.scroll(from, key),
            (Mode::Overview, Key::Text('t')) if self.facts.token.is_some() => return Action::PutTokenAway,
            (Mode::Overview, Key::Enter | Key::Right) => return self.look(),
            (Mode::Overview, _) => self.walk(key),
        }
        Action::None
    }

    fn leave(&mut self) -> Action {
        if self.on_disc {
            self.remark =
                Some("This is the machine's own console: there is nothing behind it. p switches off, r restarts.");
            return Action::None;
        }
        Action::Leave
    }

    fn answered(&mut self, what: Power, again: bool, key: Key) -> Action {
        let is_yes = matches!(key, Key::Text('y' | 'Y'));
        self.mode = match (is_yes, again, what) {
            (true, false, _) => Mode::Asking(what, true),
            (true, true, Power::Reset) => Mode::Naming,
            _ => Mode::Overview,
        };
        self.typed.clear();
        if is_yes && again && what != Power::Reset { Action::Power(what) } else { Action::None }
    }

    /// Takes a key of the host's name.
    fn named(&mut self, key: Key) -> Action {
        match key {
            Key::Text(c) if self.typed.chars().count() < LONGEST_NAME => self.typed.push(c),
            Key::Backspace => drop(self.typed.pop()),
            Key::Enter => {
                self.mode = Mode::Overview;
                if bennu_host::reset::is_named(&self.typed, &[&self.facts.host_name]) {
                    return Action::Power(Power::Reset);
                }
                self.remark = Some("That is not this machine's name: nothing is changed.");
            }
            Key::Escape => self.mode = Mode::Overview,
            _ => {}
        }
        Action::None
    }

    fn look(&mut self) -> Action {
        let Some(boot) = self.place().map(|place| self.facts.machines[place].boot.clone()) else {
            self.walk(Key::Down);
            return Action::None;
        };
        self.mode = Mode::Timeline(0);
        self.facts.boot = None;
        Action::Look(boot)
    }

    fn scroll(&mut self, from: usize, key: Key) {
        let last = self.facts.boot.as_ref().map_or(0, |boot| boot.timeline.len());
        self.mode = match key {
            Key::Up => Mode::Timeline(from.saturating_sub(1)),
            Key::Down => Mode::Timeline((from + 1).min(last)),
            Key::PageUp => Mode::Timeline(from.saturating_sub(10)),
            Key::PageDown | Key::Text(' ') => Mode::Timeline((from + 10).min(last)),
            Key::Home => Mode::Timeline(0),
            Key::End => Mode::Timeline(last),
            Key::Escape | Key::Left | Key::Enter | Key::Backspace => Mode::Overview,
            _ => self.mode,
        };
    }

    fn walk(&mut self, key: Key) {
        let count = self.facts.machines.len();
        let first_failed = self.facts.machines.iter().position(|row| row.kind == Kind::Failed).unwrap_or(0);
        let now = self.place();
        let to = match key {
            _ if count == 0 => return,
            Key::Down => now.map_or(0, |now| (now + 1).min(count - 1)),
            Key::Up => now.map_or(count - 1, |now| now.saturating_sub(1)),
            Key::PageDown => now.map_or(0, |now| (now + 10).min(count - 1)),
            Key::PageUp => now.map_or(0, |now| now.saturating_sub(10)),
            Key::Home => 0,
            Key::End => count - 1,
            // From those that boot to those that failed, and back.
            Key::Tab | Key::BackTab => match now {
                Some(now) if now >= first_failed => 0,
                _ => first_failed,
            },
            Key::Escape => {
                self.selected = None;
                return;
            }
            _ => return,
        };
        self.selected = self.facts.machines.get(to).map(|row| row.boot.clone());
    }
}
