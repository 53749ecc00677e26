//! IPv6 neighbour discovery: hears router solicitations, asks the rules, tells booting machines that no router is here.
//!
//! A convenience: whatever fails here costs a machine some seconds of waiting and stops nothing else.

use crate::{
    appliance::{Appliance, Counters},
    interfaces::Interface,
};
use bennu_rules::{
    ndp::{HOP_LIMIT, NdpAnswer, ROUTER_SOLICITATION, Solicitation, decide},
    settings::DhcpMode,
};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};
use tokio::{io::Interest, net::UdpSocket};
use tokio_util::sync::CancellationToken;

/// Where solicitations go (RFC 4291 §2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// A solicitation takes 16 bytes; one with every option there is fits an Ethernet frame.
const LARGEST: usize = 1500;
/// A socket that fails is asked again after this.
const PAUSE: Duration = Duration::from_secs(1);

/// Hears the solicitations of one interface.
pub struct Listener {
    /// A raw socket. To tokio, which has none, every socket of datagrams is a `UdpSocket`.
    socket: UdpSocket,
    interface: Interface,
}

/// Listens on an interface that has IPv6, where addresses are ours to give. In the other modes IPv6 is left to the
/// site, like IPv4.
pub fn bind(interface: &Interface, mode: DhcpMode) -> Option<Listener> {
    match mode {
        DhcpMode::Full => listener(interface),
        DhcpMode::Proxy | DhcpMode::Off => None,
    }
}

fn listener(interface: &Interface) -> Option<Listener> {
    let name = &interface.name;
    if !has_ipv6(name) {
        tracing::info!(interface = name, "IPv6 is off here: router solicitations of booting machines stay unanswered");
        return None;
    }
    if link_local(interface).is_none() {
        tracing::info!(
            interface = name,
            "no IPv6 link-local address yet; until then router solicitations stay unanswered"
        );
    }
    match open(interface).and_then(|socket| UdpSocket::from_std(socket.into())) {
        Ok(socket) => Some(Listener { socket, interface: interface.clone() }),
        Err(error) => {
            tracing::warn!(
                interface = name, %error,
                "router solicitations cannot be heard, so iPXE waits some seconds for an IPv6 router; run bennu as root, or give it CAP_NET_RAW"
            );
            None
        }
    }
}

fn open(interface: &Interface) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&only_solicitations())?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_unicast_hops_v6(u32::from(HOP_LIMIT))?;
    socket.join_multicast_v6(&ALL_ROUTERS, interface.index)?;
    Ok(socket)
}

/// Lets nothing but router solicitations wake us: a socket like this is shown all of the host's ICMPv6. The same as
/// ICMP6_FILTER (RFC 3542 §3.2), which no safe interface offers.
fn only_solicitations() -> [SockFilter; 4] {
    let (load_byte, compare, finish) = (
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    [
        SockFilter::new(load_byte as u16, 0, 0, 0),
        SockFilter::new(compare as u16, 0, 1, u32::from(ROUTER_SOLICITATION)),
        SockFilter::new(finish as u16, 0, 0, u32::MAX),
        SockFilter::new(finish as u16, 0, 0, 0),
    ]
}

/// Answers until it is stopped.
pub async fn serve(listener: Listener, appliance: Arc<Appliance>, stop: CancellationToken) {
    let name = &listener.interface.name;
    let mut buffer = [0; LARGEST];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = listener.socket.async_io(Interest::READABLE, || receive(&listener.socket, &mut buffer)) => received,
        };
        let counters = &appliance.counters;
        let (length, source, hop_limit) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(interface = name, %error, "router solicitations cannot be read");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            }
        };
        Counters::count(&counters.ndp_received);
        if hop_limit != Some(i32::from(HOP_LIMIT)) {
            Counters::count(&counters.ndp_malformed);
            tracing::debug!(interface = name, %source, ?hop_limit, "dropped a router solicitation from off the wire");
            continue;
        }
        match Solicitation::parse(&buffer[..length], source) {
            Ok(solicitation) => answer(solicitation, &listener, &appliance).await,
            Err(malformed) => {
                Counters::count(&counters.ndp_malformed);
                tracing::debug!(interface = name, %source, %malformed, "dropped a packet");
            }
        }
    }
}

async fn answer(asked: Solicitation, listener: &Listener, appliance: &Appliance) {
    let (name, counters) = (&listener.interface.name, &appliance.counters);
    match appliance.ledger.decide(asked, decide).await {
        Ok(NdpAnswer::Silence(reason)) => {
            Counters::count(&counters.ndp_silent);
            tracing::debug!(source = %asked.source, mac = ?asked.mac, %reason, interface = name, "no router advertisement");
        }
        Ok(NdpAnswer::Advertise { message, to }) => match listener.send(&message, to) {
            Ok(()) => {
                Counters::count(&counters.ndp_answered);
                tracing::debug!(%to, mac = ?asked.mac, interface = name, "told that no IPv6 router is here");
            }
            Err(error) => {
                Counters::count(&counters.ndp_unsent);
                tracing::warn!(%to, %error, interface = name, "a router advertisement could not be sent");
            }
        },
        Err(fault) => tracing::error!(%fault, "a router solicitation could not be decided"),
    }
}

impl Listener {
    /// Sends from our link-local address, as advertisements must be (RFC 4861 §6.1.2). A socket without room drops it
    /// rather than wait: the asker repeats itself.
    fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let from = link_local(&self.interface).ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, "the interface has no IPv6 link-local address")
        })?;
        let from = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
            ipi6_ifindex: self.interface.index,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, self.interface.index));
        let control = [ControlMessage::Ipv6PacketInfo(&from)];
        let socket = self.socket.as_raw_fd();
        sendmsg(socket, &[IoSlice::new(message)], &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

/// A message (ICMPv6 alone: Linux keeps the IPv6 header), its source and its hop limit.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Ipv6Addr, Option<i32>)> {
    let mut control = cmsg_space!(libc::c_int);
    let mut data = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut data, Some(&mut control), MsgFlags::empty())?;
    let source = message.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip());
    let hop_limit = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6HopLimit(limit) => Some(limit),
        _ => None,
    });
    Ok((message.bytes, source, hop_limit))
}

/// Whether the kernel speaks IPv6 on an interface.
fn has_ipv6(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    std::fs::read_to_string(path).is_ok_and(|disabled| disabled.trim() == "0")
}

/// Our link-local address. Looked up each time: a wire that comes up late has none before.
fn link_local(interface: &Interface) -> Option<Ipv6Addr> {
    find(&std::fs::read_to_string("/proc/net/if_inet6").ok()?, &interface.name)
}

/// Flag of an address that is not ours yet: duplicates are still looked for (`IFA_F_TENTATIVE`).
const TENTATIVE: u32 = 0x40;
/// Flag of an address that somebody else has (`IFA_F_DADFAILED`).
const DUPLICATE: u32 = 0x08;

fn find(table: &str, interface: &str) -> Option<Ipv6Addr> {
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let address = Ipv6Addr::from(u128::from_str_radix(columns.next()?, 16).ok()?);
        let flags = u32::from_str_radix(columns.nth(3)?, 16).ok()?;
        let usable = address.is_unicast_link_local() && flags & (TENTATIVE | DUPLICATE) == 0;
        (usable && columns.next()? == interface).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_link_local_address_is_found() {
        let table = "fd000000000000000000000000000002 04 40 00 82     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe800000000000005054fffffe000001 05 40 20 80    boot0\n\
                     fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                     fe8000000000000000fc00fffe000002 06 40 20 c0     eth1\n";
        assert_eq!(find(table, "eth0"), "fe80::fc:ff:fe00:1".parse().ok());
        assert_eq!(find(table, "lo"), None);
        assert_eq!(find(table, "eth1"), None, "tentative");
        assert_eq!(find(table, "eth"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_ipv6() {
        assert!(!has_ipv6("no-such-interface"));
    }
}
