//! The network interfaces of the provisioning plane, as the system has them.

use ipnet::Ipv4Net;
use rustix::fd::AsFd;
use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    sync::{Arc, PoisonError, RwLock},
};

/// One interface and its first IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// The network on it.
    pub network: Ipv4Net,
}

/// An interface that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No such interface.
    #[error("there is no network interface '{name}'; this host has: {known}. Name one of them in boot.interface")]
    Missing {
        /// As configured.
        name: String,
        /// What there is.
        known: String,
    },
    /// No address on it.
    #[error("interface {0} has no IPv4 address; give it one, such as `ip address add 10.77.0.1/24 dev {0}`")]
    NoAddress(String),
}

impl Interface {
    /// Looks an interface up.
    pub fn find(name: &str) -> Result<Self, InterfaceError> {
        let missing = || InterfaceError::Missing { name: name.to_owned(), known: names().join(", ") };
        let no_address = || InterfaceError::NoAddress(name.to_owned());
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|_| no_address())?;
        let index = rustix::net::netdevice::name_to_index(socket.as_fd(), name).map_err(|_| missing())?;
        let address = ioctl::ipv4(socket.as_raw_fd(), name, ioctl::ADDRESS).ok_or_else(no_address)?;
        let netmask = ioctl::ipv4(socket.as_raw_fd(), name, ioctl::NETMASK).ok_or_else(no_address)?;
        let network = Ipv4Net::with_netmask(address, netmask).map_err(|_| no_address())?;
        Ok(Self { name: name.to_owned(), index, address, network })
    }
}

/// The interfaces that are served now: cables, addresses and whole interfaces come and go.
#[derive(Debug, Default)]
pub struct Interfaces(RwLock<Arc<[Interface]>>);

impl Interfaces {
    /// These, in the order of the configuration.
    pub fn new(interfaces: impl Into<Arc<[Interface]>>) -> Self {
        Self(RwLock::new(interfaces.into()))
    }

    /// As they are now.
    pub fn now(&self) -> Arc<[Interface]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One is served no more.
    pub fn remove(&self, name: &str) {
        let mut interfaces = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *interfaces = interfaces.iter().filter(|known| known.name != name).cloned().collect();
    }

    /// One is served from now on, as it is now.
    pub fn put(&self, interface: Interface, order: &[String]) {
        let mut interfaces = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = interfaces.to_vec();
        all.retain(|known| known.name != interface.name);
        all.push(interface);
        all.sort_by_key(|interface| order.iter().position(|name| *name == interface.name));
        *interfaces = all.into();
    }
}

/// Every interface of the host but loopback.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir("/sys/class/net")
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.retain(|name| name != "lo");
    names.sort();
    names
}

/// Whether an interface's cable leads to something, as far as the system says.
pub fn link(name: &str) -> Option<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let flags = ioctl::flags(socket.as_raw_fd(), name)?;
    // Not by /sys, which the service may not read any more.
    let is = |flag: libc::c_int| i32::from(flags) & flag != 0;
    is(libc::IFF_UP).then(|| is(libc::IFF_RUNNING))
}

#[allow(unsafe_code)]
mod ioctl {
    use std::{net::Ipv4Addr, os::fd::RawFd};

    pub const ADDRESS: libc::c_ulong = libc::SIOCGIFADDR as libc::c_ulong;
    pub const NETMASK: libc::c_ulong = libc::SIOCGIFNETMASK as libc::c_ulong;

    /// An IPv4 property of an interface (`netdevice(7)`).
    pub fn ipv4(socket: RawFd, name: &str, property: libc::c_ulong) -> Option<Ipv4Addr> {
        let request = ask(socket, name, property)?;
        // SAFETY: both properties answer with a sockaddr_in in this union.
        let address = unsafe { *(&raw const request.ifr_ifru.ifru_addr).cast::<libc::sockaddr_in>() };
        Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
    }

    /// The flags of an interface.
    pub fn flags(socket: RawFd, name: &str) -> Option<libc::c_short> {
        let request = ask(socket, name, libc::SIOCGIFFLAGS as libc::c_ulong)?;
        // SAFETY: this property answers with flags in this union.
        Some(unsafe { request.ifr_ifru.ifru_flags })
    }

    fn ask(socket: RawFd, name: &str, property: libc::c_ulong) -> Option<libc::ifreq> {
        // SAFETY: ifreq is plain data for which all zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return None;
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the socket is open, and the kernel writes within the ifreq it is given.
        if unsafe { libc::ioctl(socket, property as _, &mut request) } != 0 {
            return None;
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, last: u8) -> Interface {
        let address = Ipv4Addr::new(10, 77, last, 1);
        let network = Ipv4Net::new(address, 24).unwrap();
        Interface { name: name.into(), index: u32::from(last), address, network }
    }

    #[test]
    fn interfaces_come_and_go_and_keep_their_order() {
        let order = ["eno1".to_owned(), "eno2".to_owned()];
        let interfaces = Interfaces::new([interface("eno1", 1), interface("eno2", 2)]);
        interfaces.remove("eno1");
        assert_eq!(*interfaces.now(), [interface("eno2", 2)]);
        interfaces.put(interface("eno1", 3), &order);
        assert_eq!(*interfaces.now(), [interface("eno1", 3), interface("eno2", 2)]);
    }
}
