//! A backup on its way into a state directory: unpacked aside, checked whole, and put in place by renames that go on where a
//! power cut stopped them.

use super::{
    BackupError,
    read::{self, Checked, MOST, Taker},
};
use crate::{
    author,
    ledger::{Fault, Ledger, Loader},
};
use bennu_images::store::Store;
use bennu_rules::{
    Timestamp,
    audit::Author,
    backup::{self, Head, PartName},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Where it is unpacked, in the state directory itself: on a disc that is a mount of its own, and no rename leads out of it.
const ASIDE: &str = "restore";
const NEW: &str = "new";
const READY: &str = "ready.json";
/// What the next start puts on record.
const NOTE: &str = "restored.json";
/// What a backup brings, in the order in which it is put in place: the ledger last, so that nothing is served half-way.
const BROUGHT: [&str; 4] = ["images", "tls", "secrets.key", "ledger.redb"];

/// A backup that waits to be put in place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// When it was made.
    pub of: Timestamp,
    /// On which host.
    pub host: String,
    /// What it brings, of [`BROUGHT`].
    brings: Vec<String>,
    /// What it does not bring and what goes nevertheless: when it was made, this was not there.
    lacks: Vec<String>,
    /// Where in the state directory what was there goes.
    pub old: String,
}

/// Unpacks a backup beside the state in `state`, and has it put in place by [`finish`]. Before it is known to be whole nothing
/// of the state is touched.
pub fn unpack(source: impl Read, state: &Path, replace: bool, now: Timestamp) -> Result<Checked, BackupError> {
    if !replace && state.join("ledger.redb").exists() {
        return Err(BackupError::InPlace(state.to_owned()));
    }
    let place = clear(state)?;
    let outcome = fill(source, state, &place, now);
    if outcome.is_err() {
        let _ = fs::remove_dir_all(&place);
    }
    outcome
}

/// The same without the service, at once: the name of the directory in `state` where what was there lies.
pub fn place(source: impl Read, state: &Path, replace: bool, now: Timestamp) -> Result<String, BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(BackupError::io("make", state))?;
    // A service that runs would put it in place at its next start, to everybody's surprise.
    drop(lock(&state.join("ledger.redb"))?);
    unpack(source, state, replace, now)?;
    Ok(finish(state)?.map(|ready| ready.old).unwrap_or_default())
}

fn fill(source: impl Read, state: &Path, place: &Path, now: Timestamp) -> Result<Checked, BackupError> {
    let new = place.join(NEW);
    DirBuilder::new().recursive(true).mode(0o700).create(&new).map_err(BackupError::io("make", &new))?;
    let mut unpacking = Unpacking { dir: new.clone(), ledger: None, store: None };
    let checked = read::read(source, &mut unpacking)?;
    let Unpacking { ledger, .. } = unpacking;
    ledger.ok_or_else(|| BackupError::Damaged("the ledger, of which it has nothing,".into()))?.finish()?;
    let head = &checked.head;
    let (brings, lacks): (Vec<&str>, Vec<&str>) = BROUGHT.into_iter().partition(|name| new.join(name).exists());
    // Where the images are not in it, those that are here stay.
    let lacks = lacks.into_iter().filter(|name| *name != "images" && !is_elsewhere(head, name));
    let old = format!("replaced-{}", stamp(now));
    let ready = Ready {
        of: head.at,
        host: head.host.clone(),
        lacks: lacks.map(str::to_owned).collect(),
        brings: brings.into_iter().map(str::to_owned).collect(),
        old: free_name(state, &old),
    };
    give_like(state, place).map_err(BackupError::io("hand over", place))?;
    // All of it is on the disk before anything says that it is.
    let synced = File::open(place).and_then(|directory| rustix::fs::syncfs(&directory).map_err(io::Error::from));
    synced.map_err(BackupError::io("sync", place))?;
    let text = serde_json::to_vec(&ready).map_err(|error| BackupError::io("write", place)(error.into()))?;
    put_whole(&place.join(READY), &text).map_err(BackupError::io("write", place.join(READY)))?;
    Ok(checked)
}

/// Kept by people elsewhere, so that what lies here is another appliance's or nobody's.
fn is_elsewhere(head: &Head, name: &str) -> bool {
    let pem = |path: &String| path.ends_with(".pem") || path.ends_with(".crt");
    match name {
        "tls" => head.elsewhere.iter().any(pem),
        "secrets.key" => head.elsewhere.iter().any(|path| !pem(path)),
        _ => false,
    }
}

fn free_name(state: &Path, name: &str) -> String {
    let mut names = std::iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
    names.find(|name| !state.join(name).exists()).unwrap_or_else(|| name.to_owned())
}

/// A moment as part of a file's name.
pub(super) fn stamp(at: Timestamp) -> String {
    let text: String = at.to_string().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    text.split('.').next().map(|text| format!("{text}Z")).unwrap_or_default()
}

/// The empty place for a backup; what an earlier one left that did not come to its end is removed.
fn clear(state: &Path) -> Result<PathBuf, BackupError> {
    let place = state.join(ASIDE);
    match fs::symlink_metadata(&place) {
        Ok(found) if !found.is_dir() => return Err(BackupError::Strange(place)),
        Ok(_) if place.join(READY).exists() => return Err(BackupError::Waiting(place)),
        Ok(_) => fs::remove_dir_all(&place).map_err(BackupError::io("remove", &place))?,
        Err(_) => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(BackupError::io("make", &place))?;
    Ok(place)
}

struct Unpacking {
    dir: PathBuf,
    ledger: Option<Loader>,
    store: Option<Store>,
}

impl Taker for Unpacking {
    fn begin(&mut self, head: &Head) -> Result<(), BackupError> {
        self.ledger = Some(Loader::new(&self.dir.join("ledger.redb"))?);
        if head.images {
            self.store = Some(Store::open(self.dir.join("images"))?);
        }
        Ok(())
    }

    fn part(&mut self, name: &PartName, content: &mut dyn Read) -> Result<(), BackupError> {
        match name {
            PartName::Rows(table) => self.rows(table, content),
            PartName::Blob(hex) => self.blob(hex, content),
            PartName::SecretsKey => self.file("secrets.key", 0o600, content),
            PartName::Certificate => self.file("tls/cert.pem", 0o644, content),
            PartName::CertificateKey => self.file("tls/key.pem", 0o600, content),
            // Where the configuration lies is the host's matter.
            PartName::Configuration | PartName::Head | PartName::End => Ok(()),
        }
    }
}

impl Unpacking {
    fn rows(&mut self, table: &str, content: &mut dyn Read) -> Result<(), BackupError> {
        let damaged = || BackupError::Damaged(format!("table '{table}' of the ledger"));
        let mut rows = Vec::new();
        let decoder = zstd::Decoder::new(content).map_err(|_| damaged())?;
        decoder.take(MOST).read_to_end(&mut rows).map_err(|_| damaged())?;
        let ledger = self.ledger.as_ref().ok_or_else(damaged)?;
        ledger.load(table, &rows).map_err(|why| BackupError::Foreign(format!("of its ledger, {why}")))
    }

    fn blob(&mut self, hex: &str, content: &mut dyn Read) -> Result<(), BackupError> {
        let damaged = || BackupError::Damaged(format!("blob sha256:{hex}"));
        let store = self.store.as_ref().ok_or_else(damaged)?;
        store.check_room()?;
        let mut writer = store.writer()?;
        let mut piece = vec![0; 1 << 20];
        loop {
            let count = content.read(&mut piece).map_err(read::broken)?;
            if count == 0 {
                break;
            }
            writer.write_all(&piece[..count]).map_err(|error| store.failed("write to", store.tmp(), error))?;
        }
        if writer.finish()?.digest.hex() == hex { Ok(()) } else { Err(damaged()) }
    }

    fn file(&self, name: &str, mode: u32, content: &mut dyn Read) -> Result<(), BackupError> {
        let path = self.dir.join(name);
        let mut write = || {
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            io::copy(&mut content.take(MOST), &mut file)
        };
        write().map(drop).map_err(BackupError::io("write", &path))
    }
}

/// Gives everything under `place` to the owner of `like`, where root unpacked it for the service's user.
fn give_like(like: &Path, place: &Path) -> io::Result<()> {
    let owner = fs::metadata(like)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    std::os::unix::fs::lchown(place, Some(owner.uid()), Some(owner.gid()))?;
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_like(like, &entry.path())?;
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// Puts a backup in place that was unpacked and checked, and what was there aside. Where there is none, it removes what one
/// left that was not. To be called before anything is opened; it says what was put in place.
pub fn finish(state: &Path) -> Result<Option<Ready>, BackupError> {
    let place = state.join(ASIDE);
    match fs::symlink_metadata(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::io("look at", &place)(error)),
        Ok(found) if !found.is_dir() => return Err(BackupError::Strange(place)),
        Ok(_) => {}
    }
    let Ok(text) = fs::read(place.join(READY)) else {
        tracing::warn!("removing a backup that was not unpacked to its end");
        return fs::remove_dir_all(&place).map(|()| None).map_err(BackupError::io("remove", &place));
    };
    let ready: Ready = serde_json::from_slice(&text).map_err(|_| BackupError::Strange(place.join(READY)))?;
    let _lock = lock(&state.join("ledger.redb"))?;
    let done = exchange(state, &place, &ready);
    done.map_err(BackupError::io("put the backup in place in", state))?;
    Ok(Some(ready))
}

/// Each step is done or not done, and the next start does what is left.
fn exchange(state: &Path, place: &Path, ready: &Ready) -> io::Result<()> {
    let old = state.join(&ready.old);
    DirBuilder::new().recursive(true).mode(0o700).create(&old)?;
    give_like(state, &old)?;
    for name in BROUGHT {
        let is_of = |names: &[String]| names.iter().any(|one| one == name);
        let (new, here, aside) = (place.join(NEW).join(name), state.join(name), old.join(name));
        // What is here is the old one for as long as the new one has not left its place.
        let is_old = if is_of(&ready.brings) { new.exists() } else { is_of(&ready.lacks) };
        if is_old && here.exists() && !aside.exists() {
            fs::rename(&here, &aside)?;
            sync(&old)?;
            sync(state)?;
        }
        if new.exists() {
            fs::rename(&new, &here)?;
            sync(state)?;
        }
    }
    fs::rename(place.join(READY), state.join(NOTE))?;
    sync(state)?;
    // An empty one says nothing.
    let _ = fs::remove_dir(&old);
    fs::remove_dir_all(place)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Holds the ledger as the service does, so that no service runs on it; `None` where there is none.
fn lock(ledger: &Path) -> Result<Option<File>, BackupError> {
    let file = match File::open(ledger) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::io("open", ledger)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Fault::InUse(ledger.to_owned()).into()),
        Err(TryLockError::Error(error)) => Err(BackupError::io("lock", ledger)(error)),
    }
}

/// Puts on record that the state came out of a backup, where [`finish`] did that.
pub async fn note(state: &Path, ledger: &Ledger) -> Result<bool, BackupError> {
    let path = state.join(NOTE);
    let Ok(text) = fs::read(&path) else { return Ok(false) };
    if let Ok(Ready { of, host, old, .. }) = serde_json::from_slice(&text) {
        let on_record = ledger.decide(backup::Restored { of, host: host.clone() }, backup::restored);
        author::by(Author::bennu(None), on_record).await?;
        tracing::warn!(%of, host, old, "the state is that of a backup; what was there before lies in state_dir under `old`");
    }
    fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
    Ok(true)
}

/// A file that is there whole or not at all.
pub(super) fn put_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), sync)
}
