//! Backups of the ledger that the appliance keeps beside it by itself.

use super::{BackupError, aside::stamp, read, write};
use crate::appliance::Appliance;
use bennu_rules::{
    Timestamp,
    backup::{Head, Reason, has_room, is_due, is_same_try, surplus},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{BufWriter, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Where they lie in the state directory.
const PLACE: &str = "backups";
/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// One that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KeptBackup)]
pub struct Kept {
    /// Its file on the appliance's host.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// When it was made.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Bytes.
    pub size: u64,
}

/// Those that are kept in a state directory, newest first. What cannot be read is left out.
pub fn kept(state: &Path) -> Vec<Kept> {
    let mut kept: Vec<Kept> = names(state).into_iter().filter_map(|name| look(&state.join(PLACE).join(name))).collect();
    kept.sort_by(|a, b| b.file.cmp(&a.file));
    kept
}

/// The newest.
pub fn last(state: &Path) -> Option<Kept> {
    kept(state).into_iter().next()
}

fn names(state: &Path) -> Vec<String> {
    let entries = fs::read_dir(state.join(PLACE)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("ledger-") && name.ends_with(".tar")).collect()
}

fn look(file: &Path) -> Option<Kept> {
    let size = fs::metadata(file).ok()?.len();
    let Head { at, reason, .. } = head(file)?;
    Some(Kept { file: file.to_owned(), at, reason, size })
}

fn head(file: &Path) -> Option<Head> {
    let mut archive = tar::Archive::new(File::open(file).ok()?);
    let entry = archive.entries().ok()?.next()?.ok()?;
    let mut text = Vec::new();
    entry.take(read::MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes one before an upgrade. It takes the place of one that was made for the same not long ago, so that an upgrade that is
/// tried again and again does not drive out those of each day.
pub fn make_before_upgrade(appliance: &Appliance) -> Result<bool, BackupError> {
    let state = &appliance.config.state_dir;
    let before = last(state).and_then(|kept| Some((head(&kept.file)?, kept.file)));
    let is_made = make(appliance, Reason::Upgrade)?;
    let is_surplus = |head: &Head| is_made && is_same_try(head, env!("CARGO_PKG_VERSION"), appliance.ledger.now());
    if let Some((_, file)) = before.filter(|(head, _)| is_surplus(head))
        && last(state).is_some_and(|now| now.file != file)
    {
        fs::remove_file(&file).map_err(BackupError::io("remove", file))?;
    }
    Ok(is_made)
}

/// Makes one now, unless the disk is short; it says whether it did.
pub fn make(appliance: &Appliance, reason: Reason) -> Result<bool, BackupError> {
    let state = &appliance.config.state_dir;
    let length = fs::metadata(state.join("ledger.redb")).map_or(0, |file| file.len());
    if !has_room(appliance.store.free(), length) {
        tracing::warn!("the disk of state_dir is short of room: no backup of the ledger was made");
        return Ok(false);
    }
    let place = state.join(PLACE);
    DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(BackupError::io("make", &place))?;
    let path = place.join(format!("ledger-{}.tar", stamp(appliance.ledger.now())));
    let part = path.with_extension("part");
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let file = made.map_err(BackupError::io("make", &part))?;
    let written = write(appliance, false, reason, BufWriter::new(&file)).and_then(|_| {
        let kept =
            file.sync_all().and_then(|()| fs::rename(&part, &path)).and_then(|()| File::open(&place)?.sync_all());
        kept.map_err(BackupError::io("write", &path))
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    for name in surplus(&names(state)) {
        let old = place.join(name);
        fs::remove_file(&old).map_err(BackupError::io("remove", old))?;
    }
    Ok(true)
}

/// Makes one each day, for as long as the service runs.
pub async fn keep(appliance: Arc<Appliance>) -> anyhow::Result<()> {
    loop {
        let working = appliance.clone();
        let work = tokio::task::spawn_blocking(move || {
            let made: Vec<Timestamp> = kept(&working.config.state_dir).iter().map(|kept| kept.at).collect();
            if is_due(&made, working.ledger.now()) && !working.ledger.is_full() {
                make(&working, Reason::Daily).map(drop)
            } else {
                Ok(())
            }
        });
        // Machines boot without one.
        if let Err(error) = work.await? {
            tracing::error!(%error, "no backup of the ledger was made");
        }
        tokio::select! {
            () = appliance.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
