//! `bennu image export`: an image as an OCI layout, in a directory or in one file.

mod layout;
#[cfg(test)]
mod tests;

use crate::{
    cli::{
        client::{Client, encoded},
        error::{CliError, Done},
        meter::Meter,
        output::{bytes, say},
    },
    http::body::{BodyReader, pump},
};
use bennu_rules::image::ImageReference;
use clap::Args;
use http::{Method, header};
use std::{
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

/// The arguments of an export.
#[derive(Debug, Args)]
#[command(after_help = "DEST is one of\n  \
        oci:DIR[:TAG]            a directory: an OCI layout, made or added to\n  \
        oci-archive:PATH[:TAG]   one file, a layout in a tar; oci-archive:- writes to standard output\n\n\
        TAG is the image's own unless given. `bennu image import` takes both back, with the same digest.")]
pub struct Export {
    /// NAME:TAG or sha256:DIGEST
    image: ImageReference,
    /// Where to write it
    dest: String,
    /// The container image that it was made of, as it was pushed, with its signatures
    #[arg(long)]
    source: bool,
}

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dest {
    Layout(PathBuf),
    File(PathBuf),
    Stdout,
}

const FORMS: &str = "write oci:DIR[:TAG] or oci-archive:PATH[:TAG] (oci-archive:- writes to standard output)";

impl Dest {
    /// The place, and the image's name there.
    fn parse(text: &str) -> Done<(Self, Option<String>)> {
        let refuse = |what: String| Err(CliError::usage(what, FORMS));
        let Some((kind, rest)) = text.split_once(':') else { return refuse(format!("'{text}' is no destination")) };
        let (path, tag) = match rest.split_once(':') {
            Some((path, "")) => (path, None),
            Some((path, tag)) => (path, Some(tag.to_owned())),
            None => (rest, None),
        };
        match (kind, path) {
            ("oci" | "oci-archive", "") => refuse(format!("{text} names no path")),
            ("oci", path) => Ok((Self::Layout(path.into()), tag)),
            ("oci-archive", "-") => Ok((Self::Stdout, tag)),
            ("oci-archive", path) => Ok((Self::File(path.into()), tag)),
            (kind, _) => refuse(format!("'{kind}:' is no kind of destination")),
        }
    }
}

/// Runs it.
pub async fn run(client: &Client, export: Export) -> Done {
    let (dest, tag) = Dest::parse(&export.dest)?;
    check(&dest)?;
    let own = match &export.image {
        ImageReference::Name(name) => Some(name.tag().to_owned()),
        ImageReference::Digest(_) => None,
    };
    let mut path = format!("/v1/exports/{}?source={}", encoded(&export.image.to_string()), export.source);
    path.extend(tag.or(own).map(|tag| format!("&tag={}", encoded(&tag))));
    let answer = client.send(Method::GET, &path, None).await?;
    let length = answer.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let (chunks, body) = BodyReader::new();
    tokio::spawn(pump(axum::body::Body::new(answer.into_body()), chunks));
    let meter = Meter::new();
    let source = Metered { body, done: 0, length, meter: meter.clone(), broken: None };
    let (written, to) = (export.dest.clone(), dest.clone());
    let work = tokio::task::spawn_blocking(move || write(&dest, source)).await;
    meter.finish();
    let size = work.map_err(|panic| CliError::failed(panic.to_string(), ""))??;
    if to != Dest::Stdout {
        say(format!("exported {} to {written} ({})", export.image, bytes(size)));
    }
    Ok(())
}

/// What is wrong with the destination is told before anything is asked for.
fn check(dest: &Dest) -> Done {
    match dest {
        Dest::Layout(directory) => layout::check(directory),
        Dest::File(path) if path.exists() && !path.is_file() => Err(CliError::failed(
            format!("{} is there and is no file", path.display()),
            "name a file, or write oci: for a directory",
        )),
        Dest::Stdout if io::stdout().is_terminal() => {
            Err(CliError::usage("standard output is a terminal", "send it into a file or a pipe"))
        }
        Dest::File(_) | Dest::Stdout => Ok(()),
    }
}

fn write(dest: &Dest, mut source: Metered) -> Done<u64> {
    let written = match dest {
        Dest::Layout(directory) => layout::write(directory, &mut source),
        Dest::File(path) => write_file(path, &mut source),
        Dest::Stdout => copy(&mut source, &mut io::stdout().lock(), Path::new("standard output")),
    };
    // Whatever else went wrong, it is because the answer broke off.
    match (written, source.broken) {
        (Err(_), Some(why)) => Err(CliError::failed(
            format!("the export broke off: {why}"),
            "a damaged image ends so: `bennu image verify` and the service's log name what is damaged. Nothing was kept",
        )),
        (Err(error), None) => Err(error),
        (Ok(()), _) => Ok(source.done),
    }
}

/// Writes aside, and puts the file in its place when it is whole.
fn write_file(path: &Path, source: &mut Metered) -> Done {
    let failed = |error: io::Error| unwritable(path, &error);
    let mut file = aside(parent(path)).map_err(failed)?;
    copy(source, &mut file, path)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}

fn copy(source: &mut Metered, out: &mut impl Write, path: &Path) -> Done {
    while let Some(chunk) = source.next().map_err(|error| unwritable(path, &error))? {
        out.write_all(&chunk).map_err(|error| unwritable(path, &error))?;
    }
    out.flush().map_err(|error| unwritable(path, &error))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is gone unless it is put somewhere, with the mode that any other new file gets.
fn aside(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().prefix(".bennu-export-").permissions(mode).tempfile_in(directory)
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => "name a place that you may write to",
        io::ErrorKind::NotFound => "make the directory that it is to lie in",
        io::ErrorKind::StorageFull => "make room there, or name another place",
        _ => "",
    };
    CliError::failed(format!("cannot write {}: {error}", path.display()), help)
}

/// The answer as it arrives, and why it broke off if it did.
struct Metered {
    body: BodyReader,
    done: u64,
    length: Option<u64>,
    meter: Meter,
    broken: Option<String>,
}

impl Metered {
    fn next(&mut self) -> io::Result<Option<bytes::Bytes>> {
        let chunk = self.body.next_chunk();
        let count = chunk.as_ref().map_or(0, |chunk| chunk.as_ref().map_or(0, |chunk| chunk.len()));
        self.note(chunk.as_ref().err(), count);
        chunk
    }

    fn note(&mut self, error: Option<&io::Error>, count: usize) {
        self.broken = error.map(|error| crate::cli::client::chain(error)).or(self.broken.take());
        self.done += count as u64;
        self.meter.step("export", self.done, self.length);
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer);
        self.note(count.as_ref().err(), *count.as_ref().unwrap_or(&0));
        count
    }
}
