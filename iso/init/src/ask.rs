//! What somebody types on a console.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A terminal's own limit for a line (`N_TTY_BUF_SIZE`).
const LONGEST: usize = 4096;
const PAUSE: Duration = Duration::from_secs(1);

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
        let until = Instant::now() + patience;
        let mut text = Zeroizing::new([0; LONGEST]);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            for mut file in self.ready(left) {
                // A terminal gives a line at a time (termios, ICANON).
                if let Ok(count @ 1..) = file.read(&mut *text) {
                    return Some(Zeroizing::new(String::from_utf8_lossy(&text[..count]).into_owned()));
                }
            }
            if Instant::now() >= until {
                return None;
            }
            // A line without anybody at its end is always "ready".
            std::thread::sleep(PAUSE);
        }
    }

    /// Those on which there is something, once there is.
    fn ready(&self, patience: Duration) -> Vec<&File> {
        let mut waiting: Vec<PollFd<'_>> = self.0.iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        // An interrupted wait is begun again by the caller.
        let _ = poll(&mut waiting, Some(&patience));
        let is_ready: Vec<bool> = waiting.iter().map(|one| one.revents().contains(PollFlags::IN)).collect();
        self.0.iter().zip(is_ready).filter(|(_, is_ready)| *is_ready).map(|(file, _)| file).collect()
    }

    /// From now on they do not show what is typed.
    pub fn hide(&self) -> Hidden<'_> {
        let hide = |file| {
            let before = tcgetattr(file).ok()?;
            let mut without = before.clone();
            without.local_modes.remove(LocalModes::ECHO);
            // So that one sees that Enter was taken.
            without.local_modes.insert(LocalModes::ECHONL);
            // Whatever drew there before may have been killed.
            without.local_modes.insert(LocalModes::ICANON);
            without.input_modes.insert(InputModes::ICRNL);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_line_that_nobody_is_at_drowns_no_other() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // It is always ready, and has nothing.
        let dead = || File::open("/dev/null").unwrap();
        let ears = Ears(vec![dead(), File::from(OwnedFd::from(reader)), dead()]);
        assert_eq!(ears.line(Duration::from_millis(10)), None);
        writer.write_all(b"an answer\n").unwrap();
        assert_eq!(ears.line(Duration::from_secs(20)).as_deref(), Some("an answer\n"));
        let began = Instant::now();
        assert_eq!(Ears(vec![dead()]).line(Duration::from_millis(1500)), None);
        assert!(began.elapsed() >= Duration::from_millis(1500));
    }
}
