//! `bennu backup` and `bennu restore`: everything that makes an appliance as one file, and the way back.

use super::{
    Json,
    client::{Client, RequestBody, encoded},
    error::{CliError, Done},
    import::sender,
    meter::Meter,
    output::{Listing, age, bytes, say, say_json, time},
};
use crate::{
    backup::{self, BackupError, Checked, Kept},
    config::Config,
    http::{
        api::backups::RestoreShown,
        body::{BodyReader, pump},
    },
};
use bennu_rules::backup::Head;
use clap::{Args, Subcommand};
use http::Method;
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// The arguments of `bennu backup`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    after_help = "The file holds secrets and the keys of the appliance: it is written for its owner alone (mode 0600). It is \
        a tar; `tar -xOf FILE bennu.toml` prints the configuration that was in use."
)]
pub struct BackupArguments {
    /// The file to write
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Leave the images out: it is small, and after a restore they are imported again
    #[arg(long)]
    without_images: bool,
    #[command(subcommand)]
    command: Option<BackupCommand>,
}

/// What can be done with backups that are there.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// List the backups of the ledger that the appliance keeps by itself
    List(Json),
    /// Read a backup to its end and say whether it is whole
    Verify {
        /// The file
        file: PathBuf,
    },
}

/// The arguments of `bennu restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "With the service running the backup is sent to it, and it starts anew. Without, the state directory of the \
        configuration is filled. Everything is checked before anything is changed."
)]
pub struct RestoreArguments {
    /// A file that `bennu backup` wrote
    #[arg(required_unless_present = "last")]
    file: Option<PathBuf>,
    /// The last backup of the ledger that lies in the state directory, without the service
    #[arg(long, conflicts_with = "file")]
    last: bool,
    /// Put the state that is there aside; nothing of it is deleted
    #[arg(long)]
    replace: bool,
    /// Fill this state directory, without the service
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The configuration file, which names the state directory
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
}

/// Runs `bennu backup`.
pub async fn run(client: &Client, arguments: BackupArguments) -> Done {
    match (arguments.command, arguments.file) {
        (Some(BackupCommand::List(output)), _) => list(client, output).await,
        (Some(BackupCommand::Verify { file }), _) => {
            let Checked { head, parts, bytes: size } = checked(&file)?;
            say(format!("{} is whole: {}, {parts} parts, {}", file.display(), told(&head), bytes(size)));
            Ok(())
        }
        (None, Some(file)) => take(client, &file, !arguments.without_images).await,
        (None, None) => Err(CliError::usage("no file is named", "write bennu backup FILE")),
    }
}

async fn list(client: &Client, output: Json) -> Done {
    let kept: Vec<Kept> = client.list("/v1/backups", None).await?;
    if output.json {
        return say_json(&kept);
    }
    let now = super::status::now();
    let mut listing = Listing::new(&["MADE", "AGE", "WHY", "SIZE", "FILE"], &["SIZE"]);
    for Kept { file, at, reason, size } in kept {
        let reason = serde_json::to_value(reason).ok().and_then(|text| text.as_str().map(str::to_owned));
        let cells = [time(at), age(at, now), reason.unwrap_or_default(), bytes(size), file.display().to_string()];
        listing.row(cells);
    }
    listing.print("no backups yet: the first is made when the service starts");
    Ok(())
}

/// Written aside while it is checked: a file that is there is whole.
async fn take(client: &Client, file: &Path, images: bool) -> Done {
    let answer = client.send(Method::GET, &format!("/v1/backup?images={images}"), None).await?;
    let (chunks, body) = BodyReader::new();
    tokio::spawn(pump(axum::body::Body::new(answer.into_body()), chunks));
    let (meter, path) = (Meter::new(), file.to_owned());
    let shown = meter.clone();
    let work = tokio::task::spawn_blocking(move || keep(&path, body, &shown)).await;
    meter.finish();
    let Checked { head, bytes: size, .. } = work.map_err(|panic| CliError::failed(panic.to_string(), ""))??;
    say(format!(
        "{} is a backup of {} ({}). Keep it safe: secrets are in it",
        file.display(),
        told(&head),
        bytes(size)
    ));
    for path in &head.elsewhere {
        say(format!("not in it, because it is kept elsewhere: {path}"));
    }
    if !images {
        say(format!("not in it: {} blobs of images; after a restore, import those images again", head.blobs.len()));
    }
    Ok(())
}

fn keep(path: &Path, body: BodyReader, meter: &Meter) -> Done<Checked> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = |error: io::Error| {
        CliError::failed(
            format!("cannot write {}: {error}", path.display()),
            "name a place with room that you may write to",
        )
    };
    // Its owner's alone, as tempfile makes it.
    let file = tempfile::Builder::new().prefix(".bennu-backup-").tempfile_in(parent).map_err(unwritable)?;
    let mut tee = Tee { from: body, to: file, done: 0, meter };
    let checked = backup::check(&mut tee).map_err(|error| match error {
        BackupError::Cut | BackupError::Gone(_) => CliError::failed(
            "the backup broke off, and nothing was kept",
            "look at the service's log, which says why (a damaged image: `bennu image verify`), then try again",
        ),
        error => CliError::told(&error.to_string()),
    })?;
    // A tar ends in blocks of zeros.
    io::copy(&mut tee, &mut io::sink()).map_err(unwritable)?;
    tee.to.as_file().sync_all().map_err(unwritable)?;
    tee.to.persist(path).map_err(|error| unwritable(error.error))?;
    Ok(checked)
}

/// What is read is kept.
struct Tee<'a> {
    from: BodyReader,
    to: tempfile::NamedTempFile,
    done: u64,
    meter: &'a Meter,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        self.done += count as u64;
        self.meter.step("backup", self.done, None);
        Ok(count)
    }
}

fn told(head: &Head) -> String {
    let with = if head.images { "with images" } else { "without images" };
    format!("{} as of {} {with}, bennu {}", head.host, time(head.at), head.version)
}

fn open(file: &Path) -> Done<File> {
    File::open(file).map_err(|error| CliError::failed(format!("cannot read {}: {error}", file.display()), ""))
}

fn checked(file: &Path) -> Done<Checked> {
    backup::check(io::BufReader::with_capacity(1 << 20, open(file)?)).map_err(|error| refused(&error))
}

fn refused(error: &BackupError) -> CliError {
    CliError::told(&error.to_string())
}

/// Runs `bennu restore`.
pub async fn restore(client: &Client, arguments: RestoreArguments) -> Done {
    let RestoreArguments { file, last, replace, state_dir, config } = arguments;
    if let Some(file) = file.as_ref().filter(|_| !last && state_dir.is_none())
        && client.is_there().await
    {
        // Before anything is sent.
        checked(file)?;
        return send(client, file, replace).await;
    }
    let state = match state_dir {
        Some(state) => state,
        None => Config::load(&config).map_err(|error| CliError::told(&error.to_string()))?.state_dir,
    };
    let none =
        || CliError::failed(format!("no backup lies in {}", state.join("backups").display()), "name a file of yours");
    let file = file.or_else(|| backup::last(&state).map(|kept| kept.file)).ok_or_else(none)?;
    let Checked { head, .. } = checked(&file)?;
    let source = io::BufReader::with_capacity(1 << 20, open(&file)?);
    let old = backup::place(source, &state, replace, super::status::now()).map_err(|error| refused(&error))?;
    say(format!("{} holds the state of {}", state.display(), told(&head)));
    if state.join(&old).exists() {
        say(format!("what was there before lies in {}; remove it when all is well", state.join(&old).display()));
    }
    say_missing(&head, &state);
    Ok(())
}

fn say_missing(head: &Head, state: &Path) {
    let blobs = state.join("images/blobs/sha256");
    let missing: Vec<String> = head
        .blobs
        .iter()
        .filter(|blob| !blobs.join(blob.digest.hex()).exists())
        .map(|blob| blob.digest.to_string())
        .collect();
    if !missing.is_empty() {
        let few = missing.iter().take(10).cloned().collect::<Vec<_>>().join(" ");
        let more = if missing.len() > 10 { " …" } else { "" };
        say(format!(
            "{} blobs of images are not here: import those images again (`bennu image verify` names them): {few}{more}",
            missing.len()
        ));
    }
}

async fn send(client: &Client, file: &Path, replace: bool) -> Done {
    let mut source = open(file)?;
    let meter = Meter::new();
    let (shown, total) = (meter.clone(), source.metadata().map(|file| file.len()).ok());
    let mut done = 0;
    let body: RequestBody = sender::from_reads(move || {
        let mut piece = vec![0; 256 << 10];
        let count = source.read(&mut piece)?;
        done += count as u64;
        shown.step("restore", done, total);
        piece.truncate(count);
        Ok((count > 0).then(|| piece.into()))
    })?;
    let path = format!("/v1/restore?replace={}", encoded(&replace.to_string()));
    let headers = [("content-type", "application/octet-stream".to_owned())];
    let answer = client.send_with(Method::POST, &path, Some(body), &headers).await;
    meter.finish();
    let shown: RestoreShown = super::client::decoded(answer?).await?;
    say(format!(
        "the appliance starts anew with the state of {} as of {} ({} parts, {})",
        shown.host,
        time(shown.of),
        shown.parts,
        bytes(shown.bytes)
    ));
    Ok(())
}
