//! The kernel's log (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg). It holds what the kernel said since its start and what
//! stage 1 says, and is the memory that a log may wait in: it has a fixed size, and the oldest gives way.

use super::line::{DEBUG, ERROR, INFO, Line, tagged};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::time::Duration;

/// A record has at most 8 KiB (CONSOLE_EXT_LOG_MAX).
const LONGEST: usize = 8192;
/// How stage 1's lines begin.
const OURS: &str = "bennu: ";
/// How many lines a program may write to the kernel's log: by default ten in five seconds.
const LIMIT: &str = "/proc/sys/kernel/printk_devkmsg";

static BEFORE: OnceLock<String> = OnceLock::new();

/// Lets us write as many lines to the kernel's log as we say. `printk.devkmsg=` on the command line forbids the change.
pub fn unlimit_own_lines() {
    if let Ok(before) = std::fs::read_to_string(LIMIT)
        && std::fs::write(LIMIT, "on\n").is_ok()
    {
        let _ = BEFORE.set(before);
    }
}

/// Puts it back for the booted system.
pub fn limit_own_lines() {
    if let Some(before) = BEFORE.get() {
        let _ = std::fs::write(LIMIT, before);
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The kernel's number of it.
    pub number: u64,
    /// Microseconds since the kernel's start.
    pub at: u64,
    /// `None`: nobody reads that.
    pub line: Option<Line>,
}

/// Reads it from the first record that it still has.
pub struct Kernel {
    file: File,
}

impl Kernel {
    pub fn open() -> io::Result<Self> {
        let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
        Ok(Self { file: OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")? })
    }

    /// The next record; `None` when none came for so long.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Record>> {
        let mut buffer = [0; LONGEST];
        loop {
            match self.file.read(&mut buffer) {
                Ok(length) => {
                    if let Some(record) = record(&String::from_utf8_lossy(&buffer[..length])) {
                        return Ok(Some(record));
                    }
                }
                // EPIPE: what came next has been overwritten, and the next read gives the oldest that is left.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(&self.file, PollFlags::IN)];
                    let patience =
                        Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
                    if !matches!(poll(&mut ready, Some(&patience)), Ok(1..)) {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,…];TEXT`, and lines of a dictionary that begin with a space.
fn record(text: &str) -> Option<Record> {
    let (head, rest) = text.split_once(';')?;
    let mut fields = head.split(',');
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (priority, number, at) = (next()?, next()?, next()?);
    let text = rest.lines().next().unwrap_or_default();
    Some(Record { number, at, line: line(priority, text) })
}

fn line(priority: u64, text: &str) -> Option<Line> {
    let (facility, severity) = (u8::try_from(priority >> 3).unwrap_or(23), (priority & 7) as u8);
    let said = |program: &str, process: &str, text: &str, severity| {
        Some(Line { facility, severity, program: program.into(), process: process.into(), text: text.into() })
    };
    if facility == 0 {
        return if severity < DEBUG { said("kernel", "", text, severity) } else { None };
    }
    match text.strip_prefix(OURS) {
        Some(text) if text.contains("FAILED") => said("stage1", "", text, ERROR),
        // They are written at the least severity, so that the consoles show them once.
        Some(text) => said("stage1", "", text, INFO),
        None => match tagged(text) {
            Some((program, process, text)) => said(program, process, text, severity),
            None => said("", "", text, severity),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (u64, u64, Option<(u8, String, String)>) {
        let record = record(text).unwrap();
        (record.number, record.at, record.line.map(|line| (line.severity, line.program, line.text)))
    }

    #[test]
    fn records_are_read_as_the_kernel_documents_them() {
        let told = |severity, program: &str, text: &str| Some((severity, program.to_owned(), text.to_owned()));
        let network = "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n DEVICE=n2\n";
        assert_eq!(read(network), (339, 5_140_900, told(6, "kernel", "NET: Registered protocol family 10")));
        assert_eq!(read("15,7,1,-;bennu: network: eth0\n"), (7, 1, told(6, "stage1", "network: eth0")));
        assert_eq!(read("15,7,1,-;bennu: FAILED: no root\n").2, told(3, "stage1", "FAILED: no root"));
        assert_eq!(read("30,8,2,-,caller=T1;systemd[1]: Started; well\n").2, told(6, "systemd", "Started; well"));
        assert_eq!(read("7,9,3,c;pci debug\n"), (9, 3, None));
        for bad in ["", "x", "6,1;text", "6,x,1,-;text", ";"] {
            assert_eq!(record(bad), None, "{bad}");
        }
    }
}
