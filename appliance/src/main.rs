//! `bennu`: the bare-metal provisioning appliance, and its command line.

mod appliance;
mod cli;
mod config;
mod dhcp;
mod doctor;
mod http;
mod interfaces;
mod ledger;
mod loaders;
mod ndp;
mod neighbours;
mod observe;
mod ports;
mod serve;
mod tftp;

fn main() -> std::process::ExitCode {
    cli::main()
}
