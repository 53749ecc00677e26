//! An HTTP/1.1 response as it comes from the wire (RFC 9112).

use super::HttpError;
use std::io::{BufRead, Read};

/// No head of ours is longer; a server that sends more is not one of ours.
const HEAD_LIMIT: usize = 16 * 1024;

/// A response whose body is still to be read.
pub struct Response<R> {
    /// The status code.
    pub status: u16,
    fields: Vec<(String, String)>,
    /// The rest.
    pub body: Body<R>,
}

/// A body: reads to its end, and tells a cut connection from an end.
pub struct Body<R> {
    source: R,
    framing: Framing,
}

/// How the end of a body is known (RFC 9112 §6.3).
enum Framing {
    Length(u64),
    Chunked { left: u64, first: bool, done: bool },
    UntilClose,
}

/// `Content-Range: bytes <first>-<last>/<whole>` (RFC 9110 §14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Offset of the first byte sent.
    pub first: u64,
    /// Length of the whole, when the server knows it.
    pub whole: Option<u64>,
}

impl<R: BufRead> Response<R> {
    /// Reads the head. Interim responses (1xx) are skipped.
    pub fn read(mut source: R) -> Result<Self, HttpError> {
        loop {
            let (status, fields) = head(&mut source)?;
            if (100..200).contains(&status) {
                continue;
            }
            let framing = framing(status, &fields)?;
            return Ok(Self { status, fields, body: Body { source, framing } });
        }
    }

    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// Which part of the whole this is.
    pub fn content_range(&self) -> Option<ContentRange> {
        let (range, whole) = self.field("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let first = range.split_once('-')?.0.trim().parse().ok()?;
        Some(ContentRange { first, whole: whole.trim().parse().ok() })
    }

    /// How long the body is, when the head says it.
    pub fn length(&self) -> Option<u64> {
        match self.body.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        }
    }

    /// The body as text for people and parsers, at most `limit` bytes of it.
    pub fn text(self, limit: u64) -> Result<String, HttpError> {
        String::from_utf8(self.bytes(limit)?).map_err(|_| HttpError::Malformed("the answer is not UTF-8 text".into()))
    }

    /// The body, at most `limit` bytes of it.
    pub fn bytes(mut self, limit: u64) -> Result<Vec<u8>, HttpError> {
        let mut bytes = Vec::new();
        (&mut self.body).take(limit + 1).read_to_end(&mut bytes).map_err(HttpError::Body)?;
        if bytes.len() as u64 > limit {
            return Err(HttpError::Malformed(format!("the answer is longer than {limit} bytes")));
        }
        Ok(bytes)
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn head(source: &mut impl BufRead) -> Result<(u16, Vec<(String, String)>), HttpError> {
    let mut source = source.take(HEAD_LIMIT as u64);
    let mut next = || -> Result<String, HttpError> {
        let mut line = Vec::new();
        source.read_until(b'\n', &mut line).map_err(HttpError::Head)?;
        if line.pop() != Some(b'\n') {
            return Err(HttpError::Head(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    };
    let start = next()?;
    let status = start
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .filter(|code| (100..600).contains(code))
        .ok_or_else(|| HttpError::Malformed(format!("no HTTP status line: {:.60}", start.escape_debug())))?;
    let mut fields = Vec::new();
    loop {
        let line = next()?;
        if line.is_empty() {
            return Ok((status, fields));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| HttpError::Malformed(format!("no header field: {:.60}", line.escape_debug())))?;
        fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
}

fn framing(status: u16, fields: &[(String, String)]) -> Result<Framing, HttpError> {
    if matches!(status, 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if let Some(coding) = field(fields, "transfer-encoding") {
        if coding.eq_ignore_ascii_case("chunked") {
            return Ok(Framing::Chunked { left: 0, first: true, done: false });
        }
        return Err(HttpError::Malformed(format!("transfer coding {coding} is not understood")));
    }
    match field(fields, "content-length") {
        None => Ok(Framing::UntilClose),
        Some(length) => {
            let length = length.parse().map_err(|_| HttpError::Malformed(format!("Content-Length {length}")))?;
            Ok(Framing::Length(length))
        }
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Framing::Chunked { left: 0, done: false, .. } = self.framing {
            self.next_chunk()?;
        }
        let most = match &self.framing {
            Framing::Length(left) | Framing::Chunked { left, done: false, .. } => *left,
            Framing::Chunked { done: true, .. } => 0,
            Framing::UntilClose => u64::MAX,
        };
        if most == 0 {
            return Ok(0);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.source.read(&mut buffer[..most])?;
        match &mut self.framing {
            Framing::UntilClose => {}
            _ if read == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Framing::Length(left) | Framing::Chunked { left, .. } => *left -= read as u64,
        }
        Ok(read)
    }
}

impl<R: BufRead> Body<R> {
    /// Reads the line with the size of the next chunk; after the last one also the trailer (RFC 9112 §7.1).
    fn next_chunk(&mut self) -> std::io::Result<()> {
        let Framing::Chunked { left, first, done } = &mut self.framing else { return Ok(()) };
        if !*first {
            line(&mut self.source)?;
        }
        *first = false;
        let size = line(&mut self.source)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        *left = u64::from_str_radix(digits, 16)
            .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "bad chunk size"))?;
        if *left == 0 {
            while !line(&mut self.source)?.is_empty() {}
            *done = true;
        }
        Ok(())
    }
}

fn line(source: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    source.take(1024).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &str) -> Result<Response<&[u8]>, HttpError> {
        Response::read(wire.as_bytes())
    }

    #[test]
    fn length_ends_the_body() {
        let response = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloXXX").unwrap();
        assert_eq!((response.status, response.length()), (200, Some(5)));
        assert_eq!(response.text(100).unwrap(), "hello");
    }

    #[test]
    fn chunks_are_joined_and_the_trailer_skipped() {
        let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n";
        assert_eq!(read(wire).unwrap().text(100).unwrap(), "hello");
    }

    #[test]
    fn without_a_length_the_close_ends_it() {
        assert_eq!(read("HTTP/1.0 200 OK\n\nhello").unwrap().text(100).unwrap(), "hello");
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").unwrap().text(100).unwrap(), "");
    }

    #[test]
    fn a_cut_is_an_error_not_an_end() {
        for wire in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ] {
            assert!(matches!(read(wire).unwrap().text(100), Err(HttpError::Body(_))), "{wire}");
        }
        assert!(matches!(read("HTTP/1.1 200 OK\r\nContent-Le"), Err(HttpError::Head(_))));
        assert!(matches!(read(""), Err(HttpError::Head(_))));
    }

    #[test]
    fn ranges_and_interim_responses() {
        let wire = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial Content\r\ncontent-range: bytes 10-19/20\r\nContent-Length: 0\r\n\r\n";
        let response = read(wire).unwrap();
        assert_eq!(
            (response.status, response.content_range()),
            (206, Some(ContentRange { first: 10, whole: Some(20) }))
        );
        let unknown = read("HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/*\r\n\r\n").unwrap();
        assert_eq!(unknown.content_range(), Some(ContentRange { first: 5, whole: None }));
    }

    #[test]
    fn strangers_and_giants_are_refused() {
        for wire in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n"] {
            assert!(matches!(read(wire), Err(HttpError::Malformed(_))), "{wire}");
        }
        let giant = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(HEAD_LIMIT));
        assert!(read(&giant).is_err());
        let long =
            read("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n01234567890123456789012345678901234567890123456789");
        assert!(matches!(long.unwrap().text(10), Err(HttpError::Malformed(_))));
        assert!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n").is_err());
    }
}
