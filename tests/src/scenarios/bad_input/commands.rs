//! Images and machines that nobody knows, in every command that takes one.

use anyhow::Result;

use super::{counted, each_leaves_all_as_it_was, misused, refused, source::Tree};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
};

/// Names that name nothing.
pub const COMMANDS: Life = Life {
    name: "bad names",
    shows: &["bad_image_name", "bad_mac"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let tree = Tree::new(rack.home(), "good")?;
        bennu.bennu(["image", "import", &tree.source(), "web:v1"])?;
        bennu.bennu(["image", "import", &tree.source(), "kernel:v1", "--kernel-only"])?;
        bennu.assign(KNOWN, "web:v1")?;
        story.show("bad_image_name", || images(&bennu))?;
        story.show("bad_mac", || machines(&bennu))
    },
};

const KNOWN: &str = "52:54:00:00:00:01";
const UNKNOWN: &str = "52:54:00:00:00:99";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn all_refused(bennu: &Appliance, lines: &[(&str, &[&str])]) -> Result<usize> {
    each_leaves_all_as_it_was(bennu, lines.iter().map(|(line, parts)| (*line, (*line, *parts))), |(line, parts)| {
        refused(&mut bennu.command(words(line)), parts)
    })
}

fn all_misused(bennu: &Appliance, lines: &[String], part: &str) -> Result<usize> {
    each_leaves_all_as_it_was(bennu, lines.iter().map(|line| (line.as_str(), line)), |line| {
        misused(&mut bennu.command(words(line)), &[part])
    })
}

fn images(bennu: &Appliance) -> Result<String> {
    let near = "near it: web:v1";
    let unknown: &str = &format!("there is no image {DIGEST}");
    let mut counts = vec![all_refused(
        bennu,
        &[
            ("image show web:v9", &["there is no image web:v9", near]),
            ("image show wbe:v1", &["there is no image wbe:v1", near]),
            ("image show nothing:like-it", &["there is no image nothing:like-it", "bennu image list"]),
            (&format!("image show {DIGEST}"), &[unknown, "bennu image list"]),
            ("image tag web:v9 web:stable", &["there is no image web:v9", near]),
            (&format!("image tag {DIGEST} web:stable"), &[unknown, "bennu image list"]),
            ("image remove web:v9", &["there is no image web:v9", near]),
            (&format!("image remove {DIGEST}"), &[unknown, "bennu image list"]),
            // Known, but somebody's.
            ("image remove web:v1", &["web:v1 is assigned to 52:54:00:00:00:01", "assign"]),
            (&format!("machine assign {KNOWN} web:v9"), &["there is no image web:v9", near]),
            (&format!("machine assign {UNKNOWN} web:v9"), &["there is no image web:v9", near]),
            (&format!("machine assign {UNKNOWN} {DIGEST}"), &[unknown, "bennu image list"]),
            (&format!("machine assign {KNOWN} kernel:v1"), &["only supplies a kernel", "root filesystem"]),
        ],
    )?];
    let nameless = ["image show", "image remove", &format!("machine assign {KNOWN}")];
    let lines = |name: &str| nameless.map(|line| format!("{line} {name}"));
    for (name, part) in [
        ("Web", "write name:tag"),
        ("web:", "write name:tag"),
        ("../etc/passwd:v1", "write name:tag"),
        ("sha256:12", "64 hex digits"),
    ] {
        counts.push(all_misused(bennu, &lines(name), part)?);
    }
    let tags = ["image tag web:v1 Web".to_owned(), "image tag Web web:v2".to_owned()];
    counts.push(all_misused(bennu, &tags, "write name:tag")?);
    counted(counts)
}

fn machines(bennu: &Appliance) -> Result<String> {
    let unknown: &[&str] = &["no machine has the MAC address 52:54:00:00:00:99", "bennu machine list"];
    let of_unknown = ["machine show", "machine unassign", "machine forget", "boot list", "boot show"];
    let lines = of_unknown.map(|line| format!("{line} {UNKNOWN}"));
    let mut counts = vec![all_refused(bennu, &lines.each_ref().map(|line| (line.as_str(), unknown)))?];
    counts.push(all_refused(
        bennu,
        &[
            (&format!("boot show {KNOWN}"), &["never booted", "bennu boot follow"]),
            ("boot show 01ARZ3NDEKTSV4RRFFQ69G5FAV", &["there is no boot", "bennu boot list"]),
            ("boot show ../../etc/passwd", &["there is no boot", "bennu boot list"]),
            (&format!("machine reserve {KNOWN} 192.168.7.7"), &["192.168.7.7 cannot be reserved", "subnet"]),
            (&format!("machine reserve {KNOWN} 10.77.0.1"), &["10.77.0.1 cannot be reserved", "choose"]),
            (&format!("machine label {KNOWN} =x"), &["label ''", "letters"]),
            (&format!("machine arguments {KNOWN} a${{b}}"), &["arguments", "printable"]),
        ],
    )?);
    // A MAC of one card is six pairs, is nobody's broadcast, and is no group's.
    for mac in ["nonsense", "52:54:00:00:00", "52:54:00:00:00:00:01", "52:54:00:00:00:0g", "ff:ff:ff:ff:ff:ff"] {
        let lines = [
            format!("machine show {mac}"),
            format!("machine assign {mac} web:v1"),
            format!("machine unassign {mac}"),
            format!("machine label {mac} rack=b7"),
            format!("machine reserve {mac} 10.77.0.60"),
            format!("machine arguments {mac} quiet"),
            format!("machine join {mac} {KNOWN}"),
            format!("machine join {KNOWN} {mac}"),
            format!("machine forget {mac}"),
            format!("machine explain {mac}"),
            format!("boot list {mac}"),
            format!("boot follow {mac}"),
        ];
        counts.push(all_misused(bennu, &lines, "six hex pairs")?);
    }
    counts.push(all_misused(bennu, &[format!("machine label {KNOWN} rack")], "KEY=VALUE")?);
    counts.push(all_misused(bennu, &[format!("machine reserve {KNOWN} here")], "an IPv4 address, or none")?);
    counted(counts)
}
