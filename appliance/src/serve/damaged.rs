//! A ledger that cannot be read, or is not there though there was one: it is said, with what to do, and nothing is served. An
//! empty state in its place would give out addresses that are taken.

use crate::{
    backup,
    ledger::{Fault, Ledger},
};
use bennu_rules::settings::Settings;
use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The state cannot be read, as told to people.
#[derive(Debug)]
pub struct Damaged(String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

/// Opens the ledger in a state directory.
pub fn open(state: &Path, settings: Arc<Settings>) -> anyhow::Result<Ledger> {
    let path = state.join("ledger.redb");
    let advice = advice(state);
    let damaged = |why: &str| Damaged(format!("the ledger {} {why}. {advice}", path.display()));
    match std::fs::metadata(&path) {
        Ok(file) if file.len() == 0 => return Err(damaged("is an empty file").into()),
        // Both are made after the first ledger, and by nobody else.
        Err(_) if state.join("secrets.key").exists() || backup::last(state).is_some() => {
            let why = "is not there, and the state directory is not new";
            return Err(damaged(why).into());
        }
        _ => {}
    }
    let opened = while_opening(damaged("cannot be read").to_string(), || Ledger::open(state, settings));
    opened.map_err(|fault| match fault {
        // The disk or the host is at fault, not what is written there.
        Fault::InUse(_) | Fault::TooNew { .. } | Fault::Full(_) | Fault::Disk(_) => fault.into(),
        fault => damaged(&format!("cannot be read ({fault})")).into(),
    })
}

/// What to do, with the command.
fn advice(state: &Path) -> String {
    let begin = "Nothing is served";
    match backup::last(state) {
        Some(last) => format!(
            "{begin}. The last backup of it is of {}: bennu restore {} --replace --state-dir {} puts that in place, and what is \
             there now aside",
            last.at,
            last.file.display(),
            state.display()
        ),
        None => format!(
            "{begin}, and no backup of it lies in {}. Restore one that you kept (bennu restore FILE --replace), or move that \
             directory away to begin anew",
            state.join("backups").display()
        ),
    }
}

static OPENING: AtomicBool = AtomicBool::new(false);

/// What cannot be read may trip an assertion of the database's, and a panic ends the process before any error is told.
fn while_opening<T>(told: String, open: impl FnOnce() -> T) -> T {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if OPENING.load(Ordering::SeqCst) {
            tracing::error!("{told} ({panic})");
            std::process::exit(bennu_host::EXIT_DAMAGED.into());
        }
        before(panic);
    }));
    OPENING.store(true, Ordering::SeqCst);
    let opened = open();
    OPENING.store(false, Ordering::SeqCst);
    opened
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::FileExt};

    fn told(state: &Path) -> String {
        match open(state, Arc::new(Settings::default())) {
            Ok(_) => String::new(),
            Err(error) => {
                assert!(error.is::<Damaged>(), "{error}");
                error.to_string()
            }
        }
    }

    #[test]
    fn a_ledger_that_is_damaged_is_told_of_and_never_replaced_by_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert_eq!(told(state), "", "a new one is made");
        let path = state.join("ledger.redb");
        let good = fs::read(&path).unwrap();
        let damage = |what: &str, bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let said = told(state);
            assert!(said.contains("Nothing is served") && said.contains("ledger.redb"), "{what}: {said}");
        };
        damage("empty", b"");
        damage("zeros", &vec![0; good.len()]);
        damage("cut", &good[..5000]);
        damage("another file", b"this is no database at all");
        let mut head = good.clone();
        head[..4096].iter_mut().for_each(|byte| *byte ^= 0xa5);
        damage("its head", &head);
        fs::write(&path, &good).unwrap();
        assert_eq!(told(state), "", "and read again when it is well");
        fs::remove_file(&path).unwrap();
        fs::write(state.join("secrets.key"), "").unwrap();
        assert!(told(state).contains("is not there"));
    }

    #[test]
    fn a_flipped_byte_in_what_is_used_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert_eq!(told(state), "");
        let path = state.join("ledger.redb");
        let good = fs::read(&path).unwrap();
        // The format's record, as JSON behind its version.
        let at = good.windows(6).position(|bytes| bytes == b"format").expect("the record's key");
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"X", at as u64).unwrap();
        drop(file);
        let said = told(state);
        assert!(said.is_empty() || said.contains("cannot be read"), "{said}");
    }
}
