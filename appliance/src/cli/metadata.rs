//! `bennu metadata …`

use super::{
    Json,
    client::Client,
    error::{CliError, Done},
    output::{Listing, fields, or_dash, say, say_json},
};
use crate::http::api::metadata::MetadataShown;
use bennu_rules::{
    MacAddress,
    metadata::{Document, Given, Merged, MetadataName},
};
use clap::Subcommand;
use http::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What can be done with metadata documents.
#[derive(Debug, Subcommand)]
pub enum MetadataCommand {
    /// List the documents
    List {
        #[command(flatten)]
        output: Json,
    },
    /// Print a document
    Show {
        /// Its name
        name: MetadataName,
        #[command(flatten)]
        output: Json,
    },
    /// Add a document, or replace it
    Set {
        /// The document: YAML where its name ends in .yaml or .yml, JSON where it ends in .json, else TOML; - reads YAML from
        /// standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Its name; without, the one that is in the file
        name: Option<MetadataName>,
    },
    /// Remove a document
    Remove {
        /// Its name
        name: MetadataName,
    },
    /// Print what a machine would get at its next boot, and by which document
    Render {
        /// Any of its MAC addresses
        mac: MacAddress,
        #[command(flatten)]
        output: Json,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: MetadataCommand) -> Done {
    match command {
        MetadataCommand::List { output } => list(client, output).await,
        MetadataCommand::Show { name, output } => {
            let document: Document = client.get(&format!("/v1/metadata/{name}")).await?;
            if output.json {
                return say_json(&document);
            }
            let text = toml::to_string_pretty(&document).map_err(|error| CliError::failed(error.to_string(), ""))?;
            say(text);
            Ok(())
        }
        MetadataCommand::Set { file, name } => {
            let body = read(&file)?;
            let written = body.get("name").and_then(Value::as_str);
            let name = match (name, written) {
                (Some(name), _) => name,
                (None, Some(written)) => written.parse().map_err(|error| CliError::told(&format!("{error}")))?,
                (None, None) => {
                    let what = format!("{} names no document", file.display());
                    return Err(CliError::usage(what, "write `name` into it, or behind the file"));
                }
            };
            let document: Document = client.write(Method::PUT, &format!("/v1/metadata/{name}"), &body).await?;
            say(format!("{name} is for {}; machines get it at their next boot", whose(&document)));
            Ok(())
        }
        MetadataCommand::Remove { name } => {
            client.delete(&format!("/v1/metadata/{name}")).await?;
            say(format!("{name} is removed; machines are without it from their next boot on"));
            Ok(())
        }
        MetadataCommand::Render { mac, output } => render(client, mac, output).await,
    }
}

/// A document as a file has it, which may be one that `bennu apply` takes. What is in it is checked by the appliance.
fn read(file: &Path) -> Done<Value> {
    let mut document = super::apply::one_document(file)?;
    if let Some(kind) = document.as_object_mut().and_then(|fields| fields.remove("kind"))
        && kind != "Metadata"
    {
        let what = format!("{}: the document is of kind {kind}", file.display());
        return Err(CliError::failed(what, "apply it: bennu apply -f FILE"));
    }
    Ok(document)
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/metadata", None).await?);
    }
    let documents: Vec<Document> = client.list("/v1/metadata", None).await?;
    let mut listing = Listing::new(&["NAME", "FOR", "PRIORITY", "SAYS"], &["PRIORITY"]);
    for document in &documents {
        let priority = document.priority.to_string();
        listing.row([document.name.to_string(), whose(document), priority, or_dash(says(document))]);
    }
    listing.print("no metadata documents: bennu metadata set -f FILE adds one");
    Ok(())
}

fn whose(document: &Document) -> String {
    match document.machine {
        Some(machine) => machine.to_string(),
        None if document.selector.is_everything() => "every machine".into(),
        None => document.selector.to_string(),
    }
}

/// Its fields, in one line.
fn says(document: &Document) -> Option<String> {
    let count = |n: usize, what: &str| (n > 0).then(|| format!("{n} {what}"));
    let named = |text: &Option<String>, what: &str| text.as_ref().map(|_| what.to_owned());
    let parts = [
        named(&document.hostname, "hostname"),
        count(document.ssh_authorized_keys.values().map(Vec::len).sum(), "keys"),
        count(document.files.len(), "files"),
        named(&document.user_data, "user_data"),
        named(&document.vendor_data, "vendor_data"),
        named(&document.network_config, "network_config"),
        named(&document.ignition, "ignition"),
        count(document.persistent.len(), "persistent"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

async fn render(client: &Client, mac: MacAddress, output: Json) -> Done {
    let path = format!("/v1/machines/{mac}/metadata");
    if output.json {
        return say_json(&client.get::<Value>(&path).await?);
    }
    let shown: MetadataShown = client.get(&path).await?;
    say(described(&shown));
    let Merged { files, user_data, vendor_data, network_config, ignition, .. } = &shown.merged;
    for (path, given) in files {
        let content = match &given.value.secret {
            Some(secret) => format!("(the secret {secret})"),
            None => given.value.content.clone(),
        };
        say(format!("\n{path} ({})\n{}", given.from, super::machine::indented(&content)));
    }
    let texts = [
        ("user-data", user_data),
        ("vendor-data", vendor_data),
        ("network-config", network_config),
        ("ignition", ignition),
    ];
    for (what, given) in texts {
        if let Some(given) = given {
            say(format!("\n{what} ({})\n{}", given.from, super::machine::indented(&given.value)));
        }
    }
    match shown.error {
        None => Ok(()),
        Some(error) => Err(CliError::told(&error)),
    }
}

/// What a machine gets and by which document, without the texts themselves.
pub(super) fn described(shown: &MetadataShown) -> String {
    if let Some(error) = &shown.error {
        return format!("metadata: its boot would be refused: {error}\n");
    }
    let merged = &shown.merged;
    if merged.documents.is_empty() && merged.hostname.is_none() {
        return "metadata: no document applies\n".into();
    }
    let names: Vec<&str> = merged.documents.iter().map(MetadataName::as_str).collect();
    let by =
        |given: &Option<Given<String>>| given.as_ref().map(|given| format!("by {}", given.from)).unwrap_or_default();
    let lines = |parts: Vec<String>| parts.join(", ");
    let keys = merged.ssh_authorized_keys.iter().map(|(user, keys)| format!("{} for {user}", keys.len()));
    let files = merged.files.iter().map(|(path, given)| format!("{path} by {}", given.from));
    let mounts = merged.persistent.iter();
    let mounts = mounts.map(|(mount, given)| format!("{} at {mount} by {}", given.value.label, given.from));
    let hostname = merged.hostname.as_ref().map(|given| format!("{} by {}", given.value, given.from));
    let text = fields(&[
        ("documents", names.join(", ")),
        ("hostname", hostname.unwrap_or_default()),
        ("SSH keys", lines(keys.collect())),
        ("files", lines(files.collect())),
        ("user-data", by(&merged.user_data)),
        ("vendor-data", by(&merged.vendor_data)),
        ("network-config", by(&merged.network_config)),
        ("ignition", by(&merged.ignition)),
        ("persistent", lines(mounts.collect())),
    ]);
    format!("metadata, of documents that say the same the later one's\n{text}")
}
