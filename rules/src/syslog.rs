//! Syslog, as machines send it: messages of RFC 5424 and of RFC 3164, and their framing over TCP (RFC 6587).
//!
//! Everything here comes from whoever is on the wire: no byte makes it fail, and what comes out is one line of text.

mod framing;

pub use framing::{Framer, MAX_MESSAGE};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Characters of a program's name (RFC 5424 §6).
const MAX_PROGRAM: usize = 48;

/// How bad it is (RFC 5424 table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = LogSeverity)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Severity {
    Emergency,
    Alert,
    Critical,
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

impl Severity {
    fn of(priority: u16) -> Self {
        match priority % 8 {
            0 => Self::Emergency,
            1 => Self::Alert,
            2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warning,
            5 => Self::Notice,
            6 => Self::Info,
            _ => Self::Debug,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emergency => "emergency",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

/// A message. When and by whom it was sent is not believed: the appliance's clock and the sender's address tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = LogMessage)]
pub struct Message {
    /// How bad it is.
    pub severity: Severity,
    /// What said it, such as `sshd[812]`; empty where it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// What it said, one line without control characters.
    pub text: String,
}

impl Message {
    /// Reads a message. What has no priority, or none that is a number of at most 191, is all text and a notice (RFC 3164
    /// §4.3.3). `None`: there is nothing in it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(MAX_MESSAGE)];
        let text = String::from_utf8_lossy(bytes);
        let (priority, rest) = priority(&text).unwrap_or((13, &text));
        let (program, said) = match rest.strip_prefix("1 ") {
            Some(rest) => structured(rest).unwrap_or((String::new(), rest)),
            None => traditional(rest),
        };
        let text = one_line(said);
        (!text.is_empty()).then(|| Self { severity: Severity::of(priority), program: one_line(&program), text })
    }
}

/// `<PRI>` (RFC 5424 §6.2.1).
fn priority(text: &str) -> Option<(u16, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let is_number = (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| number.parse::<u16>().ok()).flatten()?;
    (number <= 191).then_some((number, rest))
}

/// What follows the version of RFC 5424 §6: TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA, and the message.
fn structured(text: &str) -> Option<(String, &str)> {
    let mut rest = text;
    let mut fields = [""; 5];
    for field in &mut fields {
        (*field, rest) = rest.split_once(' ')?;
    }
    let [_, _, program, process, _] = fields;
    let said = without_data(rest)?;
    let said = said.strip_prefix(' ').unwrap_or(said);
    Some((named(program, process), said.strip_prefix('\u{feff}').unwrap_or(said)))
}

/// What follows the structured data (§6.3): `-`, or elements in brackets, in whose values `"`, `\` and `]` are escaped.
fn without_data(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some(rest);
    }
    let mut rest = text;
    while rest.starts_with('[') {
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.char_indices().find_map(|(at, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ']' if !quoted => return Some(at),
                _ => {}
            }
            None
        })?;
        rest = &rest[end + 1..];
    }
    (rest.len() < text.len()).then_some(rest)
}

fn named(program: &str, process: &str) -> String {
    let known = |field: &str| !field.is_empty() && field != "-";
    match (known(program), known(process)) {
        (true, true) => format!("{}[{}]", cut(program), cut(process)),
        (true, false) => cut(program).to_owned(),
        (false, _) => String::new(),
    }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_PROGRAM).map_or(text, |(end, _)| &text[..end])
}

/// `Mmm dd hh:mm:ss HOSTNAME TAG: message` (RFC 3164 §4.1), whose time or host name senders leave out.
fn traditional(text: &str) -> (String, &str) {
    let rest = without_time(text);
    if rest.len() < text.len() {
        // A tag ends in a colon or a bracket; a host name does not.
        if let Some(found) = tag(rest) {
            return found;
        }
        if let Some((_, rest)) = rest.split_once(' ') {
            return tag(rest).unwrap_or((String::new(), rest));
        }
    }
    tag(rest).unwrap_or((String::new(), rest))
}

fn without_time(text: &str) -> &str {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let is_time = MONTHS.iter().any(|month| text.starts_with(month))
        && text.as_bytes().get(3) == Some(&b' ')
        && text.as_bytes().get(15) == Some(&b' ')
        && text.as_bytes()[4..15].iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b':'));
    if is_time { &text[16..] } else { text }
}

fn tag(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_./@".contains(c)))?;
    let (program, rest) = text.split_at(end);
    if program.is_empty() {
        return None;
    }
    if let Some(rest) = rest.strip_prefix('[') {
        let (process, rest) = rest.split_once(']')?;
        let rest = rest.strip_prefix(':')?;
        return Some((named(program, process), rest.trim_start()));
    }
    Some((named(program, ""), rest.strip_prefix(": ")?))
}

/// Control characters move a terminal's cursor and more: none stays.
fn one_line(text: &str) -> String {
    let fit = |c: char| if c.is_control() { ' ' } else { c };
    text.trim_matches(|c: char| c.is_control() || c == ' ').chars().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (String, String, String) {
        let message = Message::parse(text.as_bytes()).unwrap();
        (message.severity.to_string(), message.program, message.text)
    }

    fn told(severity: &str, program: &str, text: &str) -> (String, String, String) {
        (severity.into(), program.into(), text.into())
    }

    #[test]
    fn the_messages_of_the_standards_are_read() {
        // RFC 5424 §6.5 and RFC 3164 §5.4.
        let bom =
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed on /dev/pts/8";
        assert_eq!(read(bom), told("critical", "su", "'su root' failed on /dev/pts/8"));
        let data = "<165>1 2003-10-11T22:14:15.003Z h evntslog 77 ID47 [a@1 x=\"]\\\"\" y=\"\"][b] An event";
        assert_eq!(read(data), told("notice", "evntslog[77]", "An event"));
        let nothing = "<165>1 - - - - - [a@1]";
        assert_eq!(Message::parse(nothing.as_bytes()), None);
        let old = "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8";
        assert_eq!(read(old), told("critical", "su", "'su root' failed for lonvick on /dev/pts/8"));
        assert_eq!(read("Use the BFG!"), told("notice", "", "Use the BFG!"));
    }

    #[test]
    fn what_senders_make_of_them_is_read_too() {
        assert_eq!(read("<13>Nov  1 12:00:00 sshd[812]: hello"), told("notice", "sshd[812]", "hello"));
        assert_eq!(read("<6>kernel: eth0: link up\n"), told("info", "kernel", "eth0: link up"));
        assert_eq!(read("<999>x: y"), told("notice", "", "<999>x: y"));
        assert_eq!(read("<14>1 broken"), told("info", "", "broken"));
        assert_eq!(read("<14>red\x1b[31m\r\nalert\x07"), told("info", "", "red [31m  alert"));
        assert_eq!(Message::parse(b"<14>\x00\n"), None);
        assert_eq!(Message::parse(b"<14>\xff\xfe").unwrap().text, "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_or_more_than_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for bytes in [bytes.clone(), [b"<34>1 ".as_slice(), &bytes].concat(), [b"<34>Oct 11 22:14:15 ".as_slice(), &bytes].concat()] {
                if let Some(message) = Message::parse(&bytes) {
                    prop_assert!(!message.text.contains(char::is_control) && !message.program.contains(char::is_control));
                    prop_assert!(message.program.chars().count() <= 2 * MAX_PROGRAM + 2);
                }
            }
        }

        #[test]
        fn frames_come_out_however_the_stream_is_cut(
            texts in proptest::collection::vec("[ -~]{1,40}", 1..8),
            counted in any::<bool>(),
            cuts in proptest::collection::vec(1_usize..30, 1..40),
        ) {
            let texts: Vec<String> = texts.iter().map(|text| format!("<14>{text}")).collect();
            let stream: String = texts
                .iter()
                .map(|text| if counted { format!("{} {text}", text.len()) } else { format!("{text}\n") })
                .collect();
            let (mut framer, mut found, mut rest) = (Framer::default(), Vec::new(), stream.as_bytes());
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (part, left) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                framer.push(part, |frame| found.push(String::from_utf8(frame.to_vec()).unwrap()));
                rest = left;
            }
            prop_assert_eq!(found, texts);
        }
    }
}
