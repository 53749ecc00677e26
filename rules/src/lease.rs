//! Leases: which machine holds which address, until when.

use crate::{MacAddress, Timestamp};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Who a lease belongs to. A MAC, because client ids differ between the firmware, the loader, stage 1
/// and the installed system of one machine, and all of them shall get one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The subnet the address is of.
    pub subnet: Ipv4Net,
    /// The client.
    pub mac: MacAddress,
}

/// One binding of an address. A record is kept after it ends, so that its client gets the same address again
/// (RFC 2131 §4.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose it is.
    pub key: LeaseKey,
    /// The address.
    pub address: Ipv4Addr,
    /// When it was last acknowledged.
    pub granted: Timestamp,
    /// When it ends. A RELEASE sets it to the moment it came.
    pub expires: Timestamp,
    /// The host name the client gave in option 12.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Set when a client said that somebody else uses the address (DECLINE, RFC 2131 §4.3.3): nobody gets it until `expires`.
    #[serde(default)]
    pub declined: bool,
}

impl Lease {
    /// Whether it holds at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}
