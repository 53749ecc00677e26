//! Whom to answer. A TFTP answer is larger than its request, and UDP sources are easily forged: without care this
//! server would be a tool against whoever a forger names.

use crate::settings::Subnet;
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The network that a request came by.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a> {
    /// Our address on it.
    pub own: Ipv4Addr,
    /// It.
    pub network: Ipv4Net,
    /// The networks of the configuration, which relays may reach.
    pub subnets: &'a [Subnet],
}

/// What speaks for a request's source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proof {
    /// It holds a lease of ours.
    pub lease: bool,
    /// The kernel knows the hardware address that answers for it: it has asked for ours.
    pub neighbour: bool,
}

/// How a request's source is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Someone is there: answer.
    Known,
    /// It may be there: answer so many a second.
    Unproven,
    /// It is in no network of ours: never answer.
    Foreign,
    /// No host has such an address: never answer.
    Impossible,
}

/// Judges a request's source.
pub fn standing(peer: SocketAddr, wire: Wire<'_>, proof: Proof) -> Standing {
    let IpAddr::V4(address) = peer.ip().to_canonical() else { return Standing::Foreign };
    let no_host = address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address == wire.own
        || (address.is_loopback() && !wire.own.is_loopback());
    if no_host || peer.port() == 0 || is_edge(address, wire.network) {
        return Standing::Impossible;
    }
    if proof.lease {
        return Standing::Known;
    }
    let relayed = wire.subnets.iter().find(|subnet| subnet.network.contains(&address));
    match relayed {
        _ if wire.network.contains(&address) => {
            if proof.neighbour {
                Standing::Known
            } else {
                Standing::Unproven
            }
        }
        Some(subnet) if is_edge(address, subnet.network) => Standing::Impossible,
        Some(_) => Standing::Unproven,
        None => Standing::Foreign,
    }
}

/// The network's own address, or its broadcast. A network of two addresses has neither (RFC 3021).
fn is_edge(address: Ipv4Addr, network: Ipv4Net) -> bool {
    network.prefix_len() < 31 && (address == network.network() || address == network.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(address: &str, proof: Proof) -> Standing {
        let subnet = |network: &str| Subnet::new(network.parse().unwrap());
        let subnets = [subnet("10.77.0.0/24"), subnet("10.78.0.0/24")];
        let own = "10.77.0.1".parse().unwrap();
        let wire = Wire { own, network: "10.77.0.0/24".parse().unwrap(), subnets: &subnets };
        standing(address.parse().unwrap(), wire, proof)
    }

    #[test]
    fn only_hosts_that_may_be_ours_are_answered() {
        for (address, expected) in [
            ("10.77.0.50:1024", Standing::Unproven),
            ("10.78.0.50:1024", Standing::Unproven),
            ("10.79.0.50:1024", Standing::Foreign),
            ("8.8.8.8:53", Standing::Foreign),
            ("[2001:db8::1]:1024", Standing::Foreign),
            ("10.77.0.50:0", Standing::Impossible),
            ("10.77.0.1:1024", Standing::Impossible),
            ("10.77.0.0:1024", Standing::Impossible),
            ("10.77.0.255:1024", Standing::Impossible),
            ("10.78.0.255:1024", Standing::Impossible),
            ("255.255.255.255:1024", Standing::Impossible),
            ("224.0.0.1:1024", Standing::Impossible),
            ("0.0.0.0:68", Standing::Impossible),
            ("127.0.0.1:1024", Standing::Impossible),
        ] {
            assert_eq!(judge(address, Proof::default()), expected, "{address}");
        }
    }

    #[test]
    fn a_lease_speaks_for_any_host_and_a_neighbour_for_one_on_the_wire() {
        let (lease, neighbour) = (Proof { lease: true, neighbour: false }, Proof { lease: false, neighbour: true });
        assert_eq!(judge("10.79.0.50:1024", lease), Standing::Known);
        assert_eq!(judge("10.77.0.50:1024", neighbour), Standing::Known);
        assert_eq!(judge("10.78.0.50:1024", neighbour), Standing::Unproven);
        assert_eq!(judge("10.79.0.50:1024", neighbour), Standing::Foreign);
        assert_eq!(judge("10.77.0.255:1024", lease), Standing::Impossible);
    }
}
