//! `bennu image …`

mod diff;
mod export;
mod gc;
mod pushes;
mod sign;
mod trial;
mod verify;

pub use sign::read_key;

use super::{
    Json,
    client::{Client, encoded},
    error::{CliError, Done},
    import::{self, Import},
    output::{Listing, age, bytes, fields, or_dash, say, say_json, time},
};
use crate::http::api::images::{ImageListed, ImageShown, RemovedShown, TagAction, TagBody};
use bennu_rules::image::{Content, ImageConfig, ImageName, ImageReference, Tag, TagMove};
use clap::Subcommand;
use http::Method;
use serde_json::Value;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image of a root filesystem, or of somebody else's kernel and initrds
    Import(Import),
    /// List images, newest first
    List {
        #[command(flatten)]
        output: Json,
    },
    /// Show one image
    Show {
        /// NAME:TAG or sha256:DIGEST
        image: ImageReference,
        #[command(flatten)]
        output: Json,
    },
    /// Point a tag at an image
    Tag {
        /// The image: NAME:TAG or sha256:DIGEST
        image: ImageReference,
        /// The tag to make or move
        name: ImageName,
    },
    /// Show where a tag pointed, newest first
    History {
        /// The tag
        name: ImageName,
        #[command(flatten)]
        output: Json,
    },
    /// Point a tag at the image that it pointed at before
    Rollback {
        /// The tag
        name: ImageName,
    },
    /// Write an image into an OCI layout, which imports elsewhere to the same digest
    Export(export::Export),
    /// Read images from the disk and compare every byte with its digest
    Verify {
        /// NAME:TAG or sha256:DIGEST; all of them without one
        image: Option<ImageReference>,
        #[command(flatten)]
        output: Json,
    },
    /// Boot an image in a virtual machine on the appliance, and see whether it comes up
    Test(trial::Test),
    /// Show what was pushed through the registry, and what became of it
    Pushes {
        /// Only this tag, with what was said of it
        name: Option<ImageName>,
        /// Try again what came to nothing
        #[arg(long, requires = "name")]
        retry: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Sign an image with a private key in cosign's format
    Sign(sign::Sign),
    /// Make a pair of keys: PREFIX.key signs, PREFIX.pub goes into [signatures] keys
    Keys {
        /// Where to: a path without its ending
        prefix: std::path::PathBuf,
    },
    /// Show what differs between two images
    Diff(diff::Diff),
    /// Remove what nothing needs any more
    Gc(gc::Gc),
    /// Remove a tag, and its image with the last one; or an image with all its tags
    Remove {
        /// NAME:TAG or sha256:DIGEST
        image: ImageReference,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: ImageCommand) -> Done {
    match command {
        ImageCommand::Import(import) => import::run(client, import).await,
        ImageCommand::List { output } => list(client, output).await,
        ImageCommand::Show { image, output } => show(client, &image, output).await,
        ImageCommand::Tag { image, name } => {
            let tag: Tag = client.write(Method::PUT, &format!("/v1/tags/{name}"), &TagBody { image }).await?;
            say(format!("{} is {}", tag.name, tag.digest));
            Ok(())
        }
        ImageCommand::History { name, output } => history(client, &name, output).await,
        ImageCommand::Rollback { name } => {
            let tag: Tag = client.write(Method::POST, &format!("/v1/tags/{name}"), &TagAction::Rollback).await?;
            say(format!("{} is {} again", tag.name, tag.digest));
            Ok(())
        }
        ImageCommand::Export(export) => export::run(client, export).await,
        ImageCommand::Verify { image, output } => verify::run(client, image, output).await,
        ImageCommand::Test(test) => trial::run(client, test).await,
        ImageCommand::Pushes { name, retry, output } => pushes::run(client, name, retry, output).await,
        ImageCommand::Sign(wanted) => sign::run(client, wanted).await,
        ImageCommand::Keys { prefix } => sign::make_keys(&prefix),
        ImageCommand::Diff(diff) => diff::run(client, diff).await,
        ImageCommand::Gc(gc) => gc::run(client, gc).await,
        ImageCommand::Remove { image } => remove(client, &image).await,
    }
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/images", None).await?);
    }
    let images: Vec<ImageListed> = client.list("/v1/images", None).await?;
    let now = super::status::now();
    let columns = ["IMAGE", "DIGEST", "KIND", "SIZE", "UNIQUE", "AGE", "ASSIGNED", "RUNNING", "OS"];
    let mut listing = Listing::new(&columns, &["SIZE", "UNIQUE", "ASSIGNED", "RUNNING"]);
    for listed in &images {
        let shown = &listed.shown;
        let names = shown.tags.iter().map(|tag| tag.name.to_string());
        for name in if shown.tags.is_empty() { vec!["-".to_owned()] } else { names.collect() } {
            listing.row([
                name,
                shown.image.digest.short(),
                kind(&shown.image.config.content).to_owned(),
                bytes(shown.size),
                bytes(listed.unique),
                age(shown.image.imported, now),
                shown.assigned_to.len().to_string(),
                listed.running.len().to_string(),
                or_dash(shown.image.config.os.as_deref()),
            ]);
        }
    }
    listing.print("no images yet: bennu image import SOURCE NAME:TAG");
    Ok(())
}

async fn show(client: &Client, image: &ImageReference, output: Json) -> Done {
    let path = format!("/v1/images/{}", encoded(&image.to_string()));
    if output.json {
        return say_json(&client.get::<Value>(&path).await?);
    }
    let shown: ImageListed = client.get(&path).await?;
    say(described(&shown));
    Ok(())
}

fn described(listed: &ImageListed) -> String {
    let shown = &listed.shown;
    let image = &shown.image;
    let config = &image.config;
    let list = |items: Vec<String>| items.join(", ");
    let program = config.entry.as_ref().map(|entry| entry.args.join(" "));
    let made_of = config.derived.as_ref().map(|derived| {
        let kernel = derived.kernel.map(|kernel| format!(" with the kernel of {}", kernel.short())).unwrap_or_default();
        format!("container image {}{kernel}", derived.source.digest)
    });
    let mut text = format!("{}\n", image.digest);
    text += &fields(&[
        ("tags", list(shown.tags.iter().map(|tag| tag.name.to_string()).collect())),
        ("kind", kind(&config.content).to_owned()),
        ("system", config.os.clone().unwrap_or_default()),
        ("architecture", format!("{:?}", config.architecture).to_lowercase()),
        ("arguments", config.cmdline.clone()),
        ("signature", image.verdict.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("program", program.unwrap_or_default()),
        ("size", format!("{}, of which no other image has {}", bytes(shown.size), bytes(listed.unique))),
        ("imported", format!("{} from {}", time(image.imported), image.source)),
        ("made of", made_of.unwrap_or_default()),
        ("made with", list(config.tools.iter().map(|(tool, version)| format!("{tool} {version}")).collect())),
        ("labels", list(config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect())),
        ("assigned to", list(shown.assigned_to.iter().map(ToString::to_string).collect())),
        ("running on", list(listed.running.iter().map(ToString::to_string).collect())),
    ]);
    text += "\nparts\n";
    text += &fields(&parts(config));
    for tag in &shown.tags {
        text += &format!("\nhistory of {}\n{}", tag.name, moves(tag));
    }
    text
}

fn moves(tag: &Tag) -> String {
    let line = |moved: &TagMove| format!("  {}  {}  {}\n", time(moved.at), moved.digest.short(), moved.by);
    tag.history.iter().rev().map(line).collect()
}

async fn history(client: &Client, name: &ImageName, output: Json) -> Done {
    let path = format!("/v1/tags/{name}");
    if output.json {
        return say_json(&client.get::<Value>(&path).await?);
    }
    let tag: Tag = client.get(&path).await?;
    say(moves(&tag).trim_end());
    Ok(())
}

fn parts(config: &ImageConfig) -> Vec<(&'static str, String)> {
    let shown = config.parts().into_iter().map(|(part, blob)| (part, format!("{}  {}", blob.digest, bytes(blob.size))));
    let mut parts: Vec<_> = shown.collect();
    if let Content::Root { kernel_release, .. } | Content::Kernel { kernel_release, .. } = &config.content {
        parts.insert(1, ("release", kernel_release.clone()));
    }
    parts
}

fn kind(content: &Content) -> &'static str {
    match content {
        Content::Root { .. } => "root",
        Content::Kernel { .. } => "kernel",
        Content::Foreign { .. } => "foreign",
        Content::Program { .. } => "efi",
        Content::Disc { .. } => "disc",
    }
}

async fn remove(client: &Client, image: &ImageReference) -> Done {
    let answer = client.delete(&format!("/v1/images/{}", encoded(&image.to_string()))).await?;
    let removed: RemovedShown = serde_json::from_slice(&answer)
        .map_err(|error| CliError::failed(format!("the appliance's answer is not understood: {error}"), ""))?;
    for tag in &removed.tags {
        say(format!("removed {tag}"));
    }
    match removed.image {
        Some(digest) => say(format!("removed {digest}, {} freed", bytes(removed.freed))),
        None => say("the image stays: it has other tags"),
    }
    Ok(())
}

/// One line about an image that was just imported.
pub fn summary(name: &ImageName, shown: &ImageShown, known: bool, took_ms: u64) -> String {
    let digest = shown.image.digest;
    let size = bytes(shown.size);
    match known {
        true => format!("{name} is {digest} ({size}), which was here already"),
        false => format!("imported {name} as {digest} ({size}) in {}", super::output::span(took_ms)),
    }
}
