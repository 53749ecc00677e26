//! The rack: every machine, what it runs, and how far it is.

use super::{
    failure::{Shown, page},
    format::When,
    states::{self, KINDS, Look, look},
    visitor::{Chrome, Visitor, encoded},
};
use crate::{
    appliance::Appliance,
    author::Sight,
    http::api::{
        boots::{BootSummary, now},
        leases,
        problem::Problem,
        request::Params,
        status::Status,
    },
    ledger::Stored,
};
use askama::Template;
use bennu_rules::{
    MacAddress, Machine, Records, Timestamp,
    assignment::{Assignment, choose},
    boot::Pinned,
    image::{Content, Digest, Image, ImageName, ImageReference, Tag},
    journey::MARKS,
    machine::Outline,
    rule::Rule,
    settings::Settings,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Machines on one page: a browser lays out all of them, and its script goes over them at every update.
const MOST: usize = 1000;

/// Notices that are this old have been read or do not matter.
const NOTICE_MS: u64 = 15 * 60_000;

/// What to show of the rack.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Words that must all be in a machine's line.
    #[serde(default)]
    q: String,
    /// Only machines of this kind.
    #[serde(default)]
    state: String,
    /// The label by whose values to group.
    group: Option<String>,
}

/// One machine.
pub struct Row {
    mac: MacAddress,
    look: Look,
    percent: Option<u8>,
    boot: String,
    root: u64,
    name: String,
    model: String,
    address: String,
    image: String,
    digest: String,
    next: Option<String>,
    labels: Vec<(String, String)>,
    when: Option<When>,
    last: String,
    find: String,
}

struct Group {
    value: String,
    rows: Vec<Row>,
}

struct Count {
    kind: &'static str,
    word: &'static str,
    count: usize,
}

#[derive(Template)]
#[template(path = "rack.html")]
struct RackPage {
    chrome: Chrome,
    wanted: Wanted,
    counts: Vec<Count>,
    total: usize,
    shown: usize,
    group_by: String,
    keys: Vec<String>,
    groups: Vec<Group>,
    notices: Vec<(String, String)>,
    marks: String,
    looks: String,
}

impl RackPage {
    /// The address of the same rack with another kind.
    fn link(&self, kind: &str) -> String {
        let kind = if self.wanted.state == kind { "" } else { kind };
        let given = [("q", self.wanted.q.as_str()), ("state", kind)];
        let given = given.into_iter().chain(self.wanted.group.as_deref().map(|group| ("group", group)));
        let given: Vec<String> = given
            .filter(|(name, value)| *name == "group" || !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        if given.is_empty() { "/".to_owned() } else { format!("/?{}", given.join("&")) }
    }
}

/// What rows are made of beside their machines.
struct Known<'a> {
    tags: BTreeMap<ImageName, Tag>,
    roots: BTreeMap<Digest, u64>,
    rules: Vec<Rule>,
    settings: &'a Settings,
    records: &'a Stored<'a>,
    now: Timestamp,
}

/// A machine and its latest boot.
struct Seen {
    machine: Outline,
    boot: Option<BootSummary>,
    look: Look,
}

/// `GET /`
pub async fn show(visitor: Visitor, Params(wanted): Params<Wanted>) -> Shown {
    let status: Option<Status> = visitor.get_if_seen("/v1/status").await?;
    let appliance = visitor.behind(&["/v1/machines", "/v1/images", "/v1/leases", "/v1/boots"])?;
    let rack = seen(appliance)?;
    let keys: BTreeSet<String> = rack.iter().flat_map(|seen| seen.machine.labels.keys().cloned()).collect();
    let total = rack.len();
    let counts = KINDS.map(|(kind, word)| Count {
        kind,
        word,
        count: rack.iter().filter(|seen| seen.look.kind == kind).count(),
    });
    let (now, settings) = (now(), appliance.ledger.settings());
    let rows = appliance.ledger.stored(|records| {
        let known = Known::of(records, &settings, now);
        rows(rack, &wanted, &known)
    });
    let rows = rows.map_err(Problem::from)?;
    let group_by =
        wanted.group.clone().unwrap_or_else(|| if keys.contains("rack") { "rack".into() } else { String::new() });
    page(&RackPage {
        chrome: visitor.chrome("Rack", "rack"),
        counts: counts.into_iter().filter(|count| count.count > 0 || matches!(count.kind, "up" | "failed")).collect(),
        total,
        shown: rows.len(),
        groups: grouped(rows, &group_by),
        keys: keys.into_iter().collect(),
        group_by,
        notices: status.as_ref().map_or_else(Vec::new, |status| notices(status, now)),
        marks: marks(),
        looks: states::as_json(),
        wanted,
    })
}

/// Every machine that whoever asks may see.
fn seen(appliance: &Appliance) -> Result<Vec<Seen>, Problem> {
    let (mut machines, sight) = (appliance.ledger.stored(|records| records.outlines())?, Sight::current());
    machines.retain(|machine| sight.takes_in(&machine.labels));
    let macs = machines.iter().map(|machine| machine.macs.as_slice());
    let boots = appliance.ledger.latest_boots(macs, BootSummary::of)?;
    let seen = |(machine, boot): (Outline, Option<BootSummary>)| {
        let is_diagnosed = boot.as_ref().is_some_and(|boot| boot.diagnosis.is_some());
        let look = look(boot.as_ref().map(|boot| boot.state), is_diagnosed);
        Seen { machine, boot, look }
    };
    Ok(machines.into_iter().zip(boots).map(seen).collect())
}

/// The rows that are asked for, by machine. Where there are too many, those that want a person stay.
fn rows(mut rack: Vec<Seen>, wanted: &Wanted, known: &Known<'_>) -> Vec<Row> {
    let words: Vec<String> = wanted.q.split_whitespace().map(str::to_lowercase).collect();
    let urgency = |seen: &Seen| KINDS.iter().position(|(kind, _)| *kind == seen.look.kind);
    rack.retain(|seen| wanted.state.is_empty() || seen.look.kind == wanted.state);
    rack.sort_by_key(urgency);
    let rows = rack.into_iter().map(|seen| known.row(seen));
    let mut rows: Vec<Row> = rows.filter(|row| words.iter().all(|word| row.find.contains(word))).take(MOST).collect();
    rows.sort_by_key(|row| row.mac);
    rows
}

fn marks() -> String {
    let marks = MARKS.iter().map(|(step, percent)| ((*step).to_owned(), (*percent).into()));
    serde_json::Value::Object(marks.collect()).to_string()
}

fn notices(status: &Status, now: Timestamp) -> Vec<(String, String)> {
    let of_late = status.notices.iter().rev().filter(|noticed| now.since(noticed.until) < NOTICE_MS);
    of_late.take(3).map(|noticed| (noticed.notice.to_string(), noticed.notice.advice())).collect()
}

/// By the label's values, machines without it at the end.
fn grouped(rows: Vec<Row>, by: &str) -> Vec<Group> {
    let mut groups = BTreeMap::<(bool, String), Vec<Row>>::new();
    for row in rows {
        let value = row.labels.iter().find(|(key, _)| key == by).map(|(_, value)| value.clone());
        groups.entry((value.is_none(), value.unwrap_or_default())).or_default().push(row);
    }
    groups.into_iter().map(|((_, value), rows)| Group { value, rows }).collect()
}

impl<'a> Known<'a> {
    fn of(records: &'a Stored<'a>, settings: &'a Settings, now: Timestamp) -> Self {
        let root = |image: &Image| match &image.config.content {
            Content::Root { root, .. } => Some((image.digest, root.size)),
            _ => None,
        };
        Self {
            tags: records.tags().into_iter().map(|tag| (tag.name.clone(), tag)).collect(),
            roots: records.images().iter().filter_map(root).collect(),
            rules: records.rules(),
            settings,
            records,
            now,
        }
    }

    fn row(&self, seen: Seen) -> Row {
        let Seen { machine, boot, look } = seen;
        let Outline { id, macs, labels, facts, .. } = machine;
        let pinned = boot.as_ref().and_then(|boot| boot.image.as_ref());
        let lease = leases::active(&macs, self.settings, self.records, self.now);
        let model = [facts.manufacturer, facts.product].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let root = pinned.and_then(|pinned| self.roots.get(&pinned.digest)).copied();
        let machine = self.records.machine(id);
        let (image, next) = self.images(machine.as_ref(), pinned);
        let mut row = Row {
            mac: id,
            look,
            percent: boot.as_ref().filter(|_| look.kind == "booting").map(|boot| boot.furthest.percent(root)),
            root: root.unwrap_or(0),
            name: lease.as_ref().and_then(|lease| lease.hostname.clone()).unwrap_or_default(),
            model,
            address: lease.map(|lease| lease.address.to_string()).unwrap_or_default(),
            image,
            digest: pinned.map_or(String::new(), |pinned| pinned.digest.short()),
            next,
            labels: labels.into_iter().collect(),
            when: boot.as_ref().map(|boot| When::of(boot.closed.unwrap_or(boot.opened), self.now)),
            boot: boot.as_ref().map_or(String::new(), |boot| boot.id.to_string()),
            last: boot.map_or(String::new(), |boot| boot.diagnosis.map_or(boot.last, |diagnosis| diagnosis.reason)),
            find: String::new(),
        };
        row.find = row.text(facts.serial.as_deref().unwrap_or_default(), &macs);
        row
    }

    /// What it runs, and what the next boot gets where that differs.
    /// By the choice that explain tells too: the machine's own, else a rule's, else the policy's.
    fn images(&self, machine: Option<&Machine>, pinned: Option<&Pinned>) -> (String, Option<String>) {
        let of_architecture = |tag: &Tag| {
            let other = machine
                .and_then(|machine| machine.facts.architecture)
                .and_then(|architecture| tag.others.get(&architecture));
            other.copied().unwrap_or(tag.digest)
        };
        let digest_of = |reference: &ImageReference| match reference {
            ImageReference::Digest(digest) => Some(*digest),
            ImageReference::Name(name) => self.tags.get(name).map(of_architecture),
        };
        let short = |reference: &ImageReference| match reference {
            ImageReference::Name(name) => name.to_string(),
            ImageReference::Digest(digest) => digest.short(),
        };
        let running = pinned.map_or(String::new(), |pinned| short(&pinned.reference));
        let next = match choose(machine, &self.rules, self.settings).image {
            Some(Assignment::Image(reference)) => {
                let is_same = pinned.is_some_and(|pinned| digest_of(&reference) == Some(pinned.digest));
                (!is_same).then(|| short(&reference))
            }
            Some(Assignment::Local) => pinned.map(|_| "own disk".to_owned()),
            None => None,
        };
        (running, next)
    }
}

impl Row {
    /// All that a search looks at, in lower case.
    fn text(&self, serial: &str, macs: &[MacAddress]) -> String {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let macs = macs.iter().map(ToString::to_string);
        let next = self.next.clone().unwrap_or_default();
        let own = [serial, self.look.word, &self.name, &self.model, &self.address, &self.image, &next, &self.digest];
        let all: Vec<String> = own.into_iter().map(str::to_owned).chain(labels).chain(macs).collect();
        all.join(" ").to_lowercase()
    }
}
