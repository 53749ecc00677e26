//! The kernel's neighbour table: which hardware address answers for an address on a wire of ours.

use bennu_rules::MacAddress;
use std::net::Ipv4Addr;

/// The hardware address the kernel last saw for `address`; `None` off-link or not seen.
pub fn mac_of(address: Ipv4Addr) -> Option<MacAddress> {
    find(&std::fs::read_to_string("/proc/net/arp").ok()?, address)
}

/// Whether the kernel knows which hardware address answers for `address` on an interface. It learns that of everybody
/// who asks for ours. Much cheaper than [`mac_of`].
pub fn has(address: Ipv4Addr, interface: &str) -> bool {
    ioctl::arp_flags(address, interface).is_some_and(|flags| flags & libc::ATF_COM != 0)
}

#[allow(unsafe_code)]
mod ioctl {
    use std::{
        net::{Ipv4Addr, UdpSocket},
        os::fd::AsRawFd,
        sync::OnceLock,
    };

    /// The flags of an entry of the ARP table (`arp(7)`).
    pub fn arp_flags(address: Ipv4Addr, interface: &str) -> Option<libc::c_int> {
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
        found.then_some(request.arp_flags)
    }
}

fn find(table: &str, address: Ipv4Addr) -> Option<MacAddress> {
    let wanted = address.to_string();
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        (columns.next()? == wanted).then(|| columns.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.77.0.50       0x1         0x2         52:54:00:00:00:01     *        br0\n\
                     10.77.0.51       0x1         0x0         00:00:00:00:00:00     *        br0\n";
        assert_eq!(find(table, "10.77.0.50".parse().unwrap()), "52:54:00:00:00:01".parse().ok());
        assert_eq!(find(table, "10.77.0.51".parse().unwrap()), None);
        assert_eq!(find(table, "10.77.0.5".parse().unwrap()), None);
    }
}
