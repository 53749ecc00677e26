//! Leases: which machine holds which address, until when.

use crate::{MacAddress, Timestamp, time::ClockStep};
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

    /// The same lease by a clock that was set; `None` where nothing needs to be written. A client counts the seconds
    /// it was promised and knows nothing of our clock: its lease ends when it would have, and an ended one stays so.
    /// One that a wrong clock seems to have granted in time to come lasts no longer than it was promised for.
    pub fn after(&self, step: ClockStep) -> Option<Self> {
        let stays_ended = !self.is_active(step.from) && !self.is_active(step.to);
        if stays_ended {
            return None;
        }
        let granted = self.granted.min(step.from);
        // No more than its length, counted from the moment, where it begins after it.
        let early = self.granted.since(granted);
        let expires = Timestamp(self.expires.0.saturating_sub(early));
        Some(Self { granted: step.moved(granted), expires: step.moved(expires), ..self.clone() })
    }
}
