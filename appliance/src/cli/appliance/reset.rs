//! `bennu appliance reset`: the appliance as it was when it came.

use crate::{
    cli::{
        client::Client,
        error::{CliError, Done},
        output::{legible, say},
    },
    http::api::{appliance::ApplianceShown, appliance::ResetWanted, status::Status},
};
use bennu_rules::order::Order;
use clap::Args;
use http::Method;
use std::io::{self, BufRead, IsTerminal, Write};

/// The arguments of a reset.
#[derive(Debug, Args)]
#[command(
    after_help = "Machines, images, keys, certificates, tokens, backups and logs go, and so does the configuration. Take a backup \
        to somewhere else first (bennu backup): there is no other way back. What goes is deleted, and not written over."
)]
pub struct ResetArguments {
    /// The appliance's host name; without it, it is asked for
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Leave bennu.toml: the appliance starts with it, and not with its set-up
    #[arg(long)]
    keep_configuration: bool,
}

/// Asks for it, once it is clear that it is meant.
pub async fn run(client: &Client, wanted: ResetArguments) -> Done {
    let keep_configuration = wanted.keep_configuration;
    let confirm = match wanted.confirm {
        Some(name) => name,
        None => {
            // Where it cannot be done, nobody types anything.
            client.get::<ApplianceShown>("/v1/appliance").await?;
            ask(&client.get::<Status>("/v1/status").await?.hostname)?
        }
    };
    let body = ResetWanted { confirm, keep_configuration };
    let _: Order = client.write(Method::POST, "/v1/appliance/reset", &body).await?;
    say(match keep_configuration {
        true => "the appliance forgets everything but its configuration, and starts again",
        false => "the appliance forgets everything, and starts again: its set-up waits on its console",
    });
    Ok(())
}

fn ask(name: &str) -> Done<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::usage(
            "nobody is there to be asked whether everything may go",
            "name the appliance that is meant: --confirm HOST",
        ));
    }
    eprintln!("EVERYTHING that this appliance keeps goes: machines, images, keys, tokens, backups, logs.");
    eprint!("Type its host name ({}) to go on: ", legible(name));
    let _ = io::stderr().flush();
    let mut typed = String::new();
    let read = stdin.lock().read_line(&mut typed);
    read.map_err(|error| CliError::failed(format!("cannot read an answer: {error}"), "use --confirm HOST"))?;
    Ok(typed.trim().to_owned())
}
