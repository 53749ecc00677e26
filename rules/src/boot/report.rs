//! What a machine reports under its boot's token.

use super::{Boot, Token, session};
use crate::{
    Change, Decision, MacAddress, Moment, View, Volatile,
    journey::{Observation, Seen},
};
use bennu_plan::{Report, SessionKey};
use session::Attempt;
use std::net::IpAddr;

/// A machine reports.
#[derive(Debug, Clone)]
pub struct ReportRequest {
    /// From the kernel's arguments.
    pub token: Token,
    /// What it says.
    pub report: Report,
    /// The session that it proved to come from.
    pub proof: Option<Proof>,
    /// Where it came from.
    pub address: IpAddr,
    /// The card that has that address: by the neighbour table where it is on a wire of ours, else by its lease.
    pub card: Option<MacAddress>,
}

/// A proof that was found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Of the session of this key.
    pub key: SessionKey,
    /// Greater with each report.
    pub sequence: u64,
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is noted.
    Noted,
    /// The token opens no boot.
    UnknownToken,
    /// It is not from the session that owns the boot.
    Refused,
}

/// Messages are kept to this length.
const MAX_MESSAGE: usize = 2000;

/// Takes note of a report. Once a session owns the boot, only that session's reports count; before, only those that no
/// other card sent: the token went over the wire.
pub fn decide(request: &ReportRequest, view: &View<'_>, at: &Moment) -> Decision<Taken> {
    let Some(boot) = view.live.boot_by_token(&request.token) else { return Decision::just(Taken::UnknownToken) };
    let proof = request.proof.filter(|proof| boot.session.as_ref().is_some_and(|session| session.key == proof.key));
    let believed = boot.session.as_ref().zip(proof).and_then(|(session, proof)| session.believing(proof.sequence));
    if boot.session.is_some() && believed.is_none() {
        return session::alarm(Taken::Refused, boot, Attempt::Report, request.address, at);
    }
    let is_others = |card| !session::is_machines(card, boot.machine, view.records);
    if boot.session.is_none() && request.card.is_some_and(is_others) {
        return session::alarm(Taken::Refused, boot, Attempt::Report, request.address, at);
    }
    let is_overtaken = believed.as_ref().zip(proof).is_some_and(|(session, proof)| proof.sequence < session.sequence);
    let report = &request.report;
    let message: String = report.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    let seen = Seen::Reported { step: report.step, message, progress: report.bytes };
    let mut decision = Decision::just(Taken::Noted);
    // What a later report has moved on from moves nothing back.
    if !(is_overtaken && super::moves_back(boot, &seen)) {
        decision.observed.push((boot.machine, Observation::new(at.now, seen)));
    }
    if let Some(session) = believed {
        decision.volatile.push(Volatile::PutBoot(Boot { session: Some(Box::new(session)), ..boot.clone() }));
    }
    if let Some(inventory) = &report.inventory
        && let Some(mut machine) = view.records.machine(boot.machine)
        && machine.facts.inventory.as_ref() != Some(inventory)
    {
        machine.facts.inventory = Some(inventory.clone());
        decision.changes.push(Change::PutMachine(machine));
    }
    decision
}
