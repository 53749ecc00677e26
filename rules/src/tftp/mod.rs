//! TFTP: what to serve, and a transfer as a state machine.
//!
//! RFC 1350 (the protocol), 2347 (options), 2348 (blksize), 2349 (timeout, tsize), 7440 (windowsize) and
//! 1123 §4.2 (what hosts must do better). Read-only, and names instead of paths.

pub mod limit;
pub mod negotiate;
pub mod netascii;
pub mod packet;
pub mod peer;
pub mod request;
#[cfg(test)]
mod simulation;
pub mod transfer;

pub use negotiate::{Path, Terms, negotiate};
pub use packet::{ErrorCode, Mode, Packet, Request};
pub use request::{Answer, Refusal, answer};
pub use transfer::{Emit, End, Step, Then, Transfer};
