//! `bennu serve`, kept running, and the dead buried: what PID 1 is for.

use crate::ask::Ears;
use crate::configuration::Configured;
use crate::logs::{self, say};
use crate::{consoles, power, readiness};
use bennu_host::{Console, EXIT_DAMAGED};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/bin/bennu";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A service that ran for so long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(60);

static SERVICE: AtomicI32 = AtomicI32::new(0);

/// Runs it for as long as the machine does.
pub fn keep(configured: &Configured, console: Console) -> ! {
    readiness::listen(console);
    watch();
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let (ended, code) = match start(configured) {
            Ok(child) => bury_until(child),
            Err(error) => (format!("cannot be started: {error}"), None),
        };
        SERVICE.store(0, Ordering::SeqCst);
        readiness::forget();
        while power::is_ending() {
            std::thread::sleep(Duration::from_secs(1));
        }
        if code == Some(i32::from(EXIT_DAMAGED)) {
            // What follows is asked in lines; the view comes again with the next service that is ready.
            consoles::end();
            say("the service found its state damaged, and serves nothing");
            offer_backup(configured);
        }
        pause = if started.elapsed() > SETTLED { FIRST_PAUSE } else { pause };
        say(&format!("the service {ended}; it is started again in {} s", pause.as_secs()));
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn start(configured: &Configured) -> std::io::Result<Pid> {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--config"]).arg(&configured.file).env_clear().env("PATH", crate::PATH).env("HOME", "/");
    command.env("NOTIFY_SOCKET", readiness::SOCKET);
    command.env("WATCHDOG_USEC", readiness::PATIENCE.as_micros().to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let raw = i32::try_from(child.id()).unwrap_or_default();
    SERVICE.store(raw, Ordering::SeqCst);
    for output in [child.stdout.take().map(forward), child.stderr.take().map(forward)].into_iter().flatten() {
        output?;
    }
    Pid::from_raw(raw).ok_or_else(|| std::io::Error::other("it has no number"))
}

/// What the service says goes to the consoles and to the log.
fn forward(output: impl std::io::Read + Send + 'static) -> std::io::Result<()> {
    let copy = move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            // The view shows what happens by itself.
            if !consoles::are_drawn_on() || [" WARN ", " ERROR "].iter().any(|level| line.contains(level)) {
                bennu_stage1::console::say(&line);
            }
            logs::write(&line);
        }
    };
    std::thread::Builder::new().name("forward".into()).stack_size(128 * 1024).spawn(copy).map(drop)
}

/// Buries whatever ends until the service does, and says how it did, with its status.
fn bury_until(child: Pid) -> (String, Option<i32>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => (format!("ended with status {code}"), Some(code)),
                    (None, Some(signal)) => (format!("was ended by signal {signal}"), None),
                    (None, None) => ("ended".to_owned(), None),
                };
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return (format!("was lost: {error}"), None),
        }
    }
}

/// Has the last backup of the ledger put in place of a damaged one, if a person says so: by the kernel's arguments, or now.
fn offer_backup(configured: &Configured) {
    const ARGUMENT: &str = "bennu.restore=last";
    const WORD: &str = "restore";
    static ASKED: AtomicBool = AtomicBool::new(false);
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    // Once: what it brings may be damaged as well.
    let is_told = line.split_whitespace().any(|word| word == ARGUMENT) && !ASKED.swap(true, Ordering::SeqCst);
    if !is_told {
        say(&format!(
            "type {WORD} and Enter to put the last backup of the ledger in place; what is there now is put aside ({ARGUMENT} among \
             the kernel's arguments does the same)"
        ));
        let answer = Ears::open().line(LONGEST_PAUSE);
        if answer.is_none_or(|answer| answer.trim() != WORD) {
            return;
        }
    }
    let mut restore = Command::new(PROGRAM);
    restore.args(["restore", "--last", "--replace", "--config"]).arg(&configured.file);
    restore.env_clear().env("PATH", crate::PATH).env("HOME", "/").stdin(Stdio::null());
    match restore.output() {
        Ok(done) => [done.stdout, done.stderr].iter().for_each(|said| say(&String::from_utf8_lossy(said))),
        Err(error) => say(&format!("{PROGRAM} does not run: {error}")),
    }
}

/// Ends a service that hangs: whoever keeps it starts it again.
fn watch() {
    let look = || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            let service = SERVICE.load(Ordering::SeqCst);
            if service != 0 && !power::is_ending() && readiness::hangs() {
                say("the service says nothing any more, and is ended");
                readiness::forget();
                let _ = Pid::from_raw(service).map(|pid| kill_process(pid, Signal::ABORT));
            }
        }
    };
    drop(std::thread::Builder::new().name("liveness".into()).stack_size(128 * 1024).spawn(look));
}

/// Asks the service to end, and waits a while for it.
pub fn stop(patience: Duration) {
    let until = Instant::now() + patience;
    if let Some(child) = Pid::from_raw(SERVICE.load(Ordering::SeqCst)) {
        let _ = kill_process(child, Signal::TERM);
    }
    while SERVICE.load(Ordering::SeqCst) != 0 {
        if Instant::now() > until {
            say("the service does not end, and is killed");
            if let Some(child) = Pid::from_raw(SERVICE.load(Ordering::SeqCst)) {
                let _ = kill_process(child, Signal::KILL);
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
