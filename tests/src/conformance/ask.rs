//! A DHCP packet of a client, right or wrong in any part.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::frames::Mac;

/// Message types (RFC 2132 §9.6).
#[allow(missing_docs)]
pub mod kind {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const DECLINE: u8 = 4;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const RELEASE: u8 = 7;
    pub const INFORM: u8 = 8;
}

/// iPXE's option 175 with HTTP among its features.
pub const IPXE_WITH_HTTP: &[u8] = &[19, 1, 1, 21, 1, 1];

/// A packet in the making, and where it goes.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Ask {
    pub xid: u32,
    pub hops: u8,
    pub secs: u16,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub mac: Mac,
    pub sname: Vec<u8>,
    pub file: Vec<u8>,
    pub cookie: [u8; 4],
    /// In this order; what one holds may be longer than an option: then it is split (RFC 3396).
    pub options: Vec<(u8, Vec<u8>)>,
    /// What follows the options, END and all.
    pub tail: Vec<u8>,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
}

impl Ask {
    /// A broadcast of a client without an address, asking for a broadcast back.
    pub fn new(kind: u8, xid: u32, mac: Mac) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            xid,
            hops: 0,
            secs: 0,
            flags: 0x8000,
            ciaddr: none,
            giaddr: none,
            mac,
            sname: Vec::new(),
            file: Vec::new(),
            cookie: [99, 130, 83, 99],
            options: vec![(53, vec![kind])],
            tail: vec![255],
            from: SocketAddrV4::new(none, 68),
            to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
        }
    }

    /// The same with another message type.
    pub fn of_kind(mut self, kind: u8) -> Self {
        for option in self.options.iter_mut().filter(|(code, _)| *code == 53) {
            option.1 = vec![kind];
        }
        self
    }

    /// With one more option.
    pub fn with(mut self, code: u8, value: impl AsRef<[u8]>) -> Self {
        self.options.push((code, value.as_ref().to_vec()));
        self
    }

    /// With one more option that is an address.
    pub fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.with(code, address.octets())
    }

    /// Without an option.
    pub fn without(mut self, code: u8) -> Self {
        self.options.retain(|option| option.0 != code);
        self
    }

    /// With these flags.
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// With the client's own address in its field alone.
    pub fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.ciaddr = address;
        self
    }

    /// From the client's own address to the server's, as in RENEWING.
    pub fn unicast(mut self, own: Ipv4Addr, server: Ipv4Addr) -> Self {
        self.ciaddr = own;
        self.from = SocketAddrV4::new(own, 68);
        self.to = SocketAddrV4::new(server, 67);
        self.flags = 0;
        self
    }

    /// As a relay passes it on (RFC 1542 §4.1): from and for its own address.
    pub fn relayed(mut self, relay: Ipv4Addr, server: Ipv4Addr) -> Self {
        self.giaddr = relay;
        self.hops = 1;
        self.from = SocketAddrV4::new(relay, 67);
        self.to = SocketAddrV4::new(server, 67);
        self
    }

    /// To another port of the server.
    pub fn at_port(mut self, port: u16) -> Self {
        self.to.set_port(port);
        self
    }

    /// As UEFI's PXE client asks.
    pub fn pxe(self, arch: u16) -> Self {
        self.boots("PXEClient", arch)
    }

    /// As UEFI's HTTP boot client asks.
    pub fn http(self, arch: u16) -> Self {
        self.boots("HTTPClient", arch)
    }

    /// As iPXE asks.
    pub fn ipxe(self, arch: u16) -> Self {
        self.pxe(arch).with(77, b"iPXE").with(175, IPXE_WITH_HTTP)
    }

    fn boots(self, class: &str, arch: u16) -> Self {
        let mac = self.mac;
        self.with(60, format!("{class}:Arch:{arch:05}:UNDI:003000"))
            .with(93, arch.to_be_bytes())
            .with(94, [1, 3, 0])
            .with(97, [&[0][..], &[0xb0; 10], &mac].concat())
    }

    /// The packet.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, self.hops];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.mac);
        bytes.resize(44, 0);
        bytes.extend(&self.sname);
        bytes.resize(108, 0);
        bytes.extend(&self.file);
        bytes.resize(236, 0);
        bytes.extend(self.cookie);
        for (code, value) in &self.options {
            bytes.extend(option(*code, value));
        }
        bytes.extend(&self.tail);
        bytes
    }
}

/// One option; a value of more than 255 bytes in parts.
pub fn option(code: u8, value: &[u8]) -> Vec<u8> {
    if value.is_empty() {
        return vec![code, 0];
    }
    value.chunks(255).flat_map(|part| [&[code, part.len() as u8][..], part].concat()).collect()
}
