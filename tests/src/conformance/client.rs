//! A DHCP client made of frames: it sees where each answer goes, on the link and above it.

use anyhow::{Context, Result, bail, ensure};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    ask::{Ask, kind},
    frames::{Arp, Datagram, EVERYBODY, Mac},
    got::Got,
    link::Link,
    place::{Place, SERVER},
};

/// An answer may take this long: the machines that run the tests are busy.
const PATIENCE: Duration = Duration::from_secs(4);
/// A client asks again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// No answer within this time is none: answers take milliseconds.
pub const QUIET: Duration = Duration::from_millis(1500);

/// A client with a card of its own.
#[derive(Debug)]
pub struct Client {
    link: Link,
    server_mac: Mac,
    /// Its card.
    pub mac: Mac,
    /// The address that it answers ARP for.
    pub own: Option<Ipv4Addr>,
    xid: u32,
}

impl Client {
    /// A client on `link`.
    pub fn new(link: Link, server_mac: Mac, mac: Mac) -> Self {
        let xid = u32::from_be_bytes([mac[3] ^ 0x5a, mac[4], mac[5], 0]);
        Self { link, server_mac, mac, own: None, xid }
    }

    /// The same, sending what is for the server alone to this card.
    pub fn knowing(self, server_mac: Mac) -> Self {
        Self { server_mac, ..self }
    }

    /// A packet of a conversation of its own.
    pub fn ask(&mut self, kind: u8) -> Ask {
        self.xid += 1;
        Ask::new(kind, self.xid, self.mac)
    }

    /// Sends a packet once.
    pub fn send(&self, ask: &Ask) -> Result<()> {
        self.send_bytes(ask, ask.bytes())
    }

    /// Sends other bytes the way of `ask`.
    pub fn send_bytes(&self, ask: &Ask, payload: Vec<u8>) -> Result<()> {
        let link_to = if ask.to.ip().is_broadcast() { EVERYBODY } else { self.server_mac };
        let datagram = Datagram { link_from: self.mac, link_to, from: ask.from, to: ask.to, payload };
        self.link.send(&datagram.frame())
    }

    /// The next answer in this conversation before `deadline`. Meanwhile ARP is answered.
    pub fn hear(&self, ask: &Ask, deadline: Instant) -> Result<Option<Got>> {
        while let Some(frame) = self.link.receive(deadline)? {
            if let Some(arp) = Arp::parse(&frame).filter(|arp| arp.is_request && self.own == Some(arp.target.1)) {
                self.link.send(&arp.answered_by(self.mac).frame())?;
            }
            let Some(datagram) = Datagram::parse(&frame) else { continue };
            let payload = &datagram.payload;
            let is_ours = payload.len() >= 240
                && payload[0] == 2
                && payload[4..8] == ask.xid.to_be_bytes()
                && payload[28..34] == ask.mac;
            if is_ours {
                return Got::read(datagram).map(Some);
            }
        }
        Ok(None)
    }

    /// Sends a packet until it is answered.
    pub fn answer(&self, ask: &Ask) -> Result<Got> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.send(ask)?;
            if let Some(got) = self.hear(ask, Instant::now() + AGAIN)? {
                return Ok(got);
            }
        }
        bail!("no answer within {PATIENCE:?} to {ask:?}")
    }

    /// The answer, which is of this kind.
    pub fn answered(&self, ask: &Ask, kind: u8) -> Result<Got> {
        let got = self.answer(ask)?;
        ensure!(got.kind == kind, "message type {} came, not {kind}, to {ask:?}", got.kind);
        Ok(got)
    }

    /// Sends a packet that gets no answer for a while.
    pub fn ignored(&self, ask: &Ask) -> Result<()> {
        self.ignored_for(ask, QUIET)
    }

    /// The same for a while of this length.
    pub fn ignored_for(&self, ask: &Ask, quiet: Duration) -> Result<()> {
        self.send(ask)?;
        match self.hear(ask, Instant::now() + quiet)? {
            None => Ok(()),
            Some(got) => bail!("message type {} came as an answer to {ask:?}", got.kind),
        }
    }

    /// The REQUEST for what was offered, with the other options of the DISCOVER.
    pub fn request_for(&self, discover: &Ask, offer: &Got) -> Result<Ask> {
        let request = discover.clone().of_kind(kind::REQUEST).without(50);
        Ok(request.address(50, offer.yiaddr).address(54, offer.address(54)?))
    }

    /// DISCOVER, OFFER, REQUEST, ACK; both answers.
    pub fn boot(&mut self, discover: &Ask) -> Result<(Got, Got)> {
        let offer = self.answered(discover, kind::OFFER)?;
        let ack = self.answered(&self.request_for(discover, &offer)?, kind::ACK)?;
        ensure!(ack.yiaddr == offer.yiaddr, "{} was offered and {} given", offer.yiaddr, ack.yiaddr);
        self.own = Some(ack.yiaddr);
        Ok((offer, ack))
    }

    /// The address that a plain client gets.
    pub fn lease(&mut self) -> Result<Ipv4Addr> {
        let discover = self.ask(kind::DISCOVER);
        Ok(self.boot(&discover).context("a plain lease")?.1.yiaddr)
    }

    /// A renewal as RFC 2131 §4.3.2 has it.
    pub fn renewal(&mut self, address: Ipv4Addr) -> Ask {
        self.ask(kind::REQUEST).unicast(address, SERVER)
    }

    /// Offers this client nothing; waits for the ARP answer for an address instead.
    pub fn who_has(&self, sender: Ipv4Addr, address: Ipv4Addr) -> Result<Option<Mac>> {
        let request = Arp::request((self.mac, sender), address);
        for _ in 0..3 {
            self.link.send(&request.frame())?;
            let deadline = Instant::now() + AGAIN;
            while let Some(frame) = self.link.receive(deadline)? {
                let answer = Arp::parse(&frame).filter(|arp| !arp.is_request && arp.sender.1 == address);
                if let Some(arp) = answer {
                    return Ok(Some(arp.sender.0));
                }
            }
        }
        Ok(None)
    }
}

/// Places of the relays that tests play: their packets come from here, and answers go there.
pub fn relay(subnet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, subnet, 0, 1)
}

impl Place {
    /// Client `number` of a checklist line.
    pub fn client(&self, line: u8, number: u16) -> Result<Client> {
        let [high, low] = number.to_be_bytes();
        let link = Link::open(&self.host, "net0")?;
        Ok(Client::new(link, self.server_mac, [0x52, 0x54, 0x0c, line, high, low]))
    }
}
