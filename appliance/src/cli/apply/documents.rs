//! Documents out of files: YAML (and so JSON) and TOML.

use crate::cli::error::{CliError, Done};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// As much as the appliance takes.
const MAX_BYTES: u64 = 16 << 20;

/// Directories in directories.
const MAX_DEPTH: usize = 16;

/// Documents, and where each is from.
#[derive(Debug, Default)]
pub struct Documents {
    /// The documents.
    pub values: Vec<Value>,
    /// The file of each, and its number there.
    pub places: Vec<String>,
}

/// Reads all that is named.
pub fn read(paths: &[PathBuf]) -> Done<Documents> {
    let mut documents = Documents::default();
    let mut left = MAX_BYTES;
    for path in paths {
        if path.as_os_str() == "-" {
            let text = text_of(&mut io::stdin().lock(), Path::new("standard input"), &mut left)?;
            documents.take("standard input", yaml(&text, "standard input")?);
            continue;
        }
        for file in files_of(path)? {
            let name = file.display().to_string();
            let mut open = File::open(&file).map_err(|error| unreadable(&file, &error))?;
            let text = text_of(&mut open, &file, &mut left)?;
            let is_toml = file.extension().is_some_and(|extension| extension == "toml");
            documents.take(&name, if is_toml { toml_documents(&text, &name)? } else { yaml(&text, &name)? });
        }
    }
    Ok(documents)
}

/// Reads the one document of a file: by its name YAML, JSON or TOML, which is what a name without an end means too.
pub fn one(path: &Path) -> Done<Value> {
    let (name, mut left) = (path.display().to_string(), MAX_BYTES);
    let end = path.extension().and_then(|end| end.to_str());
    let mut values = match end {
        _ if path.as_os_str() == "-" => yaml(&text_of(&mut io::stdin().lock(), path, &mut left)?, "standard input")?,
        end => {
            let mut open = File::open(path).map_err(|error| {
                CliError::failed(format!("cannot read {name}: {error}"), "name a file that you may read")
            })?;
            let text = text_of(&mut open, path, &mut left)?;
            match end {
                Some("yaml" | "yml") => yaml(&text, &name)?,
                Some("json") => vec![
                    serde_json::from_str(&text)
                        .map_err(|error| CliError::failed(format!("{name}: {error}"), "write one JSON object"))?,
                ],
                _ => toml_documents(&text, &name)?,
            }
        }
    };
    match (values.pop(), values.len()) {
        (Some(value), 0) => Ok(value),
        (value, more) => {
            let count = more + usize::from(value.is_some());
            Err(CliError::failed(
                format!("{name} has {count} documents, and one is wanted"),
                "bennu apply -f takes several",
            ))
        }
    }
}

impl Documents {
    fn take(&mut self, file: &str, values: Vec<Value>) {
        for (number, value) in values.into_iter().enumerate() {
            self.places.push(format!("{file}, document {}", number + 1));
            self.values.push(value);
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot read {}: {error}", path.display()), "name a file or a directory of documents")
}

/// The file, or those of the directory and of directories in it, in their order; hidden ones are left out.
fn files_of(path: &Path) -> Done<Vec<PathBuf>> {
    if !fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    gather(path, 0, &mut files)?;
    if files.is_empty() {
        return Err(CliError::failed(
            format!("there are no .yaml, .yml or .toml files in {}", path.display()),
            "`bennu export DIRECTORY` writes some",
        ));
    }
    Ok(files)
}

fn gather(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Done {
    if depth > MAX_DEPTH {
        let what = format!("{}: directories are nested too deeply", directory.display());
        return Err(CliError::failed(what, "look for a link that leads back"));
    }
    let read = fs::read_dir(directory).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut paths: Vec<PathBuf> =
        read.map_err(|error| unreadable(directory, &error))?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    for path in paths {
        let is_document = matches!(path.extension().and_then(|end| end.to_str()), Some("yaml" | "yml" | "toml"));
        if path.is_dir() {
            gather(&path, depth + 1, files)?;
        } else if is_document {
            files.push(path);
        }
    }
    Ok(())
}

fn text_of(source: &mut impl Read, path: &Path, left: &mut u64) -> Done<String> {
    let mut bytes = Vec::new();
    source.take(*left + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    let length = bytes.len() as u64;
    if length > *left {
        let what = format!("{}: the documents are longer than {} MiB in all", path.display(), MAX_BYTES >> 20);
        return Err(CliError::failed(what, "apply them in parts"));
    }
    *left -= length;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::failed(format!("{} is no text: byte {at} is not UTF-8", path.display()), "write documents in UTF-8")
    })
}

/// Documents that refer to themselves, nest without end or repeat parts over and over are refused while they are read:
/// what they would unfold to never is.
fn yaml(text: &str, name: &str) -> Done<Vec<Value>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 100_000,
            max_events: 4_000_000,
            max_nodes: 2_000_000,
            max_depth: 32,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000, max_replay_stack_depth: 8 },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| CliError::failed(format!("{name}: {error}"), "correct it there; nothing was changed"))
}

/// One document, or several as `[[documents]]`.
fn toml_documents(text: &str, name: &str) -> Done<Vec<Value>> {
    let told = |what: String| CliError::failed(format!("{name}: {what}"), "correct it there; nothing was changed");
    let value: Value = toml::from_str(text).map_err(|error| told(error.to_string().trim_end().to_owned()))?;
    match value {
        Value::Object(mut root) if !root.contains_key("kind") && root.contains_key("documents") => {
            match (root.remove("documents"), root.keys().next()) {
                (Some(Value::Array(documents)), None) => Ok(documents),
                (_, Some(other)) => Err(told(format!("'{other}' stands beside the documents"))),
                _ => Err(told("documents is no array of tables: write [[documents]]".into())),
            }
        }
        Value::Object(root) if root.is_empty() => Ok(Vec::new()),
        other => Ok(vec![other]),
    }
}
