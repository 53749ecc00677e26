//! `bennu profile …`

use super::{
    Json,
    client::{Client, encoded},
    error::Done,
    output::{Listing, fields, or_dash, say, say_json},
};
use crate::http::api::profiles::ProfileShown;
use bennu_rules::profile::{BootSettings, ProfileName};
use clap::Subcommand;
use serde_json::Value;

/// What can be done with hardware profiles. Documents of kind Profile add them (`bennu apply`).
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List what is known of server models, kept here or brought along by Bennu
    List {
        #[command(flatten)]
        output: Json,
    },
    /// Show one
    Show {
        /// Its name
        name: ProfileName,
        #[command(flatten)]
        output: Json,
    },
    /// Remove one that is kept here
    Remove {
        /// Its name
        name: ProfileName,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: ProfileCommand) -> Done {
    match command {
        ProfileCommand::List { output } => list(client, output).await,
        ProfileCommand::Show { name, output } => show(client, &name, output).await,
        ProfileCommand::Remove { name } => {
            client.delete(&path(&name)).await?;
            say(format!("the hardware profile {name} is removed"));
            Ok(())
        }
    }
}

/// Names of models have spaces in them.
fn path(name: &ProfileName) -> String {
    format!("/v1/profiles/{}", encoded(name.as_str()))
}

async fn show(client: &Client, name: &ProfileName, output: Json) -> Done {
    if output.json {
        return say_json(&client.get::<Value>(&path(name)).await?);
    }
    let ProfileShown { name, matches, settings, example, built_in } = client.get(&path(name)).await?;
    let model = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut text = format!("hardware profile {name}\n");
    text += &fields(&[
        ("manufacturer", or_dash(matches.manufacturer.as_ref())),
        ("product", or_dash(matches.product.as_ref())),
        ("settings", words(&settings)),
        ("example", format!("{} {}", model(&example.manufacturer), model(&example.product))),
        ("from", from(built_in)),
    ]);
    say(text);
    Ok(())
}

fn words(settings: &BootSettings) -> String {
    let settings = serde_json::to_value(settings).unwrap_or_default();
    let words = settings.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
    words.collect::<Vec<_>>().join(" ")
}

fn from(built_in: bool) -> String {
    if built_in { "Bennu" } else { "this appliance" }.to_owned()
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/profiles", None).await?);
    }
    let profiles: Vec<ProfileShown> = client.list("/v1/profiles", None).await?;
    let mut listing = Listing::new(&["PROFILE", "MANUFACTURER", "PRODUCT", "SETTINGS", "FROM"], &[]);
    for ProfileShown { name, matches, settings, built_in, .. } in &profiles {
        listing.row([
            name.to_string(),
            or_dash(matches.manufacturer.as_ref()),
            or_dash(matches.product.as_ref()),
            words(settings),
            from(*built_in),
        ]);
    }
    listing.print("no profiles");
    Ok(())
}
