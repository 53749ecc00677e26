//! What one image becomes on its machine: by stage 1, by cloud-init, and on a disk that stays.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, path::Path};

use crate::{
    appliance::{Appliance, Config},
    cloud_image,
    harness::Life,
    machine::{Firmware, Machine},
    scenarios::checks,
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJlbm51IGJlbm51IGJlbm51IGJlbm51IGJlbm51 operator@desk";

/// An image without cloud-init is given all by stage 1, and keeps what is on its data disk.
pub const STAGE1: Life = Life {
    name: "metadata",
    shows: &[
        "missing_label_refuses_the_boot",
        "hostname_keys_and_files_without_cloud_init",
        "logs_of_stage1_kernel_and_system_arrive",
        "data_outlives_two_reimages",
        "foreign_data_is_not_formatted",
    ],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::Bios).scratch(96 << 20).install()?;
        let dir = rack.home().dir().to_owned();
        bennu.assign(&machine.mac(), "debian:v1")?;
        bennu.bennu(["machine", "label", &machine.mac(), "role=db"])?;
        write(&bennu, &dir, &document("DATA"))?;
        story.show("missing_label_refuses_the_boot", || refused(&bennu, &mut machine))?;
        story.show("hostname_keys_and_files_without_cloud_init", || given(&bennu, &mut machine))?;
        story.show("logs_of_stage1_kernel_and_system_arrive", || logged(&bennu, &mut machine))?;
        story.show("data_outlives_two_reimages", || stays(&bennu, &mut machine, 2))?;
        story.show("foreign_data_is_not_formatted", || untouched(&bennu, &mut machine, &dir))
    },
};

/// The same ten times, for the long tests.
pub const TEN_REIMAGES: Life = Life {
    name: "metadata reimaged",
    shows: &["data_outlives_ten_reimages"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::Bios).scratch(96 << 20).install()?;
        bennu.bennu(["machine", "label", &machine.mac(), "role=db", "n=7"])?;
        write(&bennu, rack.home().dir(), &document("DATA"))?;
        story.show("data_outlives_ten_reimages", || {
            checks::boots(&bennu, &mut machine, "debian:v1")?;
            machine.run("echo begun >/var/lib/data/log; sync")?;
            stays(&bennu, &mut machine, 10)
        })
    },
};

/// A stock image with cloud-init takes its data from the seed, and asks no network for it.
pub const CLOUD_INIT: Life = Life {
    name: "metadata cloud-init",
    shows: &["cloud_init_makes_what_nocloud_says"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        bennu.import("tar", &cloud_image::debian()?, "cloud:12")?;
        let mut machine = rack.machine(Firmware::Bios).memory(2048).install()?;
        let dir = rack.home().dir().to_owned();
        story.show("cloud_init_makes_what_nocloud_says", || cloud_init(&bennu, &mut machine, &dir))
    },
};

fn document(label: &str) -> String {
    format!(
        r#"name = "databases"
selector = "role=db"
hostname = "{{{{ labels.role }}}}{{{{ labels.n }}}}.rack"

[ssh_authorized_keys]
root = ["{KEY}"]

[[files]]
path = "/etc/app/site.conf"
mode = "0640"
owner = "root:adm"
content = """
machine={{{{ machine.id }}}}
{{% for disk in facts.inventory.disks | default([]) %}}
disk={{{{ disk.name }}}}
{{% endfor %}}
image={{{{ image.name }}}}
"""

[[persistent]]
disk = {{ serial = "scratch" }}
label = "{label}"
mount = "/var/lib/data"
options = "noatime"
"#
    )
}

fn write(bennu: &Appliance, dir: &Path, document: &str) -> Result<()> {
    let file = dir.join("databases.toml");
    fs::write(&file, document)?;
    let file = file.to_str().context("the home's path is no text")?;
    bennu.bennu(["metadata", "set", "-f", file]).map(drop)
}

/// A machine does not boot without what it was to be given, and says what it lacks.
fn refused(bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    machine.power_on()?;
    let boot = bennu.wait_for_state(&machine.mac(), "failed", 120)?;
    let reason = boot["diagnosis"]["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("'databases', hostname, line 1") && reason.contains("labels.n"),
        "it failed with: {reason}"
    );
    let explained = bennu.bennu(["machine", "explain", &machine.mac()])?;
    ensure!(explained.contains("labels.n"), "explain says: {explained}");
    machine.power_off()?;
    bennu.bennu(["machine", "label", &machine.mac(), "n=7"])?;
    Ok(String::new())
}

fn given(bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    let remark = checks::boots(bennu, machine, "debian:v1")?;
    let name = machine.run("cat /etc/hostname; hostname; getent hosts db7.rack")?;
    ensure!(name.starts_with("db7.rack\ndb7.rack\n127.0.1.1"), "its name is {name}");
    let keys = machine.run("stat -c '%a %U' /root/.ssh /root/.ssh/authorized_keys; cat /root/.ssh/authorized_keys")?;
    ensure!(keys == format!("700 root\n600 root\n{KEY}"), "its keys are {keys}");
    let file = machine.run("stat -c '%a %U %G' /etc/app/site.conf; cat /etc/app/site.conf")?;
    ensure!(file == format!("640 root adm\nmachine={}\nimage=debian", machine.mac()), "its file is {file}");
    let mount = machine.run("grep ' /var/lib/data ' /proc/mounts; blkid -o value -s LABEL -s TYPE /dev/vda")?;
    ensure!(mount.contains(" ext4 ") && mount.contains("noatime") && mount.contains("DATA"), "its disk is {mount}");
    machine.run("echo begun >/var/lib/data/log; sync")?;
    Ok(remark)
}

/// The system's journal comes with the proof of its boot, the kernel's log and stage 1's lines once each, and what somebody
/// sends without a proof is marked.
fn logged(bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    let mac = machine.mac();
    machine.run("logger -p user.err -t probe 'a line of the machine'")?;
    let text = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    let lines = checks::said(bennu, &mac, "the line of logger", |line| text(line) == "a line of the machine")?;
    let is = |line: &Value, program: &str, severity: &str| {
        line["proven"] == true
            && line["severity"] == severity
            && line["program"].as_str().is_some_and(|name| name.split('[').next() == Some(program))
    };
    ensure!(lines.iter().any(|line| text(line) == "a line of the machine" && is(line, "probe", "error")), "{lines:?}");
    let count = |begin: &str, program: &str, severity: &str| {
        let such = lines.iter().filter(|line| text(line).starts_with(begin));
        (such.clone().filter(|line| is(line, program, severity)).count(), such.count())
    };
    for (begin, program, severity) in [
        ("network: ", "stage1", "info"),
        ("root verified: ", "stage1", "info"),
        ("handing over to ", "stage1", "info"),
        ("Linux version ", "kernel", "notice"),
    ] {
        let (found, all) = count(begin, program, severity);
        ensure!((found, all) == (1, 1), "'{begin}' came {all} times, {found} of them as it should: {lines:?}");
    }
    ensure!(lines.iter().any(|line| is(line, "systemd", "info")), "systemd says nothing: {lines:?}");
    machine.run("bash -c \"printf '<13>probe: without a proof' >/dev/udp/10.77.0.1/514\"")?;
    let lines = checks::said(bennu, &mac, "the line without a proof", |line| text(line) == "without a proof")?;
    ensure!(lines.iter().any(|line| text(line) == "without a proof" && line["proven"] == false), "{lines:?}");
    let unit = machine.run("systemctl show -p ActiveState,NRestarts bennu-logs.service")?;
    ensure!(unit.contains("ActiveState=active") && unit.contains("NRestarts=0"), "the forwarder: {unit}");
    Ok(format!("{} lines", lines.len()))
}

/// Power cycles into the other image and back: the system is new each time, the disk is not.
fn stays(bennu: &Appliance, machine: &mut Machine, reimages: usize) -> Result<String> {
    let mut wanted = vec!["begun".to_owned()];
    for n in 1..=reimages {
        machine.run("echo lost >/etc/lost")?;
        machine.power_off()?;
        checks::boots(bennu, machine, if n % 2 == 1 { "debian:v2" } else { "debian:v1" })?;
        let log = machine.run("test ! -e /etc/lost && cat /var/lib/data/log")?;
        ensure!(log == wanted.join("\n"), "after {n} reimages its disk has {log}, and it had {wanted:?}");
        machine.run(&format!("echo {n} >>/var/lib/data/log; sync"))?;
        wanted.push(n.to_string());
    }
    Ok(format!("{reimages} reimages"))
}

/// A disk with somebody's data fails the boot with these words, and no byte of it changes.
fn untouched(bennu: &Appliance, machine: &mut Machine, dir: &Path) -> Result<String> {
    machine.power_off()?;
    let before = machine.scratch()?;
    write(bennu, dir, &document("OTHER"))?;
    machine.power_on()?;
    let is_told =
        |boot: &Value| boot["diagnosis"]["reason"].as_str().is_some_and(|reason| reason.contains("not blank"));
    let boot = bennu.wait_for_boot(&machine.mac(), 150, "refusal to format", is_told)?;
    let reason = boot["diagnosis"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("labelled \"DATA\"") && reason.contains("/dev/vda"), "it says {reason}");
    // A boot that fails in stage 1 has a log as well.
    checks::said(bennu, &machine.mac(), "stage 1's word of the failure", |line| {
        line["program"] == "stage1"
            && line["severity"] == "error"
            && line["proven"] == true
            && line["text"].as_str().is_some_and(|text| text.contains("FAILED") && text.contains("not blank"))
    })?;
    machine.power_off()?;
    ensure!(machine.scratch()? == before, "the disk changed");
    Ok(String::new())
}

fn cloud_init(bennu: &Appliance, machine: &mut Machine, dir: &Path) -> Result<String> {
    let file = dir.join("cloud.json");
    let user_data = format!(
        "#cloud-config\nlocale: false\nusers:\n  - name: {{{{ labels.team }}}}\n    ssh_authorized_keys: [{{{{ '{KEY}' | tojson }}}}]\n\
         write_files:\n  - path: /etc/app/site.conf\n    content: {{{{ machine.id | tojson }}}}\n"
    );
    let document =
        serde_json::json!({ "name": "cloud", "hostname": "c-{{ machine.hyphened }}", "user_data": user_data });
    fs::write(&file, document.to_string())?;
    bennu.bennu(["machine", "label", &machine.mac(), "team=ops"])?;
    bennu.bennu(["metadata", "set", "-f", file.to_str().context("the home's path is no text")?])?;
    bennu.assign(&machine.mac(), "cloud:12")?;
    machine.power_on()?;
    let login = machine.login()?;
    let status = machine.try_run("cloud-init status --wait --long", 300)?;
    ensure!(status.output.contains("status: done"), "cloud-init says {}", status.output);
    ensure!(status.output.contains("DataSourceNoCloud"), "its data come from {}", status.output);
    let mac = machine.mac();
    let name = machine.run("cat /etc/hostname")?;
    ensure!(name == format!("c-{}", mac.replace(':', "-")), "its name is {name}");
    let keys = machine.run("stat -c '%a %U' ~ops/.ssh/authorized_keys; cat ~ops/.ssh/authorized_keys")?;
    ensure!(keys == format!("600 ops\n{KEY}"), "its user's keys are {keys}");
    let file = machine.run("cat /etc/app/site.conf")?;
    ensure!(file == mac, "its file is {file}");
    let boot = bennu.wait_for_state(&mac, "up", 120)?;
    ensure!(boot["timeline"].to_string().contains("metadata cloud"), "{boot:#}");
    Ok(format!("login after {:.0} s", login.as_secs_f64()))
}
