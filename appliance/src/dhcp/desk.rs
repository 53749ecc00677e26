//! One request: asks the rules, looks for the address where they want that, answers.

use super::{Beside, socket::DhcpSocket};
use crate::{
    appliance::{Appliance, Counters},
    ledger::Fault,
    metrics::ADDRESSES_IN_USE,
    wire::{self, Found, Hint},
};
use bennu_rules::{
    MacAddress,
    dhcp::{
        DhcpAnswer, Reason, Request, SendTo, decide,
        others::{Looks, asked_by},
        reply::Verdict,
        request::Kind,
        takes_up_an_offer,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long an offer may wait for an answer; hosts on a wire answer within a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(150);
/// An address that was listened for more briefly counts as not looked for.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);
/// How long all the addresses that are looked for may keep an offer: a client should not have to ask again.
const ALTOGETHER: Duration = Duration::from_millis(190);
/// Addresses tried for one offer.
const TRIES: u32 = 8;

/// What serving a request takes.
pub struct Desk {
    pub socket: Arc<DhcpSocket>,
    pub beside: Beside,
    pub appliance: Arc<Appliance>,
    /// Told when the ledger has failed for good.
    pub failed: mpsc::Sender<Fault>,
}

impl Desk {
    /// Answers a request, or keeps silent.
    pub async fn serve(self: Arc<Self>, request: Request) {
        self.hint(&request);
        if let Err(fault) = self.answer(request).await {
            // The ledger says once that its disk is full; clients go on asking until it is not.
            match fault {
                Fault::Full(_) => tracing::debug!(%fault, "a DHCP request could not be granted"),
                _ => tracing::error!(%fault, "a DHCP request could not be decided"),
            }
            if self.appliance.ledger.is_closed() {
                let _ = self.failed.try_send(fault);
            }
        }
    }

    fn hint(&self, request: &Request) {
        if request.is_relayed() || request.kind != Kind::Discover {
            return;
        }
        match (asked_by(request), &self.beside.hints, &self.beside.prober) {
            (Some(Looks::AndBegins), Some(hints), _) => drop(hints.try_send(Hint::Begins)),
            (None, _, Some(prober)) => prober.newcomer(),
            _ => {}
        }
    }

    async fn answer(&self, mut request: Request) -> Result<(), Fault> {
        let until = Instant::now() + ALTOGETHER;
        // Only what a newcomer on our own wire is offered was never looked for.
        let is_relayed = request.is_relayed();
        let may_probe = request.kind == Kind::Discover && !is_relayed;
        let prober = self.beside.prober.as_deref().filter(|_| may_probe);
        for _ in 0..TRIES {
            let (mac, kind, again) = (request.mac, request.kind, prober.map(|_| request.clone()));
            let (packet, send_to, probe) = match self.decide(request).await? {
                DhcpAnswer::Reply { packet, send_to, probe } => (packet, send_to, probe),
                DhcpAnswer::Silence(reason) => {
                    self.keep_silent(mac, kind, &reason);
                    if let (Reason::TookAnotherOffer(server), Some(hints), false) =
                        (reason, &self.beside.hints, is_relayed)
                    {
                        let _ = hints.try_send(Hint::TookAnother(server));
                    }
                    return Ok(());
                }
            };
            let (Some(address), Some(prober), Some(again)) = (probe, prober, again) else {
                self.send(mac, kind, &packet, send_to).await;
                return Ok(());
            };
            let left = until.saturating_duration_since(Instant::now());
            if left < LEAST_PATIENCE {
                break;
            }
            let found = prober.look_for(address, left.min(PATIENCE)).await;
            wire::note(address, found, &self.appliance).await;
            if !matches!(found, Found::Card(_)) {
                self.send(mac, kind, &packet, send_to).await;
                return Ok(());
            }
            request = again;
        }
        // What was found taken is remembered: the client's next try gets further.
        Counters::count(&self.appliance.counters.dhcp_silent);
        self.appliance.metrics.dhcp_silence(ADDRESSES_IN_USE);
        tracing::debug!(interface = self.socket.interface(), "no answer: every address that was tried is in use");
        Ok(())
    }

    async fn decide(&self, request: Request) -> Result<DhcpAnswer, Fault> {
        let ledger = &self.appliance.ledger;
        // A rack of new machines is the busiest hour: what surely ends in a lease is decided once, not twice.
        if ledger.live(|live, now| takes_up_an_offer(&request, live, now)) {
            return ledger.store(request, decide).await;
        }
        ledger.decide(request, decide).await
    }

    fn keep_silent(&self, mac: MacAddress, kind: Kind, reason: &Reason) {
        Counters::count(&self.appliance.counters.dhcp_silent);
        self.appliance.metrics.dhcp_silence(reason.name());
        tracing::debug!(%mac, %kind, %reason, interface = self.socket.interface(), "no answer");
    }

    async fn send(&self, mac: MacAddress, kind: Kind, packet: &[u8], send_to: SendTo) {
        let to = send_to.address();
        match self.socket.send(packet, send_to).await {
            Ok(()) => {
                Counters::count(&self.appliance.counters.dhcp_answered);
                self.appliance.metrics.dhcp_answer(Verdict::of(packet));
                tracing::debug!(%mac, %kind, %to, interface = self.socket.interface(), "answered");
            }
            Err(error) => {
                Counters::count(&self.appliance.counters.dhcp_unsent);
                tracing::warn!(%mac, %kind, %to, %error, "an answer could not be sent");
            }
        }
    }
}
