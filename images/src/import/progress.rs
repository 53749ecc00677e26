//! How long work tells what it does.

use std::time::{Duration, Instant};

/// A stage of an import, in the order they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImportStep {
    /// Packing a directory into a tar, at the client.
    Pack,
    /// Reading the source.
    Read,
    /// Making the modules initrd.
    Modules,
    /// Making the root filesystem.
    Root,
    /// Hashing, syncing and putting in place.
    Store,
}

impl ImportStep {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Read => "read",
            Self::Modules => "modules",
            Self::Root => "root",
            Self::Store => "store",
        }
    }

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pack => "packing",
            Self::Read => "reading",
            Self::Modules => "modules initrd",
            Self::Root => "root filesystem",
            Self::Store => "storing",
        }
    }
}

/// Somebody who wants to know. Calls come a few times a second.
pub trait Progress: Sync {
    /// `done` bytes (modules: files) of `total`, when that is known.
    fn step(&self, step: ImportStep, done: u64, total: Option<u64>);

    /// Something the person should read: a choice that was made, a thing left out.
    fn note(&self, note: &str) {
        tracing::info!("{note}");
    }

    /// Whether nobody wants the result any more. Work asks this often, and ends soon when it is so.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody wanted the result any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the import was cancelled: whoever asked for it went away")]
pub struct Cancelled;

impl dyn Progress + '_ {
    /// Ends work that nobody wants any more.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// Nobody wants to know.
impl Progress for () {
    fn step(&self, _step: ImportStep, _done: u64, _total: Option<u64>) {}
}

const INTERVAL: Duration = Duration::from_millis(100);

/// One step's progress, passed on at most ten times a second.
pub struct Meter<'a> {
    progress: &'a dyn Progress,
    step: ImportStep,
    total: Option<u64>,
    next: Instant,
    calls: u32,
}

impl<'a> Meter<'a> {
    /// Announces the step.
    pub fn new(progress: &'a dyn Progress, step: ImportStep, total: Option<u64>) -> Self {
        progress.step(step, 0, total);
        Self { progress, step, total, next: Instant::now() + INTERVAL, calls: 0 }
    }

    /// So much is done.
    pub fn at(&mut self, done: u64) {
        // Callers come here for every small file: look at the clock for a few of them only.
        self.calls = self.calls.wrapping_add(1);
        if !self.calls.is_multiple_of(16) || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        self.progress.step(self.step, done, self.total.map(|total| total.max(done)));
    }

    /// Ends the step when nobody wants its result any more.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.progress.check()
    }

    /// The step is over, having done so much.
    pub fn done(&mut self, done: u64) {
        self.progress.step(self.step, done, Some(done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Seen(Mutex<Vec<(u64, Option<u64>)>>);

    impl Progress for Seen {
        fn step(&self, _step: ImportStep, done: u64, total: Option<u64>) {
            self.0.lock().unwrap().push((done, total));
        }
    }

    #[test]
    fn a_meter_is_throttled_and_ends_full() {
        let seen = Seen(Mutex::default());
        let mut meter = Meter::new(&seen, ImportStep::Read, Some(10));
        for done in 0..100_000 {
            meter.at(done);
        }
        meter.done(100_000);
        let seen = seen.0.into_inner().unwrap();
        assert!(seen.len() < 100, "{} calls", seen.len());
        assert_eq!(seen[0], (0, Some(10)));
        assert_eq!(seen[seen.len() - 1], (100_000, Some(100_000)));
    }
}
