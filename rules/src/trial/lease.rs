//! The one lease of a trial's wire: booted systems ask DHCP as they would anywhere.

use super::{APPLIANCE, GUEST, GUEST_CARD, NETMASK};
use crate::dhcp::{
    Received, Request,
    request::{Kind, SERVER_PORT},
};
use dhcproto::{
    Encodable,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode},
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// A day: no trial lasts so long.
const LEASE_SECONDS: u32 = 86_400;
/// What relays and old clients expect at least (RFC 1542 §2.1).
const LEAST_SIZE: usize = 300;

/// The answer to a packet; it goes to everybody on the wire. `None`: there is none.
pub fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let none = Ipv4Addr::UNSPECIFIED;
    let received = Received {
        interface: "trial".into(),
        interface_index: 0,
        interface_address: APPLIANCE,
        mtu: 1500,
        port: SERVER_PORT,
        source: SocketAddrV4::new(none, 0),
        destination: Ipv4Addr::BROADCAST,
    };
    let request = Request::parse(packet, &received).ok().filter(|request| request.mac == GUEST_CARD)?;
    let (kind, lasts, address) = match request.kind {
        Kind::Discover => (MessageType::Offer, true, GUEST),
        Kind::Request => (MessageType::Ack, true, GUEST),
        Kind::Inform => (MessageType::Ack, false, none),
        Kind::Decline | Kind::Release | Kind::Bootp => return None,
    };
    let mut message = Message::new_with_id(request.xid, request.ciaddr, address, none, none, &request.mac.0);
    message.set_opcode(Opcode::BootReply).set_flags(Flags::new(request.flags));
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(APPLIANCE));
    options.insert(DhcpOption::SubnetMask(NETMASK));
    options.insert(DhcpOption::Router(vec![APPLIANCE]));
    if lasts {
        options.insert(DhcpOption::AddressLeaseTime(LEASE_SECONDS));
    }
    if let Some(id) = request.client_id {
        options.insert(DhcpOption::ClientIdentifier(id));
    }
    let mut packet = message.to_vec().ok()?;
    packet.resize(packet.len().max(LEAST_SIZE), 0);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MacAddress;

    fn asked(kind: MessageType, mac: MacAddress) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, none, none, none, none, &mac.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ClientIdentifier(vec![255, 1, 2]));
        message.to_vec().unwrap()
    }

    #[test]
    fn the_machine_gets_its_one_address() {
        for (kind, said) in [(MessageType::Discover, 2), (MessageType::Request, 5)] {
            let packet = answer(&asked(kind, GUEST_CARD)).unwrap();
            assert_eq!((packet[0], &packet[4..8], &packet[16..20]), (2, &[0, 0, 0, 7][..], &GUEST.octets()[..]));
            for option in [&[53, 1, said][..], &[51, 4, 0, 1, 0x51, 0x80], &[54, 4, 192, 0, 2, 1], &[61, 3, 255, 1, 2]]
            {
                assert!(packet[240..].windows(option.len()).any(|found| found == option), "{option:?}");
            }
        }
    }

    #[test]
    fn nobody_else_and_nothing_else_is_answered() {
        assert_eq!(answer(&asked(MessageType::Discover, MacAddress([2, 0, 0, 0, 0, 1]))), None);
        assert_eq!(answer(&asked(MessageType::Release, GUEST_CARD)), None);
        assert_eq!(answer(b"nonsense"), None);
    }
}
