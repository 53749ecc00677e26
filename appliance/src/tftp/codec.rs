//! Datagrams of the well-known port as packets, for tokio-util's framing.

use bennu_rules::tftp::{Packet, packet::Malformed};
use bytes::{BufMut, BytesMut};
use std::io;
use tokio_util::codec::{Decoder, Encoder};

/// One datagram is one frame. A malformed one is an item, not an error: errors end a stream.
#[derive(Debug, Default)]
pub struct Codec;

impl Decoder for Codec {
    type Item = Result<Packet, Malformed>;
    type Error = io::Error;

    fn decode(&mut self, datagram: &mut BytesMut) -> Result<Option<Self::Item>, io::Error> {
        if datagram.is_empty() {
            return Ok(None);
        }
        let parsed = Packet::parse(datagram);
        datagram.clear();
        Ok(Some(parsed))
    }
}

impl Encoder<Packet> for Codec {
    type Error = io::Error;

    fn encode(&mut self, packet: Packet, out: &mut BytesMut) -> Result<(), io::Error> {
        out.put_slice(&packet.to_bytes());
        Ok(())
    }
}
