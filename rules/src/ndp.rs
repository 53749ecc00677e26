//! IPv6 neighbour discovery: a booting machine that looks for a router is told that there is none.
//!
//! iPXE configures IPv4 and IPv6 side by side once its link is up, and boots when both are done. Without an answer to
//! its router solicitations it gives up on IPv6 after 4 s (iPXE 2.0) to 16 s (the BIOS ROM of 2019). An advertisement
//! with router lifetime 0, no prefix and neither M nor O flag (RFC 4861 §4.2, §6.2.3) ends that wait at once: its sender
//! is no default router, and there is nothing to learn from it. iPXE heeds only the first advertisement, hence it is
//! sent to machines in their loader alone: a site's own hosts and routers never see one.

use crate::{
    Decision, MacAddress, Moment, Timestamp, View,
    boot::{Boot, State},
};
use std::{fmt, net::Ipv6Addr};

/// Hop limit that every message of neighbour discovery carries, which says that no router forwarded it (RFC 4861 §6.1.1).
pub const HOP_LIMIT: u8 = 255;
/// ICMPv6 type of a router solicitation (RFC 4861 §4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement (RFC 4861 §4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type, code, checksum and four reserved bytes.
const SOLICITATION_HEAD: usize = 8;
/// Option that holds the sender's hardware address (RFC 4861 §4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
/// Options are counted in blocks of eight bytes.
const OPTION_BLOCK: usize = 8;

/// A boot of which nothing was heard for so long is over for its loader: the machine went on to something else, whose
/// IPv6 is none of our business.
const STALE_MS: u64 = 5 * 60 * 1000;

/// An advertisement of no router: every field but the type is zero. Hop limit, reachable time and retransmission timer
/// are "unspecified", the lifetime is 0, no flag is set and no option follows. The kernel fills in the checksum.
pub const NO_ROUTER: [u8; 16] = [ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A router solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; unspecified while it has no address.
    pub source: Ipv6Addr,
    /// The card that asks, if the packet tells.
    pub mac: Option<MacAddress>,
}

/// A packet that RFC 4861 §6.1.1 says to discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something else.
    #[error("not a router solicitation (ICMPv6 type {kind}, code {code})")]
    Other {
        /// ICMPv6 type.
        kind: u8,
        /// ICMPv6 code.
        code: u8,
    },
    /// Cut short.
    #[error("a router solicitation of {0} bytes, of at least {SOLICITATION_HEAD}")]
    Short(usize),
    /// An option of length zero, or one that reaches past the end.
    #[error("a broken option at byte {0}")]
    Option(usize),
    /// An address option of somebody without an address.
    #[error("a link-layer address option from the unspecified address")]
    Unspecified,
}

/// What a solicitation is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NdpAnswer {
    /// Our advertisement of no router, to the asker alone.
    Advertise {
        /// The ICMPv6 message, its checksum left to the kernel.
        message: [u8; 16],
        /// The asker.
        to: Ipv6Addr,
    },
    /// Nothing.
    Silence(Reason),
}

/// Why a solicitation is left to the site's routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It has no link-local address to answer to.
    NoAddress,
    /// Neither an option nor the address tells the card.
    NoMac,
    /// No boot of the machine is open.
    NotBooting,
    /// The machine has left its loader behind.
    PastTheLoader(State),
    /// The boot is open, but nothing was heard of it for long.
    Stale,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("it has no link-local address"),
            Self::NoMac => f.write_str("its hardware address cannot be told"),
            Self::NotBooting => f.write_str("the machine is not booting"),
            Self::PastTheLoader(state) => write!(f, "its boot is past the loader ({state})"),
            Self::Stale => f.write_str("nothing was heard of its boot for long"),
        }
    }
}

impl Solicitation {
    /// Reads an ICMPv6 message whose checksum and hop limit are right.
    pub fn parse(message: &[u8], source: Ipv6Addr) -> Result<Self, Malformed> {
        if let [kind, code, ..] = *message
            && (kind, code) != (ROUTER_SOLICITATION, 0)
        {
            return Err(Malformed::Other { kind, code });
        }
        let options = message.get(SOLICITATION_HEAD..).ok_or(Malformed::Short(message.len()))?;
        let stated = source_link_layer_address(options)?;
        if stated.is_some() && source.is_unspecified() {
            return Err(Malformed::Unspecified);
        }
        let mac = stated.flatten().or_else(|| from_eui64(source));
        Ok(Self { source, mac: mac.filter(|mac| mac.is_a_station()) })
    }
}

/// The first such option, and the address in it where that is Ethernet's. All options are looked at: one broken option
/// spoils the packet.
fn source_link_layer_address(options: &[u8]) -> Result<Option<Option<MacAddress>>, Malformed> {
    let mut found = None;
    let mut rest = options;
    while !rest.is_empty() {
        let broken = Malformed::Option(SOLICITATION_HEAD + options.len() - rest.len());
        let (kind, blocks) = match *rest {
            [kind, blocks, ..] if blocks > 0 => (kind, usize::from(blocks)),
            _ => return Err(broken),
        };
        let (option, after) = rest.split_at_checked(blocks * OPTION_BLOCK).ok_or(broken)?;
        if kind == SOURCE_LINK_LAYER_ADDRESS && found.is_none() {
            found = Some(<[u8; OPTION_BLOCK]>::try_from(option).ok().map(|[_, _, mac @ ..]| MacAddress(mac)));
        }
        rest = after;
    }
    Ok(found)
}

/// The card whose EUI-64 ends an address (RFC 4291 appendix A).
fn from_eui64(address: Ipv6Addr) -> Option<MacAddress> {
    match address.octets() {
        [.., a, b, c, 0xff, 0xfe, d, e, f] => Some(MacAddress([a ^ 0x02, b, c, d, e, f])),
        _ => None,
    }
}

/// Answers machines that are in their firmware or loader; everybody else is left to the site.
pub fn decide(asked: &Solicitation, view: &View<'_>, at: &Moment) -> Decision<NdpAnswer> {
    Decision::just(match reason_for_silence(asked, view, at.now) {
        Some(reason) => NdpAnswer::Silence(reason),
        None => NdpAnswer::Advertise { message: NO_ROUTER, to: asked.source },
    })
}

fn reason_for_silence(asked: &Solicitation, view: &View<'_>, now: Timestamp) -> Option<Reason> {
    if !asked.source.is_unicast_link_local() {
        return Some(Reason::NoAddress);
    }
    let Some(mac) = asked.mac else { return Some(Reason::NoMac) };
    let machine = view.records.machine(mac).map_or(mac, |machine| machine.id);
    match view.live.boot(machine) {
        None => Some(Reason::NotBooting),
        Some(boot) if boot.state > State::Loader || !boot.is_open() => Some(Reason::PastTheLoader(boot.state)),
        Some(boot) if now.since(last_heard(boot)) > STALE_MS => Some(Reason::Stale),
        Some(_) => None,
    }
}

fn last_heard(boot: &Boot) -> Timestamp {
    boot.timeline.last().map_or(boot.opened, |last| last.until.unwrap_or(last.at))
}

#[cfg(test)]
mod tests;
