//! One machine: its boot, what it would get next, what is known of it, and what people may do with it.

pub mod changes;

use super::{
    failure::{Shown, page},
    format::{When, bytes},
    states::{Look, look},
    timeline::Waterfall,
    visitor::{Chrome, Visitor},
};
use crate::http::api::{
    boots::{BootShown, BootSummary, now},
    images::ImageListed,
    leases::active,
    machines::MachineShown,
    problem::{Answer, Kind, Problem},
    request::Params,
};
use askama::Template;
use axum::{extract::Path, http::Method};
use bennu_rules::{
    MacAddress, Machine, Timestamp,
    boot::BootId,
    facts::Facts,
    image::{Content, Digest},
    journey::Diagnosis,
};
use serde::Deserialize;
use serde_json::Value;

/// Boots of the past on a page.
const PAST: usize = 12;

/// Which boot to show.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The latest unless given.
    boot: Option<String>,
    /// What was just done.
    #[serde(default)]
    done: String,
}

struct Boot {
    id: BootId,
    look: Look,
    percent: Option<u8>,
    image: String,
    digest: String,
    opened: When,
    seen: When,
    bytes: String,
    system: String,
    diagnosis: Option<Diagnosis>,
    waterfall: Waterfall,
}

struct Past {
    id: BootId,
    look: Look,
    image: String,
    opened: When,
    last: String,
    is_shown: bool,
}

struct Next {
    what: String,
    why: String,
    profile: String,
    loader: String,
    script: String,
    plan: String,
}

#[derive(Template)]
#[template(path = "machine.html")]
struct MachinePage {
    chrome: Chrome,
    mac: MacAddress,
    macs: Vec<MacAddress>,
    etag: String,
    assignment: String,
    name: String,
    address: String,
    look: Look,
    labels: Vec<(String, String)>,
    arguments: String,
    reservation: String,
    first_seen: When,
    boot: Option<Boot>,
    past: Vec<Past>,
    next: Option<Next>,
    facts: Vec<(&'static str, String)>,
    disks: Vec<(String, String)>,
    cards: Vec<(String, String)>,
    images: Vec<String>,
    may_change: bool,
    done: &'static str,
}

/// `GET /ui/machines/{mac}`
pub async fn show(visitor: Visitor, Path(mac): Path<String>, Params(wanted): Params<Wanted>) -> Shown {
    let mac = crate::http::api::request::mac(&mac)?;
    let (shown, etag): (MachineShown, String) = visitor.get_with_etag(&format!("/v1/machines/{mac}")).await?;
    let now = now();
    let machine = shown.machine;
    let boots: crate::http::api::request::Page<BootSummary> =
        visitor.get(&format!("/v1/machines/{mac}/boots?limit={PAST}")).await?;
    let images: Vec<ImageListed> = visitor.list("/v1/images").await?;
    let appliance = visitor.behind(&["/v1/leases"])?;
    let lease = appliance.ledger.stored(|records| active(&machine.macs, appliance.settings(), records, now));
    let lease = lease.map_err(Problem::from)?;
    let chosen = match &wanted.boot {
        Some(id) => Some(boots.items.iter().find(|boot| boot.id.0 == *id).ok_or_else(|| no_such_boot(id))?),
        None => boots.items.first(),
    };
    let boot = match chosen {
        Some(summary) => {
            let boot: BootShown = visitor.get(&format!("/v1/boots/{}", summary.id)).await?;
            Some(Boot::of(&boot, root_size(&images, summary), now))
        }
        None => None,
    };
    let latest = boots.items.first();
    let next = explained(&visitor, mac).await?;
    let is_shown = |boot: &BootSummary| chosen.is_some_and(|chosen| chosen.id == boot.id);
    page(&MachinePage {
        chrome: visitor.chrome(machine.id.to_string(), "rack"),
        mac: machine.id,
        etag,
        assignment: machine.assignment.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: lease.as_ref().and_then(|lease| lease.hostname.clone()).unwrap_or_default(),
        address: lease.map(|lease| lease.address.to_string()).unwrap_or_default(),
        look: look(latest.map(|boot| boot.state), latest.is_some_and(|boot| boot.diagnosis.is_some())),
        labels: machine.labels.clone().into_iter().collect(),
        arguments: machine.arguments.clone(),
        reservation: machine.reservation.map(|address| address.to_string()).unwrap_or_default(),
        first_seen: When::of(machine.first_seen, now),
        past: boots.items.iter().map(|boot| Past::of(boot, is_shown(boot), now)).collect(),
        boot,
        next,
        facts: facts(&machine),
        disks: disks(&machine.facts),
        cards: cards(&machine.facts),
        images: bootable(&images),
        may_change: visitor.may(Method::PUT, &format!("/v1/machines/{mac}/assignment")),
        done: done(&wanted.done),
        macs: machine.macs,
    })
}

fn no_such_boot(id: &str) -> Problem {
    let id: String = id.chars().take(64).collect();
    Problem::new(Kind::NotFound, format!("this machine has no boot {id} of late"), "its page shows the latest ones")
}

fn done(what: &str) -> &'static str {
    match what {
        "assigned" => "Assigned. The machine gets it at its next boot.",
        "unassigned" => "The assignment is gone.",
        "changed" => "Changed.",
        _ => "",
    }
}

fn root_size(images: &[ImageListed], boot: &BootSummary) -> Option<u64> {
    let digest = boot.image.as_ref()?.digest;
    let listed = images.iter().find(|listed| listed.shown.image.digest == digest)?;
    match &listed.shown.image.config.content {
        Content::Root { root, .. } => Some(root.size),
        _ => None,
    }
}

/// What can be assigned, by name: a kernel alone is no system.
pub fn bootable(images: &[ImageListed]) -> Vec<String> {
    let whole = images.iter().filter(|listed| !matches!(listed.shown.image.config.content, Content::Kernel { .. }));
    let mut names: Vec<String> =
        whole.flat_map(|listed| listed.shown.tags.iter().map(|tag| tag.name.to_string())).collect();
    names.sort();
    names
}

impl Boot {
    fn of(boot: &BootShown, root: Option<u64>, now: Timestamp) -> Self {
        let summary = &boot.summary;
        let look = look(Some(summary.state), summary.diagnosis.is_some());
        let word = |value: &dyn std::fmt::Debug| format!("{value:?}");
        let system = boot.system.map(|system| {
            let (firmware, transport) = (word(&system.firmware).to_uppercase(), word(&system.transport).to_uppercase());
            format!("{} {firmware}, {transport}", word(&system.architecture).to_lowercase())
        });
        Self {
            id: summary.id.clone(),
            percent: (look.kind == "booting").then(|| summary.furthest.percent(root)),
            image: summary.image.as_ref().map_or(String::new(), |image| image.reference.to_string()),
            digest: summary.image.as_ref().map_or(String::new(), |image| image.digest.short()),
            opened: When::of(summary.opened, now),
            seen: When::of(summary.last_seen, now),
            bytes: bytes(summary.bytes),
            system: system.unwrap_or_default(),
            diagnosis: summary.diagnosis.clone(),
            waterfall: Waterfall::of(boot),
            look,
        }
    }
}

impl Past {
    fn of(boot: &BootSummary, is_shown: bool, now: Timestamp) -> Self {
        Self {
            id: boot.id.clone(),
            look: look(Some(boot.state), boot.diagnosis.is_some()),
            image: boot.image.as_ref().map_or(String::new(), |image| image.reference.to_string()),
            opened: When::of(boot.opened, now),
            last: boot.diagnosis.as_ref().map_or_else(|| boot.last.clone(), |diagnosis| diagnosis.reason.clone()),
            is_shown,
        }
    }
}

/// What the next boot would get. Read loosely: a page need not know every target that there will be.
async fn explained(visitor: &Visitor, mac: MacAddress) -> Answer<Option<Next>> {
    let told: Value = visitor.get(&format!("/v1/machines/{mac}/explain")).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resolution = &told["resolution"];
    let reference = text(&resolution["reference"]);
    let what = match resolution["target"].as_str().unwrap_or_default() {
        "image" => {
            let digest = resolution["digest"].as_str().and_then(|digest| digest.parse::<Digest>().ok());
            format!("{reference} ({})", digest.map(|digest| digest.short()).unwrap_or_default())
        }
        "discover" => "the discovery image, to wait for an assignment".to_owned(),
        "wait" => "a script that waits for an assignment".to_owned(),
        "local" => "its own disk".to_owned(),
        "ignore" => "no answer".to_owned(),
        "missing" => format!("nothing: there is no image {reference}"),
        other => other.to_owned(),
    };
    let why = match resolution["origin"].as_str() {
        None if resolution["origin"]["rule"].is_object() => {
            format!("by the rule {}", text(&resolution["origin"]["rule"]["name"]))
        }
        Some("machine") => "by its own assignment".to_owned(),
        Some("unknown_policy") => "by the policy boot.unknown".to_owned(),
        Some(other) => format!("by {other}"),
        None => "nothing is assigned to it".to_owned(),
    };
    let plan = if told["plan"].is_null() {
        String::new()
    } else {
        serde_json::to_string_pretty(&told["plan"]).unwrap_or_default()
    };
    Ok(Some(Next {
        what,
        why,
        profile: text(&told["profile"]),
        loader: text(&told["loader"]),
        script: text(&told["script"]),
        plan,
    }))
}

fn facts(machine: &Machine) -> Vec<(&'static str, String)> {
    let facts = &machine.facts;
    let inventory = facts.inventory.as_ref();
    let word = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let rows = [
        ("Manufacturer", facts.manufacturer.clone()),
        ("Product", facts.product.clone()),
        ("Serial", facts.serial.clone()),
        ("Asset tag", facts.asset.clone()),
        ("UUID", facts.uuid.clone()),
        ("Architecture", word(facts.architecture.and_then(|word| serde_json::to_value(word).ok()))),
        (
            "Firmware",
            word(facts.firmware.and_then(|word| serde_json::to_value(word).ok())).map(|word| word.to_uppercase()),
        ),
        ("Processor", inventory.map(|found| format!("{} × {}", found.cpus, found.cpu_model))),
        ("Memory", inventory.map(|found| bytes(found.memory))),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?))).collect()
}

fn disks(facts: &Facts) -> Vec<(String, String)> {
    let disks = facts.inventory.iter().flat_map(|inventory| &inventory.disks);
    disks
        .map(|disk| {
            let kind = if disk.rotational { "rotational" } else { "solid state" };
            (disk.name.clone(), format!("{} {} {} {kind}", bytes(disk.size), disk.model, disk.serial))
        })
        .collect()
}

fn cards(facts: &Facts) -> Vec<(String, String)> {
    let cards = facts.inventory.iter().flat_map(|inventory| &inventory.nics);
    cards
        .map(|card| {
            let link = match (card.link, card.speed) {
                (false, _) => "no link".to_owned(),
                (true, 0) => "link".to_owned(),
                (true, speed) => format!("{speed} Mbit/s"),
            };
            (card.name.clone(), format!("{} {} {link}", card.mac, card.driver))
        })
        .collect()
}
