//! What Bennu answers, and why.
//!
//! Every rule has one shape: `fn(&Request, &View, &Moment) -> Decision<Answer>`. It sees the stored
//! state through [`View`], time and chance through [`Moment`], and says what to answer, what to
//! store and what was observed. Sockets, disks, clocks and randomness are the appliance's; a
//! `clippy.toml` in this folder keeps them out.

pub mod access;
pub mod assignment;
pub mod audit;
pub mod backup;
pub mod boot;
pub mod commands;
pub mod decision;
pub mod dhcp;
pub mod difference;
pub mod facts;
pub mod idempotency;
pub mod image;
pub mod journey;
pub mod lease;
pub mod machine;
pub mod memory;
pub mod metadata;
pub mod ndp;
pub mod notice;
pub mod order;
pub mod profile;
pub mod registry;
pub mod role;
pub mod rule;
pub mod schema;
pub mod secret;
pub mod selector;
pub mod settings;
pub mod signature;
pub mod support;
pub mod syslog;
pub mod tftp;
pub mod time;
pub mod token;
pub mod trial;

pub use decision::{Change, Decision, Live, Moment, Records, View, Volatile};
pub use machine::{MacAddress, Machine};
pub use time::Timestamp;
