//! Many machines' DHCP exchanges: DISCOVER, OFFER, REQUEST, ACK.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    Figures, mac, quantile,
    relay::{Ask, Relay, Reply, kind},
};

/// The part of a transaction id that tells the machine; the rest tells the process.
const INDEX: u32 = 0xf_ffff;

/// Exchanges with so many in flight at a time, each of a machine of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchanges {
    /// The server.
    pub server: Ipv4Addr,
    /// Address of the relay that speaks for the machines.
    pub relay: Ipv4Addr,
    /// Number of the first machine.
    pub first: u32,
    /// How many.
    pub count: usize,
    /// How many at a time.
    pub in_flight: usize,
    /// A message that is not answered by then would be sent again: here it is lost, and the exchange with it.
    pub patience_ms: u64,
    /// No exchange starts after this long.
    pub most_s: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Discovering,
    Requesting,
    Over,
}

struct Exchange {
    began: Instant,
    stage: Stage,
}

struct Run<'a> {
    load: &'a Exchanges,
    relay: Relay,
    salt: u32,
    exchanges: Vec<Exchange>,
    /// Messages that wait for an answer, the oldest first.
    waiting: VecDeque<(Instant, usize, Stage)>,
    in_flight: usize,
    lost: u64,
    refused: u64,
    offers_ms: Vec<f64>,
    exchanges_ms: Vec<f64>,
    last: Instant,
}

impl Exchanges {
    pub(super) fn run(&self) -> Result<Figures> {
        ensure!(self.count < INDEX as usize, "at most {INDEX} exchanges in one load");
        let started = Instant::now();
        let mut run = Run {
            load: self,
            relay: Relay::open(self.server, self.relay, Duration::from_millis(5))?,
            salt: std::process::id() << 20,
            exchanges: Vec::with_capacity(self.count),
            waiting: VecDeque::new(),
            in_flight: 0,
            lost: 0,
            refused: 0,
            offers_ms: Vec::with_capacity(self.count),
            exchanges_ms: Vec::with_capacity(self.count),
            last: started,
        };
        run.go(started);
        Ok(run.figures(started))
    }
}

impl Run<'_> {
    fn go(&mut self, started: Instant) {
        loop {
            let stopped = started.elapsed().as_secs_f64() > self.load.most_s;
            while !stopped && self.exchanges.len() < self.load.count && self.in_flight < self.load.in_flight {
                let index = self.exchanges.len();
                self.exchanges.push(Exchange { began: Instant::now(), stage: Stage::Discovering });
                self.in_flight += 1;
                self.ask(index, None);
            }
            self.give_up();
            if self.in_flight == 0 && (stopped || self.exchanges.len() == self.load.count) {
                return;
            }
            if let Some(reply) = self.relay.receive() {
                self.take(&reply);
            }
        }
    }

    fn ask(&mut self, index: usize, offer: Option<&Reply>) {
        let xid = self.salt | index as u32;
        self.waiting.push_back((Instant::now(), index, self.exchanges[index].stage));
        self.relay.send(&Ask { xid, mac: mac(self.load.first + index as u32), offer, secs: 0 });
    }

    fn give_up(&mut self) {
        let patience = Duration::from_millis(self.load.patience_ms);
        while let Some(&(sent, index, stage)) = self.waiting.front() {
            let answered = self.exchanges[index].stage != stage;
            if !answered && sent.elapsed() < patience {
                return;
            }
            self.waiting.pop_front();
            if !answered {
                self.lost += 1;
                self.end(index);
            }
        }
    }

    fn end(&mut self, index: usize) {
        self.exchanges[index].stage = Stage::Over;
        self.in_flight -= 1;
    }

    fn take(&mut self, reply: &Reply) {
        let index = (reply.xid & INDEX) as usize;
        if reply.xid & !INDEX != self.salt || index >= self.exchanges.len() {
            return;
        }
        let waited = self.exchanges[index].began.elapsed().as_secs_f64() * 1e3;
        match (self.exchanges[index].stage, reply.kind) {
            (Stage::Discovering, kind::OFFER) => {
                self.offers_ms.push(waited);
                self.exchanges[index].stage = Stage::Requesting;
                self.ask(index, Some(reply));
            }
            (Stage::Requesting, kind::ACK) => {
                self.exchanges_ms.push(waited);
                self.last = Instant::now();
                self.end(index);
            }
            (Stage::Requesting, kind::NAK) => {
                self.refused += 1;
                self.end(index);
            }
            _ => {}
        }
    }

    fn figures(mut self, started: Instant) -> Figures {
        self.offers_ms.sort_by(f64::total_cmp);
        self.exchanges_ms.sort_by(f64::total_cmp);
        let done = self.exchanges_ms.len() as f64;
        let wall = self.last.duration_since(started).as_secs_f64();
        let mut figures = Figures::default();
        figures.set("done", done);
        figures.set("unanswered", self.lost as f64);
        figures.set("refused", self.refused as f64);
        figures.set("failed", self.exchanges.len() as f64 - done);
        figures.set("per_s", if wall > 0.0 { done / wall } else { 0.0 });
        figures.set("offer_p99_ms", quantile(&self.offers_ms, 0.99));
        figures.set("p50_ms", quantile(&self.exchanges_ms, 0.5));
        figures.set("p99_ms", quantile(&self.exchanges_ms, 0.99));
        figures
    }
}

/// Asks again and again until somebody makes an offer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirstOffer {
    /// The server.
    pub server: Ipv4Addr,
    /// Address of the relay that speaks for the machine.
    pub relay: Ipv4Addr,
    /// Number of the machine.
    pub machine: u32,
    /// Gives up after this long.
    pub most_s: f64,
}

impl FirstOffer {
    /// `offered_at_s` is when the offer came, in seconds since 1970.
    pub(super) fn run(&self) -> Result<Figures> {
        let relay = Relay::open(self.server, self.relay, Duration::from_millis(10))?;
        let (started, mut figures) = (Instant::now(), Figures::default());
        let salt = std::process::id() << 20;
        for attempt in 0.. {
            ensure!(started.elapsed().as_secs_f64() < self.most_s, "no offer within {} s", self.most_s);
            relay.send(&Ask { xid: salt | attempt, mac: mac(self.machine), offer: None, secs: 0 });
            if relay.receive().is_some_and(|reply| reply.kind == kind::OFFER && reply.xid & !INDEX == salt) {
                break;
            }
        }
        figures.set("offered_at_s", SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
        Ok(figures)
    }
}
