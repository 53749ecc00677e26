//! `bennu audit …`

use super::{
    Json,
    client::{Client, chain, encoded},
    error::{CliError, Done},
    output::{Listing, age, fields, legible, say, say_json},
    status::now,
};
use crate::audit::{Verified, Walk};
use bennu_rules::{MacAddress, audit::AuditRecord, image::Digest};
use clap::Subcommand;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// What can be asked of the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what was changed, newest first
    List {
        /// About the machine that has this MAC, or had it
        #[arg(long, value_name = "MAC")]
        machine: Option<MacAddress>,
        /// About what has this name, such as web:v1
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// By whom: a user's or a token's name or id, local or bennu
        #[arg(long, value_name = "NAME")]
        who: Option<String>,
        /// In so many minutes, hours or days until now, such as 30m, 12h or 7d
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        since: Option<u64>,
        /// So many at most
        #[arg(long, default_value_t = 30)]
        limit: usize,
        #[command(flatten)]
        output: Json,
    },
    /// Show one record, with how it was before and after
    Show {
        /// Its number
        record: u64,
        #[command(flatten)]
        output: Json,
    },
    /// Look whether a record was edited, removed or moved
    ///
    /// Without a file the appliance looks at its own log. Whoever can write the appliance's disk could write a whole new
    /// log, or cut its end off: keep the head that this prints somewhere else, and give it back with --head.
    Verify {
        /// A log that `bennu audit export` wrote
        file: Option<PathBuf>,
        /// A head that an earlier verification printed: it must still be there
        #[arg(long, value_name = "HASH")]
        head: Option<Digest>,
        #[command(flatten)]
        output: Json,
    },
    /// Write the whole log as JSON lines, oldest record first
    Export {
        /// Where to; standard output, if absent
        file: Option<PathBuf>,
    },
}

/// Milliseconds of `30m`, `12h` or `7d`.
fn parse_span(text: &str) -> Result<u64, String> {
    let refuse = || format!("'{text}' is no span of time; write a number with m, h or d, such as 12h");
    let (count, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refuse)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400_u64,
        _ => return Err(refuse()),
    };
    count.parse::<u32>().map(|count| u64::from(count) * seconds * 1000).map_err(|_| refuse())
}

/// Runs one.
pub async fn run(client: &Client, command: AuditCommand) -> Done {
    match command {
        AuditCommand::List { machine, target, who, since, limit, output } => {
            let since = since.map(|span| now().0.saturating_sub(span).to_string());
            let wanted =
                [("machine", machine.map(|mac| mac.to_string())), ("target", target), ("who", who), ("since", since)];
            let wanted = wanted.iter().filter_map(|(key, value)| Some(format!("{key}={}", encoded(value.as_ref()?))));
            let path = format!("/v1/audit?{}", wanted.collect::<Vec<_>>().join("&"));
            list(client, path.trim_end_matches('?'), limit.max(1), output).await
        }
        AuditCommand::Show { record, output } => {
            let path = format!("/v1/audit/{record}");
            if output.json {
                return say_json(&client.get::<Value>(&path).await?);
            }
            say(described(&client.get(&path).await?));
            Ok(())
        }
        AuditCommand::Verify { file: Some(file), head, output } => judged(&of_file(&file, head)?, output),
        AuditCommand::Verify { file: None, head, output } => {
            let head = head.map(|head| format!("?head={head}")).unwrap_or_default();
            judged(&client.get(&format!("/v1/audit/verify{head}")).await?, output)
        }
        AuditCommand::Export { file } => export(client, file.as_deref()).await,
    }
}

async fn list(client: &Client, path: &str, limit: usize, output: Json) -> Done {
    if output.json {
        return say_json(&client.list::<Value>(path, Some(limit)).await?);
    }
    let records: Vec<AuditRecord> = client.list(path, Some(limit)).await?;
    let now = now();
    let mut listing = Listing::new(&["RECORD", "AGE", "WHO", "FROM", "DID", "TO", "WHAT"], &["RECORD", "AGE"]);
    for record in &records {
        let (seq, age) = (record.seq.to_string(), age(record.at, now));
        let (action, target) = (record.action.to_string(), short(&record.target.to_string()));
        listing.row([seq, age, record.who.to_string(), record.from.clone(), action, target, difference(record)]);
    }
    listing.print("nothing was changed");
    Ok(())
}

/// A digest in a line of text, as short as people write it.
fn short(text: &str) -> String {
    match text.split_once("sha256:") {
        Some((before, hex)) => format!("{before}sha256:{}", hex.get(..12).unwrap_or(hex)),
        None => text.to_owned(),
    }
}

/// The names of the fields that are others, and what they are now.
fn difference(record: &AuditRecord) -> String {
    let (Some(before), Some(after)) = (&record.before, &record.after) else { return String::new() };
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return String::new() };
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let shown = |key: &String| {
        let value = after.get(key).map_or_else(|| "null".to_owned(), Value::to_string);
        let cut: String = short(&value).chars().take(60).collect();
        format!("{key}={cut}")
    };
    changed.map(shown).collect::<Vec<_>>().join(" ")
}

fn described(record: &AuditRecord) -> String {
    let mut text = format!("record {}: {} {}\n", record.seq, record.target, record.action);
    text += &fields(&[
        ("when", record.at.to_string()),
        ("who", record.who.to_string()),
        ("from", record.from.clone()),
        ("request", record.request.clone()),
        ("follows", record.previous.to_string()),
        ("hash", record.hash.to_string()),
    ]);
    for (name, value) in [("before", &record.before), ("after", &record.after)] {
        let value = value.as_ref().map(|value| serde_json::to_string_pretty(value).unwrap_or_default());
        text += &format!("{name}:\n");
        for line in value.as_deref().unwrap_or("it was not there").lines() {
            text += &format!("  {}\n", legible(line));
        }
    }
    text
}

/// Reads no line of a foreign file beyond this: no record is as long.
const LONGEST_LINE: u64 = 1 << 20;

fn of_file(path: &Path, head: Option<Digest>) -> Done<Verified> {
    let refuse = |error: io::Error| {
        CliError::failed(
            format!("cannot read {}: {error}", path.display()),
            "name a file that `bennu audit export` wrote",
        )
    };
    let mut lines = BufReader::new(File::open(path).map_err(refuse)?);
    let mut walk = Walk::expecting(head);
    loop {
        let mut line = Vec::new();
        if io::Read::take(&mut lines, LONGEST_LINE).read_until(b'\n', &mut line).map_err(refuse)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&line);
        if !line.trim().is_empty() && !walk.see(line.trim(), None) {
            break;
        }
    }
    Ok(walk.end(None))
}

fn judged(verified: &Verified, output: Json) -> Done {
    if output.json {
        say_json(verified)?;
    }
    if let Some(bad) = &verified.bad {
        return Err(CliError::failed(
            format!("the audit log is not as it was written, from record {} on: {}", bad.seq, bad.reason),
            "keep a copy of the ledger, ask who had access to its disk, and compare with an export that is kept elsewhere",
        ));
    }
    if !output.json {
        let Verified { records, first, last, head, .. } = verified;
        match records {
            0 => say("the audit log is empty"),
            _ => say(format!("{records} records, {first} to {last}: each is as it was written\nhead {head}")),
        }
    }
    Ok(())
}

async fn export(client: &Client, file: Option<&Path>) -> Done {
    let answer = client.send(Method::GET, "/v1/audit/export", None).await?;
    let refuse = |error: io::Error| {
        let place = file.map_or("standard output".to_owned(), |file| file.display().to_string());
        CliError::failed(format!("cannot write {place}: {error}"), "look at the disk and its permissions")
    };
    let mut out: Box<dyn Write> = match file {
        Some(file) => Box::new(File::create(file).map_err(refuse)?),
        None => Box::new(io::stdout().lock()),
    };
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let why = format!("the answer broke off: {}", chain(&error));
            CliError::failed(why, "look whether the service still runs (bennu status), then try again")
        })?;
        if let Some(part) = frame.data_ref() {
            out.write_all(part).map_err(refuse)?;
        }
    }
    out.flush().map_err(refuse)
}

#[cfg(test)]
mod tests;
