//! Discs as files: signing one, verifying one, and sending one to an appliance.

use crate::{
    cli::{
        client::{Client, decoded, encoded},
        error::{CliError, Done},
        image::read_key,
        import::sender,
        meter::Meter,
        output::{say, say_json},
        source::Source,
    },
    http::{
        api::appliance::{ApplianceShown, SlotShown},
        mapped::Mapped,
    },
};
use bennu_host::{
    door::{Source as StartedFrom, Standing},
    slots::Release,
};
use bennu_images::{
    cosign::{TrustedKey, sign_blob, verify_blob},
    iso::Disc,
};
use clap::Args;
use http::Method;
use serde::Serialize;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What every disc says of itself (`iso/src/main.rs`).
const RELEASE: &str = ".disk/release.json";
const LARGEST_RELEASE: u64 = 4096;
/// Firmware of servers takes minutes, and a trial that fails starts the host twice.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
const PACE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);

/// The arguments of a signature.
#[derive(Debug, Args)]
pub struct Sign {
    /// The disc (an .iso file); the signature is put beside it, in FILE.sig
    file: PathBuf,
    /// The private key: cosign's (its password in COSIGN_PASSWORD), or plain PKCS #8
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// The arguments of a verification.
#[derive(Debug, Args)]
pub struct Verify {
    /// The disc (an .iso file)
    file: PathBuf,
    /// Its signature; FILE.sig unless given
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// The public key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    output: crate::cli::Json,
}

/// The arguments of an upgrade.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// The new version's disc (an .iso file)
    file: PathBuf,
    /// Its signature; FILE.sig unless given
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Take it even if it is older than what runs
    #[arg(long)]
    allow_older: bool,
    /// Go on without a backup of the ledger, which is made first otherwise
    #[arg(long)]
    no_backup: bool,
    /// Only install it: the next start tries it
    #[arg(long)]
    no_restart: bool,
    /// Restart, and do not wait for what becomes of it
    #[arg(long, conflicts_with = "no_restart")]
    no_wait: bool,
}

/// What a verified disc is.
#[derive(Debug, Serialize)]
struct Verified {
    #[serde(flatten)]
    release: Release,
    key: String,
}

/// Signs a disc.
pub fn sign(wanted: &Sign) -> Done {
    let key = read_key(&wanted.key)?;
    let signature = sign_blob(&key, map(&wanted.file)?.bytes()).map_err(|error| CliError::told(&error.to_string()))?;
    let path = beside(&wanted.file);
    fs::write(&path, format!("{signature}\n"))
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display()), "make room for it"))?;
    say(path.display().to_string());
    Ok(())
}

/// Says which disc it is, when the key has signed it.
pub fn verify(wanted: &Verify) -> Done {
    let key = TrustedKey::read(&wanted.key).map_err(|error| CliError::told(&error.to_string()))?;
    let signature = read_signature(&wanted.file, wanted.signature.as_deref())?;
    verify_blob(&key, map(&wanted.file)?.bytes(), &signature).map_err(|error| CliError::told(&error.to_string()))?;
    let verified = Verified { release: release(&wanted.file)?, key: key.fingerprint().to_string() };
    match wanted.output.json {
        true => say_json(&verified),
        false => {
            let Verified { release: Release { version, built }, key } = verified;
            say(format!("{version}, built {}, signed with {key}", super::date(built)));
            Ok(())
        }
    }
}

/// Sends a disc, restarts the appliance into it, and says what became of it.
pub async fn upgrade(client: &Client, wanted: Upgrade) -> Done {
    let release = release(&wanted.file)?;
    let signature = read_signature(&wanted.file, wanted.signature.as_deref())?;
    let size = fs::metadata(&wanted.file).map_err(|error| unreadable(&wanted.file, &error))?.len();
    let meter = Meter::new();
    let (sender, body) = sender::start(Source::Iso(wanted.file.clone()), meter.clone())?;
    let path = format!(
        "/v1/appliance/upgrade?size={size}&signature={}&allow_older={}&backup={}",
        encoded(signature.trim()),
        wanted.allow_older,
        !wanted.no_backup
    );
    let octets = [("content-type", "application/octet-stream".to_owned())];
    meter.step("send", 0, Some(size));
    let answer = client.send_with(Method::POST, &path, Some(body), &octets).await;
    meter.finish();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(sender.failure().await.filter(|_| !error.is_refusal()).unwrap_or(error)),
    };
    let installed: SlotShown = decoded(answer).await?;
    say(format!(
        "{} is in slot {} of the appliance, and is tried at its next start",
        release.version,
        installed.slot.name()
    ));
    if wanted.no_restart {
        return Ok(());
    }
    super::order(client, "restart", "the appliance starts again").await?;
    if wanted.no_wait { Ok(()) } else { wait(client, &installed).await }
}

/// Waits until the new version is good, or the old one runs again.
async fn wait(client: &Client, installed: &SlotShown) -> Done {
    let began = Instant::now();
    let mut has_left = false;
    while began.elapsed() < PATIENCE {
        tokio::time::sleep(PACE).await;
        // It does not answer while it starts.
        let asked = tokio::time::timeout(ANSWER, client.get::<ApplianceShown>("/v1/appliance")).await;
        let Ok(Ok(shown)) = asked else {
            has_left = true;
            continue;
        };
        if let Some(failed) = shown.failed {
            return Err(CliError::failed(
                format!("the upgrade to {failed} did not become ready, and {} runs again", shown.version),
                "look at the log of that start: log/ on the appliance's state disk",
            ));
        }
        let is_good = |held: &SlotShown| held.slot == installed.slot && held.standing == Standing::Good;
        if shown.slots.iter().any(is_good) {
            say(format!("{} runs", shown.version));
            return Ok(());
        }
        if has_left && shown.from != StartedFrom::from(Some(installed.slot)) {
            return Err(CliError::failed(
                format!(
                    "{} runs again, and {} in slot {} was not tried",
                    shown.version,
                    installed.version,
                    installed.slot.name()
                ),
                "see whether the appliance's firmware shows the state disk to GRUB (no \"fast boot\"): its menu then has the \
                 slot. Or write the new version on the medium",
            ));
        }
    }
    Err(CliError::failed(
        format!("nobody answers {} minutes after the restart", PATIENCE.as_secs() / 60),
        "look at the appliance's console",
    ))
}

/// What a disc says of itself.
fn release(path: &Path) -> Done<Release> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let disc = Disc::open(file).map_err(|error| CliError::told(&format!("{}: {error}", path.display())))?;
    let text = disc.text(RELEASE, LARGEST_RELEASE);
    text.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| {
        CliError::failed(
            format!("{} is no disc of Bennu's, or one that is too old", path.display()),
            "name another file",
        )
    })
}

fn read_signature(disc: &Path, named: Option<&Path>) -> Done<String> {
    let path = named.map_or_else(|| beside(disc), Path::to_owned);
    fs::read_to_string(&path).map_err(|error| {
        CliError::failed(
            format!("there is no signature of {}: cannot read {}: {error}", disc.display(), path.display()),
            "make one with bennu appliance sign, or name it (--signature)",
        )
    })
}

fn beside(disc: &Path) -> PathBuf {
    let mut name = disc.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

fn map(path: &Path) -> Done<Mapped> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    if length == 0 {
        return Err(CliError::failed(format!("{} is empty", path.display()), "name a disc"));
    }
    Mapped::new(file, length as usize).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot read {}: {error}", path.display()), "name a disc (an .iso file)")
}
