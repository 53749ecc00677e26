//! Netascii (RFC 764 as RFC 1350 §1 uses it): LF travels as CR LF, a lone CR as CR NUL.
//!
//! Some clients ask for it unless told otherwise (tftp-hpa's does), and undo it when they write the file:
//! serving the plain bytes to them would lose every CR before an LF in a program.

/// The bytes as netascii.
pub fn encode(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 64);
    for &byte in plain {
        match byte {
            b'\n' => out.extend(b"\r\n"),
            b'\r' => out.extend(b"\r\0"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn line_ends_and_lone_returns_travel_in_pairs() {
        assert_eq!(super::encode(b"a\nb\rc\r\nd\0"), b"a\r\nb\r\0c\r\0\r\nd\0");
    }
}
