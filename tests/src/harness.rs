//! Runs the end-to-end tests: lives of machines, two at a time, each of which shows one or more things.

use anyhow::{Error, Result, anyhow};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{appliance::tail_of, command, rack::Rack, workshop};

/// One life of a rack, and the named tests that it passes or fails on its way.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// For people: what happens.
    pub name: &'static str,
    /// The tests, in the order in which the life comes to them.
    pub shows: &'static [&'static str],
    /// The life itself.
    pub live: fn(&mut Story) -> Result<()>,
}

impl Life {
    /// Whether a filter names it or one of its tests; no filter names all.
    pub fn is_wanted(&self, filters: &[String]) -> bool {
        let is_named = |name: &str| filters.iter().any(|filter| name.contains(filter.as_str()));
        filters.is_empty() || is_named(self.name) || self.shows.iter().any(|show| is_named(show))
    }
}

/// How a named test ended.
#[derive(Debug, Clone)]
struct Verdict {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// A life as it goes on.
#[derive(Debug)]
pub struct Story {
    life: Life,
    rack: Option<Rc<Rack>>,
    verdicts: Vec<Verdict>,
    since: Instant,
}

impl Story {
    fn new(life: Life) -> Self {
        Self { life, rack: None, verdicts: Vec::new(), since: Instant::now() }
    }

    /// The rack of this life, made at the first call.
    pub fn rack(&mut self) -> Result<Rc<Rack>> {
        if let Some(rack) = &self.rack {
            return Ok(Rc::clone(rack));
        }
        let rack = Rc::new(Rack::new()?);
        self.rack = Some(Rc::clone(&rack));
        Ok(rack)
    }

    /// What comes next gets a rack of its own.
    pub fn leave_rack(&mut self) {
        self.rack = None;
    }

    /// One named test: from the test before it, or the beginning, to the end of `test`, whose text joins the report.
    pub fn show(&mut self, name: &'static str, test: impl FnOnce() -> Result<String>) -> Result<()> {
        let outcome = test();
        let took = self.since.elapsed();
        self.since = Instant::now();
        self.showed(name, took, outcome)
    }

    /// The same for a test that ran beside others, and took so long.
    pub fn showed(&mut self, name: &'static str, took: Duration, outcome: Result<String>) -> Result<()> {
        assert!(self.life.shows.contains(&name), "'{}' does not announce '{name}'", self.life.name);
        let failure = outcome.as_ref().err().map(|error| format!("{error:#}"));
        if failure.is_some()
            && let Some(boots) = self.rack.as_deref().and_then(boots_of)
        {
            eprintln!("{boots}");
        }
        let verdict = Verdict { name, took, failure };
        report(&verdict, outcome.as_deref().unwrap_or_default());
        self.verdicts.push(verdict);
        outcome.map(drop)
    }

    /// Lives it; whatever it did not come to has failed.
    fn live(mut self) -> Vec<Verdict> {
        let life = self.life;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (life.live)(&mut self)))
            .unwrap_or_else(|panic| Err(explain_panic(&*panic)));
        // A test that failed has told its reason already.
        let told = self.verdicts.iter().any(|verdict| verdict.failure.is_some());
        let mut reason = ended.err().filter(|_| !told).map(|error| format!("{error:#}"));
        for name in life.shows {
            if self.verdicts.iter().any(|verdict| verdict.name == *name) {
                continue;
            }
            let failure = reason.take().unwrap_or_else(|| "not reached".to_owned());
            let verdict = Verdict { name, took: self.since.elapsed(), failure: Some(failure) };
            self.since = Instant::now();
            report(&verdict, "");
            self.verdicts.push(verdict);
        }
        let failed = self.verdicts.iter().any(|verdict| verdict.failure.is_some());
        if let Some(rack) = &self.rack
            && (failed || std::env::var_os("RACK_KEEP").is_some())
        {
            keep_evidence(life, rack.home().dir(), failed);
        }
        self.verdicts
    }
}

fn explain_panic(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("panicked: {}", text.unwrap_or("without a word"))
}

/// What the appliance of a rack, if it still answers, knows of the newest boot of each machine.
fn boots_of(rack: &Rack) -> Option<String> {
    let socket = rack.home().socket("bennu.sock");
    let bennu = |arguments: &[&str]| {
        let mut command = Command::new(workshop::bennu_binary().ok()?);
        command.env("BENNU_SERVER", format!("unix://{}", socket.display())).args(arguments);
        command::run(&mut command).ok()
    };
    let mut text = bennu(&["boot", "list"])?;
    let boots: serde_json::Value = serde_json::from_str(&bennu(&["boot", "list", "--json"])?).ok()?;
    let items = boots.as_array().or_else(|| boots["items"].as_array())?;
    for id in items.iter().filter_map(|boot| boot["id"].as_str()) {
        text.push_str(&bennu(&["boot", "show", id]).unwrap_or_default());
    }
    Some(text)
}

/// Keeps consoles and logs for later, and shows the end of each after a failure.
fn keep_evidence(life: Life, dir: &Path, failed: bool) {
    let Ok(kept) = workshop::cache("evidence").map(|failures| failures.join(life.name.replace(' ', "-"))) else {
        return;
    };
    let _ = fs::remove_dir_all(&kept);
    let _ = fs::create_dir_all(&kept);
    let mut found: Vec<PathBuf> = Vec::new();
    for place in [dir.to_owned(), dir.join("appliance"), dir.join("twin")]
        .into_iter()
        .chain((1..10).map(|n| dir.join(format!("machine{n}"))))
    {
        let Ok(entries) = fs::read_dir(place) else { continue };
        found.extend(
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "log")),
        );
    }
    found.sort();
    for file in found {
        let name = file.strip_prefix(dir).unwrap_or(&file).to_string_lossy().replace('/', "-");
        let _ = fs::copy(&file, kept.join(&name));
        if failed {
            eprintln!("  {} ends with:\n{}", name, tail_of(&file, 25));
        }
    }
    eprintln!("  all of it is kept in {}", kept.display());
}

fn report(verdict: &Verdict, remark: &str) {
    static LINES: Mutex<()> = Mutex::new(());
    let _held = held(&LINES);
    let seconds = verdict.took.as_secs_f64();
    match &verdict.failure {
        None => println!("ok      {:<32} {seconds:7.1} s  {remark}", verdict.name),
        Some(reason) => {
            println!("FAILED  {:<32} {seconds:7.1} s\n        {}", verdict.name, reason.replace('\n', "\n        "))
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the lives that show what a filter names, `jobs` at a time; whether all went well.
pub fn run(lives: &[Life], filters: &[String], jobs: usize) -> bool {
    let begun = Instant::now();
    let waiting: Mutex<VecDeque<Life>> =
        Mutex::new(lives.iter().filter(|life| life.is_wanted(filters)).copied().collect());
    let verdicts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = held(&waiting).pop_front();
                    let Some(life) = next else { return };
                    let ended = Story::new(life).live();
                    held(&verdicts).extend(ended);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed: Vec<&str> = verdicts.iter().filter(|v| v.failure.is_some()).map(|v| v.name).collect();
    println!("end-to-end tests took {:.0} s", begun.elapsed().as_secs_f64());
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{} passed, {} failed", verdicts.len() - failed.len(), failed.len());
    failed.is_empty() && !verdicts.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn verdicts(life: Life) -> Vec<(&'static str, bool)> {
        Story::new(life).live().into_iter().map(|v| (v.name, v.failure.is_none())).collect()
    }

    #[test]
    fn what_a_life_does_not_come_to_has_failed() {
        let life = Life {
            name: "a life",
            shows: &["first", "second", "third"],
            live: |story| {
                story.show("first", || Ok(String::new()))?;
                story.show("second", || bail!("no"))?;
                story.show("third", || Ok(String::new()))
            },
        };
        assert_eq!(verdicts(life), [("first", true), ("second", false), ("third", false)]);
    }

    #[test]
    fn a_life_that_forgets_a_test_or_panics_has_failed() {
        assert_eq!(verdicts(Life { name: "", shows: &["a"], live: |_| Ok(()) }), [("a", false)]);
        assert_eq!(verdicts(Life { name: "", shows: &["a"], live: |_| panic!("oh") }), [("a", false)]);
    }

    #[test]
    fn a_filter_that_finds_nothing_is_no_success() {
        assert!(!run(&[], &[], 1));
    }
}
