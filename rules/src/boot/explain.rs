//! What a machine would get at its next boot, and why, with nothing minted.

use super::{
    Boot,
    chain::Chain,
    metadata, plan,
    script::{self, Script, ScriptRequest},
};
use crate::{
    Decision, Live, Machine, Moment, View, Volatile,
    assignment::{Resolution, resolve},
    facts::Firmware,
    metadata::{Merged, Unrendered},
    rule::{self, Rule},
};
use bennu_plan::Plan;

/// Everything that a next boot comes from.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Image and origin.
    pub resolution: Resolution,
    /// The rules that mean the machine. The first is what it boots by, unless it has an assignment of its own.
    pub rules: Vec<Rule>,
    /// The hardware profile that matches.
    pub profile: Option<String>,
    /// What its loader would be told; the token in it is all zero.
    pub script: Script,
    /// What stage 1 would be told.
    pub plan: Option<Plan>,
    /// What its metadata documents would come to, or why they do not; `None` without an image of its own.
    pub metadata: Option<Result<Merged, Unrendered>>,
}

/// The chain of loaders that a UEFI firmware would be given by PXE.
pub fn chain(request: &ScriptRequest, view: &View<'_>, at: &Moment) -> Decision<Chain> {
    let record = view.records.machine(request.mac);
    let machine = record.as_ref().map_or(request.mac, |machine| machine.id);
    // What a BIOS boots is not signed.
    let is_bios = record.as_ref().is_some_and(|machine| machine.facts.firmware == Some(Firmware::Bios));
    let last = view.live.boot(machine).filter(|_| !is_bios);
    let chain = Chain::choose(record.as_ref(), last, &at.settings);
    Decision::just(if is_bios { Chain::default() } else { chain })
}

/// What a machine's metadata documents would come to at a boot that opens now; `None` without an image of its own.
pub fn metadata_of(
    request: &ScriptRequest,
    view: &View<'_>,
    at: &Moment,
) -> Decision<Option<Result<Merged, Unrendered>>> {
    let at = Moment { entropy: [0; 32], ..at.clone() };
    let Some(machine) = view.records.machine(request.mac) else { return Decision::just(None) };
    let Resolution::Image { reference, digest, .. } = resolve(Some(&machine), view.records, &at.settings) else {
        return Decision::just(None);
    };
    let mut boot = Boot::open(machine.id, Some(&machine), view, &at);
    let case = metadata::Case {
        machine: &machine,
        reference: &reference,
        digest,
        origin: &request.origin,
        settings: &at.settings,
    };
    Decision::just(Some(metadata::give(&mut boot, &case, view.records).map(|given| given.merged)))
}

/// Decides as at a boot that opens now, whatever goes on, and stores nothing.
pub fn decide(request: &ScriptRequest, view: &View<'_>, at: &Moment) -> Decision<Explained> {
    let at = Moment { entropy: [0; 32], ..at.clone() };
    let record = view.records.machine(request.mac);
    let next = script::decide(request, &View { records: view.records, live: &Live::default() }, &at);
    let mut live = Live::default();
    let mut token = None;
    for change in next.volatile {
        if let Volatile::PutBoot(boot) = &change {
            token.clone_from(&boot.token);
        }
        live.apply(change);
    }
    let plan = token.and_then(|token| {
        let request = plan::PlanRequest { token, origin: request.origin.clone() };
        plan::decide(&request, &View { records: view.records, live: &live }, &at).answer
    });
    // A machine that nobody knows is put on record before it is given its script.
    let machine = record.unwrap_or_else(|| {
        let mut machine = Machine::new(request.mac, at.now);
        machine.facts.absorb(&request.facts);
        machine
    });
    let metadata = metadata_of(request, view, &at).answer;
    let rules = view.records.rules();
    Decision::just(Explained {
        resolution: resolve(Some(&machine), view.records, &at.settings),
        rules: rule::matching(&rules, Some(&machine), &at.settings).into_iter().cloned().collect(),
        profile: at.settings.profile(&machine.facts).map(|profile| profile.name.to_string()),
        script: next.answer,
        plan,
        metadata,
    })
}
