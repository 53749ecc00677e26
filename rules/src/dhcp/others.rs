//! Other DHCP servers on a wire of ours: how they are looked for, and what is heard of them.
//!
//! Who looks asks for an address like a client, and never takes it. Another Bennu knows the question by its vendor
//! class: it holds no address and opens no boot for it, and says what it is.
//!
//! Bennus that serve call each other, too, in replies to a transaction that nobody has: no DHCP server reads a reply, and
//! no client takes one that is not its own (RFC 2131 §4.4.1), so that a site's servers neither hold nor log anything.

use super::{
    decide::{DhcpAnswer, Reason},
    options::{Options, code},
    reply::SendTo,
    request::{Kind, Request},
};
use crate::{
    Decision, MacAddress,
    notice::Notice,
    settings::{DhcpMode, Settings},
};
use dhcproto::{
    Encodable,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption},
};
use std::{fmt, net::Ipv4Addr};

/// Vendor class (option 60) of a question by somebody who only looks.
const LOOKS: &str = "bennu-probe";
/// Vendor class of a question by a Bennu that begins to serve. Others look who that is, with a question of the first kind,
/// so that two Bennus do not ask each other for ever.
const BEGINS: &str = "bennu-begins";
/// Vendor class of a Bennu's answer. Its option 43 says whether addresses are given there.
const ANSWER: &str = "bennu";
/// In option 43 of an answer.
const GIVES_ADDRESSES: &[u8] = b"full";
/// In option 43 of an answer.
const STANDS_BESIDE: &[u8] = b"proxy";
/// In option 43 of an answer.
const STANDS_BY: &[u8] = b"standby";
/// Vendor class of a Bennu's call.
const CALL: &str = "bennu-call";
/// Some servers and relays drop what is shorter than a BOOTP packet (RFC 1542 §2.1).
const LEAST_SIZE: usize = 300;

/// Who looks for servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// Somebody who wants to know.
    Only,
    /// A Bennu that begins to serve.
    AndBegins,
}

/// A DISCOVER by a card that should not exist. Whoever answers it is a DHCP server.
pub fn question(mac: MacAddress, xid: u32, who: Looks) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, none, none, none, &mac.0);
    message.set_flags(Flags::default().set_broadcast());
    let wanted = vec![OptionCode::SubnetMask, OptionCode::Router, OptionCode::ServerIdentifier];
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
    message.opts_mut().insert(DhcpOption::ParameterRequestList(wanted));
    let class = if who == Looks::AndBegins { BEGINS } else { LOOKS };
    insert(&mut message, code::CLASS, class.as_bytes());
    encoded(&message)
}

/// Whether a request is such a question, and whose.
pub fn asked_by(request: &Request) -> Option<Looks> {
    match request.class.as_deref() {
        Some(LOOKS) if request.kind == Kind::Discover => Some(Looks::Only),
        Some(BEGINS) if request.kind == Kind::Discover => Some(Looks::AndBegins),
        _ => None,
    }
}

/// Our answer to such a question: an OFFER without an address. One that a relay passed on gets none, for it was asked on
/// another wire, or comes back to who asked it.
pub(super) fn answer(request: &Request, mode: DhcpMode, stands_by: bool) -> Option<Decision<DhcpAnswer>> {
    asked_by(request)?;
    let Some(appliance) = Appliance::of(mode, stands_by).filter(|_| !request.is_relayed()) else {
        return Some(Decision::just(DhcpAnswer::Silence(Reason::LooksForServers)));
    };
    let call = Call { xid: request.xid, card: request.mac };
    let packet = call.answered(request.our_id(), appliance);
    Some(Decision::just(DhcpAnswer::Reply { packet, send_to: SendTo::Broadcast, probe: None }))
}

/// A Bennu's question who else of them is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its transaction, which the answers repeat.
    pub xid: u32,
    /// The card that asks.
    pub card: MacAddress,
}

impl Call {
    /// As it goes to everybody's port 68.
    pub fn packet(&self) -> Vec<u8> {
        let mut message = self.reply();
        insert(&mut message, code::CLASS, CALL.as_bytes());
        encoded(&message)
    }

    /// Reads one. `None`: it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let options = options_of(bytes)?;
        let is_call = options.text(code::CLASS).as_deref() == Some(CALL) && options.get(code::MESSAGE_TYPE).is_none();
        let card = MacAddress(bytes.get(28..34)?.try_into().ok()?);
        is_call.then_some(Self { xid: u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?), card })
    }

    /// The answer of a Bennu with this server identifier: an OFFER without an address.
    pub fn answered(&self, server: Ipv4Addr, appliance: Appliance) -> Vec<u8> {
        let mut message = self.reply();
        message.set_flags(Flags::default().set_broadcast());
        message.opts_mut().insert(DhcpOption::MessageType(MessageType::Offer));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        insert(&mut message, code::CLASS, ANSWER.as_bytes());
        insert(&mut message, code::VENDOR, appliance.word());
        encoded(&message)
    }

    fn reply(&self) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(self.xid, none, none, none, none, &self.card.0);
        message.set_opcode(Opcode::BootReply);
        message
    }
}

fn insert(message: &mut Message, code: u8, bytes: &[u8]) {
    message.opts_mut().insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), bytes.to_vec())));
}

/// The options of a reply.
fn options_of(bytes: &[u8]) -> Option<Options> {
    if bytes.first() != Some(&2) || *bytes.get(236..240)? != dhcproto::v4::MAGIC {
        return None;
    }
    Options::parse(bytes.get(240..)?, bytes.get(108..236)?, bytes.get(44..108)?).ok()
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut packet = message.to_vec().unwrap_or_default();
    packet.resize(packet.len().max(LEAST_SIZE), code::PAD);
    packet
}

/// What a server was heard to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// It offers an address, or a file.
    Offer,
    /// It gives one.
    Ack,
    /// It takes one away.
    Nak,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offer => "OFFER",
            Self::Ack => "ACK",
            Self::Nak => "NAK",
        })
    }
}

/// What a Bennu does on the wire where it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Appliance {
    /// It gives addresses.
    Full,
    /// It stands beside the site's server.
    Proxy,
    /// It answers no machine while another Bennu does.
    StandsBy,
}

impl Appliance {
    /// What a Bennu that is configured so is; `None` where it answers no DHCP.
    pub fn of(mode: DhcpMode, stands_by: bool) -> Option<Self> {
        match mode {
            DhcpMode::Off => None,
            _ if stands_by => Some(Self::StandsBy),
            DhcpMode::Full => Some(Self::Full),
            DhcpMode::Proxy => Some(Self::Proxy),
        }
    }

    fn word(self) -> &'static [u8] {
        match self {
            Self::Full => GIVES_ADDRESSES,
            Self::Proxy => STANDS_BESIDE,
            Self::StandsBy => STANDS_BY,
        }
    }

    /// Of a word that is not known: a server that may give addresses.
    fn named(word: Option<&[u8]>) -> Self {
        [Self::Proxy, Self::StandsBy].into_iter().find(|known| word == Some(known.word())).unwrap_or(Self::Full)
    }
}

/// A server that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Its server identifier, else the address it sent from.
    pub server: Ipv4Addr,
    /// What it said.
    pub said: Said,
    /// Set where it called itself a Bennu.
    pub appliance: Option<Appliance>,
    /// The transaction that it answered.
    pub xid: u32,
}

impl Heard {
    /// Reads what came from `source`. `None`: no DHCP server says such a thing.
    pub fn parse(bytes: &[u8], source: Ipv4Addr) -> Option<Self> {
        let options = options_of(bytes)?;
        let said = match options.get(code::MESSAGE_TYPE)? {
            [2] => Said::Offer,
            [5] => Said::Ack,
            [6] => Said::Nak,
            _ => return None,
        };
        let is_bennu = options.text(code::CLASS).as_deref() == Some(ANSWER);
        let appliance = is_bennu.then(|| Appliance::named(options.get(code::VENDOR)));
        let xid = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        Some(Self { server: options.address(code::SERVER_ID).unwrap_or(source), said, appliance, xid })
    }

    /// What a person should know of it; `None` where the configuration allows it, or it answers no machine.
    pub fn notice(&self, interface: &str, settings: &Settings) -> Option<Notice> {
        let (interface, server) = (interface.to_owned(), self.server);
        if settings.allow_servers.contains(&server) {
            return None;
        }
        Some(match self.appliance {
            Some(Appliance::StandsBy) => return None,
            Some(_) => Notice::OtherAppliance { interface, server },
            None => Notice::OtherServer { interface, server, said: self.said.to_string() },
        })
    }
}

#[cfg(test)]
mod tests;
