//! What a machine writes on its serial port, as lines that a terminal may be given.

/// A longer line is cut in pieces.
const LONGEST: usize = 2000;

/// Takes bytes, gives lines: without escape sequences, and without other characters that a terminal obeys.
#[derive(Debug, Default)]
pub struct Console {
    rest: Vec<u8>,
}

impl Console {
    /// Adds what has come, and gives the lines that it ended.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.rest.len() >= LONGEST {
                lines.push(harmless(&self.rest));
                self.rest.clear();
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
        lines
    }

    /// The line that has no end yet, such as a prompt.
    pub fn unfinished(&self) -> String {
        harmless(&self.rest)
    }
}

/// The text of a line: escape sequences (ECMA-48 §5.4, §5.6) are left out, and what else controls a terminal.
fn harmless(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut chars = text.chars().peekable();
    let mut clean = String::with_capacity(text.len());
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => match chars.next() {
                // A control sequence ends with a byte from '@' on, parameters come before it.
                Some('[') => drop(chars.by_ref().find(|end| ('@'..='~').contains(end))),
                // A string ends with BEL or ESC \.
                Some(']' | 'P' | '_' | '^' | 'X') => {
                    while let Some(end) = chars.next() {
                        if end == '\u{7}' || (end == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                // Others have intermediate bytes, then one more.
                Some(' '..='/') => drop(chars.by_ref().find(|end| ('0'..='~').contains(end))),
                _ => {}
            },
            '\t' => clean.push_str("    "),
            '\r' | '\u{7}' | '\u{8}' | '\0' => {}
            // Bidirectional controls show a line as another one.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => clean.push('\u{fffd}'),
            char if char.is_control() => clean.push('\u{fffd}'),
            char => clean.push(char),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_prompts_as_they_stand() {
        let mut console = Console::default();
        assert_eq!(console.push(b"Linux ver"), Vec::<String>::new());
        assert_eq!(console.push(b"sion 6.1\r\n\r\nweb1 login: "), ["Linux version 6.1", ""]);
        assert_eq!(console.unfinished(), "web1 login: ");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (raw, clean) in [
            (&b"\x1b[0;32m  OK  \x1b[0m] Started"[..], "  OK  ] Started"),
            (b"\x1b]0;title\x07x\x1b]2;other\x1b\\y", "xy"),
            (b"\x1bc\x1b(Bz\x1b[2Jq", "zq"),
            (b"\x1bPq#0\x1b\\after", "after"),
            (b"a\tb\x01c\x9b2Jd", "a    b\u{fffd}c\u{fffd}2Jd"),
            ("\u{9b}2J\u{202e}evil".as_bytes(), "\u{fffd}2J\u{fffd}evil"),
            (b"\x1b[31", ""),
            (b"\x1b", ""),
        ] {
            assert_eq!(harmless(raw), clean, "{raw:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut console = Console::default();
        let lines = console.push(&[b'x'; 2 * LONGEST + 5]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LONGEST, LONGEST]);
        assert_eq!(console.unfinished().len(), 5);
    }
}
