//! What stands on the consoles: lines, or a program that draws on all of the screen, one process a console. While a program
//! has them, what is said goes to a file that the view shows, and to the log.

use bennu_host::{
    console::{DIRECTORY, MESSAGES, TOKEN},
    setup,
};
use bennu_stage1::console;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/bin/bennu";
/// A program that ends is started again after this.
const PAUSE: Duration = Duration::from_secs(1);
/// A program that is told to end clears its screen and does.
const PATIENCE: Duration = Duration::from_secs(2);
/// The messages begin anew beyond this.
const MOST_MESSAGES: u64 = 256 << 10;
/// What the kernel prints by itself: nothing but its last words (syslog(2)).
const QUIET: &str = "1";

/// Which generation of programs may be on the consoles; the threads of others end.
static WANTED: AtomicU32 = AtomicU32::new(0);
static SHOWING: AtomicBool = AtomicBool::new(false);
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static MESSAGES_FILE: Mutex<Option<(File, u64)>> = Mutex::new(None);

/// A program for the consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Asks for a first configuration.
    SetUp,
    /// Shows the appliance.
    View,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::SetUp => "setup",
            Self::View => "console",
        }
    }
}

/// Whether a program has the consoles.
pub fn are_drawn_on() -> bool {
    SHOWING.load(Ordering::SeqCst)
}

/// Gives the consoles to a program, and keeps it there.
pub fn show(program: Program) {
    let generation = WANTED.fetch_add(1, Ordering::SeqCst) + 1;
    open_messages();
    SHOWING.store(true, Ordering::SeqCst);
    console::divert(Some(note));
    let _ = std::fs::write("/proc/sys/kernel/printk", QUIET);
    for (device, term) in terminals() {
        let keep = move || keep(program, generation, &device, term);
        drop(std::thread::Builder::new().name("terminal".into()).stack_size(128 * 1024).spawn(keep));
    }
}

/// Takes the consoles back for lines.
pub fn end() {
    if !SHOWING.swap(false, Ordering::SeqCst) {
        return;
    }
    WANTED.fetch_add(1, Ordering::SeqCst);
    let until = Instant::now() + PATIENCE;
    tell_all(Signal::TERM);
    while !children().is_empty() {
        if Instant::now() > until {
            tell_all(Signal::KILL);
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    console::divert(None);
}

/// Keeps the first token where the view finds it, and nobody else: no log, and no disk.
pub fn keep_token(token: &str) {
    make_directory();
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(Path::new(DIRECTORY).join(TOKEN));
    let _ = file.and_then(|mut file| file.write_all(token.as_bytes()));
}

fn make_directory() {
    // It is there when it is needed again.
    let _ = DirBuilder::new().mode(0o700).create(DIRECTORY);
}

fn open_messages() {
    make_directory();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(Path::new(DIRECTORY).join(MESSAGES));
    *MESSAGES_FILE.lock().unwrap_or_else(PoisonError::into_inner) = file.ok().map(|file| (file, 0));
}

/// Takes what is said while a program has the consoles.
fn note(text: &str) {
    let mut messages = MESSAGES_FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((file, size)) = messages.as_mut() else { return };
    if *size > MOST_MESSAGES && file.set_len(0).is_ok() {
        *size = 0;
    }
    if file.write_all(format!("{text}\n").as_bytes()).is_ok() {
        *size += text.len() as u64 + 1;
    }
}

/// The consoles that the kernel speaks on, and what stands there. Whoever is at a serial line may be anything; all know what
/// a VT220 knows.
fn terminals() -> Vec<(PathBuf, &'static str)> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut found: Vec<(PathBuf, &'static str)> = active.split_whitespace().map(terminal).collect();
    found.dedup();
    found
}

/// `tty0` is whichever screen is in front, which is the first.
fn terminal(name: &str) -> (PathBuf, &'static str) {
    let screen = name.strip_prefix("tty").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let name = if name == "tty0" { "tty1" } else { name };
    (Path::new("/dev").join(name), if screen { "linux" } else { "vt220" })
}

fn keep(program: Program, generation: u32, device: &Path, term: &str) {
    while WANTED.load(Ordering::SeqCst) == generation {
        let mut command = Command::new(PROGRAM);
        command.arg(program.name()).arg("--tty").arg(device);
        command.env_clear().env("PATH", crate::PATH).env("HOME", "/").env("TERM", term);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut child) = command.spawn() {
            let number = child.id();
            children().push(number);
            if WANTED.load(Ordering::SeqCst) != generation {
                // Whoever took the consoles back meanwhile did not see it.
                let _ = child.kill();
            }
            // Who buries the dead may be faster, which ends this wait as well.
            let _ = child.wait();
            children().retain(|known| *known != number);
        }
        // Answered: init takes it from here.
        if program == Program::SetUp && Path::new(setup::DIRECTORY).join(setup::MADE).exists() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn children() -> std::sync::MutexGuard<'static, Vec<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell_all(signal: Signal) {
    for child in children().iter() {
        let _ = i32::try_from(*child).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, signal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_what_the_kernel_speaks_on() {
        assert_eq!(terminal("tty0"), ("/dev/tty1".into(), "linux"));
        assert_eq!(terminal("ttyS0"), ("/dev/ttyS0".into(), "vt220"));
        assert_eq!(terminal("hvc0"), ("/dev/hvc0".into(), "vt220"));
    }
}
