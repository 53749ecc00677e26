//! `bennu image diff`

use crate::{
    cli::{
        client::{Client, encoded},
        error::Done,
        output::{bytes, fields, legible, say, say_json},
    },
    http::api::diff::DiffShown,
};
use bennu_rules::{difference::Changed, image::ImageReference};
use clap::Args;

/// The arguments of a comparison.
#[derive(Debug, Args)]
pub struct Diff {
    /// The image before: NAME:TAG or sha256:DIGEST
    from: ImageReference,
    /// The image after
    to: ImageReference,
    /// List every file that differs, and what is different of it
    #[arg(long)]
    files: bool,
    #[command(flatten)]
    output: crate::cli::Json,
}

/// Runs it.
pub async fn run(client: &Client, diff: Diff) -> Done {
    let [from, to] = [&diff.from, &diff.to].map(|image| encoded(&image.to_string()));
    let shown: DiffShown = client.get(&format!("/v1/diff?from={from}&to={to}&files={}", diff.files)).await?;
    if diff.output.json {
        return say_json(&shown);
    }
    say(told(&shown));
    Ok(())
}

fn told(shown: &DiffShown) -> String {
    if shown.from == shown.to {
        return format!("both are {}", shown.from);
    }
    let difference = &shown.difference;
    let facts: Vec<(&str, String)> =
        difference.facts.iter().map(|fact| (fact.name.as_str(), changed(fact, as_size(fact)))).collect();
    let mut text = format!("{} → {}\n{}", shown.from.short(), shown.to.short(), fields(&facts));
    if let Some(packages) = &difference.packages {
        let lines: Vec<(&str, String)> =
            packages.iter().map(|package| (package.name.as_str(), changed(package, str::to_owned))).collect();
        text += &match lines.is_empty() {
            true => "\npackages: the same\n".to_owned(),
            false => format!("\npackages\n{}", fields(&lines)),
        };
    }
    if let Some(files) = &difference.files {
        let (added, removed, changed) = (files.added, files.removed, files.changed);
        text += &format!("\nfiles: {added} added, {removed} removed, {changed} changed\n");
        for file in &files.list {
            text += &format!("  {}  {}\n", legible(&file.path), file.what.join(", "));
        }
    }
    text.extend(difference.notes.iter().map(|note| format!("\nnote: {note}")));
    text
}

fn as_size(fact: &Changed) -> fn(&str) -> String {
    match fact.name.as_str() {
        "size" => |text| text.parse().map_or_else(|_| text.to_owned(), bytes),
        _ => str::to_owned,
    }
}

fn changed(what: &Changed, show: fn(&str) -> String) -> String {
    let show = |value: &Option<String>| value.as_deref().map_or_else(|| "none".to_owned(), show);
    format!("{} → {}", show(&what.from), show(&what.to))
}
