//! TFTP packets on the wire (RFC 1350 §5, RFC 2347).

use std::fmt;

/// The largest payload of one DATA packet (RFC 2348).
pub const MAX_BLKSIZE: u16 = 65_464;
/// Opcode and block number before every payload.
pub const DATA_HEADER: usize = 4;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OPTION_ACK: u16 = 6;

/// What one datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// RRQ.
    Read(Request),
    /// WRQ.
    Write(Request),
    /// DATA.
    Data {
        /// Number of the block, counting from 1 and wrapping to 0.
        block: u16,
        /// The block.
        payload: Vec<u8>,
    },
    /// ACK of everything up to this block.
    Ack(u16),
    /// ERROR; ends the transfer.
    Error {
        /// What kind.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// OACK, with the options in the order they were asked.
    OptionAck(Vec<(String, String)>),
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The name as written. Bytes that are no UTF-8 become U+FFFD, which no served name holds.
    pub name: String,
    /// How it wants the bytes.
    pub mode: Mode,
    /// Option names in lower case (RFC 2347: they are case-blind) and values as written.
    pub options: Vec<(String, String)>,
}

impl Request {
    /// The first value of an option; RFC 2347 allows each once.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Transfer modes (RFC 1350 §1), read without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Bytes as they are.
    Octet,
    /// Text with CR LF line ends.
    Netascii,
    /// `mail` or unknown.
    Other(String),
}

impl Mode {
    fn read(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "octet" => Self::Octet,
            "netascii" => Self::Netascii,
            other => Self::Other(other.to_owned()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Octet => "octet",
            Self::Netascii => "netascii",
            Self::Other(other) => other,
        }
    }
}

/// Error codes (RFC 1350 §5, RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// See the message.
    pub const UNDEFINED: Self = Self(0);
    /// File not found.
    pub const NOT_FOUND: Self = Self(1);
    /// Access violation.
    pub const ACCESS: Self = Self(2);
    /// Illegal TFTP operation.
    pub const ILLEGAL: Self = Self(4);
    /// Unknown transfer ID.
    pub const UNKNOWN_TID: Self = Self(5);
    /// The client does not like the options. EDK2 sends it after it has read `tsize`.
    pub const OPTIONS: Self = Self(8);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A datagram that is no TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its kind needs.
    #[error("the packet is cut short")]
    Short,
    /// The opcode is none of 1 to 6.
    #[error("opcode {0} does not exist")]
    Opcode(u16),
    /// A text without its closing NUL.
    #[error("a text in the packet has no end")]
    Unterminated,
}

impl Packet {
    /// Reads a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let (opcode, rest) = take_u16(datagram)?;
        match opcode {
            READ => Ok(Self::Read(parse_request(rest)?)),
            WRITE => Ok(Self::Write(parse_request(rest)?)),
            DATA => take_u16(rest).map(|(block, payload)| Self::Data { block, payload: payload.to_vec() }),
            ACK => take_u16(rest).map(|(block, _)| Self::Ack(block)),
            ERROR => {
                let (code, text) = take_u16(rest)?;
                // The closing NUL of the message is missing in some firmware; the code is what counts.
                let message = text.split(|&b| b == 0).next().unwrap_or_default();
                Ok(Self::Error { code: ErrorCode(code), message: printable(message) })
            }
            OPTION_ACK => Ok(Self::OptionAck(parse_options(rest))),
            other => Err(Malformed::Opcode(other)),
        }
    }

    /// Writes the datagram at the end of `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Read(request) => encode_request(READ, request, out),
            Self::Write(request) => encode_request(WRITE, request, out),
            Self::Data { block, payload } => {
                out.extend(data_header(*block));
                out.extend(payload);
            }
            Self::Ack(block) => {
                put_u16(out, ACK);
                put_u16(out, *block);
            }
            Self::Error { code, message } => {
                put_u16(out, ERROR);
                put_u16(out, code.0);
                put_text(out, message);
            }
            Self::OptionAck(options) => {
                put_u16(out, OPTION_ACK);
                put_options(out, options);
            }
        }
    }

    /// The datagram alone.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

/// What precedes the payload of a block, for a sender that puts the payload straight behind it.
pub fn data_header(block: u16) -> [u8; DATA_HEADER] {
    let ([a, b], [c, d]) = (DATA.to_be_bytes(), block.to_be_bytes());
    [a, b, c, d]
}

fn parse_request(rest: &[u8]) -> Result<Request, Malformed> {
    let (name, rest) = take_text(rest)?;
    let (mode, rest) = take_text(rest)?;
    Ok(Request {
        name: String::from_utf8_lossy(name).into_owned(),
        mode: Mode::read(&String::from_utf8_lossy(mode)),
        options: parse_options(rest),
    })
}

/// Whole pairs only: some ROMs pad the request with bytes that mean nothing.
fn parse_options(mut rest: &[u8]) -> Vec<(String, String)> {
    let mut options = Vec::new();
    while let Ok((name, after)) = take_text(rest)
        && let Ok((value, after)) = take_text(after)
        && !name.is_empty()
    {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        options.push((name, String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    options
}

fn encode_request(opcode: u16, request: &Request, out: &mut Vec<u8>) {
    put_u16(out, opcode);
    put_text(out, &request.name);
    put_text(out, request.mode.as_str());
    put_options(out, &request.options);
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Malformed::Short)?;
    Ok((u16::from_be_bytes(*head), rest))
}

fn take_text(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(Malformed::Unterminated)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&b| b != 0));
    out.push(0);
}

fn put_options(out: &mut Vec<u8>, options: &[(String, String)]) {
    for (name, value) in options {
        put_text(out, name);
        put_text(out, value);
    }
}

/// A peer's text, fit for a log line.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_request_of_edk2_is_read() {
        let wire = b"\0\x01snponly.efi\0OCTET\0TSize\x000\0BLKSIZE\x001468\0windowsize\x004\0";
        let Ok(Packet::Read(request)) = Packet::parse(wire) else { panic!("no read request") };
        assert_eq!((request.name.as_str(), &request.mode), ("snponly.efi", &Mode::Octet));
        assert_eq!(
            ["tsize", "blksize", "windowsize", "timeout"].map(|name| request.option(name)),
            [Some("0"), Some("1468"), Some("4"), None]
        );
    }

    #[test]
    fn padding_behind_a_request_means_nothing() {
        let wire = b"\0\x01a\0netASCII\0blksize\x00512\0\0\0\0\xff\xff";
        let Ok(Packet::Read(request)) = Packet::parse(wire) else { panic!("no read request") };
        assert_eq!(request.mode, Mode::Netascii);
        assert_eq!(request.options, [("blksize".to_owned(), "512".to_owned())]);
    }

    #[test]
    fn broken_packets_are_refused() {
        for (wire, error) in [
            (&b""[..], Malformed::Short),
            (b"\0", Malformed::Short),
            (b"\0\x04\0", Malformed::Short),
            (b"\0\x03\x01", Malformed::Short),
            (b"\0\x05", Malformed::Short),
            (b"\0\x00", Malformed::Opcode(0)),
            (b"\0\x07ab", Malformed::Opcode(7)),
            (b"\0\x01name", Malformed::Unterminated),
            (b"\0\x01name\0octet", Malformed::Unterminated),
        ] {
            assert_eq!(Packet::parse(wire), Err(error), "{wire:?}");
        }
    }

    #[test]
    fn an_error_without_its_closing_nul_is_read() {
        let read = Packet::parse(b"\0\x05\0\x08User\naborted");
        assert_eq!(read, Ok(Packet::Error { code: ErrorCode::OPTIONS, message: "User?aborted".to_owned() }));
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-z0-9./ _-]{1,20}"
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let mode = prop_oneof![Just(Mode::Octet), Just(Mode::Netascii), Just(Mode::Other("mail".into()))];
        (text(), mode, proptest::collection::vec((text(), text()), 0..4)).prop_map(|(name, mode, options)| Request {
            name,
            mode,
            options,
        })
    }

    fn any_packet() -> impl Strategy<Value = Packet> {
        prop_oneof![
            any_request().prop_map(Packet::Read),
            any_request().prop_map(Packet::Write),
            (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..600))
                .prop_map(|(block, payload)| Packet::Data { block, payload }),
            any::<u16>().prop_map(Packet::Ack),
            (any::<u16>(), text()).prop_map(|(code, message)| Packet::Error { code: ErrorCode(code), message }),
            proptest::collection::vec((text(), text()), 0..4).prop_map(Packet::OptionAck),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(packet in any_packet()) {
            prop_assert_eq!(Packet::parse(&packet.to_bytes()), Ok(packet));
        }

        #[test]
        fn no_datagram_panics(opcode in 0u8..8, rest in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Packet::parse(&[&[0, opcode][..], &rest].concat());
        }
    }
}
