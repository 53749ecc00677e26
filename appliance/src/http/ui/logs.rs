//! The log of a boot: what its machine said, the latest last, and what it says from now on.

use super::{
    failure::{Shown, page},
    visitor::{Chrome, Visitor, encoded},
};
use crate::{
    http::api::{boots::BootShown, logs::LogShown, request::Params},
    logs::Kept,
};
use askama::Template;
use axum::extract::Path;
use bennu_rules::{MacAddress, boot::BootId, syslog::Severity};
use serde::Deserialize;

/// Lines of the past on a page.
const LINES: usize = 1000;

/// What can be chosen: the least severe that is shown.
const CHOICES: [(&str, &str); 5] = [
    ("", "everything"),
    ("info", "info and worse"),
    ("notice", "notices and worse"),
    ("warning", "warnings and worse"),
    ("error", "errors and worse"),
];

/// Which lines.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The least severe; empty for all, as the form sends it.
    #[serde(default)]
    severity: String,
}

struct Line {
    exact: String,
    at: String,
    severity: Severity,
    proven: bool,
    program: String,
    text: String,
}

#[derive(Template)]
#[template(path = "logs.html")]
struct LogsPage {
    chrome: Chrome,
    mac: MacAddress,
    boot: BootId,
    chosen: String,
    last: String,
    lines: Vec<Line>,
}

impl LogsPage {
    fn choices(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        CHOICES.iter()
    }
}

/// `GET /ui/boots/{id}/logs`
pub async fn show(visitor: Visitor, Path(id): Path<String>, Params(wanted): Params<Wanted>) -> Shown {
    // What is no choice is refused by the API, in its words.
    let chosen = wanted.severity;
    let severity = if chosen.is_empty() { String::new() } else { format!("&severity={}", encoded(&chosen)) };
    let path = format!("/v1/boots/{}", encoded(&id));
    let boot: BootShown = visitor.get(&path).await?;
    let shown: LogShown = visitor.get(&format!("{path}/logs?lines={LINES}{severity}")).await?;
    page(&LogsPage {
        chrome: visitor.chrome(format!("Log of {}", boot.summary.machine), "rack"),
        mac: boot.summary.machine,
        boot: shown.boot,
        chosen,
        last: shown.last.unwrap_or_default(),
        lines: shown.items.into_iter().map(Line::of).collect(),
    })
}

impl Line {
    fn of(kept: Kept) -> Self {
        let Kept { at, proven, message, .. } = kept;
        let exact = at.to_string();
        let time = exact.get(..23).unwrap_or(&exact).replace('T', " ");
        Self { at: time, exact, severity: message.severity, proven, program: message.program, text: message.text }
    }
}
