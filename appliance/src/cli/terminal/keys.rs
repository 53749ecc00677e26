//! Keys out of the bytes that terminals send for them (ECMA-48, and what xterm, the kernel's screen and the VT220 add).

/// The longest sequence that is waited for.
const LONGEST: usize = 16;
const ESCAPE: u8 = 0x1b;

/// What was typed, or what the terminal said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable character of ASCII: names, addresses and serial numbers have no other.
    Text(char),
    /// With the control key, such as `l`.
    Control(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    /// The answer to a question for the cursor's place: rows and columns, from 1.
    Cursor(u16, u16),
}

/// Reads bytes as they come. A sequence may come in pieces: a serial line is slow.
#[derive(Debug, Default)]
pub struct Decoder {
    open: Vec<u8>,
}

impl Decoder {
    /// Takes one byte.
    pub fn take(&mut self, byte: u8) -> Option<Key> {
        if self.open.is_empty() {
            return self.first(byte);
        }
        // An escape inside a sequence begins another.
        if byte == ESCAPE {
            let lone = self.open.len() == 1;
            self.open = vec![ESCAPE];
            return lone.then_some(Key::Escape);
        }
        // What is too long to mean anything is heard to its end all the same.
        if self.open.len() < LONGEST {
            self.open.push(byte);
        }
        let is_over = match self.open[1] {
            b'[' => self.open.len() > 2 && (0x40..=0x7e).contains(&byte) && !(self.open.len() == 3 && byte == b'['),
            b'O' => self.open.len() == 3,
            _ => true,
        };
        if is_over {
            let sequence = std::mem::take(&mut self.open);
            return meaning(&sequence[1..]);
        }
        None
    }

    fn first(&mut self, byte: u8) -> Option<Key> {
        match byte {
            ESCAPE => {
                self.open.push(byte);
                None
            }
            b'\r' | b'\n' => Some(Key::Enter),
            b'\t' => Some(Key::Tab),
            0x7f | 0x08 => Some(Key::Backspace),
            0x01..=0x1a => Some(Key::Control((byte - 1 + b'a').into())),
            0x20..=0x7e => Some(Key::Text(byte.into())),
            _ => None,
        }
    }

    /// Whether the rest of a sequence is waited for.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Nothing more came: an escape alone was the key of that name.
    pub fn close(&mut self) -> Option<Key> {
        let open = std::mem::take(&mut self.open);
        (open == [ESCAPE]).then_some(Key::Escape)
    }
}

/// Of a sequence without its escape.
fn meaning(sequence: &[u8]) -> Option<Key> {
    let (&kind, &last) = (sequence.first()?, sequence.last()?);
    // The kernel's screen sends its function keys with two brackets.
    if !matches!(kind, b'[' | b'O') || sequence.starts_with(b"[[") {
        return None;
    }
    let parameters: Vec<u16> = std::str::from_utf8(&sequence[1..sequence.len() - 1])
        .ok()?
        .split(';')
        .map(|number| number.parse().unwrap_or_default())
        .collect();
    match (last, parameters.as_slice()) {
        (b'A', _) => Some(Key::Up),
        (b'B', _) => Some(Key::Down),
        (b'C', _) => Some(Key::Right),
        (b'D', _) => Some(Key::Left),
        (b'H', _) | (b'~', [1 | 7]) => Some(Key::Home),
        (b'F', _) | (b'~', [4 | 8]) => Some(Key::End),
        (b'Z', _) => Some(Key::BackTab),
        (b'M', _) if kind == b'O' => Some(Key::Enter),
        (b'~', [5]) => Some(Key::PageUp),
        (b'~', [6]) => Some(Key::PageDown),
        (b'~', [3]) => Some(Key::Backspace),
        (b'R', [row, column]) => Some(Key::Cursor(*row, *column)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys: Vec<Key> = bytes.iter().filter_map(|byte| decoder.take(*byte)).collect();
        keys.extend(decoder.close());
        keys
    }

    #[test]
    fn terminals_differ_in_what_they_send_for_a_key() {
        for up in [b"\x1b[A".as_slice(), b"\x1bOA", b"\x1b[1;5A"] {
            assert_eq!(keys(up), [Key::Up], "{up:?}");
        }
        assert_eq!(keys(b"a\r\x7f\x08\t\x1b[Z\x0c"), {
            use Key::*;
            [Text('a'), Enter, Backspace, Backspace, Tab, BackTab, Control('l')]
        });
        assert_eq!(keys(b"\x1b[24;80R"), [Key::Cursor(24, 80)]);
        assert_eq!(keys(b"\x1b[5~\x1b[6~\x1b[1~\x1bOF"), [Key::PageUp, Key::PageDown, Key::Home, Key::End]);
    }

    #[test]
    fn an_escape_alone_is_a_key_once_nothing_follows() {
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b\x1b[B"), [Key::Escape, Key::Down]);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.take(ESCAPE), None);
        assert!(decoder.is_open());
        assert_eq!((decoder.take(b'['), decoder.take(b'B')), (None, Some(Key::Down)));
        assert!(!decoder.is_open());
    }

    #[test]
    fn noise_of_a_line_is_no_key() {
        assert_eq!(keys(b"\xff\xfe\x00\xc3\xa9"), []);
        assert_eq!(keys(b"\x1b[999999999999999999999x\x1b[[Ab"), [Key::Text('b')]);
    }
}
