//! What a client asked, as types.

use super::options::{Options, code, encapsulated};
use crate::MacAddress;
use dhcproto::v4::borrowed::Message;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

/// The port of DHCP servers.
pub const SERVER_PORT: u16 = 67;
/// The port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;
/// The port of PXE boot servers (PXE 2.1 §2.2.4).
pub const BOOT_SERVER_PORT: u16 = 4011;

/// How a packet came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The interface's name.
    pub interface: String,
    /// The interface's index.
    pub interface_index: u32,
    /// Our address on it.
    pub interface_address: Ipv4Addr,
    /// The interface's MTU: no reply is larger.
    pub mtu: u16,
    /// 67 or 4011.
    pub port: u16,
    /// Who sent it; 0.0.0.0 where the client has no address yet.
    pub source: SocketAddrV4,
    /// To which address it was sent.
    pub destination: Ipv4Addr,
}

/// What kind of request it is (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
    /// BOOTP: a request without option 53 (RFC 1534).
    Bootp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discover => "DISCOVER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
            Self::Bootp => "BOOTP request",
        })
    }
}

/// Why a packet is no request that a server answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header and the cookie.
    #[error("{0} bytes are too few for a DHCP packet")]
    TooShort(usize),
    /// A reply, or no BOOTP at all.
    #[error("operation {0} is not a request")]
    NotARequest(u8),
    /// Not 99.130.83.99 (RFC 2131 §3).
    #[error("the magic cookie is missing")]
    Cookie,
    /// Not Ethernet.
    #[error("hardware type {kind} with addresses of {length} bytes is not Ethernet")]
    Hardware {
        /// `htype`.
        kind: u8,
        /// `hlen`.
        length: u8,
    },
    /// A group address, or all zero.
    #[error("{0} is not the address of a network card")]
    NotAStation(MacAddress),
    /// An option's length runs over the end of its field.
    #[error("option {0} is cut short")]
    CutShort(u8),
    /// Option 52 is none of 1, 2, 3.
    #[error("option 52 (overload) has no valid value")]
    Overload,
    /// Option 53 came more than once, or empty.
    #[error("option 53 (message type) is not one byte")]
    MessageType,
    /// A type that only servers send, or that nobody defined for them.
    #[error("message type {0} is none that clients send")]
    NotForServers(u8),
    /// Option 61 is longer than an answer can echo.
    #[error("a client identifier of {0} bytes is too long")]
    ClientId(usize),
}

/// A request, checked and typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// How it came in.
    pub received: Received,
    /// What kind it is.
    pub kind: Kind,
    /// Transaction.
    pub xid: u32,
    /// As sent: the answer's flags are the same (RFC 2131 table 3). Only the first bit means anything.
    pub flags: u16,
    /// The address that the client has and answers for.
    pub ciaddr: Ipv4Addr,
    /// The relay agent, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// `chaddr`.
    pub mac: MacAddress,
    /// Option 61.
    pub client_id: Option<Vec<u8>>,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 57.
    pub max_size: Option<u16>,
    /// Option 60.
    pub class: Option<String>,
    /// Option 77: an RFC 3004 list, or the one bare word that iPXE sends.
    pub user_classes: Vec<String>,
    /// Option 93, empty where it has an odd length (RFC 4578 §2.1).
    pub architectures: Vec<u16>,
    /// Option 94.
    pub undi: Option<Vec<u8>>,
    /// Option 97, type byte and all.
    pub machine_id: Option<Vec<u8>>,
    /// The sub-options of option 175, where there is one.
    pub ipxe: Option<BTreeMap<u8, Vec<u8>>>,
    /// PXE's boot item (option 43.71), which a boot server echoes.
    pub boot_item: Option<Vec<u8>>,
    /// Option 82.
    pub relay: Option<Vec<u8>>,
    /// Option 12, where it is a name.
    pub hostname: Option<String>,
    /// Option 55.
    pub parameters: Vec<u8>,
}

impl Request {
    /// Reads a packet. Nothing that comes over the wire makes it panic.
    pub fn parse(bytes: &[u8], received: &Received) -> Result<Self, Malformed> {
        let message = Message::new(bytes).map_err(|_| Malformed::TooShort(bytes.len()))?;
        let (operation, htype, hlen) = (bytes[0], bytes[1], bytes[2]);
        if operation != 1 {
            return Err(Malformed::NotARequest(operation));
        }
        if bytes[236..240] != dhcproto::v4::MAGIC {
            return Err(Malformed::Cookie);
        }
        // `Message::chaddr` slices by hlen unchecked: it is asked only where hlen is known to be good.
        if (htype, hlen) != (1, 6) {
            return Err(Malformed::Hardware { kind: htype, length: hlen });
        }
        let chaddr = <[u8; 6]>::try_from(message.chaddr()).map_err(|_| Malformed::TooShort(bytes.len()))?;
        let mac = MacAddress(chaddr);
        if !mac.is_a_station() {
            return Err(Malformed::NotAStation(mac));
        }
        let options = Options::parse(&bytes[240..], &bytes[108..236], &bytes[44..108])?;
        Ok(Self {
            received: received.clone(),
            kind: kind(&options)?,
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            giaddr: message.giaddr(),
            mac,
            client_id: client_id(&options)?,
            requested: options.address(code::REQUESTED_ADDRESS),
            server_id: options.address(code::SERVER_ID),
            max_size: options.get(code::MAX_SIZE).and_then(|v| v.try_into().ok()).map(u16::from_be_bytes),
            class: options.text(code::CLASS),
            user_classes: options.get(code::USER_CLASS).map(user_classes).unwrap_or_default(),
            architectures: options.get(code::ARCHITECTURE).map(architectures).unwrap_or_default(),
            undi: options.get(code::INTERFACE).filter(|v| v.len() == 3).map(<[u8]>::to_vec),
            machine_id: options.get(code::MACHINE_ID).filter(|v| v.len() == 17).map(<[u8]>::to_vec),
            ipxe: options.get(code::IPXE).map(encapsulated),
            boot_item: options.get(code::VENDOR).and_then(|v| encapsulated(v).remove(&BOOT_ITEM)),
            relay: options.get(code::RELAY_AGENT).map(<[u8]>::to_vec),
            hostname: options.text(code::HOST_NAME).filter(|name| is_a_host_name(name)),
            parameters: options.get(code::PARAMETERS).map(<[u8]>::to_vec).unwrap_or_default(),
        })
    }

    /// Whether a relay agent passed it on.
    pub fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// Whether the client takes only broadcasts while it has no address (RFC 2131 §4.1).
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Our name in this conversation: our address on the interface, or what the relay told the client
    /// instead (RFC 5107).
    pub fn our_id(&self) -> Ipv4Addr {
        self.relay_address(RELAY_SERVER_ID).unwrap_or(self.received.interface_address)
    }

    /// The link that a relay names because its own address does not tell (RFC 3527).
    pub fn link(&self) -> Option<Ipv4Addr> {
        self.relay_address(RELAY_LINK)
    }

    /// An address among the relay's sub-options, believed only where a relay passed the packet on.
    fn relay_address(&self, sub_option: u8) -> Option<Ipv4Addr> {
        let value = encapsulated(self.relay.as_deref().filter(|_| self.is_relayed())?).remove(&sub_option)?;
        <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from).filter(|address| !address.is_unspecified())
    }
}

/// PXE_BOOT_ITEM (PXE 2.1 table 2-1).
pub(super) const BOOT_ITEM: u8 = 71;
/// RFC 3527 §2.
const RELAY_LINK: u8 = 5;
/// RFC 5107 §4.
const RELAY_SERVER_ID: u8 = 11;

fn kind(options: &Options) -> Result<Kind, Malformed> {
    match options.get(code::MESSAGE_TYPE) {
        None => Ok(Kind::Bootp),
        Some([1]) => Ok(Kind::Discover),
        Some([3]) => Ok(Kind::Request),
        Some([4]) => Ok(Kind::Decline),
        Some([7]) => Ok(Kind::Release),
        Some([8]) => Ok(Kind::Inform),
        Some([other]) => Err(Malformed::NotForServers(*other)),
        Some(_) => Err(Malformed::MessageType),
    }
}

fn client_id(options: &Options) -> Result<Option<Vec<u8>>, Malformed> {
    match options.get(code::CLIENT_ID) {
        Some(id) if id.len() > 255 => Err(Malformed::ClientId(id.len())),
        id => Ok(id.map(<[u8]>::to_vec)),
    }
}

/// RFC 3004 §4 has a length before each class; iPXE sends the bare word.
fn user_classes(bytes: &[u8]) -> Vec<String> {
    let mut classes = Vec::new();
    let mut rest = bytes;
    while let [length, after @ ..] = rest
        && *length > 0
        && usize::from(*length) <= after.len()
    {
        let (class, after) = after.split_at(usize::from(*length));
        classes.push(String::from_utf8_lossy(class).into_owned());
        rest = after;
    }
    if rest.is_empty() { classes } else { vec![String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()] }
}

fn architectures(bytes: &[u8]) -> Vec<u16> {
    if !bytes.len().is_multiple_of(2) {
        return Vec::new();
    }
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// Host names end up in records and on terminals: only what may be in one is let in.
fn is_a_host_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_37_an_odd_architecture_list_is_ignored() {
        assert_eq!(architectures(&[0, 7, 0, 16]), [7, 16]);
        assert_eq!(architectures(&[0, 7, 0]), Vec::<u16>::new());
    }

    #[test]
    fn user_classes_are_read_in_both_forms() {
        assert_eq!(user_classes(b"iPXE"), ["iPXE"]);
        assert_eq!(user_classes(b"\x04iPXE"), ["iPXE"]);
        assert_eq!(user_classes(b"\x04iPXE\x02ab"), ["iPXE", "ab"]);
        assert_eq!(user_classes(b""), Vec::<String>::new());
    }

    #[test]
    fn host_names_carry_no_control_characters() {
        assert!(is_a_host_name("web-1.rack.example"));
        assert!(!is_a_host_name("a\x1b[2J"));
        assert!(!is_a_host_name(""));
    }
}
