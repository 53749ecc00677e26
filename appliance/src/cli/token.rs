//! `bennu token …`

use super::{
    Json,
    client::Client,
    error::Done,
    output::{Listing, age, or_dash, say, say_json, span},
    status::now,
};
use crate::http::api::tokens::{TokenBody, TokenMade, TokenShown};
use bennu_rules::{
    role::{Role, RoleName},
    selector::Selector,
    token::{Scope, TokenId, TokenName},
};
use clap::Subcommand;
use http::Method;
use serde_json::Value;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    #[command(visible_alias = "new")]
    Create {
        /// What to call it, such as ci-builder
        name: TokenName,
        /// What its bearer may do: read, assign, images, power or admin; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "role")]
        scopes: Vec<Scope>,
        /// The role that says what it may do, where, and how long it lasts; documents of kind Role make them
        #[arg(long, value_name = "ROLE", conflicts_with_all = ["scopes", "limit"])]
        role: Option<RoleName>,
        /// The labels of the machines that it sees and changes, such as rack=r1; all machines, if absent
        #[arg(long, value_name = "SELECTOR")]
        limit: Option<Selector>,
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
    /// List the roles that tokens can have
    Roles {
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
        TokenCommand::Create { name, scopes, role, limit, expires, output } => {
            let body = TokenBody { name, scopes: scopes.into(), limit, role, expires_in_days: expires };
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
        TokenCommand::Roles { output } => roles(client, output).await,
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
    let TokenShown { id, name, scopes, .. } = token;
    let machines = token.limit.as_ref().map_or_else(String::new, |limit| format!(" on machines with {limit}"));
    format!("token {id} ({name}) may {scopes}{machines} {until}; it is shown this once:")
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/tokens", None).await?);
    }
    let mut tokens: Vec<TokenShown> = client.list("/v1/tokens", None).await?;
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    let now = now();
    let mut listing = Listing::new(&["ID", "NAME", "ROLE", "SCOPES", "LIMIT", "AGE", "USED", "ENDS", "MADE BY"], &[]);
    for token in &tokens {
        let used = token.last_used.map_or("never".to_owned(), |used| format!("{} ago", age(used, now)));
        let ends = match token.expires {
            None => "when revoked".to_owned(),
            Some(_) if token.expired => "has ended".to_owned(),
            Some(expires) => format!("in {}", span(expires.since(now))),
        };
        let (id, name, scopes) = (token.id.to_string(), token.name.to_string(), token.scopes.to_string());
        let (limit, age) = (or_dash(token.limit.as_ref()), age(token.created, now));
        let role = or_dash(token.role.as_ref());
        listing.row([id, name, role, scopes, limit, age, used, ends, token.by.clone()]);
    }
    listing.print("no tokens");
    Ok(())
}

async fn roles(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/roles", None).await?);
    }
    let roles: Vec<Role> = client.list("/v1/roles", None).await?;
    let mut listing = Listing::new(&["ROLE", "SCOPES", "LIMIT", "LASTS", "DESCRIPTION"], &[]);
    for Role { name, scopes, limit, expires_in_days, description } in &roles {
        let lasts = expires_in_days.map_or("until revoked".to_owned(), |days| format!("{days} days"));
        listing.row([name.to_string(), scopes.to_string(), or_dash(limit.as_ref()), lasts, description.clone()]);
    }
    listing.print("no roles: bennu apply -f FILE adds those of documents of kind Role");
    Ok(())
}
