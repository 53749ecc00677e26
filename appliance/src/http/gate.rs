//! Strict framing, before hyper reads a request: what two readers could take for different requests (RFC 9112 §11.2)
//! is none.
//!
//! hyper takes what it is lenient with (bare line feeds, a length that is said twice, `#` in a target) and is right in
//! what it makes of it; a proxy in front of us may make something else of it. So the bytes of heads are looked at as they
//! come, bodies counted, and where a head breaks the rules its bytes become NUL, which no head may have: hyper answers
//! 400 and closes, after the answers to whatever came before.

/// A request's length may be said with so many digits.
const MOST_DIGITS: usize = 15;
/// A chunk's length may be said with so many hex digits.
const MOST_HEX_DIGITS: usize = 12;
/// So much of a line is kept: enough to know the headers that frame a request.
const KEPT: usize = 64;

/// Looks at all that comes over one connection.
#[derive(Debug, Default)]
pub struct Gate {
    at: At,
    /// The current line, or its first bytes.
    line: Vec<u8>,
    /// The current line's length.
    length: usize,
    lines: usize,
    after_return: bool,
    /// The body's length, once it was said.
    body: Option<u64>,
    /// Whether requests may be chunked at all.
    may_chunk: bool,
    /// Whether this one is.
    chunked: bool,
}

/// Where in a request the next byte is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    Body(u64),
    /// In the line that says a chunk's length.
    ChunkSize,
    /// In a chunk and the line end behind it.
    Chunk(u64),
    ChunkEnd,
    /// In the line end that stands for an empty trailer section.
    Trailer,
    /// Nothing passes any more.
    Closed,
}

impl Gate {
    /// A gate that lets chunked requests through, as long as they are framed to the letter (RFC 9112 §7.1): no extensions
    /// and no trailers, which readers differ about and no client of ours sends.
    pub fn with_chunks() -> Self {
        Self { may_chunk: true, ..Self::default() }
    }

    /// Looks at the next bytes, and spoils them from where they break the rules.
    pub fn pass(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.at {
                At::Body(left) => {
                    let skipped = left.min((bytes.len() - at) as u64);
                    at += skipped as usize;
                    self.at = if skipped == left { At::Head } else { At::Body(left - skipped) };
                }
                At::Chunk(left) => {
                    let skipped = left.min((bytes.len() - at) as u64);
                    at += skipped as usize;
                    self.at = if skipped == left { At::ChunkEnd } else { At::Chunk(left - skipped) };
                }
                At::Head | At::ChunkSize | At::ChunkEnd | At::Trailer => {
                    let passes = if self.at == At::Head { self.take(bytes[at]) } else { self.take_framing(bytes[at]) };
                    if !passes {
                        self.at = At::Closed;
                        continue;
                    }
                    at += 1;
                }
                At::Closed => return bytes[at..].fill(0),
            }
        }
    }

    /// Whether a byte of a head may be there.
    fn take(&mut self, byte: u8) -> bool {
        match (byte, self.after_return) {
            (b'\n', true) => {
                self.after_return = false;
                self.end_line()
            }
            // A line feed without its return, or a return without its line feed (RFC 9112 §2.2).
            (b'\n', false) | (_, true) | (0, _) => false,
            (b'\r', false) => {
                self.after_return = true;
                true
            }
            (byte, false) => {
                // A fragment is no part of a request's target (RFC 9112 §3.2), and some cut it off; others of these are
                // rewritten by some, such as a backslash to a slash.
                let may = self.lines > 0 || (byte < 0x7f && !matches!(byte, b'#' | b'\\' | b'"'));
                // A line that is folded, or blank but for space, belongs to no header (§5.2).
                let begins = self.length > 0 || !matches!(byte, b' ' | b'\t');
                if self.line.len() < KEPT {
                    self.line.push(byte);
                }
                self.length += 1;
                may && begins
            }
        }
    }

    /// Whether a byte of a chunk's framing may be there.
    fn take_framing(&mut self, byte: u8) -> bool {
        match (byte, self.after_return) {
            (b'\n', true) => {
                self.after_return = false;
                let line = std::mem::take(&mut self.line);
                self.at = match (self.at, chunk_length(&line)) {
                    (At::ChunkSize, Some(0)) => At::Trailer,
                    (At::ChunkSize, Some(length)) => At::Chunk(length),
                    (At::ChunkEnd, None) => At::ChunkSize,
                    (At::Trailer, None) => At::Head,
                    _ => return false,
                };
                true
            }
            (b'\r', false) => {
                self.after_return = true;
                true
            }
            (byte, false) if self.at == At::ChunkSize => {
                self.line.push(byte);
                byte.is_ascii_hexdigit() && self.line.len() <= MOST_HEX_DIGITS
            }
            _ => false,
        }
    }

    fn end_line(&mut self) -> bool {
        let (line, length) = (std::mem::take(&mut self.line), std::mem::take(&mut self.length));
        if length == 0 {
            // Before a request line an empty one is let pass (§2.2); after one it ends the head.
            if self.lines > 0 {
                self.lines = 0;
                self.at = match (self.body.take(), std::mem::take(&mut self.chunked)) {
                    (_, true) => At::ChunkSize,
                    (None | Some(0), false) => At::Head,
                    (Some(length), false) => At::Body(length),
                };
            }
            return true;
        }
        self.lines += 1;
        self.lines == 1 || self.header(&line, length)
    }

    /// Whether a header may be there; keeps the body's length.
    fn header(&mut self, line: &[u8], length: usize) -> bool {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return length > KEPT };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Together with a length, or twice, it is what smuggling is made of (RFC 9112 §6.1).
            let is_first = !std::mem::replace(&mut self.chunked, true) && self.body.is_none();
            return self.may_chunk && is_first && value.eq_ignore_ascii_case(b"chunked") && length <= KEPT;
        }
        if !name.eq_ignore_ascii_case(b"content-length") {
            return true;
        }
        let plain = (1..=MOST_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit) && length <= KEPT;
        let said = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).filter(|_| plain);
        !self.chunked && said.is_some_and(|said| self.body.replace(said).is_none())
    }
}

/// `None`: the line is empty.
fn chunk_length(line: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(line).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passes(bytes: &[u8]) -> bool {
        let mut passed = bytes.to_vec();
        Gate::default().pass(&mut passed);
        passed == bytes
    }

    #[test]
    fn requests_as_loaders_write_them_pass() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /a?b=c%00 HTTP/1.0\r\n\r\n",
            "POST /x HTTP/1.1\r\nContent-Length: 5\r\nHost:a\r\n\r\na\nb\0#GET / HTTP/1.1\r\nX: #\tb \r\n\r\n",
            "POST /x HTTP/1.1\r\ncontent-length:\t0 \r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(passes(request.as_bytes()), "{request:?}");
        }
    }

    #[test]
    fn what_two_readers_would_read_differently_does_not() {
        for head in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "GET /\0 HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(!passes(head.as_bytes()), "{head:?}");
            let after = format!("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc{head}");
            assert!(!passes(after.as_bytes()), "{after:?}");
        }
    }

    #[test]
    fn chunks_pass_where_they_may_and_are_framed_to_the_letter() {
        let request = |framing: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{framing}");
        let passes = |text: &str| {
            let mut passed = text.as_bytes().to_vec();
            Gate::with_chunks().pass(&mut passed);
            passed == text.as_bytes()
        };
        let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for framing in ["0\r\n\r\n", "5\r\na\nb\0#\r\n0\r\n\r\n", "1\r\n\r\r\nA\r\n0123456789\r\n000\r\n\r\n"] {
            assert!(passes(&request(framing)), "{framing:?}");
            assert!(passes(&format!("{}{next}", request(framing))), "{framing:?} and another request");
            assert!(!passes(&format!("{}GET / HTTP/1.1\n", request(framing))), "what follows is looked at too");
        }
        for framing in [
            "5;a=b\r\nabcde\r\n0\r\n\r\n",
            "5\nabcde\r\n0\r\n\r\n",
            "+5\r\nabcde\r\n0\r\n\r\n",
            "0x5\r\nabcde\r\n0\r\n\r\n",
            " 5\r\nabcde\r\n0\r\n\r\n",
            "\r\n",
            "5\r\nabcdef\r\n0\r\n\r\n",
            "5\r\nabcde0\r\n\r\n",
            "0\r\nX: y\r\n\r\n",
            "fffffffffffff\r\n",
            "5\r\r\n",
        ] {
            assert!(!passes(&request(framing)), "{framing:?}");
        }
        for headers in [
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: ",
        ] {
            assert!(!passes(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n")), "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(
            text in "(GET /[a#]? HTTP/1.1\r?\n(Content-Length: [0-9]{1,2}\r\n|X: [ -~]{0,70}\r\n){0,3}\r\n|[ab\n]{0,9}){0,4}",
            cuts in prop::collection::vec(1usize..20, 0..40),
        ) {
            let mut whole = text.clone().into_bytes();
            Gate::default().pass(&mut whole);
            let (mut parts, mut gate, mut from) = (text.into_bytes(), Gate::default(), 0usize);
            for length in cuts.into_iter().chain([usize::MAX]) {
                let to = from.saturating_add(length).min(parts.len());
                gate.pass(&mut parts[from..to]);
                from = to;
            }
            prop_assert_eq!(parts, whole);
        }
    }
}
