//! What a plan is made on: the state as it is, and what of it was changed so far.

use super::{
    Apply, Plan, Step, Wrong,
    plan::{Action, differences},
};
use crate::{
    Change, Decision, Moment, View,
    assignment::Assignment,
    commands::{Refusal, find_image},
    image::{Content, Digest, ImageName, ImageReference, Tag},
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// The state with the changes that are planned.
pub(super) struct Desk<'a> {
    pub view: &'a View<'a>,
    pub at: &'a Moment,
    pub own_addresses: &'a [Ipv4Addr],
    pub by: &'a str,
    pub changes: Vec<Change>,
    /// Tags that move.
    pub tags: BTreeMap<ImageName, Tag>,
    request: &'a Apply,
    steps: Vec<Step>,
    unchanged: usize,
    revision: String,
}

impl<'a> Desk<'a> {
    pub fn new(request: &'a Apply, view: &'a View<'a>, at: &'a Moment, revision: String) -> Self {
        Self {
            view,
            at,
            own_addresses: &request.own_addresses,
            by: &request.by,
            changes: Vec::new(),
            tags: BTreeMap::new(),
            request,
            steps: Vec::new(),
            unchanged: 0,
            revision,
        }
    }

    pub fn prunes(&self, kind: &str) -> bool {
        self.request.prune.contains(kind)
    }

    /// Notes how one thing changes, by its document before and after. Whether it does at all.
    pub fn note<T: Serialize>(
        &mut self,
        kind: &str,
        name: &impl ToString,
        before: Option<&T>,
        after: Option<&T>,
    ) -> bool {
        let value = |document: Option<&T>| document.and_then(|document| serde_json::to_value(document).ok());
        let (before, after): (Option<Value>, Option<Value>) = (value(before), value(after));
        let action = match (&before, &after) {
            (None, _) => Action::Add,
            (_, None) => Action::Remove,
            (before, after) if before == after => {
                self.unchanged += 1;
                return false;
            }
            _ => Action::Change,
        };
        let fields = differences(before.as_ref(), after.as_ref());
        self.steps.push(Step { action, kind: kind.to_owned(), name: name.to_string(), fields });
        true
    }

    /// Where a reference points when the plan is carried out.
    pub fn find(&self, reference: &ImageReference) -> Result<Digest, Refusal> {
        match reference {
            ImageReference::Name(name) if self.tags.contains_key(name) => Ok(self.tags[name].digest),
            _ => find_image(reference, self.view.records),
        }
    }

    /// Machines can boot what a document gives them.
    pub fn check_assignment(&self, place: usize, assignment: &Assignment) -> Result<(), Wrong> {
        let Assignment::Image(reference) = assignment else { return Ok(()) };
        let refuse = |refusal: Refusal| Wrong::refused(place, "/image", &refusal);
        let digest = self.find(reference).map_err(refuse)?;
        match self.view.records.image(&digest).map(|image| image.config.content) {
            Some(Content::Kernel { .. }) => Err(refuse(Refusal::KernelOnly(reference.clone()))),
            _ => Ok(()),
        }
    }

    pub fn decide(self, dry_run: bool) -> Decision<Result<Plan, Wrong>> {
        let Self { steps, unchanged, revision, changes, .. } = self;
        let plan = Plan { steps, unchanged, revision, applied: !dry_run };
        let changes = if dry_run { Vec::new() } else { changes };
        Decision { changes, ..Decision::just(Ok(plan)) }
    }
}
