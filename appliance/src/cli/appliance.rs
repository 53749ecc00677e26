//! `bennu appliance`: the host of an appliance that runs from its own disc.

mod disc;
mod reset;

use super::{
    Json,
    client::Client,
    error::Done,
    output::{fields, say, say_json},
};
use crate::http::api::appliance::ApplianceShown;
use bennu_rules::{Timestamp, order::Order};
use clap::Subcommand;
use http::Method;

/// Commands of the host.
#[derive(Debug, Subcommand)]
pub enum ApplianceCommand {
    /// Show which disc runs, and where it was started from
    Show(Json),
    /// End the service cleanly and start the host again
    Restart,
    /// End the service cleanly and switch the host off
    PowerOff,
    /// Install another version's disc, and restart into it; when it does not become ready, this one runs again
    Upgrade(disc::Upgrade),
    /// Make it as it was when it came: everything goes but the discs in its slots
    Reset(reset::ResetArguments),
    /// Sign a disc
    Sign(disc::Sign),
    /// Say which disc it is, if a key has signed it
    Verify(disc::Verify),
}

/// Runs one.
pub async fn run(client: &Client, command: ApplianceCommand) -> Done {
    match command {
        ApplianceCommand::Show(output) => show(client, output).await,
        ApplianceCommand::Restart => order(client, "restart", "the appliance starts again").await,
        ApplianceCommand::PowerOff => order(client, "power-off", "the appliance switches itself off").await,
        ApplianceCommand::Upgrade(wanted) => disc::upgrade(client, wanted).await,
        ApplianceCommand::Reset(wanted) => reset::run(client, wanted).await,
        ApplianceCommand::Sign(wanted) => disc::sign(&wanted),
        ApplianceCommand::Verify(wanted) => disc::verify(&wanted),
    }
}

async fn show(client: &Client, output: Json) -> Done {
    let shown: ApplianceShown = client.get("/v1/appliance").await?;
    match output.json {
        true => say_json(&shown),
        false => {
            say(described(&shown));
            Ok(())
        }
    }
}

fn described(shown: &ApplianceShown) -> String {
    let state = shown.state_disk.clone().unwrap_or_else(|| "in memory: gone when the host is switched off".into());
    let upgrades = if shown.upgradable { "" } else { "none: the disc that runs has no key" };
    let mut text = fields(&[
        ("runs", format!("{} (built {}), from {}", shown.version, date(shown.built), shown.from)),
        ("state", state),
        ("upgrades", upgrades.to_owned()),
    ]);
    for held in &shown.slots {
        let (slot, built) = (held.slot.name(), date(held.built));
        text += &format!("slot {slot}: {} (built {built}), {}\n", held.version, held.standing);
    }
    if let Some(failed) = &shown.failed {
        text += &format!("\nTHE UPGRADE to {failed} did not become ready, and {} runs again\n", shown.version);
    }
    text
}

/// Seconds since 1970 as a person reads them.
fn date(built: u64) -> Timestamp {
    Timestamp(built.saturating_mul(1000))
}

async fn order(client: &Client, what: &str, told: &str) -> Done {
    let _: Order = client.write(Method::POST, &format!("/v1/appliance/{what}"), &()).await?;
    say(told);
    Ok(())
}
