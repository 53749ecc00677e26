//! Lines on disk: one file a boot, with JSON lines in it, limited in size and age. One thread writes; whoever sends faster
//! than the disk takes it loses lines, and nobody else waits.

use crate::config::LogSettings;
use bennu_rules::{
    MacAddress, Timestamp,
    boot::BootId,
    syslog::{Message, Severity},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BinaryHeap, HashMap, VecDeque},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::mpsc::{self, SyncSender},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::broadcast;

/// Lines that wait for the disk.
const WAITING: usize = 8192;
/// Files that are open at once. Opening one costs reading its end, so that a rack whose machines all speak keeps its own.
const OPEN: usize = 2048;
/// Sizes and ages are looked at this often.
const SWEEP: Duration = Duration::from_secs(60);
/// With less than this free, the disk is the ledger's and the images'.
const LEAST_FREE: u64 = 256 << 20;
/// What is read of a file's end for one answer.
const MOST_READ: u64 = 8 << 20;
/// A line is shorter than this.
const LONGEST: u64 = 64 << 10;

/// A line as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Kept {
    /// When it came, by the appliance's clock; never before the line before it.
    pub at: Timestamp,
    /// Which it is of those that came in that millisecond.
    #[serde(default, skip_serializing_if = "is_first")]
    pub n: u32,
    /// Whether it proves to come from the boot's own stage 1 or system. What does not was sent from the machine's address,
    /// by whatever sends syslog there, or by somebody who takes that address.
    #[serde(default)]
    pub proven: bool,
    /// The number that a proven line has among those of its boot, where a gap is a loss. None comes twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What was said.
    #[serde(flatten)]
    pub message: Message,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_first(n: &u32) -> bool {
    *n == 0
}

impl Kept {
    /// A line that comes now, with its number if it is proven.
    pub fn new(at: Timestamp, sequence: Option<u64>, message: Message) -> Self {
        Self { at, n: 0, proven: sequence.is_some(), sequence, message }
    }

    /// Where it stands among the lines of its boot.
    pub fn id(&self) -> LineId {
        LineId { at: self.at, n: self.n }
    }
}

/// Where a line stands among those of its boot: whoever follows goes on behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId {
    at: Timestamp,
    n: u32,
}

impl LineId {
    /// That of a line that comes now, behind all others.
    fn next(self, now: Timestamp) -> Self {
        if now > self.at { Self { at: now, n: 0 } } else { Self { at: self.at, n: self.n.saturating_add(1) } }
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.0, self.n)
    }
}

impl FromStr for LineId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, n) = text.split_once('-').ok_or(())?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(at) || !is_number(n) {
            return Err(());
        }
        Ok(Self { at: Timestamp(at.parse().map_err(drop)?), n: n.parse().map_err(drop)? })
    }
}

/// A line, as those who follow hear it.
#[derive(Debug, Clone)]
pub struct Said {
    /// Of which machine.
    pub machine: MacAddress,
    /// Of which boot.
    pub boot: BootId,
    /// What.
    pub line: Kept,
}

/// Which lines of a boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which {
    /// So many of the last.
    pub count: usize,
    /// None but those behind this one.
    pub after: Option<LineId>,
    /// None that are less severe.
    pub least: Option<Severity>,
}

impl Which {
    /// Whether it is one of them.
    pub fn takes(&self, line: &Kept) -> bool {
        self.after.is_none_or(|after| line.id() > after)
            && self.least.is_none_or(|least| line.message.severity <= least)
    }
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
                    Ok(mut said) => {
                        if writer.write(&mut said) {
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
    pub fn keep(&self, said: Said) -> bool {
        self.lines.try_send(said).is_ok()
    }

    /// What is said from now on.
    pub fn follow(&self) -> broadcast::Receiver<Said> {
        self.told.subscribe()
    }

    /// Lines of a boot, oldest first; nothing where it said nothing, or that is too long ago.
    pub fn read(&self, machine: MacAddress, boot: &BootId, which: &Which) -> io::Result<Vec<Kept>> {
        let Some(name) = file_name(machine, boot) else { return Ok(Vec::new()) };
        let path = self.directory.join(&name);
        let mut text = tail(&path, MOST_READ)?;
        let mut lines = taken(&text, which);
        if lines.len() < which.count {
            text = tail(&older(&path), MOST_READ - text.len() as u64)?;
            lines = [taken(&text, which), lines].concat();
        }
        lines.drain(..lines.len().saturating_sub(which.count));
        Ok(lines)
    }
}

impl Logs {
    /// The number of the last proven line of a boot.
    pub fn last_sequence(&self, machine: MacAddress, boot: &BootId) -> io::Result<Option<u64>> {
        let Some(name) = file_name(machine, boot) else { return Ok(None) };
        let path = self.directory.join(name);
        for path in [&path, &older(&path)] {
            let lines = taken(&tail(path, MOST_READ)?, &Which::default());
            if let Some(sequence) = lines.iter().rev().find_map(|line| line.sequence) {
                return Ok(Some(sequence));
            }
        }
        Ok(None)
    }
}

fn taken(text: &[u8], which: &Which) -> Vec<Kept> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    lines.filter(|line| which.takes(line)).collect()
}

/// The last line of a file.
fn last(path: &Path) -> io::Result<Option<LineId>> {
    Ok(taken(&tail(path, LONGEST)?, &Which::default()).last().map(Kept::id))
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
fn file_name(machine: MacAddress, boot: &BootId) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = !boot.0.is_empty() && boot.0.len() <= 64 && boot.0.chars().all(is_plain);
    is_name.then(|| format!("{}_{boot}.log", machine.hyphened()))
}

/// Whose file it is.
fn owner(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split_once('_').map(|(machine, _)| machine)
}

/// Where the older half of a boot's lines is.
fn older(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}

/// A file that is being written.
struct Written {
    file: File,
    length: u64,
    last: LineId,
    /// When a line was written to it last, by [`LogWriter::turn`].
    used: u64,
}

struct LogWriter {
    directory: PathBuf,
    settings: LogSettings,
    files: HashMap<BootId, Written>,
    /// Counts lines.
    turn: u64,
    /// Written since the last sweep.
    written: u64,
    swept: Option<Instant>,
    has_room: bool,
    complained: bool,
}

impl LogWriter {
    fn new(directory: PathBuf, settings: LogSettings) -> Self {
        let files = HashMap::new();
        Self { directory, settings, files, turn: 0, written: 0, swept: None, has_room: true, complained: false }
    }

    /// Writes a line, and says in it where it stands; whether it is kept.
    fn write(&mut self, said: &mut Said) -> bool {
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

    fn append(&mut self, said: &mut Said) -> io::Result<bool> {
        let Some(name) = file_name(said.machine, &said.boot) else { return Ok(false) };
        let path = self.directory.join(name);
        if self.files.len() >= OPEN && !self.files.contains_key(&said.boot) {
            let idle = self.files.iter().min_by_key(|(_, written)| written.used).map(|(boot, _)| boot.clone());
            idle.and_then(|boot| self.files.remove(&boot));
        }
        let mut written = match self.files.remove(&said.boot) {
            Some(written) => written,
            None => self.begin(&path)?,
        };
        written.last = written.last.next(said.line.at);
        (said.line.at, said.line.n) = (written.last.at, written.last.n);
        let mut line = serde_json::to_vec(&said.line)?;
        line.push(b'\n');
        if written.length > 0 && written.length + line.len() as u64 > self.settings.of_boot / 2 {
            fs::rename(&path, older(&path))?;
            written = Written { last: written.last, ..self.begin(&path)? };
        }
        written.file.write_all(&line)?;
        written.length += line.len() as u64;
        self.turn += 1;
        written.used = self.turn;
        self.written += line.len() as u64;
        self.files.insert(said.boot.clone(), written);
        Ok(true)
    }

    fn begin(&self, path: &Path) -> io::Result<Written> {
        fs::create_dir_all(&self.directory)?;
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        let last = last(path)?.or(last(&older(path))?).unwrap_or_default();
        Ok(Written { file, length, last, used: 0 })
    }

    fn sweep_if_due(&mut self) {
        let is_due = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP);
        if is_due || self.written > (self.settings.of_all / 16).min(self.settings.of_machine / 4) {
            self.sweep();
            (self.swept, self.written) = (Some(Instant::now()), 0);
        }
    }

    /// Removes what is too old or too much.
    fn sweep(&mut self) {
        let mut files = match listed(&self.directory) {
            Ok(files) => files,
            Err(error) => return tracing::warn!(%error, "cannot look through {}", self.directory.display()),
        };
        let youth = Duration::from_secs(u64::from(self.settings.days) * 86_400);
        let oldest = SystemTime::now().checked_sub(youth).unwrap_or(SystemTime::UNIX_EPOCH);
        files.sort();
        for path in too_much(files, oldest, &self.settings) {
            let _ = fs::remove_file(&path);
        }
        // Whoever was removed is begun anew.
        self.files.clear();
        self.has_room = free(&self.directory).is_none_or(|free| free >= LEAST_FREE);
    }
}

/// Of files, the oldest first, those that have to go: what is older than that, then the oldest of each machine that has too
/// much, then the oldest of whichever machine has most. So nobody who shouts, under however many names, costs the others
/// what was said before.
fn too_much(files: Vec<(SystemTime, u64, PathBuf)>, oldest: SystemTime, settings: &LogSettings) -> Vec<PathBuf> {
    // A sixteenth may come before the next sweep.
    let limit = settings.of_all - settings.of_all / 16;
    let (mut going, mut total) = (Vec::new(), 0);
    let mut of_machine: HashMap<String, (u64, VecDeque<(u64, PathBuf)>)> = HashMap::new();
    for (changed, length, path) in files {
        if changed < oldest {
            going.push(path);
            continue;
        }
        let (own, kept) = of_machine.entry(owner(&path).unwrap_or_default().to_owned()).or_default();
        kept.push_back((length, path));
        (*own, total) = (*own + length, total + length);
        while *own > settings.of_machine
            && let Some((length, path)) = kept.pop_front()
        {
            (*own, total) = (*own - length, total - length);
            going.push(path);
        }
    }
    let mut by_size: BinaryHeap<(u64, String)> =
        of_machine.iter().map(|(name, (own, _))| (*own, name.clone())).collect();
    while total > limit
        && let Some((own, name)) = by_size.pop()
    {
        let Some((length, path)) = of_machine.get_mut(&name).and_then(|(_, kept)| kept.pop_front()) else { continue };
        total -= length;
        going.push(path);
        by_size.push((own - length, name));
    }
    going
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

    fn machine(number: u8) -> MacAddress {
        format!("52:54:00:00:00:{number:02x}").parse().unwrap()
    }

    fn said(boot: &str, number: u64) -> Said {
        let message = Message { severity: Severity::Info, program: "test".into(), text: format!("{number:0100}") };
        Said {
            machine: machine(1),
            boot: BootId(boot.into()),
            line: Kept::new(Timestamp(number), Some(number), message),
        }
    }

    fn settings(of_boot: u64, of_machine: u64, of_all: u64) -> LogSettings {
        LogSettings { of_boot, of_machine, of_all, ..LogSettings::default() }
    }

    fn writer(directory: &Path, of_boot: u64, of_all: u64) -> LogWriter {
        LogWriter::new(directory.into(), settings(of_boot, of_all, of_all))
    }

    fn numbers(directory: &Path, which: &Which) -> Vec<u64> {
        let logs = Logs::open(directory.into(), settings(1, 1, 1)).unwrap();
        let lines = logs.read(machine(1), &BootId("a-1".into()), which).unwrap();
        lines.iter().map(|line| line.message.text.parse().unwrap()).collect()
    }

    fn size(directory: &Path) -> u64 {
        listed(directory).unwrap().iter().map(|(_, length, _)| length).sum()
    }

    #[test]
    fn one_boot_keeps_its_newest_lines_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 150_000, 1 << 20);
        assert!((0..1000).all(|number| writer.write(&mut said("a-1", number))));
        assert!(size(directory.path()) <= 150_000);
        let numbers = numbers(directory.path(), &Which { count: 300, ..Which::default() });
        assert_eq!(numbers, (700..1000).collect::<Vec<_>>());
        let logs = Logs::open(directory.path().into(), settings(1, 1, 1)).unwrap();
        assert_eq!(logs.read(machine(1), &BootId("a-2".into()), &Which { count: 9, ..Which::default() }).unwrap(), []);
    }

    #[test]
    fn whoever_follows_goes_on_behind_the_last_line_also_of_one_moment_and_a_clock_set_back() {
        let directory = tempfile::tempdir().unwrap();
        let at = |at: u64, number: u64| {
            let mut said = said("a-1", number);
            said.line.at = Timestamp(at);
            said
        };
        let mut ids = Vec::new();
        for (number, time) in [50, 50, 50, 40, 60].into_iter().enumerate() {
            // A writer of its own each: what it knows is what is on the disk.
            let mut said = at(time, number as u64);
            assert!(writer(directory.path(), 200_000, 1 << 20).write(&mut said));
            ids.push(said.line.id());
        }
        assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["50-0", "50-1", "50-2", "50-3", "60-0"]);
        for (number, id) in ids.iter().enumerate() {
            let which = Which { count: 100, after: Some(*id), least: None };
            let expected: Vec<u64> = (number as u64 + 1..5).collect();
            assert_eq!(numbers(directory.path(), &which), expected);
            assert_eq!(id.to_string().parse(), Ok(*id));
        }
        for bad in ["", "5", "-", "5-", "-5", "+5-0", "5-x", "99999999999999999999-0"] {
            assert_eq!(bad.parse::<LineId>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn the_severe_ones_are_counted_among_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 200_000, 1 << 20);
        for number in 0..100 {
            let mut said = said("a-1", number);
            if number % 10 == 0 {
                said.line.message.severity = if number == 50 { Severity::Critical } else { Severity::Error };
            }
            assert!(writer.write(&mut said));
        }
        let which = |least| Which { count: 3, after: None, least: Some(least) };
        assert_eq!(numbers(directory.path(), &which(Severity::Error)), [70, 80, 90]);
        assert_eq!(numbers(directory.path(), &which(Severity::Critical)), [50]);
    }

    #[test]
    fn a_machine_that_boots_again_and_again_costs_its_own_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::new(directory.path().into(), settings(200_000, 100_000, 10 << 20));
        let mut other = said("other", 1);
        other.machine = machine(2);
        assert!(writer.write(&mut other));
        std::thread::sleep(Duration::from_millis(20));
        for boot in 0..20 {
            (0..100).for_each(|number| assert!(writer.write(&mut said(&format!("b-{boot:02}"), number))));
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.sweep();
        assert!(size(directory.path()) <= 101_000, "{}", size(directory.path()));
        let is_there = |name: &str| directory.path().join(name).exists();
        assert!(is_there("52-54-00-00-00-02_other.log") && is_there("52-54-00-00-00-01_b-19.log"));
        assert!(!is_there("52-54-00-00-00-01_b-00.log"));
    }

    #[test]
    fn a_machine_that_shouts_costs_the_oldest_and_never_more_than_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 40_000, 100_000);
        for boot in 0..20 {
            for number in 0..300 {
                writer.write(&mut said(&format!("b-{boot:02}"), number));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(size(directory.path()) <= 100_000, "{}", size(directory.path()));
        assert!(directory.path().join("52-54-00-00-00-01_b-19.log").exists());
        assert!(!directory.path().join("52-54-00-00-00-01_b-00.log").exists());
    }

    #[test]
    fn who_shouts_under_many_names_costs_nobody_else_what_was_said_before() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let file = |second, length, number: u8, boot: &str| {
            let name = file_name(machine(number), &BootId(boot.into())).unwrap();
            (at(second), length, PathBuf::from(name))
        };
        let mut files = vec![file(1, 10, 1, "early"), file(2, 10, 2, "early")];
        files.extend((3..11).flat_map(|loud| [file(10, 60, loud, "a"), file(20, 60, loud, "b")]));
        let gone = too_much(files, at(0), &settings(u64::MAX, 120, 640));
        assert_eq!(gone.len(), 7, "{gone:?}");
        assert!(gone.iter().all(|path| path.to_str().unwrap().ends_with("_a.log")), "{gone:?}");
        let gone = too_much(vec![file(1, 10, 1, "early"), file(5, 10, 1, "late")], at(2), &settings(1, 99, 99));
        assert_eq!(gone, [file(1, 10, 1, "early").2]);
    }

    #[test]
    fn what_is_too_old_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 40_000, 100_000);
        writer.write(&mut said("old", 1));
        let path = directory.path().join("52-54-00-00-00-01_old.log");
        let file = File::open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(31 * 86_400)).unwrap();
        writer.sweep();
        assert!(!path.exists());
        assert!(writer.write(&mut said("old", 2)), "and begins anew");
        assert!(path.exists());
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in ["", "../ledger", "a/b", "a.log", "ä"] {
            assert_eq!(file_name(machine(1), &BootId(name.into())), None, "{name}");
        }
        let name = file_name(machine(1), &BootId("0192-ab".into())).unwrap();
        assert_eq!(
            (name.as_str(), owner(Path::new(&name))),
            ("52-54-00-00-00-01_0192-ab.log", Some("52-54-00-00-00-01"))
        );
    }
}
