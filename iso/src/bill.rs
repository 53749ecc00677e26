//! The bill of materials: every package that has a file on the disc, and every crate of our programs, as SPDX 2.3.

use crate::options::Options;
use anyhow::{Context, Result, bail};
use bennu_rules::time::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One part of what is on the disc.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    name: String,
    version: String,
    /// Its package URL (purl).
    url: String,
    sha256: Option<String>,
}

/// What unpacking left: `packages` (name, version, architecture, SHA-256) and `files` (package, path), both with tabs.
#[derive(Debug)]
pub struct Lists {
    packages: String,
    files: String,
    crates: String,
}

impl Lists {
    /// Reads them. `crates` is what `cargo tree --prefix none` prints.
    pub fn read(options: &Options) -> Result<Self> {
        let read =
            |path: PathBuf| std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        Ok(Self {
            packages: read(options.lists.join("packages"))?,
            files: read(options.lists.join("files"))?,
            crates: read(options.crates.clone())?,
        })
    }
}

/// The document, for the files of packages that were taken.
pub fn make(options: &Options, lists: &Lists, taken: &BTreeSet<PathBuf>) -> Result<String> {
    let mut parts = packages(lists, &options.packages, taken)?;
    parts.extend(crates(&lists.crates));
    let created = created(options.epoch)?;
    let version = &options.version;
    let described: Vec<Value> = parts.iter().enumerate().map(|(number, part)| describe(number, part)).collect();
    let contains = |number: usize| json!({ "spdxElementId": "SPDXRef-iso", "relationshipType": "CONTAINS", "relatedSpdxElement": format!("SPDXRef-{number}") });
    let about = json!({ "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-iso" });
    let relationships: Vec<Value> = std::iter::once(about).chain((0..parts.len()).map(contains)).collect();
    let itself = json!({
        "SPDXID": "SPDXRef-iso", "name": "bennu-iso", "versionInfo": version, "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
    });
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("bennu-{version}-x86_64.iso"),
        "documentNamespace": format!("https://github.com/bennu-provisioning/bennu/iso/{version}/{}", options.epoch),
        "creationInfo": { "created": created, "creators": ["Tool: bennu-iso"] },
        "packages": std::iter::once(itself).chain(described).collect::<Vec<Value>>(),
        "relationships": relationships,
    });
    Ok(format!("{document:#}\n"))
}

fn describe(number: usize, part: &Part) -> Value {
    let mut described = json!({
        "SPDXID": format!("SPDXRef-{number}"), "name": part.name, "versionInfo": part.version,
        "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
        "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.url }],
    });
    if let Some(sha256) = &part.sha256 {
        described["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
    }
    described
}

/// The packages that the files are of. A file of none is an error: the bill would not be whole.
fn packages(lists: &Lists, root: &Path, taken: &BTreeSet<PathBuf>) -> Result<BTreeSet<Part>> {
    let owners: BTreeMap<&str, &str> =
        lists.files.lines().filter_map(|line| line.split_once('\t').map(|(package, path)| (path, package))).collect();
    let mut wanted = BTreeSet::new();
    for file in taken.iter().filter_map(|file| file.strip_prefix(root).ok()).filter_map(Path::to_str) {
        // The suite's packages do not agree on whether `/lib` is `/usr/lib`; where they are unpacked it is.
        let other = file.strip_prefix("usr/").map_or_else(|| format!("usr/{file}"), str::to_owned);
        match owners.get(file).or_else(|| owners.get(other.as_str())) {
            Some(package) => drop(wanted.insert(*package)),
            // depmod wrote these of the kernel's modules.
            None if file.rsplit('/').next().is_some_and(|name| name.starts_with("modules.")) => {}
            None => bail!("{file} is of no package that was unpacked"),
        }
    }
    let parts = lists.packages.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let (name, version, architecture) = (fields.next()?, fields.next()?, fields.next()?);
        let url = format!("pkg:deb/debian/{name}@{version}?arch={architecture}");
        let part = Part { name: name.into(), version: version.into(), url, sha256: fields.next().map(str::to_owned) };
        wanted.contains(name).then_some(part)
    });
    Ok(parts.collect())
}

/// `serde v1.0.229` and `bennu v0.1.0 (/where/it/is)`, a line each.
fn crates(tree: &str) -> BTreeSet<Part> {
    let part = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let url = format!("pkg:cargo/{name}@{version}");
        Some(Part { name: name.into(), version: version.into(), url, sha256: None })
    };
    tree.lines().filter_map(part).collect()
}

/// Seconds since 1970 as SPDX writes times.
fn created(epoch: u64) -> Result<String> {
    let milliseconds = epoch.checked_mul(1000).context("such an epoch has no date")?;
    Ok(Timestamp(milliseconds).to_string().replace(".000Z", "Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        Lists {
            packages: "libc6\t2.36-9\tamd64\tabc\nbash\t5.2\tamd64\tdef\n".into(),
            files: "libc6\tlib/x86_64-linux-gnu/libc.so.6\nbash\tbin/bash\n".into(),
            crates: "serde v1.0.229\nbennu v0.1.0 (/there)\nserde v1.0.229 (*)\n".into(),
        }
    }

    #[test]
    fn what_is_on_the_disc_is_named_and_nothing_else() {
        let options =
            Options { packages: "/unpacked".into(), epoch: 1_700_000_000, version: "1.2".into(), ..Options::default() };
        let taken = BTreeSet::from(["/unpacked/usr/lib/x86_64-linux-gnu/libc.so.6".into(), "/elsewhere/bennu".into()]);
        let text = make(&options, &lists(), &taken).unwrap();
        let bill: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = bill["packages"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"libc6") && names.contains(&"serde") && !names.contains(&"bash"), "{names:?}");
        assert_eq!(bill["creationInfo"]["created"], "2023-11-14T22:13:20Z");
        assert_eq!(bill["relationships"].as_array().unwrap().len(), names.len());
    }

    #[test]
    fn a_file_of_no_package_is_refused() {
        let options = Options { packages: "/unpacked".into(), ..Options::default() };
        let taken = BTreeSet::from(["/unpacked/usr/bin/stray".into()]);
        assert!(make(&options, &lists(), &taken).unwrap_err().to_string().contains("usr/bin/stray"));
    }
}
