//! What a machine reports under its boot's token.

use super::Token;
use crate::{
    Change, Decision, Moment, View,
    journey::{Observation, Seen},
};
use bennu_plan::Report;

/// A machine reports.
#[derive(Debug, Clone)]
pub struct ReportRequest {
    /// From the kernel's arguments.
    pub token: Token,
    /// What it says.
    pub report: Report,
}

/// Messages are kept to this length.
const MAX_MESSAGE: usize = 2000;

/// Takes note of a report. The answer says whether the token opens a boot.
pub fn decide(request: &ReportRequest, view: &View<'_>, at: &Moment) -> Decision<bool> {
    let Some(boot) = view.live.boot_by_token(&request.token) else { return Decision::just(false) };
    let report = &request.report;
    let message: String = report.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    let seen = Seen::Reported { step: report.step, message, progress: report.bytes };
    let mut decision = Decision::just(true);
    decision.observed.push((boot.machine, Observation::new(at.now, seen)));
    if let Some(inventory) = &report.inventory
        && let Some(mut machine) = view.records.machine(boot.machine)
        && machine.facts.inventory.as_ref() != Some(inventory)
    {
        machine.facts.inventory = Some(inventory.clone());
        decision.changes.push(Change::PutMachine(machine));
    }
    decision
}
