//! The journal, as `journalctl` of the image writes it out (`-o json`, systemd's "Journal JSON Format"). It is asked for
//! nothing that versions differ in, and what it has to say waits in the journal, not here.

use super::line::{DEBUG, INFO, Line, NOTICE, USER};
use super::stage1::Sent;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// An entry with more than that, such as one with a core dump in it, is left out.
const LONGEST: usize = 512 << 10;
/// Lines of one message that are sent as lines; what follows is put together.
const MOST_LINES: usize = 64;

/// An entry's fields that matter; everything else is left unread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "MESSAGE")]
    message: Value,
    #[serde(rename = "PRIORITY")]
    priority: Value,
    #[serde(rename = "SYSLOG_FACILITY")]
    facility: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Value,
    #[serde(rename = "_COMM")]
    command: Value,
    #[serde(rename = "SYSLOG_PID")]
    process: Value,
    #[serde(rename = "_PID")]
    own_process: Value,
    #[serde(rename = "_TRANSPORT")]
    transport: Value,
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP")]
    at: Value,
}

/// A journalctl that follows.
pub struct Journal {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Where the last entry stands.
    pub cursor: String,
    sent: Sent,
}

impl Journal {
    /// Begins with this boot, or behind an entry. `sent` is what stage 1 sent of the kernel's log, which is in the journal
    /// too.
    pub fn follow(after: &str, sent: Sent) -> io::Result<Self> {
        let mut command = Command::new("journalctl");
        command.args(["--boot", "--follow", "--no-tail", "--all", "--quiet", "--output=json"]);
        if !after.is_empty() {
            command.arg(format!("--after-cursor={after}"));
        }
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let output = BufReader::with_capacity(64 << 10, output);
        Ok(Self { child, output, cursor: after.to_owned(), sent })
    }

    /// The lines of the next entry, perhaps none; `None` when journalctl ended.
    pub fn next(&mut self) -> Option<Vec<Line>> {
        let mut text = Vec::new();
        let whole = bounded_line(&mut self.output, &mut text).ok()??;
        if !whole {
            let text = "an entry of the journal is too long to be forwarded".to_owned();
            return Some(vec![Line {
                facility: USER,
                severity: NOTICE,
                program: "bennu".into(),
                text,
                ..Line::default()
            }]);
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(&text) else { return Some(Vec::new()) };
        self.cursor.clone_from(&entry.cursor);
        Some(lines(&entry, self.sent))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let killed = pid.map_or(Err(Errno::SRCH), |pid| kill_process(pid, Signal::KILL));
        if killed.is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// Reads a line of at most [`LONGEST`] bytes. `Some(false)`: it was longer, and is skipped; `None`: there are no more.
fn bounded_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    let mut whole = true;
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        whole &= line.len() + part.len() <= LONGEST;
        if whole {
            line.extend_from_slice(part);
        }
        let taken = part.len() + usize::from(end.is_some());
        from.consume(taken);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

fn lines(entry: &Entry, sent: Sent) -> Vec<Line> {
    let is_kernels = text(&entry.transport) == "kernel";
    let severity = number(&entry.priority).unwrap_or(INFO.into()).min(7) as u8;
    let is_sent = is_kernels && number(&entry.at).is_some_and(|at| at <= sent.at);
    let facility = number(&entry.facility).unwrap_or(USER.into()).min(23) as u8;
    if is_sent || (is_kernels && facility == 0 && severity == DEBUG) {
        return Vec::new();
    }
    let first = |values: [&Value; 2]| values.into_iter().map(text).find(|text| !text.is_empty()).unwrap_or_default();
    let (program, process) = (first([&entry.identifier, &entry.command]), first([&entry.process, &entry.own_process]));
    let message = text(&entry.message);
    let said = |text: &str| Line {
        facility,
        severity,
        program: program.clone(),
        process: process.clone(),
        text: text.to_owned(),
    };
    message.splitn(MOST_LINES, '\n').filter(|line| !line.trim().is_empty()).map(said).collect()
}

/// A field as text. What is no UTF-8 comes as a list of bytes, and a field that is there twice as a list of both.
fn text(value: &Value) -> String {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => match all.iter().map(byte).collect::<Option<Vec<u8>>>() {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => all.first().map(text).unwrap_or_default(),
        },
        _ => String::new(),
    }
}

fn number(value: &Value) -> Option<u64> {
    text(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<(u8, String, String, String)> {
        let entry: Entry = serde_json::from_str(json).unwrap();
        let told = |line: Line| (line.severity, line.program, line.process, line.text);
        lines(&entry, Sent { number: 0, at: 5_000 }).into_iter().map(told).collect()
    }

    fn told(severity: u8, program: &str, process: &str, text: &str) -> (u8, String, String, String) {
        (severity, program.into(), process.into(), text.into())
    }

    #[test]
    fn entries_are_read_as_systemd_documents_them() {
        let json = r#"{"__CURSOR":"s=1","MESSAGE":"no entry","PRIORITY":"3","SYSLOG_IDENTIFIER":"sshd","_PID":"812","_COMM":"x","_NEW":null}"#;
        assert_eq!(read(json), [told(3, "sshd", "812", "no entry")]);
        let json = r#"{"MESSAGE":"one\n\ntwo","_COMM":"app","SYSLOG_PID":"7","_PID":"8","PRIORITY":["4","5"]}"#;
        assert_eq!(read(json), [told(4, "app", "7", "one"), told(4, "app", "7", "two")]);
        assert_eq!(read(r#"{"MESSAGE":[104,105,255]}"#), [told(6, "", "", "hi\u{fffd}")]);
        assert_eq!(read(r#"{"MESSAGE":null}"#), []);
        assert_eq!(read(r#"{"PRIORITY":"99","MESSAGE":"x"}"#), [told(7, "", "", "x")]);
    }

    #[test]
    fn what_stage_1_sent_of_the_kernels_log_is_not_sent_again() {
        let kernel = |at: u32, severity: u8| {
            read(&format!(
                r#"{{"_TRANSPORT":"kernel","_SOURCE_MONOTONIC_TIMESTAMP":"{at}","PRIORITY":"{severity}","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"m"}}"#
            ))
        };
        assert_eq!((kernel(5_000, 6), kernel(9_000, 7)), (vec![], vec![]));
        assert_eq!(kernel(5_001, 6), [told(6, "kernel", "", "m")]);
    }

    #[test]
    fn an_entry_that_is_too_long_is_skipped_and_the_next_is_read() {
        let text = [vec![b'x'; LONGEST + 1], b"\nnext\nrest".to_vec()].concat();
        let mut reader = BufReader::new(text.as_slice());
        let mut line = Vec::new();
        assert_eq!(bounded_line(&mut reader, &mut line).unwrap(), Some(false));
        line.clear();
        assert_eq!((bounded_line(&mut reader, &mut line).unwrap(), line.as_slice()), (Some(true), b"next".as_slice()));
        line.clear();
        assert_eq!(bounded_line(&mut reader, &mut line).unwrap(), None);
    }
}
