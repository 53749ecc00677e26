//! `bennu status`

use super::{
    Json,
    client::Client,
    error::Done,
    output::{bytes, fields, say, say_json, span},
};
pub use crate::http::api::boots::now;
use crate::{appliance::Remote, http::api::status::Status, zone::Zone};
use serde_json::Value;

/// Runs it.
pub async fn run(client: &Client, output: Json) -> Done {
    if output.json {
        return say_json(&client.get::<Value>("/v1/status").await?);
    }
    let status: Status = client.get("/v1/status").await?;
    say(described(&status));
    Ok(())
}

fn described(status: &Status) -> String {
    let interface = |shown: &crate::http::api::status::InterfaceShown| {
        let post = shown.stands_by_for.map(|server| format!(", standing by for {server}: no DHCP")).unwrap_or_default();
        format!("{} {} ({}){post}", shown.name, shown.address, shown.network)
    };
    let states: Vec<String> =
        status.machines_by_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let machines = match states.is_empty() {
        true => "none".to_owned(),
        false => format!("{}: {}", status.machines, states.join(", ")),
    };
    let ledger = match (status.ledger_closed, status.ledger_full) {
        (true, _) => "closed after a disk fault: restart bennu on a healthy disk",
        (_, true) => "its disk is full, so nothing is stored: make room, and it goes on by itself",
        _ => "",
    };
    let zone = Zone::of(status.time_zone.as_deref());
    let mut text = format!("bennu {} is up for {} (process {})\n", status.version, span(status.uptime_ms), status.pid);
    text += &fields(&[
        ("serving", status.interfaces.iter().map(interface).collect::<Vec<_>>().join(", ")),
        ("DHCP", format!("{:?}", status.dhcp).to_lowercase()),
        ("boot HTTP", format!("port {}", status.http_port)),
        ("API", status.api.as_ref().map(api).unwrap_or_default()),
        ("machines", machines),
        ("images", status.images.to_string()),
        ("disk", format!("{} free", bytes(status.disk_free))),
        ("memory", bytes(status.memory)),
        ("time", status.time_zone.as_ref().map(|name| format!("{} ({name})", zone.time(now()))).unwrap_or_default()),
        ("ledger", ledger.to_owned()),
        ("privileges", status.privileges.as_ref().map(ToString::to_string).unwrap_or_default()),
    ]);
    for noticed in &status.notices {
        text += &format!("\n{}  {}{}\n", zone.time(noticed.until), noticed.notice, times(noticed.count));
        let advice = noticed.notice.advice();
        if !advice.is_empty() {
            text += &format!("  {advice}\n");
        }
    }
    text += "\nsince the start\n";
    for (name, count) in &status.counters {
        let shown = if name == "bytes_sent" { bytes(*count) } else { count.to_string() };
        text += &format!("  {:16}  {shown}\n", name.replace('_', " "));
    }
    text
}

fn api(remote: &Remote) -> String {
    let addresses: Vec<String> = remote.listen.iter().map(|address| format!("https://{address}")).collect();
    format!("{} (certificate {}, SHA-256 {})", addresses.join(", "), remote.certificate.display(), remote.fingerprint)
}

fn times(count: u64) -> String {
    if count > 1 { format!(" ({count} times)") } else { String::new() }
}
