//! What the appliance says, on its consoles and in a file on the state disk that has a limit.

use crate::state;
use bennu_stage1::console;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// One file's limit, and how many earlier ones stay.
const LIMIT: u64 = 8 << 20;
const KEPT: usize = 3;

static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

/// Says something on the consoles and in the log.
pub fn say(text: &str) {
    console::say(text);
    write(&format!("init: {text}"));
}

/// Writes a line to the log alone. A full disk loses lines, never more.
pub fn write(line: &str) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if log.is_none() {
        *log = Log::open(Path::new(state::PLACE)).ok();
    }
    if let Some(log) = log.as_mut() {
        log.line(line);
    }
}

/// Lets go of the file, so that its disk can be let go of.
pub fn close() {
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Log {
    fn open(state: &Path) -> std::io::Result<Self> {
        let directory = state.join("log");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("appliance.log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    fn line(&mut self, line: &str) {
        if self.size > LIMIT && self.turn().is_err() {
            return;
        }
        let text = format!("{line}\n");
        if self.file.write_all(text.as_bytes()).is_ok() {
            self.size += text.len() as u64;
        }
    }

    /// The file becomes the first of the earlier ones, and the last of those goes.
    fn turn(&mut self) -> std::io::Result<()> {
        let earlier = |number: usize| self.path.with_extension(format!("log.{number}"));
        for number in (1..KEPT).rev() {
            let _ = std::fs::rename(earlier(number), earlier(number + 1));
        }
        std::fs::rename(&self.path, earlier(1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_takes_more_than_its_limit() {
        let place = tempfile::tempdir().unwrap();
        let mut log = Log::open(place.path()).unwrap();
        let line = "x".repeat(1 << 20);
        for _ in 0..60 {
            log.line(&line);
        }
        let sizes: Vec<u64> = std::fs::read_dir(place.path().join("log"))
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 1 + KEPT);
        assert!(sizes.iter().sum::<u64>() <= (LIMIT + (1 << 20) + 1) * (1 + KEPT as u64), "{sizes:?}");
    }
}
