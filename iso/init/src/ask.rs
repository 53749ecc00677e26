//! What somebody types on a console.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

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
        let mut text = [0; 256];
        let count = file.read(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..count]).into_owned())
    }
}
