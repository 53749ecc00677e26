//! The option fields of a DHCP packet, read with suspicion.
//!
//! dhcproto's lazy decoder ends without a word where an option is cut short, joins split options only
//! where they touch, and does not look into overloaded fields; a server has to do all three.

use super::request::Malformed;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Option codes (RFC 2132 unless named otherwise).
pub mod code {
    #![allow(missing_docs)]
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const LOG_SERVER: u8 = 7;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub const USER_CLASS: u8 = 77;
    /// RFC 4039.
    pub const RAPID_COMMIT: u8 = 80;
    /// RFC 3046.
    pub const RELAY_AGENT: u8 = 82;
    /// RFC 3118.
    pub const AUTHENTICATION: u8 = 90;
    /// RFC 4578 §2.1.
    pub const ARCHITECTURE: u8 = 93;
    /// RFC 4578 §2.2.
    pub const INTERFACE: u8 = 94;
    /// RFC 4578 §2.3.
    pub const MACHINE_ID: u8 = 97;
    /// RFC 3011.
    pub const SUBNET_SELECTION: u8 = 118;
    /// RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
    /// iPXE's encapsulated options.
    pub const IPXE: u8 = 175;
    pub const END: u8 = 255;
}

/// Every option of a packet, each code once: parts of a split option are joined in the order in which
/// RFC 3396 §7 has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Reads the options field and, where option 52 says so, `file` and then `sname` (RFC 2131 §4.1).
    pub fn parse(field: &[u8], file: &[u8], sname: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self::default();
        options.absorb(field)?;
        let overload = match options.get(code::OVERLOAD) {
            None => 0,
            Some(&[value @ 1..=3]) => value,
            Some(_) => return Err(Malformed::Overload),
        };
        if overload & 1 != 0 {
            options.absorb(file)?;
        }
        if overload & 2 != 0 {
            options.absorb(sname)?;
        }
        Ok(options)
    }

    /// Reads one field. An END that is missing is forgiven, an option that is cut short is not.
    fn absorb(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        loop {
            match rest {
                [] | [code::END, ..] => return Ok(()),
                [code::PAD, after @ ..] => rest = after,
                [code, length, after @ ..] if usize::from(*length) <= after.len() => {
                    let (value, after) = after.split_at(usize::from(*length));
                    self.0.entry(*code).or_default().extend_from_slice(value);
                    rest = after;
                }
                [code, ..] => return Err(Malformed::CutShort(*code)),
            }
        }
    }

    /// An option's value.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// An option that is one address. Any other length counts as absent.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.get(code)?).ok().map(Ipv4Addr::from)
    }

    /// An option that is text. A NUL at the end needs not be there and does no harm (RFC 2132 §2).
    pub fn text(&self, code: u8) -> Option<String> {
        let bytes = self.get(code)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// The sub-options of an encapsulating option (RFC 2132 §8.4). What cannot be read ends the list: the
/// contents are the vendor's affair, and no reason to refuse the packet.
pub fn encapsulated(mut rest: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut found: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    loop {
        match rest {
            [code::PAD, after @ ..] => rest = after,
            [code, length, after @ ..] if *code != code::END && usize::from(*length) <= after.len() => {
                let (value, after) = after.split_at(usize::from(*length));
                found.entry(*code).or_default().extend_from_slice(value);
                rest = after;
            }
            _ => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_05_pads_are_skipped_and_a_cut_option_is_refused() {
        let options = Options::parse(&[0, 0, 12, 2, b'a', b'b', 0, 255, 9, 9], &[], &[]).unwrap();
        assert_eq!(options.text(12).as_deref(), Some("ab"));
        assert_eq!(options.get(9), None, "nothing is read after END");
        assert_eq!(Options::parse(&[12, 5, b'a'], &[], &[]), Err(Malformed::CutShort(12)));
        assert_eq!(Options::parse(&[12], &[], &[]), Err(Malformed::CutShort(12)));
        assert!(Options::parse(&[12, 1, b'a'], &[], &[]).is_ok(), "END is missing");
    }

    #[test]
    fn line_26_overloaded_fields_are_read_after_the_options() {
        let file = [67, 1, b'f', 255, 0xaa];
        let sname = [66, 1, b's', 255];
        let read = |value| Options::parse(&[52, 1, value, 255], &file, &sname);
        let seen = |value| read(value).map(|o| (o.text(67), o.text(66))).unwrap();
        assert_eq!(seen(1), (Some("f".into()), None));
        assert_eq!(seen(2), (None, Some("s".into())));
        assert_eq!(seen(3), (Some("f".into()), Some("s".into())));
        for bad in [0, 4, 255] {
            assert_eq!(read(bad), Err(Malformed::Overload));
        }
    }

    #[test]
    fn line_27_split_options_are_joined_even_when_apart() {
        let options = Options::parse(&[43, 1, 6, 12, 1, b'h', 43, 2, 1, 8, 52, 1, 1, 255], &[43, 1, 255], &[]).unwrap();
        assert_eq!(options.get(43), Some(&[6, 1, 8, 255][..]));
        assert_eq!(encapsulated(options.get(43).unwrap()), BTreeMap::from([(6, vec![8])]));
    }

    #[test]
    fn line_30_a_trailing_nul_makes_no_difference() {
        for bytes in [&[12, 2, b'a', b'b'][..], &[12, 3, b'a', b'b', 0]] {
            assert_eq!(Options::parse(bytes, &[], &[]).unwrap().text(12).as_deref(), Some("ab"));
        }
    }
}
