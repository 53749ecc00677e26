//! Whether this Bennu answers DHCP on its wire or stands by for another: calls the others, tells the rules what they say,
//! and the ledger what follows.

use super::ear::{Ear, Other};
use crate::{
    appliance::Appliance,
    interfaces::{self, Interface},
    ledger::Fault,
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

/// Keeps the post on one wire.
pub struct Sentry {
    standby: Standby,
    peer: Peer,
    allowed: Vec<Ipv4Addr>,
    interface: String,
    began: Instant,
    /// When the next call leaves.
    due: Instant,
}

impl Sentry {
    /// On the wire that an ear listens to; `None` where no DHCP is answered.
    pub fn new(interface: &Interface, ear: &Ear, settings: &Settings) -> Option<Self> {
        let gives = others::Appliance::of(settings.dhcp, false)?;
        let peer = Peer { gives, server: interface.address, card: ear.card() };
        let (allowed, now) = (settings.allow_servers.clone(), Instant::now());
        let standby = Standby::new(peer, &allowed, &[], Duration::ZERO);
        let interface = interface.name.clone();
        Some(Self { standby, peer, allowed, interface, began: now, due: now })
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
        self.standby.judge(self.began.elapsed());
        if self.standby.is_to_be_told(self.began.elapsed()) {
            self.tell(appliance).await;
        }
        // Something may go on from now on that is worth a closer look.
        self.due = self.due.min(Instant::now() + self.standby.pace(self.began.elapsed()));
    }

    async fn tell(&mut self, appliance: &Appliance) {
        let post = Posted { interface: self.interface.clone(), post: self.standby.post() };
        let outcome = appliance.ledger.decide(post, posted).await;
        self.is_told(outcome);
    }

    fn is_told(&mut self, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.standby.told(self.began.elapsed()),
            Err(fault) => tracing::error!(%fault, interface = self.interface, "a post could not be taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::tests::Bench;
    use bennu_rules::{
        MacAddress,
        dhcp::others::{Heard, Said},
    };

    const INTERFACE: &str = "boot0";

    fn peer(last: u8) -> Peer {
        let card = MacAddress([2, 0, 0, 0, 0, last]);
        Peer { gives: others::Appliance::Full, server: Ipv4Addr::new(10, 77, 0, last), card }
    }

    fn sentry(seen: &[Peer]) -> Sentry {
        let heard = |peer: &Peer| {
            let heard = Heard { server: peer.server, said: Said::Offer, appliance: Some(peer.gives), xid: 0 };
            (heard, peer.card)
        };
        let seen: Vec<_> = seen.iter().map(heard).collect();
        let standby = Standby::new(peer(2), &[], &seen, Duration::ZERO);
        let now = Instant::now();
        Sentry { standby, peer: peer(2), allowed: Vec::new(), interface: INTERFACE.into(), began: now, due: now }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_post_that_could_not_be_taken_is_taken_at_the_next_turn() {
        let bench = Bench::new();
        for (seen, server) in [(vec![peer(1)], Some(peer(1).server)), (vec![], None)] {
            let mut sentry = sentry(&seen);
            sentry.is_told(Err(Fault::Closed));
            assert_ne!(bench.appliance.stands_by(INTERFACE), server);
            sentry.judge(&bench.appliance).await;
            assert_eq!(bench.appliance.stands_by(INTERFACE), server);
            assert!(!sentry.standby.is_to_be_told(sentry.began.elapsed()));
        }
    }
}
