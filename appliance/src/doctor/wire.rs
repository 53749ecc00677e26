//! Other DHCP servers on the wire: a DISCOVER of a machine that does not exist, and who answers it.

use super::Finding;
use crate::interfaces::Interface;
use bennu_rules::settings::DhcpMode;
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, OptionCode},
};
use nix::{ifaddrs::getifaddrs, sys::socket::LinkAddr};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

/// A server may probe the address first that it is going to offer (RFC 2131 §2.2).
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks who answers on one interface.
pub fn other_dhcp_servers(interface: &Interface, ours: &[Interface], mode: DhcpMode, tell: &mut dyn FnMut(Finding)) {
    let check = format!("DHCP servers on {}", interface.name);
    let found = match ask(interface) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return tell(Finding::warn(check, "not looked at: only root may ask", "run this with sudo"));
        }
        Err(error) => {
            return tell(Finding::warn(check, format!("not looked at: {error}"), "look at the interface's link"));
        }
    };
    let others: Vec<Ipv4Addr> =
        found.into_iter().filter(|server| ours.iter().all(|interface| interface.address != *server)).collect();
    tell(judged(check, &others, mode));
}

fn judged(check: String, others: &[Ipv4Addr], mode: DhcpMode) -> Finding {
    let named = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (mode, others.len()) {
        (DhcpMode::Full, 0) => Finding::ok(check, "none but this appliance"),
        (DhcpMode::Full, _) => Finding::fail(
            check,
            format!("{named} offers addresses too: machines get answers from both"),
            "stop it or keep it off this wire; or write dhcp = \"proxy\" and let it give the addresses",
        ),
        (DhcpMode::Proxy | DhcpMode::Off, 0) => Finding::fail(
            check,
            "none answers, and this appliance gives no addresses",
            "start the site's DHCP server, or write dhcp = \"full\" with a range",
        ),
        (DhcpMode::Proxy | DhcpMode::Off, 1) => Finding::ok(check, format!("{named} gives the addresses")),
        (DhcpMode::Proxy | DhcpMode::Off, _) => Finding::warn(
            check,
            format!("several offer addresses: {named}"),
            "leave one, unless they know of each other",
        ),
    }
}

/// Sends a DISCOVER and gathers the servers of its OFFERs.
///
/// Through a packet socket: so our own servers on this host do not hear it, and no port has to be free.
fn ask(interface: &Interface) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut chance = [0; 9];
    SystemRandom::new().fill(&mut chance).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let xid = u32::from_be_bytes([chance[0], chance[1], chance[2], chance[3]]);
    // Locally administered, so no machine has it (IEEE 802, clause 8.4).
    let mac = [0x02, chance[4], chance[5], chance[6], chance[7], chance[8]];
    let mut socket = open(&interface.name)?;
    let frame = frame(mac, &discover(mac, xid)?);
    let began = Instant::now();
    let mut servers = BTreeSet::new();
    let mut sent = 0_u32;
    let mut buffer = [0; 2048];
    while began.elapsed() < PATIENCE {
        // Once more at half time: switches lose packets while they learn.
        if sent == 0 || sent == 1 && began.elapsed() > PATIENCE / 2 {
            socket.write_all(&frame)?;
            sent += 1;
        }
        match socket.read(&mut buffer) {
            Ok(count) => servers.extend(offer_in(&buffer[..count], xid)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(servers)
}

/// A packet socket on one interface (`packet(7)`).
fn open(name: &str) -> io::Result<Socket> {
    let address = link_address(name).ok_or_else(|| io::Error::other("the interface has no link address"))?;
    let ip = Protocol::from(i32::from((libc::ETH_P_IP as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(ip))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn link_address(name: &str) -> Option<LinkAddr> {
    let mut addresses = getifaddrs().ok()?.filter(|found| found.interface_name == name);
    addresses.find_map(|found| found.address?.as_link_addr().copied())
}

fn discover(mac: [u8; 6], xid: u32) -> io::Result<Vec<u8>> {
    let mut message = Message::default();
    message.set_xid(xid).set_chaddr(&mac).set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    let wanted = vec![OptionCode::SubnetMask, OptionCode::Router, OptionCode::ServerIdentifier];
    options.insert(DhcpOption::ParameterRequestList(wanted));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).map_err(io::Error::other)?;
    // Some servers drop what is shorter than a BOOTP packet (RFC 1542 §2.1).
    bytes.resize(bytes.len().max(300), 0);
    Ok(bytes)
}

/// A broadcast from nobody: Ethernet, IPv4 (RFC 791), UDP without checksum (RFC 768).
fn frame(mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let udp_length = (8 + payload.len()) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    let checksum = checksum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    for field in [68, 67, udp_length, 0] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// The Internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The server of an OFFER for our transaction in an Ethernet frame.
fn offer_in(frame: &[u8], xid: u32) -> Option<Ipv4Addr> {
    let ip = frame.get(14..)?;
    let is_udp = frame.get(12..14)? == [0x08, 0x00] && ip.first()? >> 4 == 4 && *ip.get(9)? == 17;
    let udp = ip.get(usize::from(ip.first()? & 0x0f) * 4..)?;
    if !is_udp || udp.get(2..4)? != 68_u16.to_be_bytes() {
        return None;
    }
    let message = Message::decode(&mut Decoder::new(udp.get(8..)?)).ok()?;
    if message.xid() != xid || message.opts().msg_type() != Some(MessageType::Offer) {
        return None;
    }
    match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => ip.get(12..16).map(|source| Ipv4Addr::new(source[0], source[1], source[2], source[3])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn the_frame_is_one_that_a_server_takes() {
        let frame = frame(MAC, &discover(MAC, 7).unwrap());
        assert_eq!(checksum(&frame[14..34]), 0, "a header with its checksum sums up to nothing");
        assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
        let message = Message::decode(&mut Decoder::new(&frame[42..])).unwrap();
        assert_eq!((message.opts().msg_type(), message.xid()), (Some(MessageType::Discover), 7));
        assert!(message.flags().broadcast());
    }

    #[test]
    fn only_offers_of_our_transaction_count() {
        let reply = |kind: MessageType, xid: u32| {
            let mut message = Message::default();
            message.set_xid(xid);
            message.opts_mut().insert(DhcpOption::MessageType(kind));
            message.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 77, 0, 2)));
            let mut bytes = Vec::new();
            message.encode(&mut Encoder::new(&mut bytes)).unwrap();
            let mut frame = frame(MAC, &bytes);
            frame[36..38].copy_from_slice(&68_u16.to_be_bytes());
            frame
        };
        assert_eq!(offer_in(&reply(MessageType::Offer, 7), 7), Some(Ipv4Addr::new(10, 77, 0, 2)));
        assert_eq!(offer_in(&reply(MessageType::Offer, 8), 7), None);
        assert_eq!(offer_in(&reply(MessageType::Ack, 7), 7), None);
        let offer = reply(MessageType::Offer, 7);
        for cut in 0..offer.len().min(60) {
            assert_eq!(offer_in(&offer[..cut], 7), None);
        }
    }

    #[test]
    fn a_second_server_fails_in_full_mode_and_is_wanted_in_proxy_mode() {
        let other = [Ipv4Addr::new(10, 77, 0, 2)];
        let verdict = |others: &[Ipv4Addr], mode| judged("x".into(), others, mode).verdict;
        assert_eq!(verdict(&[], DhcpMode::Full), Verdict::Ok);
        assert_eq!(verdict(&other, DhcpMode::Full), Verdict::Fail);
        assert_eq!(verdict(&other, DhcpMode::Proxy), Verdict::Ok);
        assert_eq!(verdict(&[], DhcpMode::Proxy), Verdict::Fail);
    }
}
