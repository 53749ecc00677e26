//! The network: which interface, how it comes up, and the address it gets.

pub mod dhcp;
mod keeper;
mod lease;
mod link;
mod mac;
pub mod netlink;
mod up;

pub use keeper::{Kept, keep};
pub use link::{Interface, interfaces};
pub use mac::Mac;
pub use up::bring_up;
