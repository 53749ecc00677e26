//! The slots of the state disk: what is in them, which of them runs, and whether it turns out to be good.

use crate::logs::say;
use crate::{power, release, state};
use bennu_host::slots::{BLOCK, Slot, Slots};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A disc on trial whose service is not ready so long after its kernel started has failed.
const PATIENCE: Duration = Duration::from_secs(180);
/// GRUB's argument: which slot the kernel comes from.
const ARGUMENT: &str = "bennu.slot";
/// And that this is its one try.
const ON_TRIAL: &str = "bennu.trial";

static RUNNING: OnceLock<Option<Slot>> = OnceLock::new();
static READY: AtomicBool = AtomicBool::new(false);
/// Held while the environment block is changed.
static BOOK: Mutex<()> = Mutex::new(());

/// Notes what GRUB says, and sees to it that a trial ends: before anything that may wait for a person.
pub fn begin(line: &str) {
    let running = running_of(line);
    let _ = RUNNING.set(running);
    if let Some(slot) = running.filter(|_| line.split_whitespace().any(|word| word == ON_TRIAL)) {
        say(&format!("this version, from {slot} of the state disk, runs for the first time"));
        let watch = || {
            std::thread::sleep(PATIENCE.saturating_sub(power::uptime()));
            if !READY.load(Ordering::SeqCst) {
                say(&format!(
                    "the service of this new version is not ready {} s after the kernel started: what ran before is started again",
                    PATIENCE.as_secs()
                ));
                power::restart(Duration::ZERO);
            }
        };
        drop(std::thread::Builder::new().name("trial".into()).stack_size(128 * 1024).spawn(watch));
    }
}

fn running_of(line: &str) -> Option<Slot> {
    let words = line.split_whitespace().filter_map(|word| word.split_once('='));
    words.filter(|(name, _)| *name == ARGUMENT).find_map(|(_, value)| Slot::of(value))
}

/// The slot that runs; `None`: the medium.
pub fn running() -> Option<Slot> {
    RUNNING.get().copied().flatten()
}

/// Looks, once the state disk is there, at what became of a trial, and says so.
pub fn look() {
    let changed = change(|slots| slots.started(running()));
    match changed {
        Ok(slots) => {
            if let Some(failure) = failure(&slots) {
                say(&failure);
            }
        }
        Err(why) => say(&why),
    }
}

/// What to say of an upgrade that failed.
pub fn failure(slots: &Slots) -> Option<String> {
    let failed = slots.failure()?;
    let runs = release::of_this_disc().version;
    Some(format!("THE UPGRADE to {} did not become ready, and {runs} runs again", failed.version))
}

/// The service is ready: a disc on trial is good from now on.
pub fn ready() {
    READY.store(true, Ordering::SeqCst);
    let Some(slot) = running() else { return };
    let before = read();
    match change(|slots| slots.ready(Some(slot))) {
        Ok(now) if before.as_ref().is_ok_and(|before| *before != now) => {
            say(&format!("the service of this new version is ready: {slot} is started from now on"));
        }
        Ok(_) => {}
        Err(why) => say(&format!("{why}; what ran before is started the next time")),
    }
}

/// Where discs are.
pub fn place() -> PathBuf {
    Path::new(state::PLACE).join("slots")
}

fn block() -> PathBuf {
    place().join("grubenv")
}

/// What is known of the slots. Without a block nothing is.
pub fn read() -> Result<Slots, String> {
    read_from(&block())
}

fn read_from(path: &Path) -> Result<Slots, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slots::default()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    // What GRUB cannot read it heeds as little.
    Ok(Slots::read(&bytes).unwrap_or_default())
}

/// Changes what is known; what it is then. Nothing is written where nothing differs, and without a state disk.
pub fn change(how: impl FnOnce(Slots) -> Slots) -> Result<Slots, String> {
    let _held = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = read()?;
    let after = how(before.clone());
    if before != after && state::area().is_some() {
        let bytes = after.write().ok_or("the versions' names are too long for GRUB")?;
        write_to(&block(), &bytes).map_err(|error| format!("cannot write {}: {error}", block().display()))?;
    }
    Ok(after)
}

/// In place, as GRUB does, so that the file stays where GRUB found it.
fn write_to(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file: File = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(BLOCK as u64)?;
    file.sync_all()?;
    // GRUB reads the disk and not its journal: sync(2) puts what the journal holds in its place.
    rustix::fs::sync();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_host::slots::Release;
    use std::process::Command;

    fn release(version: &str, built: u64) -> Release {
        Release { version: version.into(), built }
    }

    fn editenv(path: &Path, arguments: &[&str]) -> String {
        let done = Command::new("grub-editenv").arg(path).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    #[test]
    fn the_slot_that_runs_is_in_the_kernels_arguments() {
        assert_eq!(running_of("quiet bennu.slot=b bennu.trial"), Some(Slot::B));
        for line in ["", "bennu.slot=c", "bennu.slot", "xbennu.slot=a"] {
            assert_eq!(running_of(line), None, "{line}");
        }
    }

    #[test]
    fn grub_reads_what_we_write_and_we_what_grub_writes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("grubenv");
        assert_eq!(read_from(&path), Ok(Slots::default()));
        let slots = Slots::default().installed(Slot::B, release("0.2\\1", 20), &release("0.1", 10));
        write_to(&path, &slots.write().unwrap()).unwrap();
        let listed = editenv(&path, &["list"]);
        for line in ["trial=b", "tries=1", "good=", "b_version=0.2\\1", "b_built=20", "b_rank=20"] {
            assert!(listed.lines().any(|listed| listed == line), "{line}: {listed}");
        }
        // As GRUB takes the try away: grub-editenv has the same code.
        editenv(&path, &["set", "tries=0"]);
        let read = read_from(&path).unwrap();
        assert_eq!(read.trial, Some((Slot::B, false)));
        assert_eq!(read.held, slots.held);
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(read_from(&path), Ok(Slots::default()));
        write_to(&path, &slots.write().unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), BLOCK as u64);
    }
}
