//! `bennu image pushes`

use crate::{
    cli::{
        Json,
        client::{Client, encoded},
        error::{CliError, Done},
        output::{Listing, age, bytes, fields, say, say_json, time},
    },
    http::api::pushes::{PushAction, PushShown},
};
use bennu_rules::{image::ImageName, registry::Outcome};
use http::Method;
use serde_json::Value;

/// Shows all, or one.
pub async fn run(client: &Client, name: Option<ImageName>, retry: bool, output: Json) -> Done {
    let Some(name) = name else { return list(client, output).await };
    let path = format!("/v1/pushes/{}", encoded(&name.to_string()));
    let shown: PushShown = match retry {
        true => client.write(Method::POST, &path, &PushAction::Retry).await?,
        false => client.get(&path).await?,
    };
    if output.json {
        return say_json(&shown);
    }
    let push = &shown.push;
    let notes = shown.progress.iter().flat_map(|now| &now.notes).map(|note| format!("\n{note}")).collect::<String>();
    say(format!(
        "{}{notes}",
        fields(&[
            ("push", push.name.to_string()),
            ("digest", push.digest.to_string()),
            ("pushed", format!("{} by {}", time(push.at), push.by)),
            ("outcome", told(&shown)),
        ])
    ));
    match &push.outcome {
        Outcome::Failed { reason, advice } => Err(CliError::failed(reason, advice)),
        _ => Ok(()),
    }
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/pushes", None).await?);
    }
    let pushes: Vec<PushShown> = client.list("/v1/pushes", None).await?;
    let now = crate::cli::status::now();
    let mut listing = Listing::new(&["PUSH", "DIGEST", "AGE", "OUTCOME"], &[]);
    for shown in &pushes {
        let push = &shown.push;
        listing.row([push.name.to_string(), push.digest.short(), age(push.at, now), told(shown)]);
    }
    listing.print("nothing was pushed yet: skopeo copy SOURCE docker://THIS-HOST:8443/NAME:TAG");
    Ok(())
}

/// What became of it, in a few words.
fn told(shown: &PushShown) -> String {
    match (&shown.push.outcome, &shown.progress) {
        (Outcome::Waiting, Some(now)) => {
            let total = now.total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            format!("being made bootable: {} {}{total}", now.step, bytes(now.done))
        }
        (outcome, _) => outcome.to_string(),
    }
}
