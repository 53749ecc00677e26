//! Messages in a TCP stream (RFC 6587): each after its length (§3.4.1), or each on a line (§3.4.2), told apart by how it
//! begins.

/// Bytes of a message that are kept; RFC 5424 §6.1 wants 2048 to be taken.
pub const MAX_MESSAGE: usize = 8192;
/// A length of more digits is none.
const MAX_DIGITS: usize = 7;

/// Takes messages out of a stream. It holds one message at most, and of a longer one its beginning.
#[derive(Debug, Default)]
pub struct Framer {
    held: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A message begins here.
    #[default]
    Between,
    /// In the digits of a length.
    Length(usize, usize),
    /// So many bytes are to come.
    Counted(usize),
    /// Until the end of the line.
    Line,
}

impl Framer {
    /// Takes the next bytes, and gives every message that is whole to `each`.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(byte) = rest.first().copied() {
            match self.state {
                State::Between | State::Length(..) => {
                    rest = &rest[1..];
                    self.begin(byte);
                }
                State::Counted(wanted) => {
                    let (part, left) = rest.split_at(wanted.min(rest.len()));
                    self.keep(part);
                    rest = left;
                    self.state = State::Counted(wanted - part.len());
                    if wanted == part.len() {
                        self.end(&mut each);
                    }
                }
                State::Line => {
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | 0));
                    self.keep(&rest[..end.unwrap_or(rest.len())]);
                    rest = end.map_or(&[], |end| &rest[end + 1..]);
                    if end.is_some() {
                        self.end(&mut each);
                    }
                }
            }
        }
    }

    /// The stream ended: what is held may be a message without an end.
    pub fn finish(mut self, mut each: impl FnMut(&[u8])) {
        self.end(&mut each);
    }

    fn begin(&mut self, byte: u8) {
        let (so_far, digits) = match self.state {
            State::Length(so_far, digits) => (so_far, digits),
            _ => (0, 0),
        };
        self.state = match byte {
            b'1'..=b'9' if digits < MAX_DIGITS => State::Length(so_far * 10 + usize::from(byte - b'0'), digits + 1),
            b'0' if (1..MAX_DIGITS).contains(&digits) => State::Length(so_far * 10, digits + 1),
            b' ' if digits > 0 => State::Counted(so_far),
            b'\n' | b'\r' | 0 if digits == 0 => State::Between,
            _ => {
                if digits > 0 {
                    self.held.extend(so_far.to_string().bytes());
                }
                self.held.push(byte);
                State::Line
            }
        };
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_MESSAGE - self.held.len().min(MAX_MESSAGE);
        self.held.extend(&part[..part.len().min(room)]);
    }

    fn end(&mut self, each: &mut impl FnMut(&[u8])) {
        if !self.held.is_empty() {
            each(&self.held);
        }
        self.held.clear();
        self.state = State::Between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parts: &[&[u8]]) -> Vec<String> {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for part in parts {
            framer.push(part, |frame| found.push(String::from_utf8_lossy(frame).into_owned()));
        }
        framer.finish(|frame| found.push(String::from_utf8_lossy(frame).into_owned()));
        found
    }

    #[test]
    fn both_framings_are_taken_even_in_one_stream() {
        assert_eq!(frames(&[b"7 <14>a\nb", b"<14>c\n\n5 <14>d<14>e"]), ["<14>a\nb", "<14>c", "<14>d", "<14>e"]);
    }

    #[test]
    fn a_message_without_an_end_takes_no_more_than_one_message() {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for _ in 0..100 {
            framer.push(&[b'x'; 4096], |frame| found.push(frame.len()));
            assert!(framer.held.capacity() <= 4 * MAX_MESSAGE);
        }
        framer.push(b"\nnext\n", |frame| found.push(frame.len()));
        assert_eq!(found, [MAX_MESSAGE, 4]);
        assert_eq!(frames(&[b"9999999 x", &[b'y'; 100]]), [format!("x{}", "y".repeat(100))]);
        assert_eq!(frames(&[b"99999999 x\n"]), ["99999999 x"], "no length has eight digits");
    }
}
