//! `/dev/log`, where programs speak by syslog(3), in a system in which nobody else listens there.

use super::line::{Line, NOTICE, USER, tagged};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// The place.
pub const PLACE: &str = "/dev/log";

/// Listens, unless somebody does.
pub fn listen(place: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(place)?;
    fs::set_permissions(place, Permissions::from_mode(0o666))?;
    Ok(socket)
}

/// Hears until the socket is gone. `take` must not wait: whoever speaks here would wait with it.
pub fn hear(socket: &UnixDatagram, mut take: impl FnMut(Line)) {
    let mut buffer = [0; 8192];
    while let Ok(length) = socket.recv(&mut buffer) {
        take(read(&String::from_utf8_lossy(&buffer[..length])));
    }
}

/// As the C library writes it: `<PRIORITY>Mmm dd hh:mm:ss TAG[PID]: text`.
fn read(message: &str) -> Line {
    let (priority, rest) = priority(message).unwrap_or((USER * 8 + NOTICE, message));
    let rest = without_time(rest).trim_end_matches(['\n', '\0']);
    let (program, process, text) = tagged(rest).unwrap_or(("", "", rest));
    Line {
        facility: priority / 8,
        severity: priority % 8,
        program: program.into(),
        process: process.into(),
        text: text.into(),
    }
}

fn priority(text: &str) -> Option<(u8, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    Some((number.parse().ok().filter(|number| *number <= 191)?, rest))
}

fn without_time(text: &str) -> &str {
    let bytes = text.as_bytes();
    let is_time = bytes.len() > 16
        && bytes[3] == b' '
        && bytes[6] == b' '
        && bytes[9] == b':'
        && bytes[12] == b':'
        && bytes[15] == b' ';
    if is_time { text.get(16..).unwrap_or(text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_c_library_writes_is_read() {
        let line = |facility, severity, program: &str, process: &str, text: &str| Line {
            facility,
            severity,
            program: program.into(),
            process: process.into(),
            text: text.into(),
        };
        assert_eq!(read("<38>Nov  1 12:00:00 sshd[812]: no entry"), line(4, 6, "sshd", "812", "no entry"));
        assert_eq!(read("<13>Nov 11 12:00:00 root: hello\n\0"), line(1, 5, "root", "", "hello"));
        assert_eq!(read("<999>x"), line(1, 5, "", "", "<999>x"));
        assert_eq!(read("éééé ééé ééé: é"), line(1, 5, "", "", "éééé ééé ééé: é"));
    }

    #[test]
    fn somebody_elses_place_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let socket = listen(&path).unwrap();
        assert!(listen(&path).is_err());
        let speaker = UnixDatagram::unbound().unwrap();
        speaker.send_to(b"<13>app: one", &path).unwrap();
        speaker.send_to(b"<13>app: two", &path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        hear(&socket, |line| heard.push(line.text));
        assert_eq!(heard, ["one", "two"]);
    }
}
