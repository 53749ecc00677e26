//! `bennu appliance`: the host of an appliance that runs from its own disc.

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
}

/// Runs one.
pub async fn run(client: &Client, command: ApplianceCommand) -> Done {
    match command {
        ApplianceCommand::Show(output) => show(client, output).await,
        ApplianceCommand::Restart => order(client, "restart", "the appliance starts again").await,
        ApplianceCommand::PowerOff => order(client, "power-off", "the appliance switches itself off").await,
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
    let built = Timestamp(shown.built.saturating_mul(1000));
    let state = shown.state_disk.clone().unwrap_or_else(|| "in memory: gone when the host is switched off".into());
    fields(&[("runs", format!("{} (built {built}), from {}", shown.version, shown.from)), ("state", state)])
}

async fn order(client: &Client, what: &str, told: &str) -> Done {
    let _: Order = client.write(Method::POST, &format!("/v1/appliance/{what}"), &()).await?;
    say(told.to_owned());
    Ok(())
}
