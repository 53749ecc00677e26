//! The manual names every key.

use super::Written;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../install/bennu.toml.5");

/// The keys that could stand behind `head`, as the reading itself tells them; `None`: no table is there.
fn keys(head: &str) -> Option<BTreeSet<String>> {
    let error = toml::from_str::<Written>(&format!("{head}\nno-such-key = 1\n")).unwrap_err();
    let known = error.message().strip_prefix("unknown field `no-such-key`, ")?;
    Some(known.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Every table by its heading, with its keys.
fn tables() -> Vec<(String, BTreeSet<String>)> {
    let mut found = vec![("TOP LEVEL".to_owned(), keys("").unwrap())];
    let mut open = found[0].1.iter().map(|key| key.to_owned()).collect::<Vec<_>>();
    while let Some(path) = open.pop() {
        for head in [format!("[{path}]"), format!("[[{path}]]")] {
            let Some(keys) = keys(&head) else { continue };
            open.extend(keys.iter().map(|key| format!("{path}.{key}")));
            found.push((head, keys));
        }
    }
    found
}

/// The keys that a section of the page is about.
fn told(heading: &str) -> BTreeSet<String> {
    let section = PAGE.split(".SH ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("bennu.toml(5) has no section {heading}"));
    let entries = section.split(".TP\n").skip(1).filter_map(|entry| entry.lines().next()?.strip_prefix(".B "));
    entries.flat_map(|names| names.split(", ")).map(str::to_owned).collect()
}

#[test]
fn the_manual_page_names_every_key_and_no_other() {
    let tables = tables();
    let headings: Vec<&str> = tables.iter().map(|(heading, _)| heading.as_str()).collect();
    assert!(headings.contains(&"[boot]") && headings.contains(&"[[boot.subnet]]"), "{headings:?}");
    for (heading, mut keys) in tables.clone() {
        // Tables have sections of their own.
        keys.retain(|key| {
            let path = heading.trim_matches(['[', ']']);
            let path = if path == "TOP LEVEL" { key.clone() } else { format!("{path}.{key}") };
            !tables.iter().any(|(other, _)| other.trim_matches(['[', ']']) == path)
        });
        assert_eq!(told(&heading), keys, "bennu.toml(5), {heading}");
    }
}
