//! What machines say, by syslog: received on the provisioning plane ([`receiver`]), kept per boot ([`store`]).

mod receiver;
mod store;
#[cfg(test)]
mod tests;

#[cfg(test)]
use bennu_rules::syslog::Message;
pub use receiver::Outcome;
pub use receiver::{Listener, serve};
pub use store::{Kept, LineId, Logs, Said, Which};
