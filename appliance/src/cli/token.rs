//! `bennu token …`

use super::{
    Json,
    client::Client,
    error::Done,
    output::{Listing, age, say, say_json, span},
    status::now,
};
use crate::http::api::tokens::{TokenBody, TokenMade, TokenShown};
use bennu_rules::token::{Role, TokenId, TokenName};
use clap::Subcommand;
use http::Method;
use serde_json::Value;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    Create {
        /// What to call it, such as ci-builder
        name: TokenName,
        /// What its bearer may do: read, push (images and tags too), operate (everything but tokens) or admin
        #[arg(long)]
        role: Role,
        /// How long it lasts; without, until it is revoked
        #[arg(long, value_name = "DAYS")]
        expires: Option<u32>,
        #[command(flatten)]
        output: Json,
    },
    /// List the tokens
    List {
        #[command(flatten)]
        output: Json,
    },
    /// End a token: whoever has it is refused at once
    Revoke {
        /// Its id, as the list shows it
        id: TokenId,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: TokenCommand) -> Done {
    match command {
        TokenCommand::Create { name, role, expires, output } => {
            let body = TokenBody { name, role, expires_in_days: expires };
            let made: TokenMade = client.write(Method::POST, "/v1/tokens", &body).await?;
            if output.json {
                return say_json(&made);
            }
            // Beside the token, so that a script takes the token alone.
            eprintln!("{}", described(&made.shown));
            say(made.token);
            Ok(())
        }
        TokenCommand::List { output } => list(client, output).await,
        TokenCommand::Revoke { id } => {
            client.delete(&format!("/v1/tokens/{id}")).await?;
            say(format!("token {id} is revoked"));
            Ok(())
        }
    }
}

fn described(token: &TokenShown) -> String {
    let until = match token.expires {
        Some(expires) => format!("for {}", span(expires.since(token.created))),
        None => "until it is revoked".to_owned(),
    };
    format!("token {} ({}) has the role {} {until}; it is shown this once:", token.id, token.name, token.role)
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/tokens", None).await?);
    }
    let mut tokens: Vec<TokenShown> = client.list("/v1/tokens", None).await?;
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    let now = now();
    let mut listing = Listing::new(&["ID", "NAME", "ROLE", "AGE", "USED", "ENDS", "MADE BY"], &[]);
    for token in &tokens {
        let used = token.last_used.map_or("never".to_owned(), |used| format!("{} ago", age(used, now)));
        let ends = match token.expires {
            None => "when revoked".to_owned(),
            Some(_) if token.expired => "has ended".to_owned(),
            Some(expires) => format!("in {}", span(expires.since(now))),
        };
        let (id, role) = (token.id.to_string(), token.role.to_string());
        listing.row([id, token.name.to_string(), role, age(token.created, now), used, ends, token.by.clone()]);
    }
    listing.print("no tokens");
    Ok(())
}
