//! `bennu lease …`

use super::{
    Json,
    client::Client,
    error::Done,
    output::{Listing, or_dash, say_json, span},
};
use crate::http::api::leases::LeaseShown;
use clap::Subcommand;
use serde_json::Value;

/// What can be done with leases.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// List who holds which address
    List {
        /// Those that have ended too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Json,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: LeaseCommand) -> Done {
    let LeaseCommand::List { all, output } = command;
    if output.json {
        let leases: Vec<Value> = client.list("/v1/leases", None).await?;
        let wanted = |lease: &&Value| all || lease["active"] == true;
        return say_json(&leases.iter().filter(wanted).collect::<Vec<_>>());
    }
    let leases: Vec<LeaseShown> = client.list("/v1/leases", None).await?;
    let now = super::status::now();
    let mut listing = Listing::new(&["ADDRESS", "MAC", "MACHINE", "HOST NAME", "STATE"], &[]);
    for lease in leases.iter().filter(|lease| all || lease.active) {
        let state = match (lease.active, lease.declined) {
            (true, true) => format!("in use by somebody else, set aside for {}", span(lease.expires.since(now))),
            (true, false) => format!("ends in {}", span(lease.expires.since(now))),
            (false, _) => format!("ended {} ago", span(now.since(lease.expires))),
        };
        listing.row([
            lease.address.to_string(),
            lease.mac.to_string(),
            or_dash(lease.machine),
            or_dash(lease.hostname.as_deref()),
            state,
        ]);
    }
    listing.print("no leases");
    Ok(())
}
