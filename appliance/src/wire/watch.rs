//! Watches a wire that we serve for servers that do not belong there, while we serve.

use super::{
    ear::{Ear, Other, Word},
    post::Sentry,
};
use crate::{appliance::Appliance, interfaces::Interface};
use bennu_rules::{
    dhcp::others::{Appliance as Kind, Heard, Looks, Said},
    settings::{DhcpMode, Settings},
};
use std::{collections::BTreeMap, future, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long a server that was heard may take to say that it is a Bennu.
const INTRODUCTION: Duration = Duration::from_secs(4);
/// Between two questions.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(3);
/// A Bennu that begins looks for others first, and answers then.
const BEGINNING: Duration = Duration::from_secs(1);
/// A server that goes on is told of no more often than this.
const BETWEEN_NOTICES: Duration = Duration::from_secs(30);
/// Servers remembered; a flood of invented ones is told of only in part.
const MOST: usize = 16;
/// A wire that cannot be heard is listened to again after this.
const PAUSE: Duration = Duration::from_secs(1);

/// What our own DHCP server came upon.
#[derive(Debug, Clone, Copy)]
pub enum Hint {
    /// A client took the offer of this server. A switch keeps what that server says to it from us.
    TookAnother(Ipv4Addr),
    /// Another Bennu begins to serve.
    Begins,
}

/// Where hints go.
pub type Hints = mpsc::Sender<Hint>;

/// A server that was heard.
#[derive(Debug, Clone, Copy)]
struct Known {
    heard: Heard,
    /// When a notice is due: at once for a Bennu, after a moment for one that has not introduced itself.
    due: Option<Instant>,
    told: Option<Instant>,
    /// When it was heard last.
    at: Instant,
}

/// The watch over one wire.
pub struct Watch {
    ear: Ear,
    interface: String,
    /// Unless addresses are ours to give, only other Bennus are of interest.
    gives_addresses: bool,
    sentry: Sentry,
    hints: mpsc::Receiver<Hint>,
    known: BTreeMap<Ipv4Addr, Known>,
    asked: Instant,
    /// When the next question is due.
    question: Option<Instant>,
}

impl Watch {
    /// Over the wire of an interface; `None` where it is no Ethernet, or no DHCP is answered.
    pub fn open(interface: &Interface, settings: &Settings) -> std::io::Result<Option<(Self, Hints)>> {
        let Some(ear) = Ear::open(&interface.name)? else { return Ok(None) };
        let Some(sentry) = Sentry::new(interface, &ear, settings) else { return Ok(None) };
        let (sender, hints) = mpsc::channel(64);
        let (interface, known) = (interface.name.clone(), BTreeMap::new());
        let (gives_addresses, asked) = (settings.dhcp == DhcpMode::Full, Instant::now());
        let watch = Self { ear, interface, gives_addresses, sentry, hints, known, asked, question: None };
        Ok(Some((watch, sender)))
    }

    /// Looks for a moment whether another Bennu serves, and takes the post that follows.
    pub async fn look_for_bennus(&mut self, appliance: &Appliance) -> std::io::Result<()> {
        let found = self.ear.look_for_bennus(self.sentry.address()).await;
        self.sentry.begin(found.as_deref().unwrap_or_default(), appliance).await;
        found.map(drop)
    }

    /// Looks who serves for as long as any server may take to answer, and takes the post that follows.
    pub async fn look(&mut self, appliance: &Appliance) -> std::io::Result<Vec<Other>> {
        let found = self.ear.look(Looks::AndBegins).await;
        self.sentry.begin(found.as_deref().unwrap_or_default(), appliance).await;
        found
    }

    /// Watches until it is stopped. Asks once at the beginning.
    pub async fn keep(mut self, appliance: Arc<Appliance>, stop: CancellationToken) {
        if self.gives_addresses {
            self.ask(Looks::AndBegins).await;
        }
        loop {
            let due = self.known.values().filter_map(|known| known.due).min();
            tokio::select! {
                () = stop.cancelled() => return,
                word = self.ear.listen() => match word {
                    Ok(Word::Call(call)) => self.sentry.answer(call, &self.ear).await,
                    Ok(Word::Server(other)) => {
                        self.sentry.hear(&other, &appliance).await;
                        self.heard(other.heard, &appliance);
                    }
                    Err(error) => {
                        tracing::debug!(interface = self.interface, %error, "the wire cannot be listened to");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(hint) = self.hints.recv() => match hint {
                    Hint::TookAnother(server) => {
                        self.heard(Heard { server, said: Said::Offer, appliance: None, xid: 0 }, &appliance);
                    }
                    Hint::Begins => self.sentry.look_soon(BEGINNING),
                },
                () = until(self.question) => self.ask(Looks::Only).await,
                () = until(due) => self.tell(&appliance),
                () = tokio::time::sleep_until(self.sentry.due()) => self.sentry.call(&self.ear, &appliance).await,
            }
        }
    }

    fn heard(&mut self, heard: Heard, appliance: &Appliance) {
        let settings = appliance.settings();
        if heard.appliance == Some(Kind::StandsBy) {
            // What it offered before is over.
            self.known.remove(&heard.server);
            return;
        }
        let is_leader = self.sentry.stands_by_for() == Some(heard.server);
        if is_leader || heard.appliance.is_none() && !self.gives_addresses {
            return;
        }
        let is_ours = || appliance.interfaces.now().iter().any(|own| own.address == heard.server);
        // Our own answer may come back by a relay, but never with another Bennu's mark.
        if heard.notice(&self.interface, settings).is_none() || heard.appliance.is_none() && is_ours() {
            return;
        }
        let now = Instant::now();
        if !self.known.contains_key(&heard.server) && self.known.len() >= MOST {
            self.known.retain(|_, known| now < known.at + BETWEEN_NOTICES);
            if self.known.len() >= MOST {
                return;
            }
        }
        let known = self.known.entry(heard.server).or_insert(Known { heard, due: None, told: None, at: now });
        known.at = now;
        let is_news = heard.appliance.is_some() && known.heard.appliance.is_none();
        known.heard = Heard { appliance: heard.appliance.or(known.heard.appliance), ..heard };
        let is_told = known.told.is_some_and(|told| now < told + BETWEEN_NOTICES);
        if is_news || known.heard.appliance.is_some() && !is_told {
            known.due = Some(now);
        } else if known.due.is_none() && !is_told {
            known.due = Some(now + INTRODUCTION);
            self.ask_after(Duration::ZERO);
        }
    }

    fn tell(&mut self, appliance: &Appliance) {
        let now = Instant::now();
        for known in self.known.values_mut().filter(|known| known.due.is_some_and(|due| due <= now)) {
            (known.due, known.told) = (None, Some(now));
            if let Some(notice) = known.heard.notice(&self.interface, appliance.settings()) {
                appliance.ledger.notice(notice);
            }
        }
    }

    fn ask_after(&mut self, pause: Duration) {
        let soonest = self.asked + BETWEEN_QUESTIONS;
        self.question.get_or_insert(soonest.max(Instant::now() + pause));
    }

    async fn ask(&mut self, who: Looks) {
        (self.asked, self.question) = (Instant::now(), None);
        if let Err(error) = self.ear.ask(who).await {
            tracing::debug!(interface = self.interface, %error, "other servers could not be asked");
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => future::pending().await,
    }
}

/// What to do about a server that keeps us from starting.
pub fn refusal(interface: &str, other: &Other) -> String {
    let Other { heard: Heard { server, .. }, card } = other;
    format!(
        "another DHCP server, {server} (card {card}), answers on {interface}, and no lease is on record here yet. Two \
         servers would give machines addresses at random: stop that one, or write dhcp = \"proxy\" under [boot] and \
         let it give the addresses, or, if both are meant, allow_servers = [\"{server}\"]"
    )
}
