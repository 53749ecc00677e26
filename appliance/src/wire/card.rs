//! The cards of this host, and the one kind of socket address that no crate makes: a card on a wire (`packet(7)`).

use bennu_rules::MacAddress;
use nix::ifaddrs::getifaddrs;
use socket2::SockAddr;
use std::io;

/// An Ethernet card of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Index of its interface.
    pub index: u32,
    /// Its hardware address.
    pub mac: MacAddress,
}

impl Card {
    /// The card of an interface; `None` where the interface is no Ethernet.
    pub fn of(interface: &str) -> Option<Self> {
        ethernet(|name| name == interface).into_iter().next()
    }

    /// Every Ethernet card of the host.
    pub fn all() -> Vec<Self> {
        ethernet(|_| true)
    }
}

fn ethernet(wanted: impl Fn(&str) -> bool) -> Vec<Card> {
    let Ok(addresses) = getifaddrs() else { return Vec::new() };
    let links = addresses.filter(|found| wanted(&found.interface_name)).filter_map(|found| {
        let address = *found.address?.as_link_addr()?;
        let is_ethernet = address.hatype() == libc::ARPHRD_ETHER;
        is_ethernet.then(|| Some(Card { index: address.ifindex() as u32, mac: MacAddress(address.addr()?) }))?
    });
    links.collect()
}

/// A card as a socket address: frames of this type, to or from this hardware address, on the interface with this index.
#[allow(unsafe_code)]
pub fn link_address(index: u32, ethertype: u16, mac: MacAddress) -> io::Result<SockAddr> {
    let mut hardware = [0; 8];
    hardware[..6].copy_from_slice(&mac.0);
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: hardware,
    };
    // SAFETY: the storage is larger than a sockaddr_ll and as well aligned, and its length is told.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{LinkAddr, SockaddrLike};

    #[test]
    #[allow(unsafe_code)]
    fn a_link_address_is_what_the_kernel_reads() {
        let mac = MacAddress([2, 0, 0, 0, 0, 7]);
        let address = link_address(3, libc::ETH_P_IP as u16, mac).unwrap();
        // SAFETY: the pointer and the length belong to one address.
        let read = unsafe { LinkAddr::from_raw(address.as_ptr().cast(), Some(address.len())) }.unwrap();
        assert_eq!((read.ifindex(), read.addr(), read.halen()), (3, Some(mac.0), 6));
        assert_eq!(u16::from_be(read.protocol()), libc::ETH_P_IP as u16);
    }

    #[test]
    fn loopback_is_no_ethernet() {
        assert_eq!(Card::of("lo"), None);
        assert_eq!(Card::of("no-such-interface"), None);
    }
}
