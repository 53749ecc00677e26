//! The wire below IP: what goes to cards that have no address, who else serves there, and which addresses are in use.

mod card;
mod datagram;
mod ear;
mod hearing;
mod packet_socket;
mod post;
mod prober;
mod watch;

pub use card::Card;
pub use datagram::Datagram;
pub use ear::{Ear, Other};
pub use hearing::Hearing;
pub use packet_socket::PacketSocket;
pub use prober::{Found, Prober, note};
pub use watch::{Hint, Hints, Watch, refusal};
