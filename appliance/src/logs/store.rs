//! Lines on disk: one file a boot, with JSON lines in it, limited in size and age. One thread writes; whoever sends faster
//! than the disk takes it loses lines, and nobody else waits.

use crate::config::LogSettings;
use bennu_rules::{Timestamp, boot::BootId, syslog::Message};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::broadcast;

/// Lines that wait for the disk.
const WAITING: usize = 8192;
/// Files that are open at once.
const OPEN: usize = 256;
/// Sizes and ages are looked at this often.
const SWEEP: Duration = Duration::from_secs(60);
/// With less than this free, the disk is the ledger's and the images'.
const LEAST_FREE: u64 = 256 << 20;
/// What is read of a file's end for one answer.
const MOST_READ: u64 = 8 << 20;

/// A line as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Kept {
    /// When it came, by the appliance's clock.
    pub at: Timestamp,
    /// What was said.
    #[serde(flatten)]
    pub message: Message,
}

/// A line, as those who follow hear it.
#[derive(Debug, Clone)]
pub struct Said {
    /// Of which boot.
    pub boot: BootId,
    /// What.
    pub line: Kept,
}

/// The logs of every boot.
#[derive(Debug)]
pub struct Logs {
    directory: PathBuf,
    lines: SyncSender<Said>,
    told: broadcast::Sender<Said>,
}

impl Logs {
    /// Keeps them in `directory`, which is made with the first line.
    pub fn open(directory: PathBuf, settings: LogSettings) -> io::Result<Self> {
        let (lines, waiting) = mpsc::sync_channel::<Said>(WAITING);
        let told = broadcast::Sender::new(1024);
        let mut writer = LogWriter::new(directory.clone(), settings);
        let tell = told.clone();
        std::thread::Builder::new().name("logs".into()).spawn(move || {
            loop {
                match waiting.recv_timeout(SWEEP) {
                    Ok(said) => {
                        if writer.write(&said) {
                            let _ = tell.send(said);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => writer.sweep_if_due(),
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
        })?;
        Ok(Self { directory, lines, told })
    }

    /// Keeps a line; `false` where the disk is behind.
    pub fn keep(&self, boot: BootId, line: Kept) -> bool {
        self.lines.try_send(Said { boot, line }).is_ok()
    }

    /// What is said from now on.
    pub fn follow(&self) -> broadcast::Receiver<Said> {
        self.told.subscribe()
    }

    /// The last `count` lines of a boot, oldest first; nothing where it said nothing, or that is too long ago.
    pub fn last(&self, boot: &BootId, count: usize) -> io::Result<Vec<Kept>> {
        let Some(name) = file_name(boot) else { return Ok(Vec::new()) };
        let path = self.directory.join(&name);
        let mut text = tail(&path, MOST_READ)?;
        if lines_in(&text) < count {
            text = [tail(&older(&path), MOST_READ - text.len() as u64)?, text].concat();
        }
        let lines: Vec<Kept> =
            text.split(|byte| *byte == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
        Ok(lines[lines.len().saturating_sub(count)..].to_vec())
    }
}

fn lines_in(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// The last bytes of a file, from the beginning of a line on.
fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    if from > 0 {
        let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..begin);
    }
    Ok(bytes)
}

/// A boot's file; `None` for what no boot is called.
fn file_name(boot: &BootId) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!boot.0.is_empty() && boot.0.len() <= 64 && boot.0.chars().all(is_plain)).then(|| format!("{boot}.log"))
}

/// Where the older half of a boot's lines is.
fn older(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}

struct LogWriter {
    directory: PathBuf,
    settings: LogSettings,
    files: HashMap<BootId, (File, u64)>,
    /// Written since the last sweep.
    written: u64,
    swept: Option<Instant>,
    has_room: bool,
    complained: bool,
}

impl LogWriter {
    fn new(directory: PathBuf, settings: LogSettings) -> Self {
        let files = HashMap::new();
        Self { directory, settings, files, written: 0, swept: None, has_room: true, complained: false }
    }

    /// Writes a line; whether it is kept.
    fn write(&mut self, said: &Said) -> bool {
        self.sweep_if_due();
        if !self.has_room {
            return false;
        }
        match self.append(said) {
            Ok(kept) => {
                self.complained = false;
                kept
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(%error, directory = %self.directory.display(), "what machines say cannot be kept");
                }
                self.files.remove(&said.boot);
                false
            }
        }
    }

    fn append(&mut self, said: &Said) -> io::Result<bool> {
        let Some(name) = file_name(&said.boot) else { return Ok(false) };
        let path = self.directory.join(name);
        let mut line = serde_json::to_vec(&said.line)?;
        line.push(b'\n');
        if self.files.len() >= OPEN && !self.files.contains_key(&said.boot) {
            self.files.clear();
        }
        if let Some((_, length)) = self.files.get(&said.boot)
            && length + line.len() as u64 > self.settings.of_boot / 2
        {
            self.files.remove(&said.boot);
            fs::rename(&path, older(&path))?;
        }
        if !self.files.contains_key(&said.boot) {
            fs::create_dir_all(&self.directory)?;
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            let length = file.metadata()?.len();
            self.files.insert(said.boot.clone(), (file, length));
        }
        let Some((file, length)) = self.files.get_mut(&said.boot) else { return Ok(false) };
        file.write_all(&line)?;
        *length += line.len() as u64;
        self.written += line.len() as u64;
        Ok(true)
    }

    fn sweep_if_due(&mut self) {
        let is_due = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP);
        if is_due || self.written > self.settings.of_all / 16 {
            self.sweep();
            (self.swept, self.written) = (Some(Instant::now()), 0);
        }
    }

    /// Removes what is too old, then the oldest of what is too much.
    fn sweep(&mut self) {
        let mut files = match listed(&self.directory) {
            Ok(files) => files,
            Err(error) => return tracing::warn!(%error, "cannot look through {}", self.directory.display()),
        };
        let youth = Duration::from_secs(u64::from(self.settings.days) * 86_400);
        let oldest = SystemTime::now().checked_sub(youth).unwrap_or(SystemTime::UNIX_EPOCH);
        files.sort();
        // A sixteenth may come before the next sweep.
        let limit = self.settings.of_all - self.settings.of_all / 16;
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (changed, length, path) in files {
            if changed >= oldest && total <= limit {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                total -= length;
            }
        }
        // Whoever was removed is begun anew.
        self.files.clear();
        self.has_room = free(&self.directory).is_none_or(|free| free >= LEAST_FREE);
    }
}

fn listed(directory: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let about = entry.metadata()?;
        files.push((about.modified()?, about.len(), entry.path()));
    }
    Ok(files)
}

fn free(directory: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(directory).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::syslog::Severity;

    fn said(boot: &str, number: u64) -> Said {
        let message = Message { severity: Severity::Info, program: "test".into(), text: format!("{number:0100}") };
        Said { boot: BootId(boot.into()), line: Kept { at: Timestamp(number), message } }
    }

    fn writer(directory: &Path, of_boot: u64, of_all: u64) -> LogWriter {
        LogWriter::new(directory.into(), LogSettings { port: None, of_boot, of_all, days: 30 })
    }

    fn size(directory: &Path) -> u64 {
        listed(directory).unwrap().iter().map(|(_, length, _)| length).sum()
    }

    #[test]
    fn one_boot_keeps_its_newest_lines_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let logs =
            Logs::open(directory.path().into(), LogSettings { port: None, of_boot: 1, of_all: 1, days: 1 }).unwrap();
        let mut writer = writer(directory.path(), 20_000, 1 << 20);
        assert!((0..1000).all(|number| writer.write(&said("a-1", number))));
        assert!(size(directory.path()) <= 20_000);
        let lines = logs.last(&BootId("a-1".into()), 100).unwrap();
        let numbers: Vec<u64> = lines.iter().map(|line| line.at.0).collect();
        assert_eq!((numbers.len(), numbers.last()), (100, Some(&999)), "{numbers:?}");
        assert!(numbers.is_sorted());
        assert_eq!(logs.last(&BootId("a-2".into()), 100).unwrap(), []);
    }

    #[test]
    fn a_machine_that_shouts_costs_the_oldest_and_never_more_than_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 40_000, 100_000);
        for boot in 0..20 {
            for number in 0..300 {
                writer.write(&said(&format!("b-{boot:02}"), number));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(size(directory.path()) <= 100_000, "{}", size(directory.path()));
        assert!(directory.path().join("b-19.log").exists() && !directory.path().join("b-00.log").exists());
    }

    #[test]
    fn what_is_too_old_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 40_000, 100_000);
        writer.write(&said("old", 1));
        let file = File::open(directory.path().join("old.log")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(31 * 86_400)).unwrap();
        writer.sweep();
        assert!(!directory.path().join("old.log").exists());
        assert!(writer.write(&said("old", 2)), "and begins anew");
        assert!(directory.path().join("old.log").exists());
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in ["", "../ledger", "a/b", "a.log", "ä"] {
            assert_eq!(file_name(&BootId(name.into())), None, "{name}");
        }
        assert_eq!(file_name(&BootId("0192-ab".into())).as_deref(), Some("0192-ab.log"));
    }
}
