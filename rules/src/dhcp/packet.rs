//! The bytes of an answer.
//!
//! dhcproto encodes a whole message at once. An answer has to know after every option how much room is left, goes out
//! thousands of times a second, and puts options where dhcproto does not: into `file` and `sname`, in parts, option 82
//! last.

use super::{options::code, request::Request};
use std::net::Ipv4Addr;

/// An IP datagram that every host takes (RFC 791); the least that option 57 may say (RFC 2132 §9.10).
const LEAST_MAX_SIZE: u16 = 576;
/// IP and UDP headers. Option 57 does not say whether they count; clients differ, so they do.
const HEADERS: usize = 28;
/// BOOTP's length, below which relays and old clients drop a reply (RFC 1542 §2.1).
const LEAST_SIZE: usize = 300;
/// Where the options begin, after the cookie.
const OPTIONS: usize = 240;
/// Lengths of the fields that options may spill into, in the order in which they are read (RFC 2131 §4.1).
const FILE: usize = 128;
const SNAME: usize = 64;
/// Option 52 as it is written.
const OVERLOAD_SIZE: usize = 3;
/// Room kept for option 82 while the rest is filled in; more than any relay in the field uses, and little enough
/// that what a client boots still fits into the smallest reply.
const RELAY_ROOM: usize = 96;

/// An answer in the making.
pub(super) struct Packet<'a> {
    request: &'a Request,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    /// The boot file as the field has it.
    pub file: String,
    /// Whether options may spill into `file` and `sname`.
    pub may_overload: bool,
    options: Vec<u8>,
    spilt: [Vec<u8>; 2],
    limit: usize,
}

impl<'a> Packet<'a> {
    pub fn answering(request: &'a Request) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let asked = request.max_size.unwrap_or(LEAST_MAX_SIZE).min(request.received.mtu).max(LEAST_MAX_SIZE);
        Self {
            request,
            flags: request.flags,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            file: String::new(),
            may_overload: false,
            options: Vec::with_capacity(usize::from(LEAST_MAX_SIZE) - OPTIONS),
            spilt: [Vec::new(), Vec::new()],
            limit: usize::from(asked) - HEADERS,
        }
    }

    /// No longer than a BOOTP client takes.
    pub fn limit_to_bootp(&mut self) {
        self.limit = LEAST_SIZE;
    }

    /// Adds an option if there is room for all of it. One that is longer than 255 bytes goes in parts (RFC 3396 §5).
    pub fn add(&mut self, code: u8, value: &[u8]) {
        let size = value.len() + 2 * value.len().div_ceil(255).max(1);
        let relay = self.request.relay.as_ref().map_or(0, |relay| (relay.len() + 2).min(RELAY_ROOM));
        let kept_free = relay + 1 + if self.may_overload { OVERLOAD_SIZE } else { 0 };
        if OPTIONS + self.options.len() + size + kept_free <= self.limit {
            return write(&mut self.options, code, value);
        }
        // An option in parts would be read in another order than it is written (RFC 3396 §7).
        if !self.may_overload || value.len() > 255 {
            return;
        }
        let file_is_free = self.file.is_empty();
        let [file, sname] = &mut self.spilt;
        if file_is_free && file.len() + size < FILE {
            write(file, code, value);
        } else if sname.len() + size < SNAME {
            write(sname, code, value);
        }
    }

    /// The bytes. Option 82 goes back whole and last, and not where others spilt to, or not at all (RFC 3046 §2.2).
    pub fn encode(mut self) -> Vec<u8> {
        let overload = u8::from(!self.spilt[0].is_empty()) | u8::from(!self.spilt[1].is_empty()) << 1;
        if overload != 0 {
            write(&mut self.options, code::OVERLOAD, &[overload]);
        }
        let relay = self.request.relay.as_deref().unwrap_or_default();
        if !relay.is_empty() && relay.len() < 256 && OPTIONS + self.options.len() + relay.len() + 3 <= self.limit {
            write(&mut self.options, code::RELAY_AGENT, relay);
        }
        self.options.push(code::END);
        let mut packet = self.header();
        packet.extend(&self.options);
        packet.resize(packet.len().max(LEAST_SIZE), code::PAD);
        packet
    }

    /// Everything before the options, cookie and all: hops and seconds are zero (RFC 2131 table 3).
    fn header(&self) -> Vec<u8> {
        let request = self.request;
        let mut packet = Vec::with_capacity((OPTIONS + self.options.len()).max(LEAST_SIZE));
        packet.extend([2, 1, 6, 0]);
        packet.extend(request.xid.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, request.giaddr] {
            packet.extend(address.octets());
        }
        packet.extend(request.mac.0);
        packet.extend([0; 10]);
        let [file, sname] = &self.spilt;
        field(&mut packet, sname, SNAME);
        if file.is_empty() {
            let name = self.file.as_bytes();
            packet.extend(name);
            packet.resize(packet.len() + FILE - name.len(), 0);
        } else {
            field(&mut packet, file, FILE);
        }
        packet.extend(dhcproto::v4::MAGIC);
        packet
    }
}

/// A field that options spilt into, or an empty one.
fn field(packet: &mut Vec<u8>, options: &[u8], length: usize) {
    let end = packet.len() + length;
    packet.extend(options);
    if !options.is_empty() {
        packet.push(code::END);
    }
    packet.resize(end, code::PAD);
}

fn write(options: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        options.extend([code, 0]);
    }
    for part in value.chunks(255) {
        options.extend([code, part.len() as u8]);
        options.extend(part);
    }
}
