//! `bennu boot …`

use super::{
    Json,
    client::{Client, encoded},
    error::{CliError, Done},
    output::{Listing, age, bytes, fields, legible, or_dash, say, say_json, seconds, span, time},
};
use crate::http::api::{
    boots::{BootShown, BootSummary, TimelineEntry},
    logs::LogShown,
    machines::MachineShown,
};
use crate::{ledger::PushEvent, logs::Kept};
use bennu_rules::{
    MacAddress,
    boot::{BootId, State},
    journey::Observation,
    notice::Noticed,
    syslog::Severity,
};
use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// What can be seen of boots.
#[derive(Debug, Subcommand)]
pub enum BootCommand {
    /// List boots, newest first
    List {
        /// Of one machine alone
        mac: Option<MacAddress>,
        /// So many at most
        #[arg(long, default_value_t = 30)]
        limit: usize,
        #[command(flatten)]
        output: Json,
    },
    /// Show what was seen of one boot, and what to think of it
    Show {
        /// The boot's id, or a machine's MAC for its latest
        boot: String,
        #[command(flatten)]
        output: Json,
    },
    /// Print what a machine said during a boot: what its stage 1 and its system sent as syslog
    ///
    /// A line with a question mark was sent from the machine's address without the proof that stage 1 and the forwarder of
    /// the booted system give their lines: by another program there, or by somebody who takes that address.
    Logs {
        /// The boot's id, or a machine's MAC for its latest
        boot: String,
        /// The last so many lines
        #[arg(long, default_value_t = 1000)]
        lines: usize,
        /// Only lines that are at least as severe: emergency, alert, critical, error, warning, notice, info or debug
        #[arg(long, value_parser = severity)]
        severity: Option<Severity>,
        /// Go on with what it says from now on
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Print what machines do, as they do it
    Follow {
        /// One machine alone
        mac: Option<MacAddress>,
        #[command(flatten)]
        output: Json,
    },
}

/// Runs one.
pub async fn run(client: &Client, command: BootCommand) -> Done {
    match command {
        BootCommand::List { mac, limit, output } => list(client, mac, limit, output).await,
        BootCommand::Show { boot, output } => show(client, &boot, output).await,
        BootCommand::Logs { boot, lines, severity, follow, output } => {
            let asked = asked(lines, severity);
            tokio::select! {
                done = logs(client, &boot, &asked, follow, output) => done,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        }
        BootCommand::Follow { mac, output } => tokio::select! {
            done = follow(client, mac, output) => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        },
    }
}

async fn list(client: &Client, mac: Option<MacAddress>, limit: usize, output: Json) -> Done {
    let path = mac.map_or("/v1/boots".to_owned(), |mac| format!("/v1/boots?machine={mac}"));
    let limit = Some(limit.max(1));
    if output.json {
        return say_json(&client.list::<Value>(&path, limit).await?);
    }
    listing(&client.list::<BootSummary>(&path, limit).await?, true).print("no boots yet");
    Ok(())
}

/// A table of boots.
pub fn listing(boots: &[BootSummary], with_machine: bool) -> Listing {
    let now = super::status::now();
    let mut columns = vec!["BOOT", "MACHINE", "STATE", "IMAGE", "AGE", "TOOK", "MOVED", "LAST SEEN"];
    columns.retain(|column| with_machine || *column != "MACHINE");
    let mut listing = Listing::new(&columns, &["AGE", "TOOK", "MOVED"]);
    for boot in boots {
        let mut row = vec![boot.id.to_string()];
        if with_machine {
            row.push(boot.machine.to_string());
        }
        row.extend([
            boot.state.to_string(),
            or_dash(boot.image.as_ref().map(|image| &image.reference)),
            age(boot.opened, now),
            or_dash(boot.closed.map(|closed| span(closed.since(boot.opened)))),
            bytes(boot.bytes),
            boot.last.clone(),
        ]);
        listing.row(row);
    }
    listing
}

async fn show(client: &Client, boot: &str, output: Json) -> Done {
    let path = path_of(client, boot).await?;
    if output.json {
        return say_json(&client.get::<Value>(&path).await?);
    }
    say(described(&client.get(&path).await?));
    Ok(())
}

/// The path of a boot, by its id or as the latest of a machine.
async fn path_of(client: &Client, boot: &str) -> Done<String> {
    let id = match boot.parse::<MacAddress>() {
        Ok(mac) => latest(client, mac).await?.to_string(),
        Err(_) => boot.to_owned(),
    };
    Ok(format!("/v1/boots/{}", encoded(&id).replace('/', "%2F")))
}

fn severity(text: &str) -> Result<Severity, String> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| "write emergency, alert, critical, error, warning, notice, info or debug".to_owned())
}

fn asked(lines: usize, severity: Option<Severity>) -> String {
    let severity = severity.map_or(String::new(), |severity| format!("&severity={severity}"));
    format!("lines={lines}{severity}")
}

async fn logs(client: &Client, boot: &str, asked: &str, follow: bool, output: Json) -> Done {
    let path = format!("{}/logs?{asked}", path_of(client, boot).await?);
    if follow {
        return follow_logs(client, &format!("{path}&follow=true"), output).await;
    }
    if output.json {
        return say_json(&client.get::<Value>(&path).await?["items"]);
    }
    let shown: LogShown = client.get(&path).await?;
    shown.items.iter().for_each(|line| say(logged(line)));
    Ok(())
}

/// Goes on behind the last line where the connection breaks off.
async fn follow_logs(client: &Client, path: &str, output: Json) -> Done {
    let mut reader = EventReader::default();
    let mut response = Some(client.send(Method::GET, path, None).await?);
    loop {
        match response {
            Some(response) => print_lines(response.into_body(), &mut reader, output).await,
            None => tokio::time::sleep(RECONNECT).await,
        }
        let headers: Vec<_> = reader.last_id.iter().map(|id| ("last-event-id", id.clone())).collect();
        response = match client.send_with(Method::GET, path, None, &headers).await {
            Ok(response) => Some(response),
            // The boot is gone, or it may not be read any more: nothing will come.
            Err(error) if error.is_refusal() => return Err(error),
            Err(error) => {
                if std::mem::take(&mut reader.connected) {
                    eprintln!("the connection is lost, trying again: {}", error.what);
                }
                None
            }
        };
    }
}

/// Prints lines until the stream breaks off.
async fn print_lines(mut body: Incoming, reader: &mut EventReader, output: Json) {
    reader.begin();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for event in reader.take(&data) {
            match (output.json, serde_json::from_str::<Kept>(&event)) {
                (false, Ok(line)) => say(logged(&line)),
                _ => say(event),
            }
        }
    }
}

fn logged(line: &Kept) -> String {
    let Kept { at, proven, message, .. } = line;
    let mark = if *proven { ' ' } else { '?' };
    let program = if message.program.is_empty() { String::new() } else { format!("{}: ", message.program) };
    format!("{at}  {:9} {mark} {}", message.severity.to_string(), legible(&format!("{program}{}", message.text)))
}

async fn latest(client: &Client, mac: MacAddress) -> Done<BootId> {
    let boots: Vec<BootSummary> = client.list(&format!("/v1/boots?machine={mac}"), Some(1)).await?;
    let none = || {
        CliError::failed(format!("machine {mac} never booted"), "switch it on, and follow it with `bennu boot follow`")
    };
    boots.first().map(|boot| boot.id.clone()).ok_or_else(none)
}

fn described(boot: &BootShown) -> String {
    let summary = &boot.summary;
    let image = summary.image.as_ref().map(|image| format!("{} ({})", image.reference, image.digest));
    let system = boot.system.map(|system| {
        format!("{:?} {:?} over {:?}", system.architecture, system.firmware, system.transport).to_lowercase()
    });
    let ended = summary
        .closed
        .map_or("it goes on".to_owned(), |closed| format!("ended after {} s", seconds(closed.since(summary.opened))));
    let mut text = format!("boot {} of machine {}\n", summary.id, summary.machine);
    text += &fields(&[
        ("state", summary.state.to_string()),
        ("image", image.unwrap_or_default()),
        ("stage 1", boot.stage1.map(|digest| digest.to_string()).unwrap_or_default()),
        ("kernel", boot.kernel.map(|digest| digest.to_string()).unwrap_or_default()),
        ("firmware", system.unwrap_or_default()),
        ("began", format!("{}, {ended}", time(summary.opened))),
        ("moved", format!("{} ({} bytes)", bytes(summary.bytes), summary.bytes)),
    ]);
    text += "\n  seconds    +step  what was seen\n";
    let mut before = 0;
    for entry in &boot.timeline {
        text += &line(entry, before, summary.opened.0);
        before = entry.after_ms;
    }
    if let Some(diagnosis) = &summary.diagnosis {
        text += &format!("\ndiagnosis: {}\nhelp: {}\n", legible(&diagnosis.reason), legible(&diagnosis.advice));
    }
    text
}

/// One line of a timeline: seconds since the first packet, seconds since the line before.
fn line(entry: &TimelineEntry, before: u64, opened: u64) -> String {
    let Observation { repeated, until, .. } = &entry.observation;
    let again = match (repeated, until) {
        (0, _) | (_, None) => String::new(),
        (count, Some(until)) => format!(" [{} times, until {}]", count + 1, seconds(until.0.saturating_sub(opened))),
    };
    let step = seconds(entry.after_ms.saturating_sub(before));
    format!("  {:>7}  {step:>7}  {}{again}\n", seconds(entry.after_ms), legible(&entry.text))
}

/// An event as the API sends it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Followed {
    Boot(FollowedBoot),
    Notice(Noticed),
    Push(PushEvent),
}

#[derive(Debug, Deserialize)]
struct FollowedBoot {
    machine: MacAddress,
    state: State,
    observation: Observation,
}

/// How long to wait before asking again where events went.
const RECONNECT: Duration = Duration::from_secs(1);

async fn follow(client: &Client, mac: Option<MacAddress>, output: Json) -> Done {
    let path = mac.map_or("/v1/events".to_owned(), |mac| format!("/v1/events?machine={mac}"));
    let machines: Vec<MachineShown> = client.list("/v1/machines", None).await?;
    let names: BTreeMap<MacAddress, String> = machines
        .into_iter()
        .filter_map(|shown| Some((shown.machine.id, shown.machine.labels.get("name")?.clone())))
        .collect();
    let mut reader = EventReader::default();
    let mut response = Some(client.send(Method::GET, &path, None).await?);
    loop {
        match response {
            Some(response) => tell(response.into_body(), &mut reader, &names, output).await?,
            None => tokio::time::sleep(RECONNECT).await,
        }
        let headers: Vec<_> = reader.last_id.iter().map(|id| ("last-event-id", id.clone())).collect();
        response = match client.send_with(Method::GET, &path, None, &headers).await {
            Ok(response) => Some(response),
            Err(error) => {
                if reader.connected {
                    eprintln!("the connection is lost, trying again: {}", error.what);
                }
                reader.connected = false;
                None
            }
        };
    }
}

/// Prints events until the stream breaks off.
async fn tell(
    mut body: Incoming,
    reader: &mut EventReader,
    names: &BTreeMap<MacAddress, String>,
    output: Json,
) -> Done {
    reader.begin();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for event in reader.take(&data) {
            match (output.json, serde_json::from_str::<Followed>(&event)) {
                (true, _) => say(event),
                (false, Ok(Followed::Boot(event))) => say(sentence(&event, names)),
                (false, Ok(Followed::Notice(noticed))) => say(warning(&noticed)),
                (false, Ok(Followed::Push(push))) => say(pushed(&push)),
                (false, Err(_)) => eprintln!("events were lost: {event}"),
            }
        }
    }
    Ok(())
}

fn pushed(push: &PushEvent) -> String {
    let step =
        if push.step.is_empty() { push.outcome.to_string() } else { format!("is being made bootable: {}", push.step) };
    format!("{}  push {}: {}", push.at, push.name, legible(&step))
}

fn warning(noticed: &Noticed) -> String {
    format!("{}  notice: {}; {}", noticed.until, legible(&noticed.notice.to_string()), noticed.notice.advice())
}

fn sentence(event: &FollowedBoot, names: &BTreeMap<MacAddress, String>) -> String {
    let machine = names.get(&event.machine).map_or_else(|| event.machine.to_string(), |name| legible(name));
    let text = legible(&event.observation.seen.to_string());
    format!("{}  {machine:17}  {:10}  {text}", event.observation.at, event.state.to_string())
}

/// Takes server-sent events out of a stream of bytes (WHATWG HTML, "Interpreting an event stream").
#[derive(Debug, Default)]
pub struct EventReader {
    buffer: Vec<u8>,
    data: String,
    /// Of the last whole event, for `Last-Event-ID`.
    last_id: Option<String>,
    connected: bool,
}

impl EventReader {
    /// Of the last whole event, from which a client goes on.
    pub fn last_id(&self) -> Option<String> {
        self.last_id.clone()
    }

    /// Another stream begins.
    pub fn begin(&mut self) {
        self.buffer.clear();
        self.data.clear();
        self.connected = true;
    }

    /// The data of every event that is whole by now.
    pub fn take(&mut self, bytes: &Bytes) -> Vec<String> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches(['\n', '\r']).split_once(':') {
                Some(("data", value)) => self.data.push_str(value.strip_prefix(' ').unwrap_or(value)),
                Some(("id", value)) => self.last_id = Some(value.trim().to_owned()),
                None if !self.data.is_empty() => events.push(std::mem::take(&mut self.data)),
                _ => {}
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_the_stream_is_cut() {
        let stream = b": keep-alive\n\nevent: boot\nid: 7\ndata: {\"a\":1}\n\nevent: boot\r\nid: 8\r\ndata: {}\r\n\r\n";
        for size in [1, 3, stream.len()] {
            let mut reader = EventReader::default();
            let events: Vec<String> =
                stream.chunks(size).flat_map(|chunk| reader.take(&Bytes::copy_from_slice(chunk))).collect();
            assert_eq!(events, [r#"{"a":1}"#, "{}"]);
            assert_eq!(reader.last_id.as_deref(), Some("8"));
        }
    }
}
