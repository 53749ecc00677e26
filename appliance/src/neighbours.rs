//! The kernel's neighbour table: which hardware address answers for an address on a wire of ours.

use bennu_rules::MacAddress;
use std::net::Ipv4Addr;

/// The hardware address that answers for `address` on an interface, as the kernel knows it; it learns that of everybody
/// who asks for ours. One question to it, however many neighbours there are.
pub fn mac_of(address: Ipv4Addr, interface: &str) -> Option<MacAddress> {
    let (flags, hardware) = ioctl::arp(address, interface)?;
    (flags & libc::ATF_COM != 0).then_some(MacAddress(hardware))
}

/// Whether the kernel knows which hardware address answers for `address` on an interface.
pub fn has(address: Ipv4Addr, interface: &str) -> bool {
    mac_of(address, interface).is_some()
}

#[allow(unsafe_code)]
mod ioctl {
    use std::{
        net::{Ipv4Addr, UdpSocket},
        os::fd::AsRawFd,
        sync::OnceLock,
    };

    /// Flags and hardware address of an entry of the ARP table (`arp(7)`); Ethernet's alone.
    pub fn arp(address: Ipv4Addr, interface: &str) -> Option<(libc::c_int, [u8; 6])> {
        static SOCKET: OnceLock<Option<UdpSocket>> = OnceLock::new();
        let socket = SOCKET.get_or_init(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()).as_ref()?;
        // SAFETY: arpreq is plain data for which all zero is valid.
        let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
        if interface.len() >= request.arp_dev.len() {
            return None;
        }
        for (to, from) in request.arp_dev.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.arp_pa.sa_family = libc::AF_INET as libc::sa_family_t;
        // A sockaddr_in in the shape of a sockaddr: the address stands behind the port.
        for (to, from) in request.arp_pa.sa_data[2..6].iter_mut().zip(address.octets()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the socket is open, and the kernel reads and writes within the arpreq it is given.
        let found = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGARP as _, &mut request) } == 0;
        if !found || request.arp_ha.sa_family != libc::ARPHRD_ETHER {
            return None;
        }
        let mut hardware = [0; 6];
        for (to, from) in hardware.iter_mut().zip(request.arp_ha.sa_data) {
            *to = from as u8;
        }
        Some((request.arp_flags, hardware))
    }
}
