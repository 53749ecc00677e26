//! `bennu apply` and `bennu export`: the configuration as files.

mod documents;
mod written;

use super::{
    client::Client,
    error::{CliError, Done},
    output::{say, say_json},
};
use crate::http::api::apply::{ApplyBody, Exported};
use bennu_rules::commands::apply::{Action, Field, Plan, Step};
use clap::Args;
use documents::Documents;
pub(super) use documents::one as one_document;
use http::Method;
use serde_json::Value;
use std::path::PathBuf;

/// How to apply.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// A file of YAML or TOML documents, a directory of such files, or - for YAML from standard input
    #[arg(long = "file", short = 'f', value_name = "PATH", required_unless_present = "schema")]
    files: Vec<PathBuf>,
    /// Only print the plan; exit with 3 if there is something to do
    #[arg(long)]
    dry_run: bool,
    /// Take away what no document names, of these kinds: Machine (what people said of it), Rule, Profile,
    /// Metadata and Role
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    prune: Vec<String>,
    /// Refuse if the configuration is not of this revision any more; a plan's JSON names it
    #[arg(long, value_name = "REVISION")]
    expect_revision: Option<String>,
    /// Print the JSON Schema of the documents, for editors
    #[arg(long, exclusive = true)]
    schema: bool,
    /// Print the plan as JSON, for programs
    #[arg(long)]
    json: bool,
}

/// How to export.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// A directory for one file of each kind; without, everything is printed
    directory: Option<PathBuf>,
    /// Print JSON, with the revision
    #[arg(long, conflicts_with = "directory")]
    json: bool,
}

/// Applies documents.
pub async fn apply(client: &Client, arguments: ApplyArguments) -> Done {
    if arguments.schema {
        return say_json(&bennu_rules::commands::apply::schema());
    }
    let ApplyArguments { files, dry_run, prune, expect_revision: expected, json, .. } = arguments;
    let Documents { values, places } = documents::read(&files)?;
    let body = ApplyBody { documents: values, prune: prune.into_iter().collect(), dry_run, expected };
    let answer = client.write(Method::POST, "/v1/apply", &body).await;
    let plan: Plan = answer.map_err(|error| placed(error, &places))?;
    if json {
        say_json(&plan)?;
    } else {
        say(told(&plan));
    }
    if dry_run && !plan.steps.is_empty() { Err(CliError::difference()) } else { Ok(()) }
}

/// Prints or writes the configuration.
pub async fn export(client: &Client, arguments: ExportArguments) -> Done {
    let exported: Exported = client.get("/v1/export").await?;
    if !exported.hidden.is_empty() {
        // Beside the documents, which go into files.
        eprintln!("without documents of kind {}: this token is not shown them", exported.hidden.join(", "));
    }
    match (arguments.directory, arguments.json) {
        (_, true) => say_json(&exported),
        (None, false) => {
            say(written::yaml(&exported.documents)?);
            Ok(())
        }
        (Some(directory), false) => {
            let files = written::files(&directory, &exported.documents, &exported.hidden)?;
            say(format!("{} documents are in {files}", exported.documents.len()));
            Ok(())
        }
    }
}

/// An error about a document, with the file that it is from instead of its place among all of them.
fn placed(mut error: CliError, places: &[String]) -> CliError {
    let Some(pointer) = error.pointer.clone() else { return error };
    let Some(rest) = pointer.strip_prefix("/documents/") else { return error };
    let (number, field) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(place) = number.parse().ok().and_then(|number: usize| places.get(number)) else { return error };
    let what = error.what.strip_suffix(&format!(" (at {pointer})")).unwrap_or(&error.what).to_owned();
    let field = field.replace('/', ".").replace("~1", "/").replace("~0", "~");
    let field = if field.is_empty() { String::new() } else { format!(", field {field}") };
    error.what = format!("{place}{field}: {what}");
    error
}

fn told(plan: &Plan) -> String {
    let mut text = String::new();
    for Step { action, kind, name, fields } in &plan.steps {
        let mark = match action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        text += &format!("{mark} {kind} {name}\n");
        for Field { field, before, after } in fields {
            text += &match (before, after) {
                (None, Some(after)) => format!("    {field}: {}\n", short(after)),
                (Some(before), None) if *action == Action::Remove => format!("    {field}: {}\n", short(before)),
                (before, after) => format!("    {field}: {} → {}\n", or_none(before), or_none(after)),
            };
        }
    }
    let count = |wanted: Action| plan.steps.iter().filter(|step| step.action == wanted).count();
    let (added, changed, removed) = (count(Action::Add), count(Action::Change), count(Action::Remove));
    let counts = match plan.applied {
        true => format!("applied: {added} added, {changed} changed, {removed} removed, {} unchanged", plan.unchanged),
        false => {
            format!("plan: {added} to add, {changed} to change, {removed} to remove, {} unchanged", plan.unchanged)
        }
    };
    text + &counts
}

fn or_none(value: &Option<Value>) -> String {
    value.as_ref().map_or("(none)".to_owned(), short)
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
