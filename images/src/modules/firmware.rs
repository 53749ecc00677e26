//! Firmware files that modules name.

use super::ModulesError;
use crate::{archive::decompress, tree::Indexed};
use std::collections::{BTreeMap, BTreeSet};

/// The largest NIC firmware is a few megabytes.
const LARGEST: u64 = 64 << 20;

/// Gives each file that is in the source to `add`, decompressed, as `lib/firmware/NAME`. A name that is not there is
/// no error: modules name firmware of every revision of their devices. Returns the names that were there.
pub fn add(
    source: &Indexed,
    release: &str,
    names: &BTreeSet<String>,
    mut add: impl FnMut(&str, &[u8]) -> Result<(), ModulesError>,
) -> Result<BTreeSet<String>, ModulesError> {
    let mut found = BTreeSet::new();
    for name in names {
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            continue;
        }
        if let Some(path) = find(source, release, name)
            && let Some(bytes) = source.bytes(path.as_bytes(), LARGEST)
        {
            let plain = bytes.and_then(|bytes| decompress::by_name(stored_suffix(&path, name), bytes, LARGEST));
            let plain = plain.map_err(|source| ModulesError::Read { path: path.clone(), source })?;
            add(&format!("lib/firmware/{name}"), &plain)?;
            found.insert(name.clone());
        }
    }
    Ok(found)
}

/// Drivers that do nothing without their firmware, and Debian's package of it.
const PACKAGES: [(&str, &str); 5] = [
    ("bnx2", "firmware-bnx2"),
    ("bnx2x", "firmware-bnx2x"),
    ("nfp", "firmware-netronome"),
    ("qed", "firmware-qlogic"),
    ("qede", "firmware-qlogic"),
];

/// How many drivers the note names.
const NAMED: usize = 8;

/// A note on the NIC drivers that name firmware and have none of it in the source: such a card may not come up, and
/// then nothing else tells why. `drivers` are modules with the firmware they name.
pub fn missing(drivers: &BTreeMap<String, BTreeSet<String>>, found: &BTreeSet<String>) -> Option<String> {
    let bare = drivers.iter().filter(|(_, names)| !names.is_empty() && names.is_disjoint(found));
    let package = |driver: &str| PACKAGES.iter().find(|(known, _)| *known == driver).map(|(_, package)| *package);
    let mut bare: Vec<_> = bare.map(|(driver, _)| (driver, package(driver))).collect();
    // Those that surely fail first, so that they are among the named.
    bare.sort_by_key(|(_, package)| package.is_none());
    let listed: Vec<String> = bare
        .iter()
        .take(NAMED)
        .map(|(driver, package)| match package {
            Some(package) => format!("{driver} (Debian: {package})"),
            None => (*driver).clone(),
        })
        .collect();
    let more = match bare.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!(" and {more} more"),
        _ => String::new(),
    };
    (!listed.is_empty()).then(|| {
        format!(
            "the source has none of the firmware that these NIC drivers name: {}{more}. Where a machine has such a card, \
             install its firmware in the source and import it again",
            listed.join(", ")
        )
    })
}

/// Where the kernel would find it (Documentation/driver-api/firmware/fw_search_path.rst), plain before compressed.
fn find(source: &Indexed, release: &str, name: &str) -> Option<String> {
    let mut places = Vec::new();
    for base in ["/lib/firmware", "/usr/lib/firmware"] {
        places.extend([
            format!("{base}/updates/{release}"),
            format!("{base}/updates"),
            format!("{base}/{release}"),
            base.to_owned(),
        ]);
    }
    let paths =
        ["", ".zst", ".xz"].iter().flat_map(|suffix| places.iter().map(move |place| format!("{place}/{name}{suffix}")));
    paths.into_iter().find(|path| source.tree.file(path.as_bytes()).is_some())
}

/// What was added to the name: a firmware's own name may end in `.gz` and is then not ours to decompress.
fn stored_suffix<'a>(path: &'a str, name: &str) -> &'a [u8] {
    path.rsplit_once(name).map_or(b"", |(_, suffix)| suffix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn drivers_without_any_of_their_firmware_are_named_once() {
        let drivers = BTreeMap::from([
            ("bnx2x".to_owned(), set(&["bnx2x/a.fw", "bnx2x/b.fw"])),
            ("atl".to_owned(), set(&["atl.bin"])),
            ("igb".to_owned(), set(&[])),
            ("tg3".to_owned(), set(&["tigon/old.bin", "tigon/new.bin"])),
        ]);
        let note = missing(&drivers, &set(&["tigon/new.bin"])).unwrap();
        assert!(note.contains("name: bnx2x (Debian: firmware-bnx2x), atl. Where"), "{note}");
        assert_eq!(missing(&drivers, &set(&["tigon/new.bin", "atl.bin", "bnx2x/b.fw"])), None);
    }

    #[test]
    fn many_drivers_are_counted() {
        let mut drivers: BTreeMap<_, _> = (0..12).map(|at| (format!("a{at:02}"), set(&["x.bin"]))).collect();
        drivers.insert("qed".to_owned(), set(&["qed.bin"]));
        let note = missing(&drivers, &set(&[])).unwrap();
        assert!(note.contains("qed (Debian: firmware-qlogic), a00,") && note.contains("a06 and 5 more."), "{note}");
        assert!(!note.contains("a07") && !note.contains('\n'), "{note}");
    }
}
