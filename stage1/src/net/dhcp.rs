//! DHCP packets as a client writes and reads them (RFC 2131, RFC 2132).

use super::Mac;
use std::net::Ipv4Addr;
use std::time::Duration;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// BOOTP relays drop what is shorter (RFC 1542 §2.1).
const LEAST: usize = 300;
const OPTIONS_AT: usize = 240;
const VENDOR_CLASS: &[u8] = b"bennu-stage1";

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Who has an address for me?
    Discover,
    /// I take the one that this server offered (SELECTING).
    Select {
        /// The address.
        address: Ipv4Addr,
        /// The server.
        server: Ipv4Addr,
    },
    /// I hold this address from before; is it still mine (INIT-REBOOT)?
    Confirm(Ipv4Addr),
    /// I use this address and want to keep it (RENEWING, REBINDING).
    Extend(Ipv4Addr),
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// DHCPOFFER.
    Offer(Terms),
    /// DHCPACK.
    Ack(Terms),
    /// DHCPNAK.
    Nak,
}

/// What an OFFER or ACK grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Our address.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Who granted it.
    pub server: Ipv4Addr,
    /// For how long; `None` for ever.
    pub lease: Option<Duration>,
    /// When to renew.
    pub renew: Option<Duration>,
    /// When to ask any server.
    pub rebind: Option<Duration>,
}

/// Writes a request. The client id is the one iPXE sends (hardware type and address), so that a server sees one client.
pub fn encode(ask: Ask, mac: Mac, transaction: u32, seconds: u16) -> Vec<u8> {
    let mut packet = vec![0; OPTIONS_AT];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&transaction.to_be_bytes());
    packet[8..10].copy_from_slice(&seconds.to_be_bytes());
    match ask {
        Ask::Extend(address) => packet[12..16].copy_from_slice(&address.octets()),
        // The interface has no address yet, so only a broadcast answer reaches us (RFC 2131 §4.1).
        _ => packet[10] = 0x80,
    }
    packet[28..34].copy_from_slice(&mac.0);
    packet[236..240].copy_from_slice(&MAGIC);
    let kind = if ask == Ask::Discover { 1 } else { 3 };
    let mut option = |code: u8, value: &[u8]| {
        packet.extend([code, value.len() as u8]);
        packet.extend(value);
    };
    option(53, &[kind]);
    option(61, &[&[1], &mac.0[..]].concat());
    option(57, &1472_u16.to_be_bytes());
    option(60, VENDOR_CLASS);
    option(55, &[1, 3, 6, 51, 54, 58, 59]);
    match ask {
        Ask::Discover | Ask::Extend(_) => {}
        Ask::Select { address, server } => {
            option(50, &address.octets());
            option(54, &server.octets());
        }
        Ask::Confirm(address) => option(50, &address.octets()),
    }
    packet.push(255);
    packet.resize(packet.len().max(LEAST), 0);
    packet
}

/// Reads an answer to our transaction; anything else is `None`.
pub fn decode(packet: &[u8], mac: Mac, transaction: u32) -> Option<Answer> {
    let ours = packet.len() >= OPTIONS_AT
        && packet[0] == 2
        && packet[4..8] == transaction.to_be_bytes()
        && packet[28..34] == mac.0
        && packet[236..240] == MAGIC;
    if !ours {
        return None;
    }
    let options = options(packet);
    let find = |code: u8| options.iter().find(|(own, _)| *own == code).map(|(_, value)| value.as_slice());
    let addresses = |code: u8| find(code).unwrap_or_default().chunks_exact(4).map(address).collect::<Vec<_>>();
    let seconds = |code: u8| {
        let seconds = find(code).and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)));
        seconds.filter(|seconds| *seconds != u32::MAX).map(|seconds| Duration::from_secs(seconds.into()))
    };
    let kind = match *find(53)? {
        [6] => return Some(Answer::Nak),
        [kind] => kind,
        _ => return None,
    };
    let yours = address(&packet[16..20]);
    let prefix = addresses(1).first().and_then(|mask| crate::cmdline::prefix_of(*mask));
    let terms = Terms {
        address: yours,
        prefix: prefix.unwrap_or(24),
        gateway: addresses(3).first().copied().filter(|gateway| !gateway.is_unspecified()),
        dns: addresses(6),
        server: *addresses(54).first()?,
        lease: seconds(51),
        renew: seconds(58),
        rebind: seconds(59),
    };
    if yours.is_unspecified() {
        return None;
    }
    match kind {
        2 => Some(Answer::Offer(terms)),
        5 => Some(Answer::Ack(terms)),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

/// All options, those in `file` and `sname` too when option 52 says so; parts of a split option are joined (RFC 3396).
fn options(packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    collect(&packet[OPTIONS_AT..], &mut found);
    let overload =
        found.iter().find(|(code, _)| *code == 52).and_then(|(_, value)| value.first().copied()).unwrap_or(0);
    if overload & 1 != 0 {
        collect(&packet[108..236], &mut found);
    }
    if overload & 2 != 0 {
        collect(&packet[44..108], &mut found);
    }
    found
}

fn collect(mut bytes: &[u8], found: &mut Vec<(u8, Vec<u8>)>) {
    while let [code, rest @ ..] = bytes {
        match (*code, rest) {
            (0, _) => bytes = rest,
            (255, _) => return,
            (code, [length, rest @ ..]) if rest.len() >= usize::from(*length) => {
                let (value, rest) = rest.split_at(usize::from(*length));
                match found.iter_mut().find(|(own, _)| *own == code) {
                    Some((_, whole)) => whole.extend_from_slice(value),
                    None => found.push((code, value.to_vec())),
                }
                bytes = rest;
            }
            // Cut in the middle: what came before still counts.
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);

    fn reply(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; OPTIONS_AT];
        packet[0] = 2;
        packet[4..8].copy_from_slice(&77_u32.to_be_bytes());
        packet[16..20].copy_from_slice(&[10, 77, 0, 50]);
        packet[28..34].copy_from_slice(&MAC.0);
        packet[236..240].copy_from_slice(&MAGIC);
        packet.extend_from_slice(options);
        packet
    }

    #[test]
    fn a_discover_is_what_servers_and_relays_take() {
        let packet = encode(Ask::Discover, MAC, 77, 3);
        assert!(packet.len() >= 300);
        assert_eq!(packet[..12], [1, 1, 6, 0, 0, 0, 0, 77, 0, 3, 0x80, 0]);
        assert_eq!(packet[28..34], MAC.0);
        let options = options(&packet);
        let find = |code| options.iter().find(|(own, _)| *own == code).map(|(_, value)| value.clone());
        assert_eq!(find(53), Some(vec![1]));
        assert_eq!(find(61), Some(vec![1, 0x52, 0x54, 0, 1, 2, 3]));
        assert_eq!((find(50), find(54)), (None, None));
    }

    #[test]
    fn each_request_carries_what_its_state_allows() {
        let (address, server) = (Ipv4Addr::new(10, 77, 0, 50), Ipv4Addr::new(10, 77, 0, 1));
        let codes = |ask| {
            let packet = encode(ask, MAC, 1, 0);
            let codes: Vec<u8> = options(&packet).iter().map(|(code, _)| *code).collect();
            (packet[12..16].to_vec(), packet[10], codes.contains(&50), codes.contains(&54))
        };
        assert_eq!(codes(Ask::Select { address, server }), (vec![0; 4], 0x80, true, true));
        assert_eq!(codes(Ask::Confirm(address)), (vec![0; 4], 0x80, true, false));
        // RFC 2131 §4.3.2: a renewing client fills ciaddr and sends neither option.
        assert_eq!(codes(Ask::Extend(address)), (vec![10, 77, 0, 50], 0, false, false));
    }

    #[test]
    fn an_ack_is_read_whole() {
        let packet = reply(&[
            0, 53, 1, 5, 1, 4, 255, 255, 252, 0, 3, 4, 10, 77, 0, 1, 6, 8, 10, 77, 0, 1, 9, 9, 9, 9, 54, 4, 10, 77, 0,
            1, 51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 7, 8, 255,
        ]);
        let Some(Answer::Ack(terms)) = decode(&packet, MAC, 77) else { panic!("no ack") };
        assert_eq!((terms.address, terms.prefix), (Ipv4Addr::new(10, 77, 0, 50), 22));
        assert_eq!(terms.dns, [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(9, 9, 9, 9)]);
        assert_eq!((terms.lease, terms.renew), (Some(Duration::from_secs(3600)), Some(Duration::from_secs(1800))));
        assert_eq!(terms.rebind, None);
    }

    #[test]
    fn split_overloaded_and_cut_options() {
        let split = reply(&[53, 1, 2, 54, 2, 10, 77, 54, 2, 0, 1, 255]);
        assert!(matches!(decode(&split, MAC, 77), Some(Answer::Offer(t)) if t.server == Ipv4Addr::new(10, 77, 0, 1)));
        let mut over = reply(&[53, 1, 2, 52, 1, 1, 255]);
        over[108..115].copy_from_slice(&[54, 4, 10, 77, 0, 9, 255]);
        assert!(matches!(decode(&over, MAC, 77), Some(Answer::Offer(t)) if t.server == Ipv4Addr::new(10, 77, 0, 9)));
        assert!(decode(&reply(&[53, 1, 2, 54, 4, 10]), MAC, 77).is_none());
    }

    #[test]
    fn what_is_not_for_us_is_nothing() {
        let good = reply(&[53, 1, 2, 54, 4, 10, 77, 0, 1, 255]);
        assert!(decode(&good, MAC, 77).is_some());
        assert!(decode(&good, MAC, 78).is_none());
        assert!(decode(&good, Mac([1; 6]), 77).is_none());
        for change in [0, 28, 236] {
            let mut other = good.clone();
            other[change] ^= 0x40;
            assert!(decode(&other, MAC, 77).is_none(), "byte {change}");
        }
        for length in 0..good.len() {
            decode(&good[..length], MAC, 77);
        }
        assert_eq!(decode(&reply(&[53, 1, 6, 255]), MAC, 77), Some(Answer::Nak));
    }

    #[test]
    fn a_lease_for_ever_has_no_end() {
        let packet = reply(&[53, 1, 5, 54, 4, 10, 77, 0, 1, 51, 4, 255, 255, 255, 255, 255]);
        assert!(matches!(decode(&packet, MAC, 77), Some(Answer::Ack(terms)) if terms.lease.is_none()));
    }
}
