//! Taking away what nothing needs: artifacts of the registry, and images by the rule of retention.

use super::images::booting;
use crate::{
    Change, Decision, MacAddress, Moment, Records, Timestamp, View,
    assignment::Assignment,
    boot::{Boot, State},
    image::{Digest, Image, ImageName, ImageReference, Tag},
    registry::{Artifact, orphans},
    rule::{Rule, RuleName},
    settings::{Retention, UnknownPolicy},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What nothing needs yet may be about to be: the parts of a push come before what names them.
const YOUNG_MS: u64 = 60 * 60 * 1000;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Takes away what nothing needs.
#[derive(Debug, Clone)]
pub struct Collect {
    /// Only says what would go.
    pub dry_run: bool,
    /// Until when each image ran ([`ran`]).
    pub ran: BTreeMap<Digest, Timestamp>,
    /// Images that the configuration names beside what rules see of it.
    pub named: Vec<ImageReference>,
}

/// What a collection came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Every image, and what becomes of it.
    pub images: Vec<(Digest, Verdict)>,
    /// The artifacts that go.
    pub artifacts: Vec<Artifact>,
}

impl Collected {
    /// The images that go.
    pub fn gone(&self) -> BTreeSet<Digest> {
        self.images.iter().filter(|(_, verdict)| verdict.goes()).map(|(digest, _)| *digest).collect()
    }
}

/// What becomes of an image, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = GcVerdict)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Verdict {
    /// Stays: a tag points at it.
    Tagged {
        /// The tags.
        tags: Vec<ImageName>,
    },
    /// Stays: machines are assigned its digest.
    Assigned {
        /// The machines.
        machines: Vec<MacAddress>,
    },
    /// Stays: rules give its digest to machines.
    NamedByRules {
        /// The rules.
        rules: Vec<RuleName>,
    },
    /// Stays: the configuration names its digest.
    Configured,
    /// Stays: machines are booting it.
    Booting {
        /// The machines.
        machines: Vec<MacAddress>,
    },
    /// Stays: it is one of the last that a tag pointed at (`keep_last`).
    Recent {
        /// The tag.
        tag: ImageName,
    },
    /// Stays: it ran within `keep_days`.
    Ran {
        /// Until when.
        until: Timestamp,
    },
    /// Stays: no rule says how long images are kept.
    NoRule,
    /// Goes: nothing names it, and no rule keeps it.
    Unneeded,
}

impl Verdict {
    /// Whether the image goes.
    pub fn goes(&self) -> bool {
        *self == Self::Unneeded
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tagged { tags } => write!(f, "tagged {}", super::list(tags)),
            Self::Assigned { machines } => write!(f, "assigned to {}", super::list(machines)),
            Self::NamedByRules { rules } => write!(f, "given to machines by the rules {}", super::list(rules)),
            Self::Configured => f.write_str("the configuration names it"),
            Self::Booting { machines } => write!(f, "being booted by {}", super::list(machines)),
            Self::Recent { tag } => write!(f, "one of the last that {tag} pointed at (retention.keep_last)"),
            Self::Ran { until } => write!(f, "ran until {until} (retention.keep_days)"),
            Self::NoRule => f.write_str("no rule of retention is configured"),
            Self::Unneeded => f.write_str("nothing names it, and no rule of retention keeps it"),
        }
    }
}

/// Carries out [`Collect`].
pub fn collect(request: &Collect, view: &View<'_>, at: &Moment) -> Decision<Collected> {
    let judge = Judge::new(request, view, at);
    let mut images = view.records.images();
    let judged: Vec<(Digest, Verdict)> = images.iter().map(|image| (image.digest, judge.verdict(image))).collect();
    let mut collected = Collected { images: judged, artifacts: Vec::new() };
    let gone = collected.gone();
    images.retain(|image| !gone.contains(&image.digest));
    let (artifacts, pushes) = (view.records.artifacts(), view.records.pushes());
    let orphaned = orphans(&artifacts, &pushes, &images);
    let is_due = |artifact: &Artifact| orphaned.contains(&artifact.digest) && at.now.since(artifact.pushed) > YOUNG_MS;
    collected.artifacts = artifacts.into_iter().filter(is_due).collect();
    if request.dry_run {
        return Decision::just(collected);
    }
    let due: BTreeSet<Digest> = collected.artifacts.iter().map(|artifact| artifact.digest).collect();
    // Tags of signatures, which are kept for what they sign.
    let tags = pushes.into_iter().filter(|push| due.contains(&push.digest)).map(|push| Change::RemovePush(push.name));
    let changes = gone.into_iter().map(Change::RemoveImage).chain(tags);
    let changes = changes.chain(due.iter().copied().map(Change::RemoveArtifact)).collect();
    Decision { changes, ..Decision::just(collected) }
}

/// What judges an image.
struct Judge<'a> {
    request: &'a Collect,
    view: &'a View<'a>,
    at: &'a Moment,
    tags: Vec<Tag>,
    assigned: Vec<(Digest, MacAddress)>,
    by_rule: Vec<(Digest, RuleName)>,
    /// By a tag that pointed there not long ago.
    recent: BTreeMap<Digest, ImageName>,
}

impl<'a> Judge<'a> {
    fn new(request: &'a Collect, view: &'a View<'a>, at: &'a Moment) -> Self {
        let tags = view.records.tags();
        let assignment = |machine: crate::Machine| match machine.assignment {
            Some(Assignment::Image(ImageReference::Digest(digest))) => Some((digest, machine.id)),
            _ => None,
        };
        let assigned = view.records.machines().into_iter().filter_map(assignment).collect();
        let of_rule = |rule: Rule| match rule.image {
            Assignment::Image(ImageReference::Digest(digest)) => Some((digest, rule.name)),
            _ => None,
        };
        let by_rule = view.records.rules().into_iter().filter_map(of_rule).collect();
        let recent = at.settings.retention.keep_last.map(|last| recent(&tags, last as usize)).unwrap_or_default();
        let recent = with_siblings(recent, view.records);
        Self { request, view, at, tags, assigned, by_rule, recent }
    }

    fn verdict(&self, image: &Image) -> Verdict {
        let digest = image.digest;
        let points = |tag: &&Tag| tag.digest == digest || tag.others.values().any(|other| *other == digest);
        let tags: Vec<ImageName> = self.tags.iter().filter(points).map(|tag| tag.name.clone()).collect();
        if !tags.is_empty() {
            return Verdict::Tagged { tags };
        }
        let machines: Vec<MacAddress> =
            self.assigned.iter().filter(|(named, _)| *named == digest).map(|(_, machine)| *machine).collect();
        if !machines.is_empty() {
            return Verdict::Assigned { machines };
        }
        let rules: Vec<RuleName> =
            self.by_rule.iter().filter(|(named, _)| *named == digest).map(|(_, rule)| rule.clone()).collect();
        if !rules.is_empty() {
            return Verdict::NamedByRules { rules };
        }
        let settings = &self.at.settings;
        let by_policy = match &settings.unknown {
            UnknownPolicy::Image(image) => Some(image),
            _ => None,
        };
        let mut named = self.request.named.iter().chain([&settings.discovery_image]).chain(by_policy);
        if named.any(|reference| *reference == ImageReference::Digest(digest)) {
            return Verdict::Configured;
        }
        let pins = |boot: &&Boot| boot.is_open() && boot.image.as_ref().is_some_and(|image| image.digest == digest);
        let pinned = self.view.live.boots().filter(pins).map(|boot| boot.machine);
        let machines: BTreeSet<MacAddress> = pinned.chain(booting(&digest, self.view, self.at.now)).collect();
        let machines: Vec<MacAddress> = machines.into_iter().collect();
        if !machines.is_empty() {
            return Verdict::Booting { machines };
        }
        self.by_retention(&digest, settings.retention)
    }

    fn by_retention(&self, digest: &Digest, retention: Retention) -> Verdict {
        if retention == Retention::default() {
            return Verdict::NoRule;
        }
        if let Some(tag) = self.recent.get(digest) {
            return Verdict::Recent { tag: tag.clone() };
        }
        let until = self.request.ran.get(digest).copied();
        let days = retention.keep_days.map(|days| u64::from(days) * DAY_MS);
        match (until, days) {
            (Some(until), Some(days)) if self.at.now.since(until) <= days => Verdict::Ran { until },
            _ => Verdict::Unneeded,
        }
    }
}

/// The last `count` images that each tag pointed at, each counted once, however often the tag came back to it.
fn recent(tags: &[Tag], count: usize) -> BTreeMap<Digest, ImageName> {
    let mut recent = BTreeMap::new();
    for tag in tags {
        let mut seen = Vec::new();
        for digest in std::iter::once(tag.digest).chain(tag.history.iter().rev().map(|moved| moved.digest)) {
            if seen.len() < count && !seen.contains(&digest) {
                seen.push(digest);
                recent.entry(digest).or_insert_with(|| tag.name.clone());
            }
        }
    }
    recent
}

/// With the images for other architectures that came in the same index: a tag's history names only one of them.
fn with_siblings(mut kept: BTreeMap<Digest, ImageName>, records: &dyn Records) -> BTreeMap<Digest, ImageName> {
    let sources: Vec<(Digest, Digest)> = records
        .images()
        .iter()
        .filter_map(|image| Some((image.digest, image.config.derived.as_ref()?.source.digest)))
        .collect();
    for artifact in records.artifacts() {
        let parts: BTreeSet<Digest> = artifact.parts.iter().map(|part| part.digest).collect();
        let of_index: Vec<Digest> =
            sources.iter().filter(|(_, source)| parts.contains(source)).map(|(image, _)| *image).collect();
        if let Some(tag) = of_index.iter().find_map(|image| kept.get(image)).cloned() {
            for image in of_index {
                kept.entry(image).or_insert_with(|| tag.clone());
            }
        }
    }
    kept
}

/// Until when each image ran, by the boots on record: one that was handed out and did not fail lasts until its machine's
/// next boot, and the latest until now.
pub fn ran(boots: &[Boot], now: Timestamp) -> BTreeMap<Digest, Timestamp> {
    let mut by_machine: BTreeMap<MacAddress, Vec<&Boot>> = BTreeMap::new();
    for boot in boots {
        by_machine.entry(boot.machine).or_default().push(boot);
    }
    let mut ran = BTreeMap::new();
    for boots in by_machine.values_mut() {
        boots.sort_by_key(|boot| boot.opened);
        let ends = boots.iter().skip(1).map(|next| next.opened).chain([now]);
        for (boot, end) in boots.iter().zip(ends) {
            let Some(image) = boot.image.as_ref().filter(|_| boot.token.is_some() && boot.state != State::Failed)
            else {
                continue;
            };
            let until: &mut Timestamp = ran.entry(image.digest).or_default();
            *until = (*until).max(end);
        }
    }
    ran
}

#[cfg(test)]
mod tests;
