//! `bennu machine …`

mod changes;

use super::{
    Json,
    client::{Client, encoded},
    error::{CliError, Done},
    output::{Listing, age, bytes, fields, or_dash, say, say_json, time},
};
use crate::http::api::{
    boots::BootSummary,
    machines::{AssignmentBody, MachineShown, Patch},
};
use bennu_plan::{Inventory, Plan};
use bennu_rules::{
    MacAddress, Timestamp,
    assignment::{Assignment, Origin, Resolution},
    facts::Facts,
    rule::Rule,
    selector::Selector,
};
use changes::{LabelChange, OptionChange, Reservation};
use clap::Subcommand;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What can be done with machines.
#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// List machines
    List {
        /// Only those with these labels or hardware, such as rack=r1,role in (web,api),!retired or bennu.arch=arm64
        #[arg(long, short = 'l', default_value_t)]
        selector: Selector,
        #[command(flatten)]
        output: Json,
    },
    /// Show one machine: what is known of it, what it boots, how its last boots went
    Show {
        /// Any of its MAC addresses
        mac: MacAddress,
        #[command(flatten)]
        output: Json,
    },
    /// Say what a machine boots; a MAC that nobody knows declares a machine
    Assign {
        /// Any of its MAC addresses
        mac: MacAddress,
        /// NAME:TAG, sha256:DIGEST, or `local` for its own disk
        image: Assignment,
    },
    /// Leave it to the policy for unknown machines what a machine boots
    Unassign {
        /// Any of its MAC addresses
        mac: MacAddress,
    },
    /// Set labels (KEY=VALUE) or remove them (KEY-)
    Label {
        /// Any of its MAC addresses
        mac: MacAddress,
        /// KEY=VALUE or KEY-
        #[arg(required = true)]
        labels: Vec<LabelChange>,
    },
    /// Hold an address for a machine
    Reserve {
        /// Any of its MAC addresses
        mac: MacAddress,
        /// The address, or `none` to hold none any more
        address: Reservation,
    },
    /// Set kernel arguments of one machine alone; without text, remove them
    Arguments {
        /// Any of its MAC addresses
        mac: MacAddress,
        /// The arguments
        #[arg(default_value = "", allow_hyphen_values = true)]
        text: String,
    },
    /// Set DHCP options of one machine alone (CODE=VALUE) or remove them (CODE=)
    Option {
        /// Any of its MAC addresses
        mac: MacAddress,
        /// Such as 12=text:web1, 42=addresses:10.77.0.3, 26=u16:9000, 224=hex:0a0b
        #[arg(required = true)]
        options: Vec<OptionChange>,
    },
    /// Say that further MAC addresses are of the same machine
    Join {
        /// Any of its MAC addresses
        mac: MacAddress,
        /// The others
        #[arg(required = true)]
        others: Vec<MacAddress>,
    },
    /// Remove a machine's record; it is unknown when it boots again
    Forget {
        /// Any of its MAC addresses
        mac: MacAddress,
    },
    /// Print what a machine would get if it booted now, and why
    Explain {
        /// Any of its MAC addresses
        mac: MacAddress,
        #[command(flatten)]
        output: Json,
    },
}

/// What `…/explain` answers.
#[derive(Debug, Deserialize)]
struct Explanation {
    resolution: Resolution,
    #[serde(default)]
    rules: Vec<Rule>,
    profile: Option<String>,
    loader: String,
    script: String,
    plan: Option<Plan>,
    #[serde(default)]
    metadata: Option<crate::http::api::metadata::MetadataShown>,
}

/// Runs one.
pub async fn run(client: &Client, command: MachineCommand) -> Done {
    match command {
        MachineCommand::List { selector, output } => list(client, &selector, output).await,
        MachineCommand::Show { mac, output } => show(client, mac, output).await,
        MachineCommand::Assign { mac, image } => {
            let path = format!("/v1/machines/{mac}/assignment");
            let shown: MachineShown = client.write(Method::PUT, &path, &AssignmentBody { image }).await?;
            say(format!("{} boots {}", shown.machine.id, assignment(&shown)));
            Ok(())
        }
        MachineCommand::Unassign { mac } => {
            client.delete(&format!("/v1/machines/{mac}/assignment")).await?;
            say(format!("{mac} is unassigned"));
            Ok(())
        }
        MachineCommand::Label { mac, labels } => {
            let labels: BTreeMap<_, _> = labels.into_iter().map(|label| (label.key, label.value)).collect();
            let shown = patch(client, mac, &Patch { labels, ..Patch::default() }).await?;
            say(format!("{}: {}", shown.machine.id, or_none(&labels_of(&shown))));
            Ok(())
        }
        MachineCommand::Reserve { mac, address } => {
            let shown = patch(client, mac, &Patch { reservation: Some(address.0), ..Patch::default() }).await?;
            let held = shown.machine.reservation.map_or("no address".to_owned(), |address| address.to_string());
            say(format!("{held} is held for {}", shown.machine.id));
            Ok(())
        }
        MachineCommand::Arguments { mac, text } => {
            let shown = patch(client, mac, &Patch { arguments: Some(text), ..Patch::default() }).await?;
            say(format!("{}: {}", shown.machine.id, or_none(&shown.machine.arguments)));
            Ok(())
        }
        MachineCommand::Option { mac, options } => {
            let options: BTreeMap<_, _> = options.into_iter().map(|option| (option.code, option.value)).collect();
            let shown = patch(client, mac, &Patch { options, ..Patch::default() }).await?;
            say(format!("{}: {}", shown.machine.id, or_none(&options_of(&shown))));
            Ok(())
        }
        MachineCommand::Join { mac, others } => {
            let shown = patch(client, mac, &Patch { join: others, ..Patch::default() }).await?;
            say(format!("{} has {}", shown.machine.id, macs(&shown)));
            Ok(())
        }
        MachineCommand::Forget { mac } => {
            client.delete(&format!("/v1/machines/{mac}")).await?;
            say(format!("{mac} is forgotten"));
            Ok(())
        }
        MachineCommand::Explain { mac, output } => explain(client, mac, output).await,
    }
}

async fn patch(client: &Client, mac: MacAddress, patch: &Patch) -> Done<MachineShown> {
    client.write(Method::PATCH, &format!("/v1/machines/{mac}"), patch).await
}

async fn list(client: &Client, selector: &Selector, output: Json) -> Done {
    let path = match selector.is_everything() {
        true => "/v1/machines".to_owned(),
        false => format!("/v1/machines?selector={}", encoded(&selector.to_string())),
    };
    if output.json {
        return say_json(&client.list::<Value>(&path, None).await?);
    }
    let machines: Vec<MachineShown> = client.list(&path, None).await?;
    let now = super::status::now();
    let mut listing = Listing::new(&["MACHINE", "BOOTS", "STATE", "RUNS", "SEEN", "MODEL", "LABELS"], &[]);
    for shown in &machines {
        let boot = shown.last_boot.as_ref();
        listing.row([
            shown.machine.id.to_string(),
            next(shown),
            boot.map_or("never".to_owned(), |boot| boot.state.to_string()),
            or_dash(boot.and_then(|boot| boot.image.as_ref()).map(|image| &image.reference)),
            boot.map_or("-".to_owned(), |boot| format!("{} ago", age(boot.last_seen, now))),
            or_dash(model(&shown.machine.facts)),
            labels_of(shown),
        ]);
    }
    listing.print(match selector.is_everything() {
        true => "no machines yet: they appear when they boot; or bennu machine assign MAC IMAGE",
        false => "no machine has such labels",
    });
    Ok(())
}

async fn show(client: &Client, mac: MacAddress, output: Json) -> Done {
    let path = format!("/v1/machines/{mac}");
    if output.json {
        let mut machine: Value = client.get(&path).await?;
        machine["boots"] = client.list::<Value>(&format!("{path}/boots"), Some(10)).await?.into();
        return say_json(&machine);
    }
    let shown: MachineShown = client.get(&path).await?;
    let boots: Vec<BootSummary> = client.list(&format!("{path}/boots"), Some(10)).await?;
    say(described(&shown));
    if boots.is_empty() {
        say("\nit never booted");
        return Ok(());
    }
    say("\nlast boots");
    super::boot::listing(&boots, false).print("");
    if let Some(diagnosis) = boots.first().and_then(|boot| boot.diagnosis.as_ref()) {
        say(format!("\nthe last boot: {}\nhelp: {}", diagnosis.reason, diagnosis.advice));
    }
    Ok(())
}

fn described(shown: &MachineShown) -> String {
    let machine = &shown.machine;
    let facts = &machine.facts;
    let lower = |value: Option<String>| value.map(|value| value.to_lowercase()).unwrap_or_default();
    let mut text = format!("machine {}\n", machine.id);
    text += &fields(&[
        ("MACs", if machine.macs.len() > 1 { macs(shown) } else { String::new() }),
        ("assigned", assignment(shown)),
        ("boots", next_at_length(shown)),
        ("labels", labels_of(shown)),
        ("reservation", machine.reservation.map(|address| address.to_string()).unwrap_or_default()),
        ("arguments", machine.arguments.clone()),
        ("options", options_of(shown)),
        ("model", model(facts).unwrap_or_default()),
        ("serial", facts.serial.clone().unwrap_or_default()),
        ("asset", facts.asset.clone().unwrap_or_default()),
        ("UUID", facts.uuid.clone().unwrap_or_default()),
        ("architecture", lower(facts.architecture.map(|architecture| format!("{architecture:?}")))),
        ("firmware", lower(facts.firmware.map(|firmware| format!("{firmware:?}")))),
        ("loader", machine.signed_loader.map(signed_since).unwrap_or_default()),
        ("first seen", time(machine.first_seen)),
    ]);
    if !shown.ssh_host_keys.is_empty() {
        text += &format!(
            "\nSSH host keys, as known_hosts has them behind its name\n{}\n",
            indented(&shown.ssh_host_keys.join("\n"))
        );
    }
    if let Some(inventory) = &facts.inventory {
        text += "\nhardware\n";
        text += &fields(&hardware(inventory));
    }
    text
}

fn signed_since(at: Timestamp) -> String {
    format!("shim and GRUB: its firmware refused an unsigned loader (Secure Boot), {}", time(at))
}

fn hardware(inventory: &Inventory) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("processor", format!("{} × {}", inventory.cpus, inventory.cpu_model)),
        ("memory", bytes(inventory.memory)),
    ];
    for disk in &inventory.disks {
        let spins = if disk.rotational { ", rotational" } else { "" };
        let words = [disk.name.as_str(), &bytes(disk.size), &disk.model, &disk.serial];
        lines.push((
            "disk",
            format!("{}{spins}", words.iter().filter(|w| !w.is_empty()).copied().collect::<Vec<_>>().join(" ")),
        ));
    }
    for nic in &inventory.nics {
        let link = match (nic.link, nic.speed) {
            (false, _) => "no link".to_owned(),
            (true, 0) => "link".to_owned(),
            (true, speed) => format!("{speed} Mbit/s"),
        };
        lines.push(("network", format!("{} {} {} {link}", nic.name, nic.mac, nic.driver)));
    }
    lines
}

async fn explain(client: &Client, mac: MacAddress, output: Json) -> Done {
    let path = format!("/v1/machines/{mac}/explain");
    if output.json {
        return say_json(&client.get::<Value>(&path).await?);
    }
    let Explanation { resolution, rules, profile, loader, script, plan, metadata } = client.get(&path).await?;
    let mut text = format!("{mac} {}\n", told(&resolution));
    text += &told_of_rules(&resolution, &rules);
    text += &format!("hardware profile: {}\n", profile.as_deref().unwrap_or("none matches"));
    text += &format!("UEFI loader: {loader}\n");
    text += &metadata.as_ref().map(super::metadata::described).unwrap_or_default();
    text += &format!("\nboot script\n{}\n", indented(&script));
    match plan {
        Some(plan) => {
            let json = serde_json::to_string_pretty(&plan).map_err(|error| CliError::failed(error.to_string(), ""))?;
            text += &format!("\nplan for stage 1\n{}\n", indented(&json));
        }
        None => text += "\nno plan: stage 1 does not run in this boot\n",
    }
    say(text);
    Ok(())
}

/// A resolution as the end of a sentence.
fn told(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Image { reference, digest, origin } => {
            format!("would boot {reference} ({digest}): {origin} says so")
        }
        Resolution::Discover { digest } => {
            format!("would boot the discovery image ({digest}) and wait: nobody assigned it an image")
        }
        Resolution::Wait => {
            "would wait in its loader: nobody assigned it an image, and there is no discovery image".into()
        }
        Resolution::Local { origin } => format!("would boot its own disk: {origin} says so"),
        Resolution::Ignore => "would not be answered: the policy `boot.unknown` says so".into(),
        Resolution::Missing { reference, origin } => {
            format!("would be refused: {origin} names {reference}, and there is no such image")
        }
    }
}

pub(super) fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Every rule that means the machine, and what became of it.
fn told_of_rules(resolution: &Resolution, rules: &[Rule]) -> String {
    let wins = match resolution {
        Resolution::Image { origin, .. } | Resolution::Local { origin } | Resolution::Missing { origin, .. } => {
            matches!(origin, Origin::Rule { .. })
        }
        _ => false,
    };
    let Some(first) = rules.first() else { return "rules: none means it\n".into() };
    let mut text = String::from("rules that mean it\n");
    for (place, rule) in rules.iter().enumerate() {
        let outcome = match (place, wins) {
            (0, true) => "applies".to_owned(),
            (_, false) => "loses to the machine's own assignment".to_owned(),
            _ if rule.priority < first.priority => format!("loses to '{}', whose priority is greater", first.name),
            _ => format!("loses to '{}', which is first by name", first.name),
        };
        let selector = or_everything(&rule.selector);
        text += &format!("  {} (priority {}, {selector}) boots {}: {outcome}\n", rule.name, rule.priority, rule.image);
    }
    text
}

/// A selector, or that it means everything.
pub(super) fn or_everything(selector: &Selector) -> String {
    if selector.is_everything() { "every machine".into() } else { selector.to_string() }
}

/// What it boots next, in few words.
fn next(shown: &MachineShown) -> String {
    match (&shown.next.image, &shown.next.origin) {
        (Some(image), Origin::Rule { name }) => format!("{image} (rule {name})"),
        (Some(image), Origin::UnknownPolicy) => format!("{image} (policy)"),
        (image, _) => or_dash(image.as_ref()),
    }
}

fn next_at_length(shown: &MachineShown) -> String {
    match &shown.next.image {
        Some(image) => format!("{image}: {} says so", shown.next.origin),
        None => format!("nothing of its own: {} says so", shown.next.origin),
    }
}

fn assignment(shown: &MachineShown) -> String {
    or_dash(shown.machine.assignment.as_ref())
}

fn macs(shown: &MachineShown) -> String {
    shown.machine.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn labels_of(shown: &MachineShown) -> String {
    shown.machine.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn options_of(shown: &MachineShown) -> String {
    shown.machine.options.iter().map(|(code, value)| format!("{code}={value}")).collect::<Vec<_>>().join(" ")
}

fn model(facts: &Facts) -> Option<String> {
    match (&facts.manufacturer, &facts.product) {
        (None, None) => None,
        (maker, product) => Some([maker, product].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
