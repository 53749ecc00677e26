//! An answer of the server, read by dhcproto and checked for what holds of every answer.

use anyhow::{Context, Result, ensure};
use dhcproto::v4::borrowed::Message;
use std::{collections::BTreeMap, net::Ipv4Addr};

use super::frames::Datagram;

/// An OFFER, ACK or NAK as it came over the wire.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Got {
    pub wire: Datagram,
    pub kind: u8,
    pub xid: u32,
    pub hops: u8,
    pub secs: u16,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: [u8; 16],
    pub file: String,
    /// Codes in the order of the packet.
    pub order: Vec<u8>,
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Got {
    /// Reads it. Whatever it answers, it is one well-formed BOOTREPLY that ends with END.
    pub fn read(wire: Datagram) -> Result<Self> {
        let packet = &wire.payload;
        ensure!(packet.len() >= 240, "an answer of {} bytes", packet.len());
        ensure!(packet[..3] == [2, 1, 6], "op, htype and hlen are {:?}", &packet[..3]);
        ensure!(packet[236..240] == [99, 130, 83, 99], "the cookie is {:?}", &packet[236..240]);
        let order = codes(&packet[240..])?;
        let message = Message::new(packet).context("dhcproto cannot read the answer")?;
        let options: BTreeMap<u8, Vec<u8>> =
            message.opts().map(|option| (u8::from(option.code()), option.data().to_vec())).collect();
        ensure!(options.len() == order.len(), "an option came twice: {order:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or(b"")).into();
        Ok(Self {
            kind: options.get(&53).and_then(|kind| kind.first()).copied().unwrap_or_default(),
            xid: message.xid(),
            hops: packet[3],
            secs: u16::from_be_bytes([packet[8], packet[9]]),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            yiaddr: message.yiaddr(),
            siaddr: message.siaddr(),
            giaddr: message.giaddr(),
            chaddr: packet[28..44].try_into()?,
            file: text(&packet[108..236]),
            order,
            options,
            wire,
        })
    }

    /// Whether it carries an option.
    pub fn has(&self, code: u8) -> bool {
        self.options.contains_key(&code)
    }

    /// An option's bytes.
    pub fn bytes(&self, code: u8) -> Result<&[u8]> {
        self.options.get(&code).map(Vec::as_slice).with_context(|| format!("no option {code} in {:?}", self.order))
    }

    /// An option of four bytes as a number.
    pub fn number(&self, code: u8) -> Result<u32> {
        let bytes = self.bytes(code)?;
        Ok(u32::from_be_bytes(bytes.try_into().with_context(|| format!("option {code} is {bytes:?}"))?))
    }

    /// An option that is one address.
    pub fn address(&self, code: u8) -> Result<Ipv4Addr> {
        Ok(self.number(code)?.into())
    }

    /// An option that is text.
    pub fn text(&self, code: u8) -> Result<String> {
        Ok(String::from_utf8(self.bytes(code)?.to_vec())?)
    }
}

/// The codes of the options field, END reached with every option whole and nothing but pads behind it.
fn codes(mut field: &[u8]) -> Result<Vec<u8>> {
    let mut codes = Vec::new();
    loop {
        match field {
            [255, pads @ ..] => {
                ensure!(pads.iter().all(|byte| *byte == 0), "something comes after END");
                return Ok(codes);
            }
            [0, rest @ ..] => field = rest,
            [code, length, rest @ ..] if usize::from(*length) <= rest.len() => {
                codes.push(*code);
                field = &rest[usize::from(*length)..];
            }
            _ => anyhow::bail!("the options {codes:?} are followed by no END"),
        }
    }
}
