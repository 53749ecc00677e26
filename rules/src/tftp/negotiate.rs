//! Options: what was asked, what the path carries, what is agreed (RFC 2347, 2348, 2349, 7440).

use super::packet::{DATA_HEADER, MAX_BLKSIZE, Request};
use std::time::Duration;

/// The block size without an option (RFC 1350 §2).
pub const DEFAULT_BLKSIZE: u16 = 512;
/// The most blocks that leave at once.
pub const MAX_WINDOW: u16 = 64;
/// The most bytes that leave at once: well below the usual receive buffer of 208 KiB, bookkeeping included.
const MAX_BURST: usize = 96 * 1024;
const UDP_HEADER: usize = 8;

/// The path to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The largest IP packet it carries whole.
    pub mtu: u32,
    /// Bytes of an IP header: 20 or 40.
    pub ip_header: usize,
}

impl Path {
    /// The largest payload of a DATA packet that needs no fragments: firmware often cannot put them together.
    fn max_payload(self) -> u16 {
        let room = (self.mtu as usize).saturating_sub(self.ip_header + UDP_HEADER + DATA_HEADER);
        u16::try_from(room).unwrap_or(u16::MAX).clamp(8, MAX_BLKSIZE)
    }
}

/// What holds for a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Payload of every block but the last.
    pub blksize: u16,
    /// Blocks for one ACK.
    pub windowsize: u16,
    /// How long the client said to wait before a resend.
    pub timeout: Option<Duration>,
    /// The OACK; empty: there is none, and DATA 1 comes at once.
    pub answer: Vec<(String, String)>,
}

/// Settles the options of a request for a file of `length` bytes. Options that are unknown, out of range or
/// no numbers are left out of the answer, as RFC 2347 has it.
pub fn negotiate(request: &Request, length: u64, path: Path) -> Terms {
    let mut terms = Terms { blksize: DEFAULT_BLKSIZE, windowsize: 1, timeout: None, answer: Vec::new() };
    let number = |name: &str| request.option(name).and_then(|value| value.trim().parse::<u64>().ok());

    if let Some(asked) = number("blksize").filter(|&asked| asked >= 8) {
        terms.blksize = asked.min(u64::from(path.max_payload())) as u16;
    }
    if let Some(asked) = number("windowsize").filter(|&asked| asked >= 1) {
        let burst = (MAX_BURST / usize::from(terms.blksize)).max(1) as u64;
        terms.windowsize = asked.min(burst).min(u64::from(MAX_WINDOW)) as u16;
    }
    terms.timeout = number("timeout").filter(|asked| (1..=255).contains(asked)).map(Duration::from_secs);

    for (name, _) in &request.options {
        let agreed = match name.as_str() {
            "blksize" => number(name).filter(|&asked| asked >= 8).map(|_| u64::from(terms.blksize)),
            "windowsize" => number(name).filter(|&asked| asked >= 1).map(|_| u64::from(terms.windowsize)),
            "timeout" => terms.timeout.map(|timeout| timeout.as_secs()),
            "tsize" => number(name).map(|_| length),
            _ => None,
        };
        if let Some(value) = agreed
            && !terms.answer.iter().any(|(known, _)| known == name)
        {
            terms.answer.push((name.clone(), value.to_string()));
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tftp::packet::Mode;
    use proptest::prelude::*;

    const ETHERNET: Path = Path { mtu: 1500, ip_header: 20 };

    fn settle(options: &[(&str, &str)], path: Path) -> Terms {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        negotiate(&Request { name: "a".into(), mode: Mode::Octet, options }, 1_048_576, path)
    }

    fn answer(options: &[(&str, &str)]) -> String {
        let pairs = settle(options, ETHERNET).answer;
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_asked_options_are_answered_in_their_order() {
        assert_eq!(
            answer(&[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]),
            "tsize=1048576 blksize=1468 windowsize=4"
        );
        assert_eq!(answer(&[("timeout", "3"), ("multicast", ""), ("blksize", "1024")]), "timeout=3 blksize=1024");
        assert_eq!(answer(&[("multicast", "")]), "");
        assert_eq!(answer(&[]), "");
    }

    #[test]
    fn values_out_of_range_are_left_out() {
        for bad in ["7", "0", "-1", "x", "", "1e3"] {
            assert_eq!(answer(&[("blksize", bad)]), "", "{bad}");
        }
        for bad in ["0", "256", "x"] {
            assert_eq!(answer(&[("timeout", bad)]), "", "{bad}");
        }
        assert_eq!(answer(&[("windowsize", "0")]), "");
        assert_eq!(answer(&[("tsize", "x")]), "");
        assert_eq!(answer(&[("blksize", "8"), ("blksize", "512")]), "blksize=8");
    }

    #[test]
    fn blocks_fit_the_path() {
        for (asked, mtu, ip_header, agreed) in [
            ("1468", 1500, 20, 1468),
            ("1468", 1400, 20, 1368),
            ("1468", 1500, 40, 1448),
            ("65464", 9000, 20, 8968),
            ("65464", 65_536, 20, 65_464),
            ("65535", 1500, 20, 1468),
            ("512", 68, 20, 36),
        ] {
            assert_eq!(settle(&[("blksize", asked)], Path { mtu, ip_header }).blksize, agreed, "{asked} at {mtu}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_agreed_above_what_was_asked(blksize in 0u64..70_000, window in 0u64..70_000, mtu in 0u32..70_000) {
            let path = Path { mtu, ip_header: 20 };
            let terms = settle(&[("blksize", &blksize.to_string()), ("windowsize", &window.to_string())], path);
            prop_assert!(u64::from(terms.blksize) <= blksize.max(512) && (8..=MAX_BLKSIZE).contains(&terms.blksize));
            prop_assert!(u64::from(terms.windowsize) <= window.max(1) && (1..=MAX_WINDOW).contains(&terms.windowsize));
        }
    }
}
