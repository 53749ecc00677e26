//! What differs between two images: what they say of themselves, their packages and their files.

use crate::image::{Content, Image};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file of a root, as far as it is compared. Times are not: they differ wherever a root was built anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What it is, by the letter that `find -type` has for it (`f`, `d`, `l`, `c`, `b`, `p`, `s`).
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Bytes of a file.
    pub size: u64,
    /// SHA-256 of a file's bytes; where a link leads; a device's numbers.
    pub content: Vec<u8>,
}

/// What is in a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its files by their paths.
    pub files: BTreeMap<Vec<u8>, File>,
    /// `/var/lib/dpkg/status`, where there is one.
    pub dpkg: Option<Vec<u8>>,
    /// `/lib/apk/db/installed`, where there is one.
    pub apk: Option<Vec<u8>>,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Difference {
    /// What the images say of themselves.
    pub facts: Vec<Changed>,
    /// Their packages; `None` where they cannot be compared.
    pub packages: Option<Vec<Changed>>,
    /// Their files; `None` where they cannot be compared.
    pub files: Option<Files>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Changed {
    /// What.
    pub name: String,
    /// Before; `None`: it was not there.
    pub from: Option<String>,
    /// After; `None`: it is gone.
    pub to: Option<String>,
}

/// How files differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = DifferentFiles)]
pub struct Files {
    /// How many are new.
    pub added: usize,
    /// How many are gone.
    pub removed: usize,
    /// How many are different.
    pub changed: usize,
    /// Each of them, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<FileChange>,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// `added`, `removed`, or what is different of it: `kind`, `mode`, `owner`, `size`, `content`, `target`.
    pub what: Vec<String>,
}

/// What two images say of themselves.
pub fn facts(from: &Image, to: &Image) -> Vec<Changed> {
    let describe = |image: &Image| {
        let config = &image.config;
        let (kind, release) = match &config.content {
            Content::Root { kernel_release, .. } => ("root", Some(kernel_release.clone())),
            Content::Kernel { kernel_release, .. } => ("kernel", Some(kernel_release.clone())),
            Content::Foreign { .. } => ("foreign", None),
            Content::Program { .. } => ("EFI program", None),
            Content::Disc { .. } => ("disc", None),
        };
        let program = config.entry.as_ref().map(|entry| entry.args.join(" "));
        let mut facts = vec![
            ("kind".to_owned(), Some(kind.to_owned())),
            ("kernel release".to_owned(), release),
            ("kernel".to_owned(), Some(config.content.kernel().digest.to_string())),
            ("arguments".to_owned(), Some(config.cmdline.clone()).filter(|text| !text.is_empty())),
            ("architecture".to_owned(), Some(format!("{:?}", config.architecture).to_lowercase())),
            ("system".to_owned(), config.os.clone()),
            ("program".to_owned(), program),
            ("size".to_owned(), Some(image.size().to_string())),
        ];
        facts.extend(config.labels.iter().map(|(key, value)| (format!("label {key}"), Some(value.clone()))));
        facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect::<BTreeMap<_, _>>()
    };
    changes(&describe(from), &describe(to))
}

/// What differs between two roots. `list`: with every file.
pub fn contents(from: &Contents, to: &Contents, list: bool) -> (Option<Vec<Changed>>, Files, Vec<String>) {
    let mut notes = Vec::new();
    for (which, root) in [("the first", from), ("the second", to)] {
        if root.files.keys().any(|path| is_rpm(path)) {
            notes.push(format!("{which} image's packages are in an rpm database, which Bennu does not read"));
        }
    }
    let packages = match (packages(from), packages(to)) {
        (None, None) => None,
        (from, to) => Some(changes(&from.unwrap_or_default(), &to.unwrap_or_default())),
    };
    (packages, files(from, to, list), notes)
}

fn is_rpm(path: &[u8]) -> bool {
    let directories: [&[u8]; 2] = [b"/var/lib/rpm/", b"/usr/lib/sysimage/rpm/"];
    directories.iter().any(|directory| path.starts_with(directory))
}

fn changes(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Vec<Changed> {
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    changed
        .map(|name| Changed { name: name.clone(), from: from.get(name).cloned(), to: to.get(name).cloned() })
        .collect()
}

/// Installed packages and their versions.
fn packages(root: &Contents) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (text, keys) in [(&root.dpkg, ["Package: ", "Version: "]), (&root.apk, ["P:", "V:"])] {
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
        for stanza in text.split("\n\n") {
            let field = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key));
            // What was removed may have left its configuration, and its stanza.
            if field("Status: ").is_some_and(|status| !status.ends_with(" installed")) {
                continue;
            }
            let (Some(name), Some(version)) = (field(keys[0]), field(keys[1])) else { continue };
            // Libraries of two architectures may be installed side by side.
            let name = match (found.contains_key(name), field("Architecture: ")) {
                (true, Some(architecture)) => format!("{name}:{architecture}"),
                _ => name.to_owned(),
            };
            found.insert(name, version.to_owned());
        }
    }
    (root.dpkg.is_some() || root.apk.is_some()).then_some(found)
}

fn files(from: &Contents, to: &Contents, list: bool) -> Files {
    let mut files = Files::default();
    let mut tell = |path: &[u8], what: Vec<&str>| {
        if list {
            let what = what.into_iter().map(str::to_owned).collect();
            files.list.push(FileChange { path: String::from_utf8_lossy(path).into_owned(), what });
        }
    };
    for (path, file) in &from.files {
        match to.files.get(path) {
            None => {
                files.removed += 1;
                tell(path, vec!["removed"]);
            }
            Some(other) if other != file => {
                files.changed += 1;
                tell(path, different(file, other));
            }
            Some(_) => {}
        }
    }
    for path in to.files.keys().filter(|path| !from.files.contains_key(*path)) {
        files.added += 1;
        tell(path, vec!["added"]);
    }
    files.list.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn different(from: &File, to: &File) -> Vec<&'static str> {
    if from.kind != to.kind {
        return vec!["kind"];
    }
    let content = if from.kind == 'f' { "content" } else { "target" };
    let all = [
        ("mode", from.mode != to.mode),
        ("owner", from.owner != to.owner),
        ("size", from.size != to.size),
        (content, from.content != to.content),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

#[cfg(test)]
mod tests;
