//! Speaking to whoever looks at the machine: every active console, and the kernel's log.
//!
//! A console must never stop a boot: they are opened without waiting for a carrier, and what cannot be written in time is dropped.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a progress line is renewed on a screen, and how often it is printed on a serial line.
const SCREEN_EVERY: Duration = Duration::from_millis(300);
const SERIAL_EVERY: Duration = Duration::from_secs(5);
/// How long a console may keep us waiting before its text is dropped.
const PATIENCE_MS: i64 = 250;
/// After this long we say what we are busy with.
const BUSY_AFTER: Duration = Duration::from_secs(15);

struct Output {
    file: File,
    screen: bool,
    last_progress: Option<Instant>,
    line_open: bool,
}

struct State {
    /// Who takes what is said in the consoles' place.
    diverted: Option<fn(&str)>,
    outputs: Vec<Output>,
    kernel_log: Option<File>,
    busy: Option<(String, Instant, u32)>,
}

static STATE: Mutex<State> = Mutex::new(State { diverted: None, outputs: Vec::new(), kernel_log: None, busy: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the consoles the kernel has now; called again when modules may have brought more.
pub fn open() {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut outputs: Vec<Output> = active.split_whitespace().filter_map(open_one).collect();
    if outputs.is_empty() {
        outputs.extend(open_one("console"));
    }
    let mut state = state();
    state.outputs = outputs;
    if state.kernel_log.is_none() {
        state.kernel_log = OpenOptions::new().write(true).open("/dev/kmsg").ok();
    }
}

fn open_one(name: &str) -> Option<Output> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(format!("/dev/{name}")).ok()?;
    Some(Output { file, screen: is_screen(name), last_progress: None, line_open: false })
}

/// `tty0`, `tty1`: a display. `ttyS0`, `hvc0`: a line that someone records.
fn is_screen(name: &str) -> bool {
    name.strip_prefix("tty").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Starts the watch that says what we are busy with when something takes long.
pub fn watch() {
    let spawned = std::thread::Builder::new().name("watch".into()).stack_size(64 * 1024).spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let mut state = state();
            let Some((what, since, told)) = &mut state.busy else { continue };
            if since.elapsed() >= BUSY_AFTER * (*told + 1) {
                *told += 1;
                let text = format!("still {what} after {} s", since.elapsed().as_secs());
                state.line(&text);
            }
        }
    });
    drop(spawned);
}

/// Does something that may hang, so that the watch can name it.
pub fn while_doing<T>(what: &str, work: impl FnOnce() -> T) -> T {
    state().busy = Some((what.to_owned(), Instant::now(), 0));
    let result = work();
    state().busy = None;
    result
}

/// Says one thing to everybody.
pub fn say(text: &str) {
    state().line(text);
}

/// Says one thing to whoever looks at a console, and keeps it out of the kernel's log.
pub fn show(text: &str) {
    state().lines(text);
}

/// From now on somebody else takes what is said: a program draws on the consoles. `None`: the consoles have it again.
pub fn divert(to: Option<fn(&str)>) {
    state().diverted = to;
}

/// Says something that changes many times a second: in place on a screen, now and then on a serial line.
pub fn progress(text: &str) {
    let mut state = state();
    if state.outputs.is_empty() || state.diverted.is_some() {
        return;
    }
    for output in &mut state.outputs {
        let every = if output.screen { SCREEN_EVERY } else { SERIAL_EVERY };
        if output.last_progress.is_some_and(|last| last.elapsed() < every) {
            continue;
        }
        output.last_progress = Some(Instant::now());
        if output.screen {
            output.line_open = true;
            output.put(format!("\rbennu: {text}\x1b[K").as_bytes());
        } else {
            output.put(format!("bennu: {text}\n").as_bytes());
        }
    }
}

impl State {
    fn line(&mut self, text: &str) {
        // Debug level: kept in the log that the booted system shows, without being printed a second time.
        if let Some(log) = &mut self.kernel_log {
            for line in text.lines() {
                drop(log.write_all(format!("<7>bennu: {line}\n").as_bytes()));
            }
        }
        self.lines(text);
    }

    fn lines(&mut self, text: &str) {
        if let Some(take) = self.diverted {
            return text.lines().for_each(take);
        }
        if self.outputs.is_empty() {
            eprintln!("bennu: {text}");
        }
        for output in &mut self.outputs {
            let start = if std::mem::take(&mut output.line_open) { "\n" } else { "" };
            let text: String = text.lines().map(|line| format!("bennu: {line}\n")).collect();
            output.put(format!("{start}{text}").as_bytes());
        }
    }
}

impl Output {
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return,
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
                    let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE_MS * 1_000_000 };
                    if !matches!(poll(&mut ready, Some(&patience)), Ok(1..)) {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// A size for people.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_and_serial_lines() {
        assert!(is_screen("tty0") && is_screen("tty12"));
        assert!(!is_screen("ttyS0") && !is_screen("ttyAMA0") && !is_screen("hvc0") && !is_screen("console"));
    }

    #[test]
    fn sizes() {
        assert_eq!(mib(1 << 20), "1.0 MiB");
        assert_eq!(mib(161_800_192), "154.3 MiB");
    }
}
