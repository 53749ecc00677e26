//! The root filesystem's builder: `mksquashfs` of squashfs-tools, fed a tar.
//!
//! With `-tar`, mksquashfs 4.5 gives parents without an entry mode 0777 and the present time, ignores the root's
//! entry, takes the first of duplicates and crashes on a hard link that comes before its target. The tar it gets
//! here has none of that (see [`crate::tree::emit`]), and the root's owner and mode come as flags. 4.5.1 also takes
//! `-root-time`, `-root-uid` and `-root-gid` and then forgets them; [`root_time`] and [`root_owner`] mend that. It reads sparse members too, but gets holes as
//! zeros, which it finds again: one way through its code instead of four.

mod contents;
mod root_owner;
mod root_time;

pub use contents::{ContentsError, contents};

use crate::{import::Cancelled, tree::Metadata};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

/// A tar that `-tar` cannot read would be this old.
const OLDEST: (u32, u32) = (4, 5);

/// How much of the tool's words is kept.
const MOST_WORDS: usize = 16 << 10;

/// A pipe of this size saves most of the switches between the two processes.
const PIPE: usize = 1 << 20;

/// How often it is asked whether the tool should go on. At a gigabyte a second it writes less meanwhile than the
/// store keeps free.
const WATCH: Duration = Duration::from_millis(50);

/// How often what the tool wrote so far is sent to the disk: at the end it would all be due at once, and the ledger's
/// commits would wait behind it.
const FLUSH: Duration = Duration::from_millis(500);

/// Why there is no root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The tool is not there.
    #[error("mksquashfs is not installed. Install the package squashfs-tools (4.5 or newer)")]
    Missing,
    /// The tool is too old, or something else of that name.
    #[error("mksquashfs 4.5 or newer is needed, and this one says '{0}'. Install a newer squashfs-tools")]
    Version(String),
    /// The tool could not be started or talked to.
    #[error("cannot run mksquashfs: {0}. Look at the package squashfs-tools and at the memory of this host")]
    Run(io::Error),
    /// What it made is not as expected.
    #[error("what mksquashfs {version} made cannot be used: {source}. Install another version of squashfs-tools")]
    Made {
        /// The tool's version.
        version: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// What it was to be fed could not be read.
    #[error("cannot feed mksquashfs: {0}. Look at the disk of the state directory")]
    Feed(io::Error),
    /// Whoever asked for it went away.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// It failed, or it left something out.
    #[error("mksquashfs {status}: {said}. Look at the memory and the disk of this host, then import it again")]
    Failed {
        /// Its exit status.
        status: String,
        /// Its own words.
        said: String,
    },
}

/// How the filesystem is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd at a level of 1 to 22.
    Zstd(u32),
    /// For kernels whose squashfs was built without zstd.
    Gzip,
}

/// What a builder may use.
#[derive(Debug, Clone, Copy)]
pub struct RootOptions {
    /// Compression.
    pub compression: Compression,
    /// Bytes of memory.
    pub memory: u64,
    /// Threads.
    pub processors: usize,
}

/// The root directory, which no tar carries for mksquashfs.
#[derive(Debug)]
pub struct RootDirectory<'a> {
    /// Its metadata.
    pub meta: &'a Metadata,
    /// Users and groups of everything but the root directory itself.
    pub others: BTreeSet<u32>,
}

/// Something that makes a read-only root filesystem from a normalised tar.
pub trait RootBuilder: Sync {
    /// Its name and version, for the image's config: they decide the bytes.
    fn tool(&self) -> (String, String);

    /// Writes the filesystem to `out`. `feed` writes the tar; `root` is the root directory. `watch` is
    /// asked all the while, and ends the work with its error.
    fn build(
        &self,
        root: &RootDirectory<'_>,
        out: &Path,
        options: &RootOptions,
        feed: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
        watch: &(dyn Fn() -> Result<(), BuildError> + Sync),
    ) -> Result<(), BuildError>;
}

/// The installed mksquashfs.
#[derive(Debug)]
pub struct Mksquashfs {
    version: String,
}

impl Mksquashfs {
    /// Looks for it and asks its version.
    pub fn find() -> Result<Self, BuildError> {
        let output = command().arg("-version").output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BuildError::Missing,
            _ => BuildError::Run(error),
        })?;
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(said: &str) -> Result<Self, BuildError> {
        let first = said.lines().next().unwrap_or_default();
        let version = first.strip_prefix("mksquashfs version ").and_then(|rest| rest.split_whitespace().next());
        let refuse = || BuildError::Version(first.chars().take(100).collect());
        let version = version.ok_or_else(refuse)?;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
        let found: (u32, u32) = (numbers.next().ok_or_else(refuse)?, numbers.next().unwrap_or(0));
        if found < OLDEST {
            return Err(refuse());
        }
        Ok(Self { version: version.to_owned() })
    }
}

/// The tool in an environment of ours: SOURCE_DATE_EPOCH would cut file times, a locale would translate.
fn command() -> Command {
    let mut command = Command::new("mksquashfs");
    command.env_clear().env("LC_ALL", "C").envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

impl RootBuilder for Mksquashfs {
    fn tool(&self) -> (String, String) {
        ("mksquashfs".to_owned(), self.version.clone())
    }

    fn build(
        &self,
        root: &RootDirectory<'_>,
        out: &Path,
        options: &RootOptions,
        feed: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
        watch: &(dyn Fn() -> Result<(), BuildError> + Sync),
    ) -> Result<(), BuildError> {
        let mut command = command();
        command.arg("-").arg(out).args(arguments(root.meta, options));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn().map_err(BuildError::Run)?);
        let stdin = running.0.stdin.take();
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let pid = running.pid();
        let (ended, end) = mpsc::channel();
        let (over, is_over) = mpsc::channel();
        // Both of its outputs are read while it is fed, or it would stop at a full pipe.
        let (fed, said, watched) = std::thread::scope(|scope| {
            let watcher = scope.spawn(move || guard(pid, watch, &end));
            scope.spawn(move || flush(out, &is_over));
            let stdout = scope.spawn(|| words(stdout));
            let stderr = scope.spawn(|| words(stderr));
            let fed = stdin.map_or(Ok(()), |stdin| pour(stdin, feed));
            if matches!(&fed, Err(error) if error.kind() != io::ErrorKind::BrokenPipe) {
                running.stop();
            }
            let said = [stderr, stdout].map(|reader| reader.join().unwrap_or_default()).concat();
            // Its outputs are closed, so it has ended; it is waited for after the watcher, which may yet signal it.
            drop((ended, over));
            (fed, said, watcher.join().unwrap_or(Ok(())))
        });
        let status = running.0.wait().map_err(BuildError::Run)?;
        watched?;
        judge(fed, status, said.trim())?;
        let made = root_time::set(out, root.meta.mtime.try_into().unwrap_or(0))
            .and_then(|()| root_owner::set(out, [root.meta.uid as u32, root.meta.gid as u32], &root.others));
        made.map_err(|source| BuildError::Made { version: self.version.clone(), source })
    }
}

/// The order matters: `-X…` belongs to the `-comp` before it.
fn arguments(root: &Metadata, options: &RootOptions) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["-tar", "-noappend", "-no-recovery", "-quiet", "-no-progress", "-exit-on-error", "-noI", "-b", "131072"]
            .map(str::to_owned)
            .into();
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    match options.compression {
        Compression::Zstd(level) => {
            option("-comp", "zstd".to_owned());
            option("-Xcompression-level", level.to_string());
        }
        Compression::Gzip => option("-comp", "gzip".to_owned()),
    }
    option("-mkfs-time", "0".to_owned());
    option("-root-mode", format!("{:o}", root.mode));
    option("-root-uid", root.uid.to_string());
    option("-root-gid", root.gid.to_string());
    option("-processors", options.processors.max(1).to_string());
    option("-mem", format!("{}M", (options.memory >> 20).max(64)));
    arguments
}

/// A failed tool is the cause and a failed feed its effect, unless the feed failed by itself.
fn judge(fed: io::Result<()>, status: std::process::ExitStatus, said: &str) -> Result<(), BuildError> {
    if said.contains("No space left on device") {
        return Err(BuildError::Full);
    }
    match fed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(BuildError::Feed(error)),
        Err(_) | Ok(()) if !status.success() => {}
        // It is told to be quiet: what it says now is about something it did not take as it was.
        Ok(()) if said.is_empty() => return Ok(()),
        _ => {}
    }
    let status = if status.success() { "left something out".to_owned() } else { format!("failed ({status})") };
    let said = if said.is_empty() { "it said nothing".to_owned() } else { said.to_owned() };
    Err(BuildError::Failed { status, said })
}

fn pour(stdin: ChildStdin, feed: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // Only speed depends on it.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
    let mut stdin = stdin;
    feed(&mut stdin)
}

/// Kills the tool as soon as `watch` says so, and gives its reason.
fn guard(
    tool: Option<Pid>,
    watch: &dyn Fn() -> Result<(), BuildError>,
    end: &mpsc::Receiver<()>,
) -> Result<(), BuildError> {
    while end.recv_timeout(WATCH) == Err(RecvTimeoutError::Timeout) {
        if let Err(reason) = watch() {
            // Nobody has waited for it yet, so the number is still its own.
            let _ = tool.map(|tool| kill_process(tool, Signal::KILL));
            return Err(reason);
        }
    }
    Ok(())
}

/// Sends to the disk what is there, again and again. Only time depends on it: whoever keeps the file syncs it.
fn flush(out: &Path, end: &mpsc::Receiver<()>) {
    while end.recv_timeout(FLUSH) == Err(RecvTimeoutError::Timeout) {
        let _ = File::open(out).and_then(|file| file.sync_data());
    }
}

/// Reads all, keeps the start.
fn words(source: Option<impl Read>) -> String {
    let Some(mut source) = source else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        let room = MOST_WORDS - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The tool while it runs: no way out of here leaves it behind.
struct Running(Child);

impl Running {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.stop();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{self, Contents, RecordKind};

    #[test]
    fn versions() {
        let debian = "mksquashfs version 4.5.1 (2022/03/17)\ncopyright";
        assert_eq!(Mksquashfs::parse(debian).unwrap().tool().1, "4.5.1");
        assert!(Mksquashfs::parse("mksquashfs version 4.7.2-abc (2025/06/03)").is_ok());
        for old in ["mksquashfs version 4.4 (2019/08/29)", "mksquashfs version 3.3", "busybox", ""] {
            assert!(matches!(Mksquashfs::parse(old), Err(BuildError::Version(_))), "{old}");
        }
    }

    #[test]
    fn a_tool_that_fails_is_heard() {
        let meta = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        let root = RootDirectory { meta: &meta, others: BTreeSet::new() };
        let options = RootOptions { compression: Compression::Zstd(99), memory: 64 << 20, processors: 1 };
        let dir = tempfile::tempdir().unwrap();
        let tool = Mksquashfs::find().unwrap();
        // More than any pipe holds, so that the tool's end is noticed here too.
        let mut feed = |pipe: &mut dyn Write| pipe.write_all(&vec![0; 8 << 20]);
        let error = tool.build(&root, &dir.path().join("out"), &options, &mut feed, &|| Ok(()));
        let Err(BuildError::Failed { said, .. }) = error else { panic!("{error:?}") };
        assert!(said.contains("compression-level"), "{said}");
    }

    #[test]
    fn a_failed_feed_ends_the_tool() {
        let meta = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        let root = RootDirectory { meta: &meta, others: BTreeSet::new() };
        let options = RootOptions { compression: Compression::Zstd(1), memory: 64 << 20, processors: 1 };
        let dir = tempfile::tempdir().unwrap();
        let mut feed = |_: &mut dyn Write| Err(io::Error::other("the spool broke"));
        let error = Mksquashfs::find().unwrap().build(&root, &dir.path().join("out"), &options, &mut feed, &|| Ok(()));
        assert!(matches!(error, Err(BuildError::Feed(_))), "{error:?}");
    }

    #[test]
    fn a_tool_that_nobody_wants_any_more_is_ended() {
        let meta = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        let root = RootDirectory { meta: &meta, others: BTreeSet::new() };
        let options = RootOptions { compression: Compression::Zstd(1), memory: 64 << 20, processors: 1 };
        let dir = tempfile::tempdir().unwrap();
        // A file that never ends: only the watch can end this.
        let mut feed = |pipe: &mut dyn Write| {
            let mut tar = archive::Writer::new(pipe);
            let whole = RecordKind::File(Contents::Whole(1 << 40));
            tar.entry(b"endless", whole, archive::Metadata { mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: &Vec::new() })?;
            loop {
                tar.data(&[0; 4096])?;
            }
        };
        let asked = std::sync::atomic::AtomicU32::new(0);
        let watch = || match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0..2 => Ok(()),
            _ => Err(Cancelled.into()),
        };
        let error = Mksquashfs::find().unwrap().build(&root, &dir.path().join("out"), &options, &mut feed, &watch);
        assert!(matches!(error, Err(BuildError::Cancelled(_))), "{error:?}");
    }
}
