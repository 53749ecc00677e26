//! `bennu rule …`

use super::{
    Json,
    client::{Client, encoded},
    error::Done,
    machine::or_everything,
    output::{Listing, fields, say, say_json},
};
use crate::http::api::{
    machines::MachineShown,
    rules::{RuleBody, RuleShown},
};
use bennu_rules::{
    assignment::{Assignment, Origin},
    rule::RuleName,
    selector::Selector,
};
use clap::Subcommand;
use http::Method;
use serde_json::Value;

/// What can be done with assignment rules.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// List the rules, the one that wins over the others first
    List {
        #[command(flatten)]
        output: Json,
    },
    /// Show one rule, and the machines that boot by it
    Show {
        /// Its name
        name: RuleName,
        #[command(flatten)]
        output: Json,
    },
    /// Add a rule, or replace the one of that name
    Set {
        /// What to call it, such as web-servers
        name: RuleName,
        /// What machines boot by it: NAME:TAG, sha256:DIGEST, or `local` for their own disk
        image: Assignment,
        /// Which machines: rack=r1,role in (web,api),!retired or bennu.arch=arm64; without, every machine
        #[arg(long, short = 'l', default_value_t)]
        selector: Selector,
        /// Of the rules that mean a machine, that with the greatest wins; of equal ones, that whose name comes first
        #[arg(long, default_value_t, allow_negative_numbers = true)]
        priority: i32,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Remove a rule
    Remove {
        /// Its name
        name: RuleName,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: RuleCommand) -> Done {
    match command {
        RuleCommand::List { output } => list(client, output).await,
        RuleCommand::Show { name, output } => show(client, &name, output).await,
        RuleCommand::Set { name, image, selector, priority, description } => {
            let body = RuleBody { selector, image, priority, description };
            let shown: RuleShown = client.write(Method::PUT, &format!("/v1/rules/{name}"), &body).await?;
            say(told(&shown));
            Ok(())
        }
        RuleCommand::Remove { name } => {
            client.delete(&format!("/v1/rules/{name}")).await?;
            say(format!("the rule {name} is removed"));
            Ok(())
        }
    }
}

fn told(shown: &RuleShown) -> String {
    let RuleShown { rule, matches, applies } = shown;
    let means = or_everything(&rule.selector);
    format!("{} gives {} to {means}: it means {matches} machines now, {applies} boot by it", rule.name, rule.image)
}

async fn list(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>("/v1/rules", None).await?);
    }
    let mut rules: Vec<RuleShown> = client.list("/v1/rules", None).await?;
    rules.sort_by_key(|shown| std::cmp::Reverse(shown.rule.priority));
    let right = ["PRIORITY", "MEANS", "BOOT BY IT"];
    let mut listing =
        Listing::new(&["RULE", "PRIORITY", "IMAGE", "MEANS", "BOOT BY IT", "SELECTOR", "DESCRIPTION"], &right);
    for RuleShown { rule, matches, applies } in &rules {
        listing.row([
            rule.name.to_string(),
            rule.priority.to_string(),
            rule.image.to_string(),
            matches.to_string(),
            applies.to_string(),
            or_everything(&rule.selector),
            rule.description.clone(),
        ]);
    }
    listing.print("no rules: bennu rule set NAME IMAGE --selector role=web adds one");
    Ok(())
}

async fn show(client: &Client, name: &RuleName, output: Json) -> Done {
    let path = format!("/v1/rules/{name}");
    if output.json {
        return say_json(&client.get::<Value>(&path).await?);
    }
    let shown: RuleShown = client.get(&path).await?;
    let rule = &shown.rule;
    let mut text = format!("rule {}\n", rule.name);
    text += &fields(&[
        ("image", rule.image.to_string()),
        ("selector", or_everything(&rule.selector)),
        ("priority", rule.priority.to_string()),
        ("description", rule.description.clone()),
    ]);
    let selected = format!("/v1/machines?selector={}", encoded(&rule.selector.to_string()));
    for machine in client.list::<MachineShown>(&selected, None).await? {
        text += &match &machine.next.origin {
            Origin::Rule { name } if *name == rule.name => format!("\n{} boots by it", machine.machine.id),
            other => format!("\n{} does not: {other} wins", machine.machine.id),
        };
    }
    say(text);
    Ok(())
}
