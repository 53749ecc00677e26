//! The wire below IP: what goes to cards that have no address, and what is heard of others.

#![allow(dead_code, reason = "listening is for the watch over the wire, which comes next")]

mod card;
mod datagram;
mod packet_socket;

pub use card::Card;
pub use datagram::Datagram;
pub use packet_socket::PacketSocket;
