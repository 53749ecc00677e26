//! DHCP by the checklist, against packets made by hand, packets captured from real clients, and packets made
//! by chance.

#![allow(clippy::unwrap_used)]

mod captured;
mod clock;
mod conformance;
mod cost;
mod kit;
mod options;
mod probe;
mod properties;
mod pxe;
mod secure_boot;
mod site;
mod standby;
mod strangers;
