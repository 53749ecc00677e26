//! A line of a log, and the message that it becomes.

use crate::session::Proof;

/// Bytes of text in a message: with its head and its proof it is well within what the appliance takes (8192).
pub const MOST_TEXT: usize = 6000;
/// Characters of APP-NAME and of PROCID (RFC 5424 §6).
const MOST_PROGRAM: usize = 48;
const MOST_PROCESS: usize = 32;

/// The facility of what programs say, where they name none (RFC 5424 table 1).
pub const USER: u8 = 1;
/// Severities (RFC 5424 table 2).
pub const ERROR: u8 = 3;
pub const NOTICE: u8 = 5;
pub const INFO: u8 = 6;
pub const DEBUG: u8 = 7;

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    pub facility: u8,
    pub severity: u8,
    pub program: String,
    pub process: String,
    pub text: String,
}

impl Line {
    /// The message of RFC 5424 §6. Time and host name are left out: the appliance goes by its own clock, and by the
    /// address. What is empty becomes no message.
    pub fn message(&self, sequence: u64, proof: &Proof) -> Option<String> {
        let said = fit(&self.text);
        if said.is_empty() {
            return None;
        }
        let priority = self.facility.min(23) * 8 + self.severity.min(7);
        let (program, process) = (field(&self.program, MOST_PROGRAM), field(&self.process, MOST_PROCESS));
        let head = format!("<{priority}>1 - - {program} {process} - ");
        Some(bennu_plan::log_message(sequence, &head, &said, |proved| proof.mac(proved)))
    }
}

/// One line of text, not too long, without control characters.
fn fit(text: &str) -> String {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A field of the head: printable ASCII without spaces, or `-` for none.
fn field(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let text: String = text.chars().take(most).map(plain).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Takes a program's name, and its number in brackets, from the beginning of what it said (RFC 3164 §4.1.3).
pub fn tagged(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_./@".contains(c)))?;
    let (program, rest) = text.split_at(end);
    if program.is_empty() {
        return None;
    }
    let (process, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    Some((program, process, rest.strip_prefix(':')?.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_plan::LogClaim;
    use ring::hmac;

    #[test]
    fn a_message_is_whole_and_proved_whatever_was_said() {
        let secret = "07".repeat(32);
        let proof: Proof = serde_json::from_str(&format!("\"{secret}\"")).unwrap();
        let long = "é".repeat(MOST_TEXT);
        for (program, text, expected) in [
            ("sshd", "no entry", "<11>1 - - sshd 812 - [bennu@32473 seq=\"9\" mac=\""),
            ("a b\n", "red\x1b[31m\r\n", "<11>1 - - a_b_ 812 - [bennu@32473"),
            ("", long.as_str(), "<11>1 - - - 812 - ["),
        ] {
            let line = Line {
                facility: USER,
                severity: ERROR,
                program: program.into(),
                process: "812".into(),
                text: text.into(),
            };
            let message = line.message(9, &proof).unwrap();
            assert!(message.starts_with(expected) && message.len() < 8192, "{message}");
            assert!(!message.contains(char::is_control));
            let claim = LogClaim::of(message.as_bytes()).unwrap();
            assert_eq!(claim.sequence, 9);
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), &claim.proved, &claim.mac).unwrap();
        }
        assert_eq!(Line { text: " \n".into(), ..Line::default() }.message(9, &proof), None);
    }

    #[test]
    fn tags_are_told_from_text() {
        assert_eq!(tagged("systemd[1]: Started x: y"), Some(("systemd", "1", "Started x: y")));
        assert_eq!(tagged("cron: tick"), Some(("cron", "", "tick")));
        assert_eq!(tagged("no tag here"), None);
        assert_eq!(tagged(": x"), None);
        assert_eq!(tagged(""), None);
    }
}
