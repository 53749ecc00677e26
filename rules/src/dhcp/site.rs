//! DHCP options that people set by number, for a subnet or for one machine.

use super::options::code;
use serde::{Deserialize, Serialize, de};
use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

/// Options by number.
pub type SiteOptions = BTreeMap<OptionCode, OptionValue>;

/// The code of an option that people may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionCode(u8);

/// A value with the form in which it was written, such as `addresses:10.0.0.1,10.0.0.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// `text:…`
    Text(String),
    /// `hex:…`
    Hex(Vec<u8>),
    /// `addresses:…,…`
    Addresses(Vec<Ipv4Addr>),
    /// `u8:…`
    U8(u8),
    /// `u16:…`
    U16(u16),
    /// `u32:…`
    U32(u32),
}

/// A code or value that cannot be an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOption(String);

/// Longer than any option in use; a reply holds little more.
const MAX_LENGTH: usize = 512;

impl OptionCode {
    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The key of a subnet that sets this option.
    pub const fn key(self) -> Option<&'static str> {
        match self.0 {
            code::ROUTER => Some("router"),
            code::DNS => Some("dns"),
            code::DOMAIN_NAME => Some("domain"),
            code::MTU => Some("mtu"),
            code::NTP => Some("ntp"),
            code::DOMAIN_SEARCH => Some("domain_search"),
            _ => None,
        }
    }
}

/// Why an option is Bennu's own affair.
fn taken(number: u8) -> Option<&'static str> {
    Some(match number {
        code::PAD | code::END => "it is no option but a mark",
        code::SUBNET_MASK | code::BROADCAST => "it follows from the subnet's network",
        code::LEASE_TIME | code::RENEWAL_TIME | code::REBINDING_TIME => "it follows from lease_seconds",
        code::REQUESTED_ADDRESS | code::PARAMETERS | code::MAX_SIZE => "only clients send it (RFC 2131, table 3)",
        code::OVERLOAD | code::MESSAGE_TYPE | code::SERVER_ID | code::MESSAGE | code::CLIENT_ID => {
            "it is part of the protocol itself"
        }
        code::VENDOR | code::CLASS | code::TFTP_SERVER | code::BOOT_FILE | code::IPXE => {
            "it says what a machine boots, which Bennu decides"
        }
        code::ARCHITECTURE | code::INTERFACE | code::MACHINE_ID | code::USER_CLASS => "it is a client's word on itself",
        code::RELAY_AGENT => "it is the relay's own (RFC 3046)",
        code::RAPID_COMMIT | code::AUTHENTICATION | code::SUBNET_SELECTION => "Bennu does not speak that part of DHCP",
        _ => return None,
    })
}

impl FromStr for OptionCode {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let number: u8 =
            text.parse().map_err(|_| BadOption(format!("'{text}' is no option; write its number, 1 to 254")))?;
        match taken(number) {
            Some(why) => Err(BadOption(format!("option {number} cannot be set: {why}; leave it away"))),
            None => Ok(Self(number)),
        }
    }
}

impl fmt::Display for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for OptionCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OptionCode {
    /// A record that was written stays legible even where a later Bennu would refuse its code.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

impl OptionValue {
    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Hex(bytes) => bytes.clone(),
            Self::Addresses(addresses) => addresses.iter().flat_map(Ipv4Addr::octets).collect(),
            Self::U8(number) => vec![*number],
            Self::U16(number) => number.to_be_bytes().to_vec(),
            Self::U32(number) => number.to_be_bytes().to_vec(),
        }
    }
}

impl FromStr for OptionValue {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let refuse = |why: &str| BadOption(format!("'{}': {why}", text.escape_default()));
        let (form, rest) = text
            .split_once(':')
            .ok_or_else(|| refuse("the form is missing; write text:…, hex:…, addresses:A,B, u8:N, u16:N or u32:N"))?;
        let no_number = |_| refuse("that is no number of this size; write a smaller one, in decimal");
        let value = match form {
            "text" if rest.is_empty() || rest.chars().any(char::is_control) => {
                return Err(refuse("write some printable text after text:"));
            }
            "text" => Self::Text(rest.to_owned()),
            "hex" => Self::Hex(hex(rest).ok_or_else(|| refuse("write pairs of hex digits after hex:"))?),
            "addresses" => rest
                .split(',')
                .map(|address| address.trim().parse())
                .collect::<Result<_, _>>()
                .map(Self::Addresses)
                .map_err(|_| refuse("write IPv4 addresses with commas between them after addresses:"))?,
            "u8" => Self::U8(rest.parse().map_err(no_number)?),
            "u16" => Self::U16(rest.parse().map_err(no_number)?),
            "u32" => Self::U32(rest.parse().map_err(no_number)?),
            _ => return Err(refuse("there is no such form; write text:, hex:, addresses:, u8:, u16: or u32:")),
        };
        match value.bytes().len() {
            ..=MAX_LENGTH => Ok(value),
            length => Err(BadOption(format!("a value of {length} bytes is too long; write {MAX_LENGTH} at most"))),
        }
    }
}

/// Hex digits in pairs, with or without colons between them.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let is_whole = !digits.is_empty() && digits.len().is_multiple_of(2);
    is_whole.then(|| digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "text:{text}"),
            Self::Hex(bytes) => {
                f.write_str("hex:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Addresses(addresses) => {
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "addresses:{}", list.join(","))
            }
            Self::U8(number) => write!(f, "u8:{number}"),
            Self::U16(number) => write!(f, "u16:{number}"),
            Self::U32(number) => write!(f, "u32:{number}"),
        }
    }
}

impl Serialize for OptionValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A domain search list as option 119 has it (RFC 3397 §2): names as in DNS, a suffix that came before as a pointer to it.
pub fn search_list(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut known: Vec<(&str, u16)> = Vec::new();
    for name in names {
        let mut rest = name.as_str();
        loop {
            if let Some((_, at)) = known.iter().find(|(suffix, _)| suffix.eq_ignore_ascii_case(rest)) {
                bytes.extend((0xc000 | at).to_be_bytes());
                break;
            }
            // A pointer holds 14 bits (RFC 1035 §4.1.4).
            if let Some(at) = u16::try_from(bytes.len()).ok().filter(|at| *at < 0x4000) {
                known.push((rest, at));
            }
            let (label, after) = rest.split_once('.').unwrap_or((rest, ""));
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
            if after.is_empty() {
                bytes.push(0);
                break;
            }
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_written_in_every_form() {
        for (text, bytes) in [
            ("text:UTC", &b"UTC"[..]),
            ("hex:0a0b", &[10, 11]),
            ("addresses:10.0.0.1,10.0.0.2", &[10, 0, 0, 1, 10, 0, 0, 2]),
            ("u8:7", &[7]),
            ("u16:1500", &[5, 220]),
            ("u32:3600", &[0, 0, 14, 16]),
        ] {
            let value: OptionValue = text.parse().unwrap();
            assert_eq!((value.bytes().as_slice(), value.to_string().as_str()), (bytes, text));
        }
        assert_eq!("hex:0A:0b".parse::<OptionValue>().unwrap().to_string(), "hex:0a0b");
        for bad in
            ["UTC", "text:", "text:a\x1b[2J", "hex:0", "hex:", "hex:xy", "addresses:", "addresses:a", "u8:256", "i8:1"]
        {
            assert!(bad.parse::<OptionValue>().is_err(), "{bad}");
        }
        assert!(format!("text:{}", "x".repeat(513)).parse::<OptionValue>().is_err());
    }

    #[test]
    fn line_09_what_bennu_or_a_client_says_cannot_be_set() {
        for number in [0, 1, 28, 43, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 66, 67, 82, 93, 94, 97, 175, 255] {
            let refusal = number.to_string().parse::<OptionCode>().unwrap_err().to_string();
            assert!(refusal.contains(&format!("option {number} cannot be set: ")), "{refusal}");
        }
        for text in ["", "x", "256", "-1"] {
            assert!(text.parse::<OptionCode>().is_err(), "{text}");
        }
        assert_eq!("100".parse::<OptionCode>().unwrap().number(), 100);
    }

    #[test]
    fn options_survive_the_record() {
        let options: SiteOptions =
            [("12", "text:web1"), ("100", "u32:5")].map(|(c, v)| (c.parse().unwrap(), v.parse().unwrap())).into();
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(json, r#"{"12":"text:web1","100":"u32:5"}"#);
        assert_eq!(serde_json::from_str::<SiteOptions>(&json).unwrap(), options);
    }

    #[test]
    fn search_lists_share_their_suffixes() {
        let list = |names: &[&str]| search_list(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        // The example of RFC 3397 §2.
        let expected = [&b"\x03eng\x05apple\x03com\x00\x09marketing"[..], &[0xc0, 4]].concat();
        assert_eq!(list(&["eng.apple.com", "marketing.apple.com"]), expected);
        assert_eq!(list(&["a.example", "example"]), [&b"\x01a\x07example\x00"[..], &[0xc0, 2]].concat());
        assert_eq!(list(&[]), b"");
    }
}
