//! `bennu secret …`

use super::{
    Json,
    client::Client,
    error::{CliError, Done},
    output::{Listing, age, say, say_json},
    status::now,
};
use crate::http::api::secrets::{MAX_VALUE, SecretBody, SecretShown};
use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_rules::{MacAddress, secret::SecretName, selector::Selector};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use std::io::Read;
use zeroize::Zeroizing;

/// What can be done with secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Set a secret to what comes on standard input
    Set {
        /// What to call it, such as db-password
        name: SecretName,
        #[command(flatten)]
        whose: Whose,
        /// Where machines get it as a file; without, only documents that name it place it
        #[arg(long)]
        path: Option<String>,
        /// The file's permission bits; 0600 unless given
        #[arg(long, requires = "path")]
        mode: Option<String>,
        /// The file's owner in the image, user or user:group; root unless given
        #[arg(long, requires = "path")]
        owner: Option<String>,
    },
    /// List the secrets: names, whose they are and where they go, never what they are
    List {
        #[command(flatten)]
        output: Json,
    },
    /// Remove a secret; machines that run keep what they were given until their next boot
    Remove {
        /// Its name
        name: SecretName,
    },
}

/// Whose a secret is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Whose {
    /// One machine's
    #[arg(long, value_name = "MAC")]
    machine: Option<MacAddress>,
    /// Every machine's with such labels, as in rack=r1,role in (web,api); '' is every machine's
    #[arg(long)]
    selector: Option<Selector>,
}

/// Runs one.
pub async fn run(client: &Client, command: SecretCommand) -> Done {
    match command {
        SecretCommand::Set { name, whose, path, mode, owner } => {
            let value_base64 = Some(BASE64_STANDARD.encode(&*read()?));
            let Whose { machine, selector } = whose;
            let body = SecretBody { machine, selector, path, mode, owner, value: None, value_base64 };
            let _: SecretShown = client.write(Method::PUT, &format!("/v1/secrets/{name}"), &body).await?;
            say(format!("secret {name} is set; machines get it at their next boot"));
            Ok(())
        }
        SecretCommand::List { output } => list(client, output).await,
        SecretCommand::Remove { name } => {
            client.delete(&format!("/v1/secrets/{name}")).await?;
            say(format!("secret {name} is removed"));
            Ok(())
        }
    }
}

/// Not an argument: other users of this host see those.
fn read() -> Done<Zeroizing<Vec<u8>>> {
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_VALUE + 1));
    let read = std::io::stdin().lock().take(MAX_VALUE as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| CliError::failed(format!("cannot read the secret: {error}"), "send it on standard input"))?;
    match value.len() {
        0 => Err(CliError::failed("there is nothing on standard input", "bennu secret set NAME … < FILE")),
        1..=MAX_VALUE => Ok(value),
        _ => Err(CliError::failed(format!("the secret is longer than {MAX_VALUE} bytes"), "put only the key in it")),
    }
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/secrets", None).await?);
    }
    let secrets: Vec<SecretShown> = client.list("/v1/secrets", None).await?;
    let now = now();
    let mut listing = Listing::new(&["NAME", "FOR", "FILE", "MODE", "OWNER", "AGE", "SET BY"], &[]);
    for secret in secrets {
        let whose = match (secret.machine, secret.selector.map(|selector| selector.to_string())) {
            (Some(mac), _) => mac.to_string(),
            (None, Some(selector)) if !selector.is_empty() => selector,
            _ => "every machine".to_owned(),
        };
        let owner = secret.owner.unwrap_or_else(|| if secret.path.is_some() { "root".into() } else { String::new() });
        let (path, mode) = (secret.path.unwrap_or_default(), secret.mode.unwrap_or_default());
        listing.row([secret.name.to_string(), whose, path, mode, owner, age(secret.set, now), secret.by]);
    }
    listing.print("no secrets");
    Ok(())
}
