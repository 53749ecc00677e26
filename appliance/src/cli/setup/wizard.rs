//! The questions of the set-up, one after the other: a key leads from one to the next. It asks no system and draws nothing.

use super::written::{Answers, Mode, UTC, proposed_address, proposed_range};
use crate::cli::terminal::Key;
use bennu_host::{
    setup::{Disk, Disks},
    vault::{Encryption, SMALLEST},
};
use std::net::Ipv4Addr;

/// Nothing that is asked for is longer.
const LONGEST: usize = 128;

/// A DHCP server that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub server: Ipv4Addr,
    /// Whether it is another Bennu, and then whether it gives addresses.
    pub is_bennu: bool,
    pub gives_addresses: bool,
}

/// A network card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    pub mac: String,
    pub driver: String,
    /// Whether its cable leads to something.
    pub link: bool,
    /// Who answered there; `None`: it is not known yet.
    pub heard: Option<Vec<Heard>>,
}

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Interface,
    Address,
    Dhcp,
    Range,
    Router,
    Dns,
    Name,
    Zone,
    State,
    /// Belongs to the one before.
    Erase,
    Encryption,
    Summary,
}

/// In their order.
const STEPS: [Step; 12] = [
    Step::Interface,
    Step::Address,
    Step::Dhcp,
    Step::Range,
    Step::Router,
    Step::Dns,
    Step::Name,
    Step::Zone,
    Step::State,
    Step::Erase,
    Step::Encryption,
    Step::Summary,
];

/// Where the state is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// Where it is, or where the host's own configuration says.
    #[default]
    Kept,
    Memory,
    /// What is free on the medium.
    Stick(Disk),
    Disk(Disk),
}

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    None,
    /// Another question: everything is drawn anew.
    Step,
    Redraw,
    Size(u16, u16),
    /// The first question was left.
    Leave,
    Done(Done),
}

/// What the answers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The configuration.
    pub text: String,
    /// The disk that is to lose what is on it.
    pub erase: Option<String>,
}

/// Says what is wrong with a configuration.
pub type Check = fn(&str) -> Result<(), String>;

/// The set-up, at one of its questions.
#[derive(Debug)]
pub struct Wizard {
    pub cards: Vec<Card>,
    /// `None`: this host's state is not asked for.
    pub disks: Option<Disks>,
    pub step: Step,
    /// What was typed, by question; what was proposed for it counts until then.
    typed: [Option<String>; STEPS.len()],
    /// The choice at a question that has some.
    chosen: [Option<usize>; STEPS.len()],
    /// What is wrong with the last answer.
    pub wrong: Option<String>,
    check: Check,
}

impl Wizard {
    /// At the first question.
    pub fn new(cards: Vec<Card>, disks: Option<Disks>, check: Check) -> Self {
        let (typed, chosen) = (Default::default(), Default::default());
        Self { cards, disks, step: Step::Interface, typed, chosen, wrong: None, check }
    }

    /// The number of the question, and how many there are.
    pub fn number(&self) -> (usize, usize) {
        let asked: Vec<Step> = STEPS.into_iter().filter(|step| *step != Step::Erase && self.is_asked(*step)).collect();
        let at = asked.iter().filter(|step| **step <= self.step).count();
        (at, asked.len())
    }

    /// Whether a question is asked at all, after what was answered so far.
    fn is_asked(&self, step: Step) -> bool {
        match step {
            Step::Range => self.mode() == Mode::Full,
            Step::State => self.disks.as_ref().is_some_and(|disks| disks.state.is_none()),
            Step::Erase => self.erased().is_some(),
            Step::Encryption => matches!(self.place(), Place::Stick(_) | Place::Disk(_)),
            _ => true,
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Outcome {
        let choices = self.choices().len();
        match key {
            Key::Cursor(rows, columns) => return Outcome::Size(rows, columns),
            Key::Control('l') => return Outcome::Redraw,
            Key::Escape => return self.back(),
            Key::Enter => return self.forth(),
            Key::Up | Key::BackTab if choices > 0 => self.choose(self.choice().saturating_sub(1)),
            Key::Down | Key::Tab if choices > 0 => self.choose((self.choice() + 1).min(choices - 1)),
            _ if choices > 0 || self.step == Step::Summary => return Outcome::None,
            Key::Text(c) if self.text().len() < LONGEST => self.edit(|text| text.push(c)),
            Key::Backspace => self.edit(|text| {
                text.pop();
            }),
            Key::Control('u') => self.edit(String::clear),
            _ => return Outcome::None,
        }
        self.wrong = None;
        Outcome::None
    }

    fn choose(&mut self, place: usize) {
        self.chosen[self.step as usize] = Some(place);
    }

    fn edit(&mut self, edit: impl FnOnce(&mut String)) {
        let mut text = self.text();
        edit(&mut text);
        self.typed[self.step as usize] = Some(text);
    }

    fn back(&mut self) -> Outcome {
        self.wrong = None;
        match STEPS.into_iter().rev().find(|step| *step < self.step && self.is_asked(*step)) {
            Some(step) => {
                self.step = step;
                Outcome::Step
            }
            None => Outcome::Leave,
        }
    }

    fn forth(&mut self) -> Outcome {
        self.wrong = self.judge().err();
        if self.wrong.is_some() {
            return Outcome::None;
        }
        match STEPS.into_iter().find(|step| *step > self.step && self.is_asked(*step)) {
            Some(step) => {
                self.step = step;
                Outcome::Step
            }
            None => Outcome::Done(Done { text: self.answers().text(), erase: self.erased().map(|disk| disk.serial) }),
        }
    }

    /// The lines to choose from; none where something is typed.
    pub fn choices(&self) -> Vec<String> {
        match self.step {
            Step::Interface => self.cards.iter().map(described).collect(),
            Step::Dhcp => [
                "full   this appliance gives the addresses",
                "proxy  another DHCP server gives them, this appliance adds the boot server",
                "off    no DHCP: machines are told the boot server some other way",
            ]
            .map(str::to_owned)
            .to_vec(),
            Step::State => self.places().iter().map(told).collect(),
            Step::Encryption => self.encryptions().into_iter().map(locked).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Which of them is marked.
    pub fn choice(&self) -> usize {
        self.chosen_at(self.step)
    }

    fn chosen_at(&self, step: Step) -> usize {
        let proposed = || match step {
            // The only one with a cable most often is the one.
            Step::Interface => self.cards.iter().position(|card| card.link).unwrap_or(0),
            Step::Dhcp if self.others().iter().any(|other| other.gives_addresses) => Mode::Proxy as usize,
            _ => 0,
        };
        self.chosen[step as usize].unwrap_or_else(proposed)
    }

    /// What is typed at this question.
    pub fn text(&self) -> String {
        self.text_at(self.step)
    }

    fn text_at(&self, step: Step) -> String {
        let proposed = || match step {
            Step::Address => proposed_address(self.others().first().map(|other| other.server)),
            Step::Range => self.text_at(Step::Address).parse().ok().map(proposed_range).unwrap_or_default(),
            Step::Name => "bennu1".into(),
            Step::Zone => UTC.into(),
            _ => String::new(),
        };
        self.typed[step as usize].clone().unwrap_or_else(proposed)
    }

    /// The card that was chosen.
    pub fn card(&self) -> Option<&Card> {
        self.cards.get(self.chosen_at(Step::Interface))
    }

    fn others(&self) -> &[Heard] {
        self.card().and_then(|card| card.heard.as_deref()).unwrap_or_default()
    }

    fn mode(&self) -> Mode {
        Mode::ALL[self.chosen_at(Step::Dhcp).min(2)]
    }

    /// What could open the state: a TPM that is not there cannot.
    fn encryptions(&self) -> Vec<Encryption> {
        let has_tpm = self.disks.as_ref().is_some_and(|disks| disks.tpm);
        Encryption::ALL.into_iter().filter(|how| *how != Encryption::Tpm || has_tpm).collect()
    }

    fn encryption(&self) -> Encryption {
        if !self.is_asked(Step::Encryption) {
            return Encryption::None;
        }
        self.encryptions().get(self.chosen_at(Step::Encryption)).copied().unwrap_or_default()
    }

    /// Where the state could be: empty disks first, then the medium, memory, and disks with something on them.
    fn places(&self) -> Vec<Place> {
        let disks = self
            .disks
            .iter()
            .flat_map(|disks| &disks.disk)
            .filter(|disk| disk.size >= SMALLEST && !disk.serial.is_empty());
        let (blank, used): (Vec<&Disk>, Vec<&Disk>) = disks.partition(|disk| disk.blank);
        let place = |disk: &Disk| Place::Disk(disk.clone());
        let blank = blank.into_iter().map(place);
        let stick = self.disks.iter().filter_map(|disks| disks.stick.clone()).map(Place::Stick);
        blank.chain(stick).chain([Place::Memory]).chain(used.into_iter().map(place)).collect()
    }

    fn place(&self) -> Place {
        if !self.is_asked(Step::State) {
            return Place::Kept;
        }
        self.places().get(self.chosen_at(Step::State)).cloned().unwrap_or(Place::Memory)
    }

    /// The disk with data that was chosen all the same.
    pub fn erased(&self) -> Option<Disk> {
        match self.place() {
            Place::Disk(disk) if !disk.blank => Some(disk),
            _ => None,
        }
    }

    /// All answers, as they are now.
    pub fn answers(&self) -> Answers {
        Answers {
            interface: self.card().map(|card| card.name.clone()).unwrap_or_default(),
            address: self.text_at(Step::Address),
            mode: self.mode(),
            range: self.text_at(Step::Range),
            router: self.text_at(Step::Router),
            dns: self.text_at(Step::Dns),
            hostname: self.text_at(Step::Name),
            zone: self.text_at(Step::Zone),
            place: self.place(),
            encryption: self.encryption(),
        }
    }

    /// Whether the answer to this question can be used.
    fn judge(&self) -> Result<(), String> {
        let answers = self.answers();
        match self.step {
            Step::Interface if self.cards.is_empty() => {
                Err("This machine has no network card that its drivers know. Put one in that Linux 6.1 knows.".into())
            }
            Step::Interface | Step::Dhcp | Step::State | Step::Encryption => Ok(()),
            Step::Address => answers.network().map(drop),
            Step::Range => answers.check_range().and_then(|()| (self.check)(&answers.text())),
            Step::Router => answers.check_router(),
            Step::Dns => answers.name_servers().map(drop),
            Step::Name | Step::Zone | Step::Summary => (self.check)(&answers.text()),
            Step::Erase => match self.erased() {
                Some(disk) if disk.serial != self.text().trim() => {
                    Err(format!("That is not its serial number. Type {} in full, or go back with Esc.", disk.serial))
                }
                _ => Ok(()),
            },
        }
    }
}

fn described(card: &Card) -> String {
    let link = if card.link { "link up" } else { "no link" };
    format!("{:8} {}  {:10} {link:8} {}", card.name, card.mac, card.driver, heard(card))
}

/// Who answers on a card's wire, in words.
pub fn heard(card: &Card) -> String {
    match card.heard.as_deref() {
        None if card.link => "looking for DHCP servers".into(),
        None => String::new(),
        Some([]) => "no DHCP server".into(),
        Some(others) => {
            let name = |other: &Heard| match other.is_bennu {
                true => format!("another Bennu {}", other.server),
                false => other.server.to_string(),
            };
            format!("DHCP: {}", others.iter().map(name).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A place for the state, in words.
pub fn told(place: &Place) -> String {
    match place {
        Place::Kept => "on the state disk that is there".into(),
        Place::Memory => "in memory: LOST when this machine is switched off".into(),
        Place::Stick(stick) => {
            format!(
                "{}  {:.1} GB  free on the medium, behind the disc",
                stick.device.display(),
                stick.size as f64 / 1e9
            )
        }
        Place::Disk(disk) => {
            let content = if disk.blank { "empty" } else { "HAS DATA, which would be lost" };
            let (device, size) = (disk.device.display(), disk.size as f64 / 1e9);
            format!("{device}  {size:.1} GB  serial {}  {content}", disk.serial)
        }
    }
}

/// What opens the state, in words.
pub fn locked(how: Encryption) -> &'static str {
    match how {
        Encryption::None => "not encrypted: whoever has the disk can read it",
        Encryption::Passphrase => "encrypted, with a passphrase that is asked for here at each start",
        Encryption::Tpm => "encrypted, opened by this machine's TPM while Secure Boot stands as it does",
    }
}

#[cfg(test)]
mod tests;
