//! A machine's serial console: kept with times, searched, and typed on.

use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What ends every hope of what one waits for, and what it means.
const DEAD_ENDS: &[(&str, &str)] = &[
    ("UEFI Interactive Shell", "the firmware gave up its boot options and stopped in its shell"),
    ("No bootable device", "the firmware found nothing to boot"),
    ("Kernel panic", "the kernel panicked"),
];

#[derive(Debug)]
struct Screen {
    /// Everything that was shown, without escape sequences.
    text: String,
    /// How much of it was shown by when.
    times: Vec<(usize, Duration)>,
    /// How far [`Console::wait_for`] has read.
    read: usize,
    closed: bool,
}

impl Screen {
    fn shown_at(&self, length: usize) -> Duration {
        let chunk = self.times.partition_point(|(until, _)| *until < length);
        self.times.get(chunk).map(|(_, time)| *time).unwrap_or_default()
    }
}

/// The console of one machine from power-on to power-off.
#[derive(Debug)]
pub struct Console {
    power_on: Instant,
    log: PathBuf,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    keyboard: Mutex<ChildStdin>,
    commands: Mutex<u32>,
}

/// What a command on the machine said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// Standard output and standard error.
    pub output: String,
}

impl Console {
    /// Starts to read; every line goes to `log` with its time since power-on.
    pub fn open(output: ChildStdout, input: ChildStdin, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let screen = Screen { text: String::new(), times: Vec::new(), read: 0, closed: false };
        let screen = Arc::new((Mutex::new(screen), Condvar::new()));
        let power_on = Instant::now();
        let shared = Arc::clone(&screen);
        thread::Builder::new().name("console".into()).spawn(move || pump(output, file, &shared, power_on))?;
        Ok(Self { power_on, log: log.to_owned(), screen, keyboard: Mutex::new(input), commands: Mutex::new(0) })
    }

    /// When the machine was switched on.
    pub fn power_on(&self) -> Instant {
        self.power_on
    }

    /// The file with all of it.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn lock(&self) -> MutexGuard<'_, Screen> {
        self.screen.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything shown so far.
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// Whether `text` was shown at any time since power-on.
    pub fn has_shown(&self, text: &str) -> bool {
        self.lock().text.contains(text)
    }

    /// Waits until `text` is shown after what was waited for before; when it was shown, since power-on.
    /// A dead end (firmware shell, kernel panic, power-off) ends the wait at once.
    pub fn wait_for(&self, text: &str, seconds: u64) -> Result<Duration> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut screen = self.lock();
        loop {
            let unread = &screen.text[screen.read..];
            if let Some(place) = unread.find(text) {
                screen.read += place + text.len();
                return Ok(screen.shown_at(screen.read));
            }
            let dead_end = DEAD_ENDS.iter().find(|(sign, _)| unread.contains(sign)).map(|(_, meaning)| *meaning);
            let left = deadline.saturating_duration_since(Instant::now());
            let over = match dead_end {
                Some(meaning) => Some(meaning.to_owned()),
                None if screen.closed => Some("the machine is off".to_owned()),
                None if left.is_zero() => Some(format!("not within {seconds} s")),
                None => None,
            };
            if let Some(reason) = over {
                bail!("waiting for '{text}' on the console: {reason}. It shows:\n{}", tail(&screen.text, 25));
            }
            screen = self.screen.1.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types.
    pub fn send(&self, text: &str) -> Result<()> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.write_all(text.as_bytes()).and_then(|()| keyboard.flush()).context("cannot type on the console")
    }

    /// Waits for the login prompt, logs in, and makes the shell quiet enough for [`Console::run`].
    pub fn login(&self, user: &str, password: &str, seconds: u64) -> Result<Duration> {
        let prompt = self.wait_for("login:", seconds)?;
        self.send(&format!("{user}\r"))?;
        self.wait_for("Password:", 60)?;
        self.send(&format!("{password}\r"))?;
        self.wait_for("# ", 60)?;
        // A plain shell without line editing does not echo once the terminal is told so; the kernel's and
        // systemd's own messages would fall between a command and its output.
        // What is typed while the line editor still holds the terminal in raw mode is lost: wait for the plain
        // shell's own prompt, which the echo of this line does not show.
        self.send("exec env PS1='plain''shell ' PS2= sh\r")?;
        self.wait_for("plainshell ", 60)?;
        self.send("PS1=; ")?;
        self.send("stty -echo -onlcr; dmesg -n 1; kill -s RTMIN+21 1\r")?;
        self.run("true", 60).context("the shell after the login does not answer")?;
        Ok(prompt)
    }

    /// Runs one command line in the shell that [`Console::login`] opened.
    pub fn run(&self, command: &str, seconds: u64) -> Result<Ran> {
        let number = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            *commands += 1;
            *commands
        };
        // The terminal hands over at most 4095 bytes a line. The marks are put together by printf, so that
        // an echo of this line is not taken for them.
        let line = format!(
            "printf '\\n<%s-%d>\\n' begin {number}; {{ {command}\n}} 2>&1; printf '\\n<%s-%d:%d>\\n' end {number} $?\r"
        );
        anyhow::ensure!(line.len() < 4000, "a command of {} bytes is too long for a terminal line", line.len());
        self.send(&line)?;
        self.wait_for(&format!("<begin-{number}>\n"), seconds.min(60))?;
        let from = self.lock().read;
        self.wait_for(&format!("\n<end-{number}:"), seconds)?;
        let until = self.lock().read;
        self.wait_for(">", 10)?;
        let screen = self.lock();
        let output = screen.text[from..until].trim_end_matches(&format!("\n<end-{number}:")).to_owned();
        let status = screen.text[until..screen.read - 1].trim().parse().context("no exit status on the console")?;
        Ok(Ran { status, output: output.trim_matches('\n').to_owned() })
    }

    /// The last lines shown.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.lock().text, lines)
    }
}

fn tail(text: &str, lines: usize) -> String {
    let shown: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    shown[shown.len().saturating_sub(lines)..].iter().map(|line| format!("    | {line}\n")).collect()
}

fn pump(mut output: ChildStdout, mut log: File, shared: &(Mutex<Screen>, Condvar), power_on: Instant) {
    let mut plain = Plain::default();
    let mut buffer = [0; 4096];
    let mut line = String::new();
    loop {
        let count = output.read(&mut buffer).unwrap_or(0);
        let text = plain.take(&buffer[..count]);
        for part in text.split_inclusive('\n') {
            line.push_str(part);
            if line.ends_with('\n') || count == 0 {
                // The log is for people; a full disk must not end a test.
                let _ = write!(log, "[{:9.3}] {line}", power_on.elapsed().as_secs_f64());
                line.clear();
            }
        }
        let mut screen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        screen.text.push_str(&text);
        let length = screen.text.len();
        screen.times.push((length, power_on.elapsed()));
        screen.closed = count == 0;
        shared.1.notify_all();
        if count == 0 {
            let _ = writeln!(log, "[{:9.3}] {line}", power_on.elapsed().as_secs_f64());
            return;
        }
    }
}

/// Takes escape sequences and carriage returns out of what a terminal is sent.
#[derive(Debug, Default)]
struct Plain {
    state: Escape,
    held: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Control,
    Title,
}

impl Plain {
    fn take(&mut self, bytes: &[u8]) -> String {
        for &byte in bytes {
            match (&self.state, byte) {
                (Escape::None, 0x1b) => self.state = Escape::Begun,
                (Escape::None, b'\r' | 0) => {}
                (Escape::None, _) => self.held.push(byte),
                (Escape::Begun, b'[') => self.state = Escape::Control,
                (Escape::Begun, b']' | b'P') => self.state = Escape::Title,
                // Two-byte sequences, and those with one intermediate byte such as ESC ( B.
                (Escape::Begun, b'(' | b')' | b'%' | b'#') => {}
                (Escape::Begun, _) => self.state = Escape::None,
                // UEFI places the cursor for each line instead of ending it: a new place is a new line.
                (Escape::Control, b'H') => {
                    if self.held.last().is_none_or(|last| *last != b'\n') {
                        self.held.push(b'\n');
                    }
                    self.state = Escape::None;
                }
                (Escape::Control, 0x40..=0x7e) => self.state = Escape::None,
                (Escape::Title, 0x07 | 0x1b) => self.state = Escape::None,
                (Escape::Control | Escape::Title, _) => {}
            }
        }
        let whole = match std::str::from_utf8(&self.held) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.held.len(),
        };
        let rest = self.held.split_off(whole);
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_vanish_and_characters_survive_cuts() {
        let mut plain = Plain::default();
        assert_eq!(plain.take(b"\x1b[2J\x1b[01;01HBdsDxe\x1b[0m: x\r\n\x1b(Bdone"), "\nBdsDxe: x\ndone");
        assert_eq!(plain.take(b"a\x1b[3"), "a");
        assert_eq!(plain.take(b"1mb \xc3"), "b ");
        assert_eq!(plain.take(b"\xa9\xff."), "é\u{fffd}.");
        assert_eq!(plain.take(b"\x1b]0;title\x07e"), "e");
    }

    #[test]
    fn the_tail_skips_empty_lines() {
        assert_eq!(tail("a\n\n b\n\nc\n", 2), "    |  b\n    | c\n");
    }
}
