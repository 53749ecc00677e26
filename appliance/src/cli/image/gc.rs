//! `bennu image gc`

use crate::{
    cli::{
        client::Client,
        error::{CliError, Done},
        output::{bytes, say, say_json},
    },
    http::api::gc::{GcShown, Judged, Wanted},
};
use clap::Args;
use http::Method;

/// The arguments of a collection.
#[derive(Debug, Args)]
#[command(
    after_help = "Images that nothing names go by the rules of [retention] in the configuration; without one, none goes.\n\
        With --dry-run the exit code is 3 when something would go, and 0 when nothing would."
)]
pub struct Gc {
    /// Only say what would go, and why each image goes or stays
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: crate::cli::Json,
}

/// Runs it.
pub async fn run(client: &Client, gc: Gc) -> Done {
    let shown: GcShown = client.write(Method::POST, "/v1/gc", &Wanted { dry_run: gc.dry_run }).await?;
    match gc.output.json {
        true => say_json(&shown)?,
        false => say(told(&shown)),
    }
    let goes = shown.images.iter().any(|image| image.goes) || !shown.artifacts.is_empty() || !shown.blobs.is_empty();
    if gc.dry_run && goes { Err(CliError::difference()) } else { Ok(()) }
}

fn told(shown: &GcShown) -> String {
    let (goes, went, freed) = match shown.dry_run {
        true => ("would go", "would go", "would be free"),
        false => ("removed", "removed", "freed"),
    };
    let line = |word: &str, image: &Judged| {
        let (digest, size) = (image.digest, bytes(image.size));
        format!("{word}: image {digest} ({size}, from {}): {}\n", image.source, image.verdict)
    };
    let mut text: String = shown.images.iter().filter(|image| image.goes).map(|image| line(went, image)).collect();
    text.extend(shown.artifacts.iter().map(|digest| format!("{went}: artifact {digest}: nothing needs it\n")));
    if shown.dry_run {
        text.extend(shown.images.iter().filter(|image| !image.goes).map(|image| line("stays", image)));
    }
    match shown.blobs.len() {
        0 => text + &format!("no blobs {goes}"),
        1 => text + &format!("one blob {goes}, {} {freed}", bytes(shown.bytes)),
        more => text + &format!("{more} blobs {goes}, {} {freed}", bytes(shown.bytes)),
    }
}
