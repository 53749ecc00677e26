//! Documents into files.

use crate::cli::error::{CliError, Done};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// A document as people write it: first what it is about.
struct Readable<'a>(&'a Value);

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(fields) = self.0 else { return self.0.serialize(serializer) };
        let first = ["kind", "name"];
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for key in first.into_iter().filter(|key| fields.contains_key(*key)) {
            map.serialize_entry(key, &fields[key])?;
        }
        for (key, value) in fields.iter().filter(|(key, _)| !first.contains(&key.as_str())) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// All documents as YAML.
pub fn yaml(documents: &[Value]) -> Done<String> {
    let written = |document| serde_saphyr::to_string(&Readable(document));
    let texts: Result<Vec<String>, _> = documents.iter().map(written).collect();
    let texts = texts.map_err(|error| CliError::failed(format!("the configuration cannot be written: {error}"), ""))?;
    Ok(texts.iter().map(|text| format!("{}\n", text.trim_end())).collect::<Vec<_>>().join("---\n"))
}

/// One file a kind; the names of those written.
pub fn files(directory: &Path, documents: &[Value], hidden: &[String]) -> Done<String> {
    let refuse = |path: &Path, error: &std::io::Error| {
        CliError::failed(format!("cannot write {}: {error}", path.display()), "name a directory that you may write")
    };
    fs::create_dir_all(directory).map_err(|error| refuse(directory, &error))?;
    let mut by_kind: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for document in documents {
        let kind = document["kind"].as_str().unwrap_or("other").to_lowercase();
        by_kind.entry(kind).or_default().push(document.clone());
    }
    // What an earlier export wrote of a kind that nobody uses any more would come back with the next apply.
    let shown = bennu_rules::commands::apply::kinds().filter(|kind| hidden.iter().all(|hidden| hidden != kind));
    for kind in shown.map(str::to_lowercase) {
        if directory.join(format!("{kind}.yaml")).exists() {
            by_kind.entry(kind).or_default();
        }
    }
    let mut names = Vec::new();
    for (kind, documents) in by_kind {
        let path = directory.join(format!("{kind}.yaml"));
        let aside = directory.join(format!(".{kind}.yaml.new"));
        fs::write(&aside, yaml(&documents)?).and_then(|()| fs::rename(&aside, &path)).map_err(|e| refuse(&path, &e))?;
        names.push(path.display().to_string());
    }
    Ok(if names.is_empty() { "no file: nobody set anything".into() } else { names.join(", ") })
}
