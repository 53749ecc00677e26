//! Building an answer.

use super::{
    client::Client,
    loader::BootFile,
    options::code,
    request::{BOOT_ITEM, CLIENT_PORT, Kind, Request, SERVER_PORT},
};
use crate::{MacAddress, settings::Subnet};
use dhcproto::{
    Encodable,
    error::EncodeError,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption},
};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where an answer goes (RFC 2131 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendTo {
    /// This address, which answers ARP.
    Unicast(SocketAddrV4),
    /// Everybody on the wire, port 68.
    Broadcast,
    /// A client that has no address yet and so answers no ARP, and that asked for no broadcast: a frame to its card.
    Hardware {
        /// Its card.
        mac: MacAddress,
        /// The address it is being given, port 68.
        address: Ipv4Addr,
    },
}

impl SendTo {
    /// For an OFFER or ACK that gives the address `yours`, or none.
    pub fn answer(request: &Request, yours: Option<Ipv4Addr>) -> Self {
        if request.is_relayed() {
            return Self::relay(request);
        }
        if request.received.port != SERVER_PORT && !request.received.source.ip().is_unspecified() {
            return Self::Unicast(request.received.source);
        }
        // A DISCOVER's ciaddr is zero by RFC 2131 table 5; one that is not proves nothing.
        if !request.ciaddr.is_unspecified() && request.kind != Kind::Discover {
            return Self::client(request.ciaddr);
        }
        match yours {
            Some(address) if !request.wants_broadcast() => Self::Hardware { mac: request.mac, address },
            _ => Self::Broadcast,
        }
    }

    /// For a NAK: the client's address is what is wrong with it, so nothing is sent there (RFC 2131 §4.3.2).
    pub fn refusal(request: &Request) -> Self {
        if request.is_relayed() { Self::relay(request) } else { Self::Broadcast }
    }

    /// As an address.
    pub fn address(&self) -> SocketAddrV4 {
        match self {
            Self::Unicast(address) => *address,
            Self::Hardware { address, .. } => SocketAddrV4::new(*address, CLIENT_PORT),
            Self::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
        }
    }

    fn relay(request: &Request) -> Self {
        Self::Unicast(SocketAddrV4::new(request.giaddr, SERVER_PORT))
    }

    fn client(address: Ipv4Addr) -> Self {
        Self::Unicast(SocketAddrV4::new(address, CLIENT_PORT))
    }
}

/// An IP datagram that every host takes (RFC 791); the least that option 57 may say (RFC 2132 §9.10).
const LEAST_MAX_SIZE: u16 = 576;
/// IP and UDP headers. Option 57 does not say whether they count; clients differ, so they do.
const HEADERS: usize = 28;
/// BOOTP's length, below which relays and old clients drop a reply (RFC 1542 §2.1).
const LEAST_SIZE: usize = 300;
/// Our option 43.6, PXE_DISCOVERY_CONTROL: bit 3, "boot the file that this packet names, with no discovery and no
/// menu" (PXE 2.1 table 2-1).
const BOOT_THE_FILE: [u8; 3] = [6, 1, 8];
/// iPXE's "ipxe.no-pxedhcp": do not wait two seconds for a proxy's offer.
const NO_PROXY_WAIT: [u8; 3] = [176, 1, 1];

/// An answer that grows option by option, and stays within the size its receiver takes.
pub struct Reply<'a> {
    request: &'a Request,
    message: Message,
    limit: usize,
}

impl<'a> Reply<'a> {
    /// An empty answer of this kind. Fields are as RFC 2131 table 3 has them.
    pub fn new(request: &'a Request, kind: MessageType) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(request.xid, none, none, none, request.giaddr, &request.mac.0);
        message.set_opcode(Opcode::BootReply).set_flags(Flags::new(request.flags));
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(request.our_id()));
        let asked = request.max_size.unwrap_or(LEAST_MAX_SIZE).min(request.received.mtu).max(LEAST_MAX_SIZE);
        let mut reply = Self { request, message, limit: usize::from(asked) - HEADERS };
        // RFC 6842 §3: as sent, and only where sent.
        reply.add_bytes(code::CLIENT_ID, request.client_id.as_deref());
        reply
    }

    /// An ACK, which repeats the client's own address.
    pub fn ack(request: &'a Request) -> Self {
        let mut reply = Self::new(request, MessageType::Ack);
        reply.message.set_ciaddr(request.ciaddr);
        reply
    }

    /// A NAK, whole: no address, no lease, no configuration (RFC 2131 table 3).
    pub fn nak(request: &'a Request, reason: &str) -> Self {
        let mut reply = Self::new(request, MessageType::Nak);
        if request.is_relayed() {
            // The client may be on another subnet than it thinks: the relay must broadcast (RFC 2131 §4.3.2).
            let flags = reply.message.flags().set_broadcast();
            reply.message.set_flags(flags);
        }
        reply.add(DhcpOption::Message(reason.to_owned()));
        reply
    }

    /// The address and its lease. T1 and T2 are left to the client where the lease never ends, or is too short
    /// to keep them apart.
    pub fn lease(mut self, address: Ipv4Addr, seconds: u32) -> Self {
        self.message.set_yiaddr(address);
        self.add(DhcpOption::AddressLeaseTime(seconds));
        if (8..u32::MAX).contains(&seconds) {
            self.add(DhcpOption::Renewal(seconds / 2));
            self.add(DhcpOption::Rebinding(seconds - seconds / 8));
        }
        self
    }

    /// What the subnet's configuration says.
    pub fn network(mut self, subnet: &Subnet) -> Self {
        self.add(DhcpOption::SubnetMask(subnet.network.netmask()));
        if let Some(router) = subnet.router {
            self.add(DhcpOption::Router(vec![router]));
        }
        if !subnet.dns.is_empty() {
            self.add(DhcpOption::DomainNameServer(subnet.dns.clone()));
        }
        if let Some(domain) = &subnet.domain {
            self.add(DhcpOption::DomainName(domain.clone()));
        }
        if self.request.parameters.contains(&code::BROADCAST) {
            self.add(DhcpOption::BroadcastAddr(subnet.network.broadcast()));
        }
        self
    }

    /// What to boot, and the marks by which each kind of client knows an answer as meant for it.
    pub fn boot(mut self, client: &Client, file: Option<&BootFile>, as_proxy: bool) -> Self {
        let Some(file) = file else { return self };
        self.message.set_siaddr(file.server);
        let fits_the_field = file.name.len() < 128;
        if fits_the_field {
            self.message.set_fname_str(&file.name);
        }
        self.mark(client, as_proxy);
        let is_url = file.name.starts_with("http");
        if !is_url {
            self.add(DhcpOption::TFTPServerName(file.server.to_string().into_bytes()));
        }
        self.add(DhcpOption::BootfileName(file.name.clone().into_bytes()));
        self
    }

    /// PXE ROMs: `PXEClient` together with 43.6, in full mode too. The class alone would be taken for a BINL
    /// server's and send EDK2 to port 4011 for the file (edk2 #8149); no class at all works with most, but loses
    /// against any stray proxy on the wire, since firmware prefers an offer that carries both. HTTP boot takes
    /// nothing without its own class (UEFI 2.10 §24.7.2). iPXE wants the class in a proxy's answer and needs it in
    /// no other.
    fn mark(&mut self, client: &Client, as_proxy: bool) {
        match client {
            Client::Firmware(_) => {
                self.class("PXEClient");
                self.vendor();
            }
            Client::HttpFirmware(_) => self.class("HTTPClient"),
            Client::Ipxe { .. } if as_proxy => {
                self.class("PXEClient");
                self.vendor();
            }
            Client::Ipxe { .. } => self.add_bytes(code::IPXE, Some(&NO_PROXY_WAIT)),
            Client::System => {}
        }
        self.pxe_echoes();
    }

    fn vendor(&mut self) {
        let mut vendor = BOOT_THE_FILE.to_vec();
        if let Some(item) = self.request.boot_item.as_deref().filter(|item| item.len() == 4) {
            vendor.extend([BOOT_ITEM, 4]);
            vendor.extend(item);
        }
        vendor.push(code::END);
        self.add_bytes(code::VENDOR, Some(&vendor));
    }

    fn class(&mut self, class: &str) {
        self.add_bytes(code::CLASS, Some(class.as_bytes()));
    }

    /// RFC 4578 §2.1–2.3: in every packet of clients and servers.
    fn pxe_echoes(&mut self) {
        let request = self.request;
        self.add_bytes(code::MACHINE_ID, request.machine_id.as_deref());
        let architectures: Vec<u8> = request.architectures.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.add_bytes(code::ARCHITECTURE, Some(&architectures).filter(|list| !list.is_empty()).map(Vec::as_slice));
        self.add_bytes(code::INTERFACE, request.undi.as_deref());
    }

    /// The packet. Option 82 goes back whole and last, or not at all (RFC 3046 §2.2). It is appended here because
    /// dhcproto encodes an option 82 that it was given as bytes twice.
    pub fn encode(self) -> Result<Vec<u8>, EncodeError> {
        let mut packet = self.message.to_vec()?;
        let relay = self.request.relay.as_deref().unwrap_or_default();
        let fits = packet.len() + relay.len() + 2 <= self.limit;
        if let (true, Ok(length @ 1..)) = (fits, u8::try_from(relay.len())) {
            packet.truncate(packet.len() - 1);
            packet.extend([code::RELAY_AGENT, length]);
            packet.extend(relay);
            packet.push(code::END);
        }
        packet.resize(packet.len().max(LEAST_SIZE), code::PAD);
        Ok(packet)
    }

    fn add_bytes(&mut self, code: u8, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes {
            self.add(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), bytes.to_vec())));
        }
    }

    /// Adds an option if there is room: callers add in the order of importance.
    fn add(&mut self, option: DhcpOption) {
        let kept_free = self.request.relay.as_ref().map_or(0, |relay| (relay.len() + 2).min(RELAY_ROOM));
        let size = |thing: &dyn Fn() -> Result<Vec<u8>, EncodeError>| thing().map_or(usize::MAX, |bytes| bytes.len());
        let now = size(&|| self.message.to_vec());
        let more = size(&|| option.to_vec());
        if now.saturating_add(more).saturating_add(kept_free) <= self.limit {
            self.message.opts_mut().insert(option);
        }
    }
}

/// Room kept for option 82 while the rest is filled in; more than any relay in the field uses, and little enough
/// that what a client boots still fits into the smallest reply.
const RELAY_ROOM: usize = 96;
