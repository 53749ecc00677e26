//! The ends of what the kernel and the appliance said, for whoever sends them to a colleague.

use crate::state;
use bennu_host::door::{Answer, LOG_TAIL};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A record of the kernel's has at most 8 KiB (CONSOLE_EXT_LOG_MAX).
const LONGEST: usize = 8192;

/// Both logs. One that cannot be read says why.
pub fn logs() -> Answer {
    let or_why = |read: io::Result<String>| read.unwrap_or_else(|error| format!("it cannot be read: {error}\n"));
    Answer::Logs { kernel: or_why(kernel()), appliance: or_why(appliance(&Path::new(state::PLACE).join("log"))) }
}

/// What the kernel still has (Documentation/ABI/testing/dev-kmsg).
fn kernel() -> io::Result<String> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
    let (mut lines, mut size) = (VecDeque::new(), 0);
    let mut record = [0; LONGEST];
    loop {
        match file.read(&mut record) {
            Ok(length) => {
                let line = line_of(&String::from_utf8_lossy(&record[..length]));
                size += line.len();
                lines.push_back(line);
            }
            // What came next has been overwritten, and the next read gives the oldest that is left.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        while size > LOG_TAIL {
            size -= lines.pop_front().map_or(size, |line: String| line.len());
        }
    }
    Ok(lines.into_iter().collect())
}

/// `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,…];TEXT` as dmesg(1) shows it.
fn line_of(record: &str) -> String {
    let (head, rest) = record.split_once(';').unwrap_or(("", record));
    let at: u64 = head.split(',').nth(2).and_then(|at| at.parse().ok()).unwrap_or_default();
    format!("[{:5}.{:06}] {}\n", at / 1_000_000, at % 1_000_000, rest.lines().next().unwrap_or_default())
}

/// The end of the newest file, and before it that of the one before, as far as there is room.
fn appliance(directory: &Path) -> io::Result<String> {
    let mut text = tail(&directory.join("appliance.log"), LOG_TAIL)?;
    if let Ok(mut earlier) = tail(&directory.join("appliance.log.1"), LOG_TAIL - text.len()) {
        earlier += &text;
        text = earlier;
    }
    Ok(text)
}

/// The last whole lines of a file.
fn tail(path: &Path, most: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(most as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    let start = match from {
        0 => 0,
        _ => bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1),
    };
    let mut text = String::from_utf8_lossy(&bytes[start..]).into_owned();
    // What is no text grows when it is written as such.
    while text.len() > most {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_of_whole_lines_and_bounded() {
        let place = tempfile::tempdir().unwrap();
        assert!(appliance(place.path()).is_err());
        let (now, before) = (place.path().join("appliance.log"), place.path().join("appliance.log.1"));
        std::fs::write(&now, "two\nthree\n").unwrap();
        assert_eq!(appliance(place.path()).unwrap(), "two\nthree\n");
        std::fs::write(&before, "zero\none\n").unwrap();
        assert_eq!(appliance(place.path()).unwrap(), "zero\none\ntwo\nthree\n");
        std::fs::write(&before, "x".repeat(100).repeat(LOG_TAIL / 50) + "\nlast\n").unwrap();
        assert_eq!(appliance(place.path()).unwrap(), "last\ntwo\nthree\n");
        std::fs::write(&now, vec![0xff; 2 * LOG_TAIL]).unwrap();
        assert!(appliance(place.path()).unwrap().len() <= LOG_TAIL);
    }

    #[test]
    fn records_are_shown_as_people_know_them() {
        assert_eq!(
            line_of("6,339,5140900,-;NET: family 10; x\n SUBSYSTEM=net\n"),
            "[    5.140900] NET: family 10; x\n"
        );
        assert_eq!(line_of("odd"), "[    0.000000] odd\n");
    }
}
