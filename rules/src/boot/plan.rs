//! What stage 1 gets under its boot's token.

use super::{Boot, Pinned, Token, metadata, pin, script::blob_url};
use crate::{
    Change, Decision, Machine, Moment, View, Volatile,
    assignment::{Resolution, resolve},
    image::{BlobRef, Content, Image},
    journey::{Observation, Seen},
    metadata::{Merged, Unrendered, seed},
    signature::Judgement,
};
use bennu_plan::{Action, Blob, PLAN_VERSION, Plan, RootPlan, Verity};

/// Stage 1 asks for its plan.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// From the kernel's arguments.
    pub token: Token,
    /// Where the machine reaches us.
    pub origin: String,
}

/// A waiting machine looks for its assignment this often.
const POLL_SECONDS: u32 = 2;

/// Decides what a machine in stage 1 does. `None`: the token opens no boot.
pub fn decide(request: &PlanRequest, view: &View<'_>, at: &Moment) -> Decision<Option<Plan>> {
    let Some(boot) = view.live.boot_by_token(&request.token) else { return Decision::just(None) };
    let machine = view.records.machine(boot.machine);
    let (mut boot, newly_pinned) = pin_if_waiting(boot, machine.as_ref(), view, at);
    let (given, change) = match give(request, &mut boot, machine.as_ref(), view, at) {
        Ok(given) => (Ok(given.merged), given.change),
        Err(unrendered) => (Err(unrendered), None),
    };
    let action = act(request, &boot, machine.as_ref(), given, view, at);
    let plan = Plan { version: PLAN_VERSION, boot: boot.id.to_string(), machine: boot.machine.to_string(), action };
    let mut decision = Decision::just(Some(plan));
    decision.changes.extend(change);
    if newly_pinned && let Some(pinned) = &boot.image {
        let seen = Seen::Assigned { image: pinned.reference.to_string(), digest: pinned.digest };
        decision.observed.push((boot.machine, Observation::new(at.now, seen)));
    }
    if newly_pinned || (boot.image.is_some() && !boot.is_on_record(view.records)) {
        decision.changes.push(Change::PutBoot(boot.clone()));
        decision.volatile.push(Volatile::PutBoot(boot));
    }
    decision
}

/// The metadata of a machine whose image is settled.
fn give(
    request: &PlanRequest,
    boot: &mut Boot,
    machine: Option<&Machine>,
    view: &View<'_>,
    at: &Moment,
) -> Result<metadata::Given, Unrendered> {
    let Some(pinned) = boot.image.clone() else { return Ok(metadata::Given::default()) };
    let unknown;
    let machine = match machine {
        Some(machine) => machine,
        None => {
            unknown = Machine::new(boot.machine, at.now);
            &unknown
        }
    };
    let Pinned { reference, digest } = &pinned;
    let case = metadata::Case { machine, reference, digest: *digest, origin: &request.origin, settings: &at.settings };
    metadata::give(boot, &case, view.records)
}

/// A waiting machine's image is pinned when its assignment arrives.
fn pin_if_waiting(boot: &Boot, machine: Option<&Machine>, view: &View<'_>, at: &Moment) -> (Boot, bool) {
    let mut boot = boot.clone();
    if boot.image.is_some() {
        return (boot, false);
    }
    boot.image = pin(&resolve(machine, view.records, &at.settings));
    let image = boot.image.as_ref().and_then(|pinned| view.records.image(&pinned.digest));
    if let Some(image) = image {
        boot.name_parts(&image.config.content);
    }
    let newly = boot.image.is_some();
    (boot, newly)
}

fn act(
    request: &PlanRequest,
    boot: &Boot,
    machine: Option<&Machine>,
    given: Result<Merged, Unrendered>,
    view: &View<'_>,
    at: &Moment,
) -> Action {
    let Some(pinned) = &boot.image else {
        return match resolve(machine, view.records, &at.settings) {
            Resolution::Local { .. } => Action::Restart { reason: "it is to boot its own disk".into() },
            _ => Action::Discover { poll_seconds: POLL_SECONDS },
        };
    };
    let Some(image) = view.records.image(&pinned.digest) else {
        return Action::Restart { reason: format!("the image {} does not exist any more", pinned.reference) };
    };
    // Its script, which comes next, says it at length.
    if matches!(image.judged(at.settings.signatures), Judgement::Refused(_)) {
        return Action::Restart { reason: format!("{} is not signed by a trusted key", pinned.reference) };
    }
    match &image.config.content {
        Content::Root { kernel, .. } if Some(kernel.digest) == boot.kernel => {
            match given {
                Ok(merged) => boot_root(request, boot, &image, merged, at),
                // Its script, which comes next, is refused with the same words until somebody mends it.
                Err(unrendered) => Action::Restart { reason: unrendered.to_string() },
            }
        }
        Content::Kernel { kernel, .. } if Some(kernel.digest) == boot.kernel => {
            Action::Discover { poll_seconds: POLL_SECONDS }
        }
        _ => Action::Restart { reason: format!("{} needs another kernel", pinned.reference) },
    }
}

fn boot_root(request: &PlanRequest, boot: &Boot, image: &Image, merged: Merged, at: &Moment) -> Action {
    let Content::Root { root, filesystem, verity, kernel_release, .. } = &image.config.content else {
        return Action::Discover { poll_seconds: POLL_SECONDS };
    };
    let blob = |blob: &BlobRef| Blob {
        url: blob_url(&request.origin, &blob.digest),
        digest: blob.digest.to_string(),
        size: blob.size,
    };
    let name = boot.image.as_ref().map(|pinned| pinned.reference.to_string()).unwrap_or_default();
    Action::Boot(Box::new(RootPlan {
        image: name,
        digest: image.digest.to_string(),
        root: blob(root),
        filesystem: filesystem.name().to_owned(),
        verity: verity.as_ref().map(|verity| Verity { tree: blob(&verity.tree), root_hash: verity.root_hash.hex() }),
        entry: image.config.entry.clone(),
        kernel_release: kernel_release.clone(),
        overlay_limit: at.settings.overlay_limit,
        hostname: merged.hostname.as_ref().map(|given| given.value.clone()),
        own_fstab: true,
        time_ms: at.now.0,
        metadata: seed::for_stage1(boot, merged),
    }))
}
