//! `bennu profile …`

use super::{
    Json,
    client::Client,
    error::Done,
    output::{Listing, or_dash, say_json},
};
use crate::http::api::profiles::ProfileShown;
use clap::Subcommand;
use serde_json::Value;

/// What can be done with hardware profiles. Documents of kind Profile change them (`bennu apply`).
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List what is known of server models, kept here or brought along by Bennu
    List {
        #[command(flatten)]
        output: Json,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: ProfileCommand) -> Done {
    let ProfileCommand::List { output } = command;
    if output.json {
        return say_json(&client.list::<Value>("/v1/profiles", None).await?);
    }
    let profiles: Vec<ProfileShown> = client.list("/v1/profiles", None).await?;
    let mut listing = Listing::new(&["PROFILE", "MANUFACTURER", "PRODUCT", "SETTINGS", "FROM"], &[]);
    for ProfileShown { name, matches, settings, built_in, .. } in &profiles {
        let settings = serde_json::to_value(settings).unwrap_or_default();
        let settings = settings.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
        listing.row([
            name.to_string(),
            or_dash(matches.manufacturer.as_ref()),
            or_dash(matches.product.as_ref()),
            settings.collect::<Vec<_>>().join(" "),
            if *built_in { "Bennu" } else { "documents" }.to_owned(),
        ]);
    }
    listing.print("no profiles");
    Ok(())
}
