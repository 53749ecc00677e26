//! `bennu inventory`: the machines as an Ansible inventory, in the protocol of inventory scripts.
//!
//! Machines are named by people, or by their MAC: a host name that a DHCP client gave itself would let any card on the
//! wire stand where another machine is meant.

use super::{
    client::Client,
    error::{CliError, Done},
    output::say_json,
};
use crate::http::api::{leases::LeaseShown, machines::MachineShown};
use bennu_rules::MacAddress;
use clap::Args;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// What an inventory script is asked.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Asked {
    /// Every group, with its hosts and their variables
    #[arg(long)]
    list: bool,
    /// The variables of one host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

/// The label by which people name a machine.
const NAME: &str = "name";

/// Answers.
pub async fn run(client: &Client, asked: Asked) -> Done {
    let machines: Vec<MachineShown> = client.list("/v1/machines", None).await?;
    let leases: Vec<LeaseShown> = client.list("/v1/leases", None).await?;
    let hosts = hosts(&machines, &addresses(&leases));
    let Some(name) = asked.host else { return say_json(&listed(&hosts)) };
    match hosts.get(&name) {
        Some(host) => say_json(&host.variables),
        None => Err(CliError::failed(
            format!("there is no host '{name}' in the inventory"),
            "bennu inventory --list shows them",
        )),
    }
}

/// A machine as Ansible sees it.
struct Host {
    groups: BTreeSet<String>,
    variables: Map<String, Value>,
}

/// The addresses that cards hold now.
fn addresses(leases: &[LeaseShown]) -> BTreeMap<MacAddress, Ipv4Addr> {
    let held = leases.iter().filter(|lease| lease.active && !lease.declined);
    held.map(|lease| (lease.mac, lease.address)).collect()
}

fn hosts(machines: &[MachineShown], addresses: &BTreeMap<MacAddress, Ipv4Addr>) -> BTreeMap<String, Host> {
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for shown in machines {
        if let Some(name) = shown.machine.labels.get(NAME) {
            *wanted.entry(name).or_default() += 1;
        }
    }
    let name = |shown: &MachineShown| match shown.machine.labels.get(NAME) {
        // Two machines of one name would be one host.
        Some(name) if wanted.get(name.as_str()) == Some(&1) => name.clone(),
        _ => shown.machine.id.hyphened(),
    };
    machines.iter().map(|shown| (name(shown), host(shown, addresses))).collect()
}

fn host(shown: &MachineShown, addresses: &BTreeMap<MacAddress, Ipv4Addr>) -> Host {
    let MachineShown { machine, next, last_boot, .. } = shown;
    let address = machine.reservation.or_else(|| machine.macs.iter().find_map(|mac| addresses.get(mac).copied()));
    let state = last_boot.as_ref().map_or("never".to_owned(), |boot| boot.state.to_string());
    let runs = last_boot.as_ref().and_then(|boot| boot.image.as_ref());
    // By its own assignment, by a rule or by the policy.
    let assigned = next.image.as_ref().map(ToString::to_string);
    let image = assigned.clone().or_else(|| runs.map(|pinned| pinned.reference.to_string()));
    let architecture = machine.facts.architecture.and_then(|arch| serde_json::to_value(arch).ok());
    let mut groups: BTreeSet<String> =
        machine.labels.iter().map(|(key, value)| group(&["label", key, value])).collect();
    groups.insert(group(&["state", &state]));
    groups.extend(image.as_deref().map(|image| group(&["image", image])));
    groups.extend(architecture.as_ref().and_then(Value::as_str).map(|arch| group(&["arch", arch])));
    let mut variables = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            variables.insert(name.to_owned(), value);
        }
    };
    set("ansible_host", json!(address));
    set("bennu_mac", json!(machine.id));
    set("bennu_macs", json!(machine.macs));
    set("bennu_labels", json!(machine.labels));
    set("bennu_state", json!(state));
    set("bennu_image", json!(image));
    set("bennu_assigned", json!(assigned));
    set("bennu_image_digest", json!(runs.map(|pinned| pinned.digest.to_string())));
    set("bennu_arch", json!(architecture));
    set("bennu_serial", json!(machine.facts.serial));
    set("bennu_product", json!(machine.facts.product));
    Host { groups, variables }
}

/// A group's name, of letters, digits and underscores: Ansible takes no others.
fn group(parts: &[&str]) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    parts.join("_").chars().map(fit).collect()
}

/// What `--list` answers: with `_meta`, so that nobody asks for each host by itself.
fn listed(hosts: &BTreeMap<String, Host>) -> Value {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, host) in hosts {
        for group in &host.groups {
            groups.entry(group).or_default().push(name);
        }
    }
    let mut all = Map::new();
    let variables: Map<String, Value> =
        hosts.iter().map(|(name, host)| (name.clone(), Value::Object(host.variables.clone()))).collect();
    all.insert("_meta".into(), json!({ "hostvars": variables }));
    let children: Vec<&str> = groups.keys().copied().chain(["ungrouped"]).collect();
    all.insert("all".into(), json!({ "hosts": hosts.keys().collect::<Vec<_>>(), "children": children }));
    for (group, hosts) in groups {
        all.insert(group.to_owned(), json!({ "hosts": hosts }));
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{Served, run};
    use bennu_rules::{Machine, Timestamp, assignment::choose, settings::Settings};
    use std::{path::Path, process::Command};

    fn machine(number: u8, labels: &[(&str, &str)]) -> MachineShown {
        let mut machine = Machine::new(MacAddress([2, 0, 0, 0, 0, number]), Timestamp(0));
        machine.labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        machine.assignment = Some("web:v1.2".parse().unwrap());
        let next = choose(Some(&machine), &[], &Settings::default());
        MachineShown { machine, next, last_boot: None, ssh_host_keys: Vec::new() }
    }

    #[test]
    fn groups_are_labels_images_and_states_in_names_that_ansible_takes() {
        let machines = [
            machine(1, &[("rack", "r1"), ("name", "web-1")]),
            machine(2, &[("rack", "r-2/ä"), ("name", "twin")]),
            machine(3, &[("name", "twin")]),
        ];
        let addresses = BTreeMap::from([(MacAddress([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 77, 0, 52))]);
        let list = listed(&hosts(&machines, &addresses));
        let (second, third) = ("02-00-00-00-00-02", "02-00-00-00-00-03");
        assert_eq!(list["label_rack_r1"]["hosts"], json!(["web-1"]));
        assert_eq!(list["label_rack_r_2__"]["hosts"], json!([second]));
        assert_eq!(list["image_web_v1_2"]["hosts"], json!([second, third, "web-1"]));
        assert_eq!(list["state_never"]["hosts"].as_array().unwrap().len(), 3);
        assert_eq!(list["_meta"]["hostvars"][second]["ansible_host"], "10.77.0.52");
        assert_eq!(list["_meta"]["hostvars"]["web-1"]["ansible_host"], Value::Null, "no address, no variable");
        assert_eq!(list["_meta"]["hostvars"][third]["bennu_labels"]["name"], "twin", "two of a name go by their MACs");
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_a_failure() {
        let served = Served::new();
        run(&served, "inventory --list").await.unwrap();
        let error = run(&served, "inventory --host web-9").await.unwrap_err();
        assert!(error.what.contains("'web-9'"), "{error}");
    }

    /// The program of ansible-core, which scripts/setup puts there.
    fn ansible(list: &Value) -> Value {
        use std::os::unix::fs::PermissionsExt;
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/ansible/bin/ansible-inventory");
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("inventory");
        std::fs::write(&script, format!("#!/bin/sh\n[ \"$1\" = --list ] || exit 9\ncat <<'EOF'\n{list}\nEOF\n"))
            .unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(&tool)
            .args(["--list", "-i"])
            .arg(&script)
            .env("ANSIBLE_LOCAL_TEMP", directory.path())
            .env("HOME", directory.path())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup", tool.display()));
        let (said, complaints) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success() && !complaints.contains("WARNING"), "{complaints}");
        serde_json::from_slice(&said).unwrap()
    }

    #[test]
    fn ansible_reads_the_groups_and_the_variables() {
        let machines = [machine(1, &[("rack", "r1"), ("name", "web-1")]), machine(2, &[("rack", "r1")])];
        let addresses = BTreeMap::from([(MacAddress([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 77, 0, 51))]);
        let read = ansible(&listed(&hosts(&machines, &addresses)));
        assert_eq!(read["label_rack_r1"]["hosts"], json!(["02-00-00-00-00-02", "web-1"]));
        assert_eq!(read["label_name_web_1"]["hosts"], json!(["web-1"]));
        assert_eq!(read["_meta"]["hostvars"]["web-1"]["ansible_host"], "10.77.0.51");
        assert_eq!(read["_meta"]["hostvars"]["web-1"]["bennu_image"], "web:v1.2");
        assert_eq!(ansible(&listed(&hosts(&[], &BTreeMap::new())))["_meta"]["hostvars"], json!({}));
    }
}
