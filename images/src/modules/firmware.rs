//! Firmware files that modules name.

use super::ModulesError;
use crate::{archive::decompress, tree::Indexed};
use std::collections::BTreeSet;

/// The largest NIC firmware is a few megabytes.
const LARGEST: u64 = 64 << 20;

/// Gives each file that is in the source to `add`, decompressed, as `lib/firmware/NAME`. A name that is not there is
/// no error: modules name firmware of every revision of their devices.
pub fn add(
    source: &Indexed,
    release: &str,
    names: &BTreeSet<String>,
    mut add: impl FnMut(&str, &[u8]) -> Result<(), ModulesError>,
) -> Result<(), ModulesError> {
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
        }
    }
    Ok(())
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
