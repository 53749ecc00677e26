//! Whether this Bennu answers DHCP on its wire or stands by for another: calls the others, tells the rules what they say,
//! and the ledger what follows.

use super::ear::{Ear, Other};
use crate::{
    appliance::Appliance,
    interfaces::{self, Interface},
};
use bennu_rules::{
    dhcp::{
        others::{self, Call},
        standby::{Peer, Post, Posted, Standby, posted},
    },
    settings::Settings,
};
use std::{net::Ipv4Addr, time::Duration};
use tokio::time::Instant;

/// While it stands by, that is told again as often, so that it stays among what is new.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// Keeps the post on one wire.
pub struct Sentry {
    standby: Standby,
    peer: Peer,
    allowed: Vec<Ipv4Addr>,
    interface: String,
    began: Instant,
    /// When the next call leaves.
    due: Instant,
    told: Instant,
}

impl Sentry {
    /// On the wire that an ear listens to; `None` where no DHCP is answered.
    pub fn new(interface: &Interface, ear: &Ear, settings: &Settings) -> Option<Self> {
        let gives = others::Appliance::of(settings.dhcp, false)?;
        let peer = Peer { gives, server: interface.address, card: ear.card() };
        let (allowed, now) = (settings.allow_servers.clone(), Instant::now());
        let standby = Standby::new(peer, &allowed, &[], Duration::ZERO);
        let interface = interface.name.clone();
        Some(Self { standby, peer, allowed, interface, began: now, due: now, told: now })
    }

    /// Takes its first post, by who answered before it begins.
    pub async fn begin(&mut self, seen: &[Other], appliance: &Appliance) {
        let seen: Vec<_> = seen.iter().map(|other| (other.heard, other.card)).collect();
        self.standby = Standby::new(self.peer, &self.allowed, &seen, self.began.elapsed());
        self.due = Instant::now();
        self.tell(appliance).await;
    }

    /// Our address on the wire.
    pub fn address(&self) -> Ipv4Addr {
        self.peer.server
    }

    /// Another Bennu begins: it is called within this time.
    pub fn look_soon(&mut self, pause: Duration) {
        self.due = self.due.min(Instant::now() + pause);
    }

    /// When the next call is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The Bennu that answers in our place, if one does.
    pub fn stands_by_for(&self) -> Option<Ipv4Addr> {
        match self.standby.post() {
            Post::Serves => None,
            Post::StandsBy(peer) => Some(peer.server),
        }
    }

    /// Calls the others, and judges what they said so far.
    pub async fn call(&mut self, ear: &Ear, appliance: &Appliance) {
        // Without a cable nobody is asked, and nobody's silence means anything.
        if interfaces::link(&self.interface) != Some(false) {
            match ear.call(self.peer.server).await {
                Ok(xid) => self.standby.called(xid),
                Err(error) => tracing::debug!(interface = self.interface, %error, "other Bennus could not be called"),
            }
        }
        self.judge(appliance).await;
        self.due = Instant::now() + self.standby.pace(self.began.elapsed());
    }

    /// Answers another's call.
    pub async fn answer(&self, call: Call, ear: &Ear) {
        if let Err(error) = ear.answer(call, self.peer.server, self.standby.appliance()).await {
            tracing::debug!(interface = self.interface, %error, "another Bennu could not be answered");
        }
    }

    /// A server said something.
    pub async fn hear(&mut self, other: &Other, appliance: &Appliance) {
        self.standby.heard(&other.heard, other.card, self.began.elapsed());
        self.judge(appliance).await;
    }

    async fn judge(&mut self, appliance: &Appliance) {
        let is_news = self.standby.judge(self.began.elapsed()).is_some();
        if is_news || self.stands_by_for().is_some() && self.told.elapsed() >= TELL_AGAIN {
            self.tell(appliance).await;
        }
        // Something may go on from now on that is worth a closer look.
        self.due = self.due.min(Instant::now() + self.standby.pace(self.began.elapsed()));
    }

    async fn tell(&mut self, appliance: &Appliance) {
        self.told = Instant::now();
        let post = Posted { interface: self.interface.clone(), post: self.standby.post() };
        if let Err(fault) = appliance.ledger.decide(post, posted).await {
            tracing::error!(%fault, interface = self.interface, "a post could not be taken");
        }
    }
}
