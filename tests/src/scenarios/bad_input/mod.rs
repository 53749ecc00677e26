//! Bad input: each is one clear error, or is dropped and counted; the store stays as it was, the service stays up.

mod commands;
mod flood;
mod imports;
mod packets;
pub(super) mod probe;
mod small_disk;
pub(super) mod source;
mod starts;

pub use commands::COMMANDS;
pub use imports::{IMPORTS, KILLED_CLIENT};
pub use packets::PACKETS;
pub use small_disk::SMALL_DISK;
pub(super) use source::Chance;
pub use starts::STARTS;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{appliance::Appliance, command::spoken};

/// No refusal takes longer; a service that starts although it should not would run for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command that must fail with exit code 1: its last words are one `error:` that holds all `parts`, and one
/// `help:`.
pub(super) fn refused(command: &mut Command, parts: &[&str]) -> Result<()> {
    let (code, said) = ended(command)?;
    let told = || format!("{}: exit code {code:?}:\n{said}", spoken(command));
    ensure!(code == Some(1), "{}", told());
    let lines: Vec<&str> = said.lines().collect();
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    ensure!(count("error: ") == 1 && count("help: ") == 1, "not one error and one help: {}", told());
    let [.., error, help] = lines[..] else { bail!("too few lines: {}", told()) };
    ensure!(error.starts_with("error: ") && help.starts_with("help: "), "error and help do not end it: {}", told());
    ensure!(help.len() > "help: ".len() + 10, "the help helps nobody: {}", told());
    holds_all(&said, parts).with_context(told)
}

/// Runs a command that is written wrongly: exit code 2, one error, and how to write it.
fn misused(command: &mut Command, parts: &[&str]) -> Result<()> {
    let (code, said) = ended(command)?;
    let told = || format!("{}: exit code {code:?}:\n{said}", spoken(command));
    ensure!(code == Some(2), "{}", told());
    ensure!(said.lines().filter(|line| line.starts_with("error: ")).count() == 1, "not one error: {}", told());
    let helps = ["help: ", "Usage: ", "For more information, try '--help'", "tip: "];
    ensure!(helps.iter().any(|help| said.contains(help)), "it does not say what to write: {}", told());
    holds_all(&said, parts).with_context(told)
}

fn holds_all(said: &str, parts: &[&str]) -> Result<()> {
    ensure!(!said.contains("panicked"), "it panicked");
    match parts.iter().find(|part| !said.contains(**part)) {
        Some(part) => bail!("'{part}' is not in it"),
        None => Ok(()),
    }
}

/// A command's exit code and its standard error.
fn ended(command: &mut Command) -> Result<(Option<i32>, String)> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot run {}", spoken(command)))?;
    let mut stderr = child.stderr.take().context("no standard error")?;
    let reader = thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| String::from_utf8_lossy(&said).into_owned())
    });
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("{} goes on for {PATIENCE:?}", spoken(command));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let said = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    Ok((child.wait()?.code(), said))
}

/// What a failed command must leave alone.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    pid: Value,
    images: Value,
    machines: Value,
    blobs: BTreeSet<String>,
    index: String,
}

impl Kept {
    /// As it is now. Also fails when something half done lies about.
    fn now(bennu: &Appliance) -> Result<Self> {
        Self::of(&bennu.state(), |arguments| bennu.json(arguments.iter().copied()))
    }

    fn of(state: &Path, json: impl Fn(&[&str]) -> Result<Value>) -> Result<Self> {
        let store = state.join("images");
        let left = names(&store.join("tmp"))?;
        ensure!(left.is_empty(), "left in the store's tmp: {left:?}");
        Ok(Self {
            pid: json(&["status"])?["pid"].clone(),
            images: json(&["image", "list"])?,
            machines: json(&["machine", "list"])?,
            blobs: names(&store.join("blobs/sha256"))?,
            index: fs::read_to_string(store.join("index.json"))?,
        })
    }

    /// Fails unless everything is as it was.
    fn unchanged(&self, now: &Self) -> Result<()> {
        ensure!(self.pid == now.pid, "the service was started anew");
        let (gone, new) = (self.blobs.difference(&now.blobs), now.blobs.difference(&self.blobs));
        ensure!(
            self.blobs == now.blobs,
            "blobs gone: {:?}, new: {:?}",
            gone.collect::<Vec<_>>(),
            new.collect::<Vec<_>>()
        );
        ensure!(self.images == now.images, "the images were\n{:#}\nand are\n{:#}", self.images, now.images);
        ensure!(self.machines == now.machines, "the machines were\n{:#}\nand are\n{:#}", self.machines, now.machines);
        ensure!(self.index == now.index, "the index was\n{}\nand is\n{}", self.index, now.index);
        Ok(())
    }
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let listed = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    listed.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Runs every case; how many there were. Fails unless the store and the service are as they were before it.
fn each_leaves_all_as_it_was<'a, T>(
    bennu: &Appliance,
    cases: impl IntoIterator<Item = (&'a str, T)>,
    mut run: impl FnMut(T) -> Result<()>,
) -> Result<usize> {
    let before = Kept::now(bennu)?;
    let mut count = 0;
    for (name, case) in cases {
        run(case).with_context(|| name.to_owned())?;
        before.unchanged(&Kept::now(bennu)?).with_context(|| format!("after: {name}"))?;
        count += 1;
    }
    Ok(count)
}

/// What a test says of itself.
fn counted(counts: impl IntoIterator<Item = usize>) -> Result<String> {
    Ok(format!("{} cases", counts.into_iter().sum::<usize>()))
}

/// Waits until something holds.
fn eventually(what: &str, seconds: u64, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed())
}
