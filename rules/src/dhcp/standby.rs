//! Two Bennus on one wire: which of them answers, and what the other still does.
//!
//! Each calls the others and hears what they are ([`super::others::Call`]). A newcomer that finds one that serves stands
//! by. Of several that serve, the first in the order of [`Peer`] goes on. Times are those of a clock that only goes on,
//! counted from any moment.

use super::{
    others::{Appliance, Heard},
    request::{BOOT_SERVER_PORT, Kind, Request},
};
use crate::{Decision, MacAddress, Moment, Timestamp, View, Volatile, notice::Notice};
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

/// Who stands by begins to answer after so long a silence: well over what a start or a restarted switch loses, and under
/// the minute for which firmware asks before it gives up.
pub const SILENCE: Duration = Duration::from_secs(12);
/// Calls that stayed unanswered by then, so that a host that slept does not take its own sleep for a silence.
const UNANSWERED: u32 = 4;
/// Who has served for a while yields only to one that has answered for so long: a single frame silences nobody.
pub const PROOF: Duration = Duration::from_secs(10);
/// Answers within that time.
const ANSWERS: u32 = 4;
/// Calls in a row that may be lost on the way without breaking that.
const LOST: u32 = 2;
/// Who has served for less gives way at once: machines hardly depend on it yet.
const YOUNG: Duration = Duration::from_secs(10);
/// Between two calls of one that serves alone.
const ALONE: Duration = Duration::from_secs(5);
/// Between two calls where there is another.
const WATCHFUL: Duration = Duration::from_secs(2);
/// Between two calls of one that has just begun.
const BEGINNING: Duration = Duration::from_secs(1);
/// While it stands by, that is told again as often, so that it stays among what is new.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// Others kept in mind; a flood of invented ones changes nothing.
const MOST: usize = 16;

/// A Bennu on a wire. In the order in which they go on: one that gives addresses before one that stands beside a
/// server that does, then by server identifier, and copies that share one by their cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// What it does.
    pub gives: Appliance,
    /// Its server identifier.
    pub server: Ipv4Addr,
    /// Its card.
    pub card: MacAddress,
}

/// Whether a Bennu answers DHCP on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Post {
    /// It does.
    Serves,
    /// Another one does.
    StandsBy(Peer),
}

/// The answers of one other Bennu.
#[derive(Debug, Clone, Copy)]
struct Run {
    peer: Peer,
    first: Duration,
    last: Duration,
    answers: u32,
    /// Calls since its last answer.
    unanswered: u32,
}

/// What a Bennu knows of the others on its wire, and what follows.
#[derive(Debug, Clone)]
pub struct Standby {
    own: Peer,
    allowed: Vec<Ipv4Addr>,
    post: Post,
    /// Since when it is at this post.
    since: Duration,
    /// When this post was last told; `None`: not yet.
    told: Option<Duration>,
    others: BTreeMap<(Ipv4Addr, MacAddress), Run>,
    /// Its last calls: what was not asked is no answer.
    calls: [Option<u32>; 2],
}

impl Standby {
    /// One that is about to serve, and looked who is there. `allowed` are servers that may answer beside it.
    pub fn new(own: Peer, allowed: &[Ipv4Addr], seen: &[(Heard, MacAddress)], at: Duration) -> Self {
        let (allowed, others) = (allowed.to_vec(), BTreeMap::new());
        let mut new = Self { own, allowed, post: Post::Serves, since: at, told: None, others, calls: [None; 2] };
        seen.iter().for_each(|(heard, card)| new.note(heard, *card, at));
        if let Some(first) = new.others.values().map(|run| run.peer).min() {
            new.post = Post::StandsBy(first);
        }
        new
    }

    /// What it does now.
    pub fn post(&self) -> Post {
        self.post
    }

    /// What it says of itself.
    pub fn appliance(&self) -> Appliance {
        if self.post == Post::Serves { self.own.gives } else { Appliance::StandsBy }
    }

    /// When to call next, after a call or a change at `at`.
    pub fn pace(&self, at: Duration) -> Duration {
        match self.post {
            Post::Serves if at < self.since + YOUNG => BEGINNING,
            Post::Serves if self.others.is_empty() => ALONE,
            _ => WATCHFUL,
        }
    }

    /// A call left.
    pub fn called(&mut self, xid: u32) {
        self.calls = [Some(xid), self.calls[0]];
        self.others.values_mut().for_each(|run| run.unanswered += 1);
    }

    /// A server was heard on the wire. Only what a Bennu answers to a call of ours counts.
    pub fn heard(&mut self, heard: &Heard, card: MacAddress, at: Duration) {
        if self.calls.contains(&Some(heard.xid)) {
            self.note(heard, card, at);
        }
    }

    fn note(&mut self, heard: &Heard, card: MacAddress, at: Duration) {
        let Some(gives) = heard.appliance else { return };
        let (key, peer) = ((heard.server, card), Peer { gives, server: heard.server, card });
        if gives == Appliance::StandsBy || self.allowed.contains(&heard.server) {
            self.others.remove(&key);
            return;
        }
        if !self.others.contains_key(&key) && self.others.len() >= MOST {
            return;
        }
        let new = Run { peer, first: at, last: at, answers: 0, unanswered: 0 };
        let run = self.others.entry(key).or_insert(new);
        // The call that is answered here counts as unanswered until now.
        if run.unanswered > LOST + 1 {
            *run = new;
        }
        *run = Run { peer, last: at, answers: run.answers + 1, unanswered: 0, ..*run };
    }

    /// What is to be done now; `Some` where that is news.
    pub fn judge(&mut self, at: Duration) -> Option<Post> {
        self.others.retain(|_, run| run.unanswered < UNANSWERED || at < run.last + SILENCE);
        let is_young = at < self.since + YOUNG;
        let counts = |run: &&Run| match self.post {
            // Whoever serves is left alone by one that does not.
            Post::StandsBy(_) => true,
            Post::Serves => {
                let is_proven = run.answers >= ANSWERS && run.last >= run.first + PROOF;
                run.peer < self.own && (is_young || is_proven)
            }
        };
        let first = self.others.values().filter(counts).map(|run| run.peer).min();
        let post = first.map_or(Post::Serves, Post::StandsBy);
        if post == self.post {
            return None;
        }
        if matches!(post, Post::Serves) != matches!(self.post, Post::Serves) {
            self.since = at;
        }
        (self.post, self.told) = (post, None);
        Some(post)
    }

    /// Whether to tell the post now. Answers go by what was told: until that succeeds an old post holds.
    pub fn is_to_be_told(&self, at: Duration) -> bool {
        self.told.is_none_or(|told| self.post != Post::Serves && at >= told + TELL_AGAIN)
    }

    /// The post was told.
    pub fn told(&mut self, at: Duration) {
        self.told = Some(at);
    }
}

/// The post taken on an interface.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The interface's name.
    pub interface: String,
    /// Which.
    pub post: Post,
}

/// Takes note of a post, and says what a person should know of it. To be told again while it lasts.
pub fn posted(posted: &Posted, view: &View<'_>, _: &Moment) -> Decision<()> {
    let Posted { interface, post } = posted.clone();
    let mut decision = Decision::just(());
    decision.noticed.extend(match (view.live.stands_by(&interface), post) {
        (_, Post::StandsBy(Peer { server, card, .. })) => {
            Some(Notice::StandsBy { interface: interface.clone(), server, card })
        }
        (Some(peer), Post::Serves) => Some(Notice::TakesOver { interface: interface.clone(), server: peer.server }),
        (None, Post::Serves) => None,
    });
    decision.volatile.push(Volatile::PutPost { interface, post });
    decision
}

/// What a Bennu that stands by still does: what was promised here is kept. A client in RENEWING asks alone whom its lease
/// is of (RFC 2131 §4.3.2), so nobody else answers; without an answer a machine that runs would lose its address. The
/// same holds for who takes up an offer of ours, and for a boot server's client, whom only our offer sent here. In
/// REBINDING the client asks everybody, and the other Bennu answers as it sees fit.
pub(super) fn is_promised(request: &Request, view: &View<'_>, now: Timestamp) -> bool {
    let names_us = request.server_id == Some(request.our_id());
    let is_for_us_alone = request.received.destination == request.received.interface_address;
    if request.received.port == BOOT_SERVER_PORT {
        return is_for_us_alone;
    }
    let holds = |address| {
        let lease = view.records.lease_at(address);
        lease.is_some_and(|lease| lease.key.mac == request.mac && !lease.declined && lease.is_active(now))
    };
    let was_offered = |address| view.live.offered_to(address, now).is_some_and(|key| key.mac == request.mac);
    match request.kind {
        Kind::Request if names_us => request.requested.is_some_and(|address| was_offered(address) || holds(address)),
        Kind::Request => request.server_id.is_none() && is_for_us_alone && holds(request.ciaddr),
        // They take no answer.
        Kind::Release | Kind::Decline => names_us,
        Kind::Discover | Kind::Inform | Kind::Bootp => false,
    }
}

#[cfg(test)]
mod tests;
