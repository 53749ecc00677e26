//! `bennu`: the bare-metal provisioning appliance, and its command line.
//!
//! A library only so that its readers of foreign text can be fuzzed.

mod appliance;
mod audit;
mod author;
mod backup;
mod cli;
pub mod config;
mod dhcp;
mod doctor;
mod door;
mod http;
mod interfaces;
mod ledger;
mod loaders;
mod logs;
mod memory;
mod metrics;
mod ndp;
mod neighbours;
mod observe;
mod ports;
mod privileges;
mod registry;
mod secrets;
mod serve;
mod support;
mod tftp;
mod trial;
mod wire;
mod zone;

pub use http::range;

/// Runs the command line.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
