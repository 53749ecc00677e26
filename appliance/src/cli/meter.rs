//! How far long work is: a bar on a terminal, plain lines elsewhere.

use crate::cli::output::{bytes, legible};
use bennu_images::import::{ImportStep, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Shared by the thread that reads the source and the task that reads the answer.
#[derive(Clone)]
pub struct Meter {
    shown: Arc<Mutex<Shown>>,
}

struct Shown {
    terminal: bool,
    step: String,
    bar: ProgressBar,
}

impl Meter {
    /// Shows nothing until the first step.
    pub fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let shown = Shown { terminal, step: String::new(), bar: ProgressBar::hidden() };
        Self { shown: Arc::new(Mutex::new(shown)) }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step of the appliance is so far.
    pub fn step(&self, step: &str, done: u64, total: Option<u64>) {
        let label = match step {
            "read" => "reading",
            "modules" => "modules initrd",
            "root" => "root filesystem",
            "store" => "storing",
            "verify" => "reading",
            "send" => "sending",
            "export" => "exporting",
            other => other,
        };
        self.shown().at(label, done, total, step != "modules");
    }

    /// Something to read.
    pub fn note(&self, note: &str) {
        let shown = self.shown();
        shown.bar.suspend(|| eprintln!("note: {}", legible(note)));
    }

    /// The work is over.
    pub fn finish(&self) {
        self.shown().end_step();
    }
}

impl Shown {
    fn at(&mut self, label: &str, done: u64, total: Option<u64>, in_bytes: bool) {
        if self.step != label {
            self.end_step();
            self.begin(label, total, in_bytes);
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    fn begin(&mut self, label: &str, total: Option<u64>, in_bytes: bool) {
        label.clone_into(&mut self.step);
        if !self.terminal {
            match (total, in_bytes) {
                (Some(total), true) => eprintln!("{label} ({})", bytes(total)),
                _ => eprintln!("{label}"),
            }
            return;
        }
        let template = match (total.is_some(), in_bytes) {
            (true, true) => "{msg:16} {wide_bar} {bytes:>10}/{total_bytes} {eta:>4}",
            (true, false) => "{msg:16} {wide_bar} {pos:>10}/{len} {eta:>4}",
            (false, true) => "{msg:16} {spinner} {bytes} {bytes_per_sec}",
            (false, false) => "{msg:16} {spinner} {pos}",
        };
        self.bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(label.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn end_step(&mut self) {
        self.bar.finish();
    }
}

/// The client's own work, at a source that is a directory. The appliance reads as fast as it is packed and says so
/// itself, so only notes are of interest.
impl Progress for Meter {
    fn step(&self, _step: ImportStep, _done: u64, _total: Option<u64>) {}

    fn note(&self, note: &str) {
        Meter::note(self, note);
    }
}
