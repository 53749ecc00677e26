//! Just enough rtnetlink (rtnetlink(7)) to bring a link up and give it an address and a route.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
/// The gateway is reached directly even when no prefix of ours covers it.
const RTNH_F_ONLINK: u32 = 4;

/// Takes an interface up or down.
pub fn set_up(index: u32, up: bool) -> io::Result<()> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(if up { IFF_UP } else { 0 }.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// Gives an interface an address.
pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address_body(index, address, prefix))
}

/// Takes an address from an interface.
pub fn remove_address(index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    request(RTM_DELADDR, 0, &address_body(index, address, prefix))
}

fn address_body(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address.octets());
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    if prefix < 31 {
        let broadcast = address.to_bits() | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        attribute(&mut body, IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    body
}

/// Sets the default route.
pub fn set_default_route(index: u32, gateway: Ipv4Addr) -> io::Result<()> {
    let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST];
    body.extend(RTNH_F_ONLINK.to_ne_bytes());
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    attribute(&mut body, RTA_GATEWAY, &gateway.octets());
    request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Sends one request on a socket of its own and waits for the kernel's yes or no.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &message(kind, flags, body), SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    acknowledgement(&answer[..length])
}

fn acknowledgement(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's netlink answer makes no sense");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_message_is_laid_out_as_the_kernel_reads_it() {
        let body = address_body(7, Ipv4Addr::new(10, 77, 0, 50), 24);
        assert_eq!(body[..4], [2, 24, 0, 0]);
        assert_eq!(body[4..8], 7_u32.to_ne_bytes());
        assert_eq!(body[8..16], [[8, 0], [2, 0]].concat().into_iter().chain([10, 77, 0, 50]).collect::<Vec<u8>>());
        assert_eq!(body[28..32], [10, 77, 0, 255]);
        let whole = message(RTM_NEWADDR, 0, &body);
        assert_eq!(u32::from_ne_bytes(whole[..4].try_into().unwrap()) as usize, whole.len());
    }

    #[test]
    fn answers() {
        let answer = |code: i32| {
            let mut bytes = [36_u32.to_ne_bytes(), [2, 0, 0, 0], [0; 4], [0; 4]].concat();
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(acknowledgement(&answer(0)).is_ok());
        assert_eq!(acknowledgement(&answer(-17)).unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledgement(&[0; 5]).is_err());
    }

    /// The real kernel, without any right to change something: it must understand the question to refuse it.
    #[test]
    fn the_kernel_answers() {
        let error = set_up(0x7fff_ffff, true).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(1 | 19)), "{error}");
    }
}
