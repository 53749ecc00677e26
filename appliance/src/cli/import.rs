//! `bennu image import`: reads a source here, streams it to the appliance, shows how far it is.

pub mod pull;
pub(super) mod sender;

use super::{
    client::{Client, encoded, lines},
    error::{CliError, Done},
    meter::Meter,
    output::{say, say_json},
    source::Source,
};
use crate::http::api::{
    images::ImageShown,
    imports::{AclsWanted, Kinds, Line},
};
use bennu_rules::image::{ImageName, ImageReference};
use clap::Args;
use http::Method;
use hyper::body::Incoming;
use pull::Pulled;
use std::time::Instant;

/// The arguments of an import.
#[derive(Debug, Args)]
#[command(
    override_usage = "bennu image import [OPTIONS] <SOURCE> <NAME:TAG>",
    after_help = "SOURCE is one of\n  \
        dir:PATH   a directory that is a root filesystem, with its kernel in /boot and its modules\n  \
        tar:PATH   a tar of one, plain or compressed with gzip, xz or zstd; tar:- reads standard input\n  \
        oci:DIR[:TAG]   a container image in an OCI layout (skopeo copy … oci:DIR:TAG)\n  \
        oci-archive:PATH[:TAG], docker-archive:PATH[:NAME:TAG]   one as a file (docker save)\n  \
        docker://HOST[:PORT]/NAME[:TAG|@DIGEST]   one in a registry, over TLS\n  \
        disk:PATH  a disk image, raw or qcow2, whose root partition (ext4) becomes the root as it is\n  \
        iso:PATH   the disc of a live system, whose kernel and initrd start and fetch the root from here; other discs \
        start whole\n  \
        efi:PATH   an EFI program; a unified kernel image also boots with BIOS\n  \
        kernel=PATH [initrd=PATH]… [efi=PATH] [cmdline=TEXT]   somebody else's kernel and initrds; with efi= what UEFI \
        starts in their place"
)]
pub struct Import {
    /// The source, then the tag to point at the image
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "NAME:TAG"])]
    words: Vec<String>,
    /// Take only kernel and modules: a kernel image
    #[arg(long)]
    kernel_only: bool,
    /// Kernel arguments of the image
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// zstd level of the root filesystem, 1 to 22; the configuration's unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=22))]
    level: Option<u32>,
    /// The kernel image for a container image that has no kernel: NAME:TAG or sha256:DIGEST
    #[arg(long, value_name = "IMAGE")]
    kernel: Option<ImageReference>,
    /// Leave access control lists out, which root filesystems cannot hold
    #[arg(long)]
    drop_acls: bool,
    #[command(flatten)]
    output: super::Json,
    #[command(flatten)]
    registry: pull::Options,
}

/// Runs it.
pub async fn run(client: &Client, import: Import) -> Done {
    let (name, words) = import.words.split_last().ok_or_else(|| CliError::usage("there is no SOURCE", ""))?;
    let name: ImageName = name.parse().map_err(|error| {
        CliError::usage(format!("{error}"), "the last word is the image's NAME:TAG, after its SOURCE")
    })?;
    let source = Source::parse(words)?;
    let mut path = query(&import, &source, &name)?;
    let began = Instant::now();
    let meter = Meter::new();
    let (sender, body) = match &source {
        Source::Registry(reference) => {
            let pulled = Pulled::look(reference, &import.registry, &meter).await?;
            path.extend(pulled.size().map(|size| format!("&size={size}")));
            sender::from_task(|out| pulled.send(out))
        }
        _ => sender::start(source, meter.clone())?,
    };
    let end = match client.send(Method::POST, &path, Some(body)).await {
        Ok(response) => listen(response.into_body(), &meter).await,
        Err(error) => Err(Broken::Connection(error)),
    };
    meter.finish();
    match end {
        Ok((image, known)) if import.output.json => say_json(&serde_json::json!({ "image": image, "known": known })),
        Ok((image, known)) => {
            say(super::image::summary(&name, &image, known, began.elapsed().as_millis() as u64));
            Ok(())
        }
        Err(Broken::Refused(error)) => Err(error),
        // When the source cannot be read, that is why the connection broke.
        Err(Broken::Connection(error)) => Err(sender.failure().await.unwrap_or(error)),
    }
}

fn query(import: &Import, source: &Source, name: &ImageName) -> Done<String> {
    if let (Some(option), false) = (import.registry.given(), matches!(source, Source::Registry(_))) {
        return Err(CliError::usage(format!("{option} says how to speak to a registry"), "leave it out: this is none"));
    }
    let (kind, cmdline) = match source {
        Source::Foreign { .. } | Source::Disk(_) | Source::Iso(_) | Source::Efi(_) if import.kernel_only => {
            return Err(CliError::usage(
                "--kernel-only is for dir: and tar:, which hold a kernel and its modules as files",
                "leave it out",
            ));
        }
        Source::Foreign { cmdline, .. } if import.cmdline.is_some() && !cmdline.is_empty() => {
            return Err(CliError::usage("the kernel arguments are there twice", "write cmdline= or --cmdline"));
        }
        Source::Foreign { cmdline, .. } => (Kinds::Foreign, import.cmdline.as_ref().unwrap_or(cmdline).clone()),
        source if source.container().is_none() && import.kernel.is_some() => {
            return Err(CliError::usage(
                "--kernel pairs a container image with a kernel",
                "leave it out: this source has one",
            ));
        }
        _ if import.kernel_only && source.container().is_some() => {
            return Err(CliError::usage(
                "--kernel-only takes a root filesystem",
                "unpack the container image, and write dir:",
            ));
        }
        source if source.container().is_some() => (Kinds::Container, import.cmdline.clone().unwrap_or_default()),
        Source::Disk(_) => (Kinds::Disk, import.cmdline.clone().unwrap_or_default()),
        Source::Iso(_) => (Kinds::Iso, import.cmdline.clone().unwrap_or_default()),
        Source::Efi(_) => (Kinds::Efi, import.cmdline.clone().unwrap_or_default()),
        _ if import.kernel_only => (Kinds::Kernel, import.cmdline.clone().unwrap_or_default()),
        _ => (Kinds::Root, import.cmdline.clone().unwrap_or_default()),
    };
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let acls = if import.drop_acls { AclsWanted::Drop } else { AclsWanted::Refuse };
    let mut path = format!(
        "/v1/imports?name={}&source={}&kind={}&cmdline={}&acls={}",
        encoded(&name.to_string()),
        encoded(&source.to_string()),
        word(serde_json::json!(kind)),
        encoded(&cmdline),
        word(serde_json::json!(acls)),
    );
    for (key, value) in
        [("image", source.container().flatten()), ("kernel", import.kernel.as_ref().map(ToString::to_string))]
    {
        path.extend(value.map(|value| format!("&{key}={}", encoded(&value))));
    }
    for (key, value) in [("level", import.level.map(u64::from)), ("size", sender::size(source))] {
        path.extend(value.map(|value| format!("&{key}={value}")));
    }
    Ok(path)
}

/// How an import can end without an image.
enum Broken {
    /// The appliance said why.
    Refused(CliError),
    /// It did not come to that.
    Connection(CliError),
}

/// Reads the answer to its last line.
async fn listen(body: Incoming, meter: &Meter) -> Result<(Box<ImageShown>, bool), Broken> {
    let end = lines(body, |line| {
        match line {
            Line::Step { step, done, total } => meter.step(&step, done, total),
            Line::Note { note } => meter.note(&note),
            Line::Image { image, known } => return Some(Ok((image, known))),
            Line::Problem { problem } => return Some(Err(Broken::Refused(problem.into()))),
        }
        None
    });
    end.await.unwrap_or_else(|why| {
        Err(Broken::Connection(CliError::failed(
            format!("the import broke off: {why}"),
            "look whether the service still runs (bennu status), then import again: nothing of this one was kept",
        )))
    })
}

/// Runs `bennu image import` with these words on the runtime that is there.
#[cfg(test)]
pub(crate) async fn run_words(client: &Client, words: &[&str]) -> Done {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        import: Import,
    }
    let words = ["import"].iter().chain(words);
    let Alone { import } =
        clap::Parser::try_parse_from(words).map_err(|error| CliError::usage(error.to_string(), ""))?;
    run(client, import).await
}
