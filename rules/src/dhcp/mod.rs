//! DHCP for IPv4: who asks, and what they are answered.
//!
//! ```text
//!   bytes ──▶ request ──▶ decide ──┬─▶ full  ─▶ address   who gets which address
//!             (options)  (client)  └─▶ proxy              boot files only
//!                                        └──▶ loader ─▶ reply ──▶ bytes
//! ```

pub mod address;
pub mod client;
mod decide;
mod full;
pub mod loader;
pub mod options;
pub mod others;
mod packet;
mod probe;
mod proxy;
pub mod reply;
pub mod request;
pub mod site;
pub mod standby;

pub use decide::{DhcpAnswer, Reason, decide};
pub use full::takes_up_an_offer;
pub use probe::{Probed, probe_ahead, probed, vetted};
pub use reply::SendTo;
pub use request::{BOOT_SERVER_PORT, CLIENT_PORT, Malformed, Received, Request, SERVER_PORT};
pub use site::{OptionCode, OptionValue, SiteOptions};
