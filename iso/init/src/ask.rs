//! What somebody types on a console.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;
use zeroize::Zeroizing;

/// A terminal's own limit for a line (`N_TTY_BUF_SIZE`).
const LONGEST: usize = 4096;

/// The consoles, listened to for as long as it lives.
pub struct Ears(Vec<File>);

impl Ears {
    /// Opens every console that the kernel has.
    pub fn open() -> Self {
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed();
        let open = |name: &str| OpenOptions::new().read(true).custom_flags(flags).open(format!("/dev/{name}")).ok();
        Self(active.split_whitespace().filter_map(open).collect())
    }

    /// The next line that is typed on any of them; `None` when nobody does for so long.
    pub fn line(&self, patience: Duration) -> Option<String> {
        self.secret(patience).map(|line| line.to_string())
    }

    /// The same; nothing of it is left in memory.
    pub fn secret(&self, patience: Duration) -> Option<Zeroizing<String>> {
        let mut waiting: Vec<PollFd<'_>> = self.0.iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: 0 };
        match poll(&mut waiting, Some(&patience)) {
            Ok(1..) => {}
            _ => return None,
        }
        let ready: Vec<bool> = waiting.iter().map(|one| one.revents().contains(PollFlags::IN)).collect();
        drop(waiting);
        let Some((mut file, _)) = self.0.iter().zip(ready).find(|(_, is_ready)| *is_ready) else {
            // A line without anybody at its end is always "ready".
            std::thread::sleep(Duration::from_secs(1));
            return None;
        };
        // A terminal gives a line at a time (termios, ICANON).
        let mut text = Zeroizing::new([0; LONGEST]);
        let count = file.read(&mut *text).ok()?;
        Some(Zeroizing::new(String::from_utf8_lossy(&text[..count]).into_owned()))
    }

    /// From now on they do not show what is typed.
    pub fn hide(&self) -> Hidden<'_> {
        let hide = |file| {
            let before = tcgetattr(file).ok()?;
            let mut without = before.clone();
            without.local_modes.remove(LocalModes::ECHO);
            // So that one sees that Enter was taken.
            without.local_modes.insert(LocalModes::ECHONL);
            tcsetattr(file, OptionalActions::Flush, &without).ok()?;
            Some((file, before))
        };
        Hidden(self.0.iter().filter_map(hide).collect())
    }
}

/// Consoles that show nothing of what is typed, for as long as it lives.
pub struct Hidden<'a>(Vec<(&'a File, Termios)>);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        for (file, before) in &self.0 {
            // What was begun on another console is nobody's answer any more.
            let _ = tcsetattr(file, OptionalActions::Flush, before);
        }
    }
}
