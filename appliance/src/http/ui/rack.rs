//! The rack: every machine, what it runs, and how far it is.

use super::{
    failure::{Shown, page},
    format::When,
    states::{self, KINDS, Look, look},
    visitor::{Chrome, Visitor, encoded},
};
use crate::http::api::{
    boots::now, images::ImageListed, leases::LeaseShown, machines::MachineShown, request::Params, status::Status,
};
use askama::Template;
use bennu_rules::{
    MacAddress, Timestamp,
    assignment::Assignment,
    boot::Pinned,
    image::{Content, Digest, ImageName, ImageReference, Tag},
    journey::MARKS,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Machines on one page: a browser's script goes over all of them at every update.
const MOST: usize = 2000;

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
struct Known {
    tags: BTreeMap<ImageName, Tag>,
    roots: BTreeMap<Digest, u64>,
    leases: BTreeMap<MacAddress, LeaseShown>,
    now: Timestamp,
}

/// `GET /`
pub async fn show(visitor: Visitor, Params(wanted): Params<Wanted>) -> Shown {
    let machines: Vec<MachineShown> = visitor.list("/v1/machines").await?;
    let images: Vec<ImageListed> = visitor.list("/v1/images").await?;
    let leases: Vec<LeaseShown> = visitor.list("/v1/leases").await?;
    let status: Status = visitor.get("/v1/status").await?;
    let known = Known::of(&images, leases);
    let keys: BTreeSet<String> = machines.iter().flat_map(|shown| shown.machine.labels.keys().cloned()).collect();
    let total = machines.len();
    let rows: Vec<Row> = machines.iter().map(|shown| known.row(shown)).collect();
    let counts =
        KINDS.map(|(kind, word)| Count { kind, word, count: rows.iter().filter(|row| row.look.kind == kind).count() });
    let words: Vec<String> = wanted.q.split_whitespace().map(str::to_lowercase).collect();
    let is_wanted = |row: &Row| {
        (wanted.state.is_empty() || row.look.kind == wanted.state) && words.iter().all(|word| row.find.contains(word))
    };
    let rows: Vec<Row> = rows.into_iter().filter(is_wanted).take(MOST).collect();
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
        notices: notices(&status, known.now),
        marks: marks(),
        looks: states::as_json(),
        wanted,
    })
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

impl Known {
    fn of(images: &[ImageListed], leases: Vec<LeaseShown>) -> Self {
        let tags = images.iter().flat_map(|listed| listed.shown.tags.iter().map(|tag| (tag.name.clone(), tag.clone())));
        let root = |listed: &ImageListed| match &listed.shown.image.config.content {
            Content::Root { root, .. } => Some((listed.shown.image.digest, root.size)),
            _ => None,
        };
        let by_machine = |lease: LeaseShown| (lease.machine.unwrap_or(lease.mac), lease);
        let active = leases.into_iter().filter(|lease| lease.active && !lease.declined);
        Self {
            tags: tags.collect(),
            roots: images.iter().filter_map(root).collect(),
            leases: active.map(by_machine).collect(),
            now: now(),
        }
    }

    fn row(&self, shown: &MachineShown) -> Row {
        let MachineShown { machine, last_boot, .. } = shown;
        let look = look(
            last_boot.as_ref().map(|boot| boot.state),
            last_boot.as_ref().is_some_and(|boot| boot.diagnosis.is_some()),
        );
        let pinned = last_boot.as_ref().and_then(|boot| boot.image.as_ref());
        let lease = self.leases.get(&machine.id);
        let facts = &machine.facts;
        let model = [&facts.manufacturer, &facts.product].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let root = pinned.and_then(|pinned| self.roots.get(&pinned.digest)).copied();
        let (image, next) = self.images(shown, pinned);
        let last = last_boot.as_ref().map_or(String::new(), |boot| match &boot.diagnosis {
            Some(diagnosis) => diagnosis.reason.clone(),
            None => boot.last.clone(),
        });
        let mut row = Row {
            mac: machine.id,
            look,
            percent: last_boot.as_ref().filter(|_| look.kind == "booting").map(|boot| boot.furthest.percent(root)),
            boot: last_boot.as_ref().map_or(String::new(), |boot| boot.id.to_string()),
            root: root.unwrap_or(0),
            name: lease.and_then(|lease| lease.hostname.clone()).unwrap_or_default(),
            model,
            address: lease.map(|lease| lease.address.to_string()).unwrap_or_default(),
            image,
            digest: pinned.map_or(String::new(), |pinned| pinned.digest.short()),
            next,
            labels: machine.labels.clone().into_iter().collect(),
            when: last_boot.as_ref().map(|boot| When::of(boot.closed.unwrap_or(boot.opened), self.now)),
            last,
            find: String::new(),
        };
        row.find = row.text(facts.serial.as_deref().unwrap_or_default(), &machine.macs);
        row
    }

    /// What it runs, and what the next boot gets where that differs.
    /// By the choice that explain tells too: the machine's own, else a rule's, else the policy's.
    fn images(&self, shown: &MachineShown, pinned: Option<&Pinned>) -> (String, Option<String>) {
        let of_architecture = |tag: &Tag| {
            let other = shown.machine.facts.architecture.and_then(|architecture| tag.others.get(&architecture));
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
        let next = match &shown.next.image {
            Some(Assignment::Image(reference)) => {
                let is_same = pinned.is_some_and(|pinned| digest_of(reference) == Some(pinned.digest));
                (!is_same).then(|| short(reference))
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
