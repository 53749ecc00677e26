//! Lines of a machine's log on their way to the appliance: syslog messages (RFC 5424) with an element that proves from
//! which boot they are. Anybody on the wire can send a datagram in another's name, and everything that a machine says is
//! looked at by people who act on it.

use serde::{Deserialize, Serialize};

/// Kernel argument that keeps a machine's logs at home: `bennu.logs=off`, or `bennu.logs=stage1` for those of its system
/// alone. Also in an image's arguments, or in a profile's.
pub const ARG_LOGS: &str = "bennu.logs";

/// How the element begins (RFC 5424 §6.3.2). 32473 is the enterprise number of examples (RFC 5612): there is no need for
/// one that others know, since an appliance alone reads what its own stage 1 wrote.
const ELEMENT: &str = "[bennu@32473 seq=\"";
const MAC: &str = "\" mac=\"";
const END: &str = "\"]";

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsWanted {
    /// Syslog's port at the appliance's address, TCP and UDP.
    pub port: u16,
    /// Whether the booted system's journal is wanted too.
    pub system: bool,
}

/// What the proof of a line is made over: the message but its element. `sequence` is greater with each line of a boot.
pub fn proved_line(sequence: u64, head: &[u8], said: &[u8]) -> Vec<u8> {
    [format!("bennu log {sequence}\n").as_bytes(), head, b"\n", said].concat()
}

/// The message: `head` is everything before its structured data, `said` what follows after a space.
pub fn log_message(sequence: u64, head: &str, said: &str, mac: impl FnOnce(&[u8]) -> String) -> String {
    let mac = mac(&proved_line(sequence, head.as_bytes(), said.as_bytes()));
    format!("{head}{ELEMENT}{sequence}{MAC}{mac}{END} {said}")
}

/// What a message says of its boot, not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogClaim {
    /// Greater with each line.
    pub sequence: u64,
    /// The proof.
    pub mac: [u8; 32],
    /// What it is to be over.
    pub proved: Vec<u8>,
}

impl LogClaim {
    /// Reads a message; `None` where it claims nothing.
    pub fn of(message: &[u8]) -> Option<Self> {
        // VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID and MSGID hold no space, and one stands after each.
        let (at, _) = message.iter().enumerate().filter(|(_, byte)| **byte == b' ').nth(5)?;
        let (head, rest) = message.split_at(at + 1);
        let rest = rest.strip_prefix(ELEMENT.as_bytes())?;
        let quote = rest.iter().take(21).position(|byte| *byte == b'"')?;
        let sequence = std::str::from_utf8(&rest[..quote]).ok()?.parse().ok()?;
        let (mac, rest) = rest[quote..].strip_prefix(MAC.as_bytes())?.split_at_checked(64)?;
        let crate::SessionKey(mac) = std::str::from_utf8(mac).ok()?.parse().ok()?;
        let said = rest.strip_prefix(END.as_bytes())?.strip_prefix(b" ")?;
        Some(Self { sequence, mac, proved: proved_line(sequence, head, said) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<14>1 - - sshd 812 - ";

    #[test]
    fn what_is_claimed_is_what_was_written() {
        let mut proved = Vec::new();
        let message = log_message(7, HEAD, "no [entry] \"here\"", |over| {
            proved = over.to_vec();
            "07".repeat(32)
        });
        assert!(message.starts_with("<14>1 - - sshd 812 - [bennu@32473 seq=\"7\" mac=\"0707"), "{message}");
        assert!(message.ends_with("07\"] no [entry] \"here\""), "{message}");
        let claim = LogClaim::of(message.as_bytes()).unwrap();
        assert_eq!((claim.sequence, claim.mac, claim.proved), (7, [7; 32], proved));
    }

    #[test]
    fn nothing_else_claims_anything() {
        let message = log_message(7, HEAD, "text", |_| "07".repeat(32));
        for cut in 0..message.len() - "text".len() {
            assert_eq!(LogClaim::of(&message.as_bytes()[..cut]), None, "{}", &message[..cut]);
        }
        for other in ["", "<14>1 - - - - - text", "a b c d e f [bennu@32473 seq=\"x\" mac=\"\"] t"] {
            assert_eq!(LogClaim::of(other.as_bytes()), None);
        }
        let behind_another = message.replace("[bennu", "[x y=\"1\"][bennu");
        assert_eq!(LogClaim::of(behind_another.as_bytes()), None);
    }

    #[test]
    fn each_part_of_a_line_is_under_its_proof() {
        let over = |sequence, head: &str, said: &str| proved_line(sequence, head.as_bytes(), said.as_bytes());
        let line = over(1, HEAD, "text");
        assert_ne!(line, over(11, HEAD, "text"));
        assert_ne!(line, over(1, "<11>1 - - sshd 812 - ", "text"));
        assert_ne!(line, over(1, HEAD, "text."));
        assert_ne!(line, crate::proved(1, b"text"), "a report's proof is not a line's");
    }
}
