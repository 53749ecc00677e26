//! Building an answer.

use super::{
    client::Client,
    loader::BootFile,
    options::code,
    packet::Packet,
    request::{BOOT_ITEM, CLIENT_PORT, Kind, Request, SERVER_PORT},
    site::{SiteOptions, search_list},
};
use crate::{MacAddress, settings::Subnet};
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

/// Our option 43.6, PXE_DISCOVERY_CONTROL: bit 3, "boot the file that this packet names, with no discovery and no
/// menu" (PXE 2.1 table 2-1).
const BOOT_THE_FILE: [u8; 3] = [6, 1, 8];
/// iPXE's "ipxe.no-pxedhcp": do not wait two seconds for a proxy's offer.
const NO_PROXY_WAIT: [u8; 3] = [176, 1, 1];

/// What kind of answer it is (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// DHCPOFFER.
    Offer = 2,
    /// DHCPACK.
    Ack = 5,
    /// DHCPNAK.
    Nak = 6,
}

impl Verdict {
    /// Which kind an answer of ours is; BOOTP's have none. Ours begin with option 53, behind the fixed fields and the
    /// cookie (RFC 2131 figure 1).
    pub fn of(answer: &[u8]) -> Option<Self> {
        let [code::MESSAGE_TYPE, 1, kind] = *answer.get(240..243)? else { return None };
        [Self::Offer, Self::Ack, Self::Nak].into_iter().find(|verdict| *verdict as u8 == kind)
    }
}

/// An answer that grows option by option, in the order of importance: what has no room is left out.
pub struct Reply<'a> {
    request: &'a Request,
    packet: Packet<'a>,
}

impl<'a> Reply<'a> {
    /// An empty answer of this kind. Fields are as RFC 2131 table 3 has them.
    pub fn new(request: &'a Request, verdict: Verdict) -> Self {
        let mut reply = Self { request, packet: Packet::answering(request) };
        reply.add(code::MESSAGE_TYPE, &[verdict as u8]);
        reply.add(code::SERVER_ID, &request.our_id().octets());
        // RFC 6842 §3: as sent, and only where sent.
        reply.add_if(code::CLIENT_ID, request.client_id.as_deref());
        reply
    }

    /// An ACK, which repeats the client's own address.
    pub fn ack(request: &'a Request) -> Self {
        let mut reply = Self::new(request, Verdict::Ack);
        reply.packet.ciaddr = request.ciaddr;
        reply
    }

    /// A NAK, whole: no address, no lease, no configuration (RFC 2131 table 3).
    pub fn nak(request: &'a Request, reason: &str) -> Self {
        let mut reply = Self::new(request, Verdict::Nak);
        if request.is_relayed() {
            // The client may be on another subnet than it thinks: the relay must broadcast (RFC 2131 §4.3.2).
            reply.packet.flags |= 0x8000;
        }
        reply.add(code::MESSAGE, reason.as_bytes());
        reply
    }

    /// A BOOTREPLY to a BOOTP client: no option of DHCP's own, and in 300 bytes, more than which such clients need not
    /// take (RFC 1534 §2, RFC 1542 §2.1).
    pub fn bootp(request: &'a Request, address: Ipv4Addr) -> Self {
        let mut packet = Packet::answering(request);
        packet.limit_to_bootp();
        packet.ciaddr = request.ciaddr;
        packet.yiaddr = address;
        Self { request, packet }
    }

    /// The address and its lease. T1 and T2 are left to the client where the lease never ends, or is too short
    /// to keep them apart.
    pub fn lease(mut self, address: Ipv4Addr, seconds: u32) -> Self {
        self.packet.yiaddr = address;
        self.add(code::LEASE_TIME, &seconds.to_be_bytes());
        if (8..u32::MAX).contains(&seconds) {
            self.add(code::RENEWAL_TIME, &(seconds / 2).to_be_bytes());
            self.add(code::REBINDING_TIME, &(seconds - seconds / 8).to_be_bytes());
        }
        self
    }

    /// What the configuration says of the subnet, and people of the machine; the machine's own word wins. What every
    /// client needs goes to all, what people set by number too, the rest to those who ask for it (option 55). `log_server` is
    /// ours, where nobody named another by number.
    pub fn network(mut self, subnet: &Subnet, own: Option<&SiteOptions>, log_server: Option<Ipv4Addr>) -> Self {
        let names = |options: &SiteOptions, code: u8| options.keys().any(|known| known.number() == code);
        let is_own = |code: u8| own.is_some_and(|own| names(own, code));
        let asked = |code: u8| self.request.parameters.contains(&code);
        let (for_mtu, for_ntp, for_search) = (asked(code::MTU), asked(code::NTP), asked(code::DOMAIN_SEARCH));
        let for_broadcast = asked(code::BROADCAST);
        let for_logs = asked(code::LOG_SERVER) && !names(&subnet.options, code::LOG_SERVER);
        let mut add = |code: u8, wanted: bool, value: &dyn Fn() -> Vec<u8>| {
            if wanted && !is_own(code) {
                self.packet.add(code, &value());
            }
        };
        let list = |addresses: &[Ipv4Addr]| addresses.iter().flat_map(Ipv4Addr::octets).collect::<Vec<u8>>();
        let network = subnet.network;
        add(code::SUBNET_MASK, true, &|| network.netmask().octets().to_vec());
        add(code::ROUTER, subnet.router.is_some(), &|| list(subnet.router.as_slice()));
        add(code::DNS, !subnet.dns.is_empty(), &|| list(&subnet.dns));
        let domain = subnet.domain.as_deref().unwrap_or_default();
        add(code::DOMAIN_NAME, !domain.is_empty(), &|| domain.as_bytes().to_vec());
        add(code::BROADCAST, for_broadcast, &|| network.broadcast().octets().to_vec());
        let mtu = subnet.mtu.unwrap_or_default();
        add(code::MTU, for_mtu && mtu > 0, &|| mtu.to_be_bytes().to_vec());
        add(code::NTP, for_ntp && !subnet.ntp.is_empty(), &|| list(&subnet.ntp));
        add(code::DOMAIN_SEARCH, for_search && !subnet.domain_search.is_empty(), &|| {
            search_list(&subnet.domain_search)
        });
        add(code::LOG_SERVER, for_logs && log_server.is_some(), &|| list(log_server.as_slice()));
        for (code, value) in own.into_iter().flatten() {
            self.packet.add(code.number(), &value.bytes());
        }
        for (code, value) in subnet.options.iter().filter(|(code, _)| !is_own(code.number())) {
            self.packet.add(code.number(), &value.bytes());
        }
        self
    }

    /// What to boot, and the marks by which each kind of client knows an answer as meant for it.
    pub fn boot(mut self, client: &Client, file: Option<&BootFile>, as_proxy: bool) -> Self {
        // A PXE client may look for the file in the field alone: what it reads is never made room of.
        self.packet.may_overload = !client.network_boots();
        let Some(file) = file else { return self };
        self.packet.siaddr = file.server;
        if file.name.len() < 128 {
            self.packet.file.clone_from(&file.name);
        }
        self.mark(client, as_proxy);
        let is_url = file.name.starts_with("http");
        if !is_url {
            self.add(code::TFTP_SERVER, file.server.to_string().as_bytes());
        }
        self.add(code::BOOT_FILE, file.name.as_bytes());
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
                self.add(code::CLASS, b"PXEClient");
                self.vendor();
            }
            Client::HttpFirmware(_) => self.add(code::CLASS, b"HTTPClient"),
            Client::Ipxe { .. } if as_proxy => {
                self.add(code::CLASS, b"PXEClient");
                self.vendor();
            }
            Client::Ipxe { .. } => self.add(code::IPXE, &NO_PROXY_WAIT),
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
        self.add(code::VENDOR, &vendor);
    }

    /// RFC 4578 §2.1–2.3: in every packet of clients and servers.
    fn pxe_echoes(&mut self) {
        let request = self.request;
        self.add_if(code::MACHINE_ID, request.machine_id.as_deref());
        let architectures: Vec<u8> = request.architectures.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.add_if(code::ARCHITECTURE, Some(&architectures).filter(|list| !list.is_empty()).map(Vec::as_slice));
        self.add_if(code::INTERFACE, request.undi.as_deref());
    }

    /// The packet.
    pub fn encode(self) -> Vec<u8> {
        self.packet.encode()
    }

    fn add_if(&mut self, code: u8, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes {
            self.add(code, bytes);
        }
    }

    fn add(&mut self, code: u8, bytes: &[u8]) {
        self.packet.add(code, bytes);
    }
}
