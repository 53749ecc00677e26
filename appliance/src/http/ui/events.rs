//! Events: what happened of late, and what happens.

use super::{
    failure::{Shown, page},
    format::When,
    visitor::{Chrome, Visitor},
};
use crate::http::api::{
    boots::{BootShown, BootSummary, now},
    request::Page,
    status::Status,
};
use askama::Template;
use bennu_rules::MacAddress;

/// Boots that are looked at for a beginning.
const BOOTS: usize = 12;

/// Lines of the beginning.
const LINES: usize = 150;

struct Line {
    at: When,
    machine: MacAddress,
    text: String,
}

struct Notice {
    when: When,
    what: String,
    advice: String,
    count: u64,
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    chrome: Chrome,
    notices: Vec<Notice>,
    lines: Vec<Line>,
}

/// `GET /ui/events`
pub async fn show(visitor: Visitor) -> Shown {
    let now = now();
    let status: Option<Status> = visitor.get_if_seen("/v1/status").await?;
    let boots: Page<BootSummary> = visitor.get(&format!("/v1/boots?limit={BOOTS}")).await?;
    let mut lines = Vec::new();
    for summary in boots.items {
        // One that ended in this moment may be gone.
        let Ok(boot) = visitor.get::<BootShown>(&format!("/v1/boots/{}", summary.id)).await else { continue };
        lines.extend(boot.timeline.into_iter().map(|entry| (entry.observation.at, summary.machine, entry.text)));
    }
    // Of one moment the later stays the later.
    lines.sort_by_key(|(at, _, _)| *at);
    lines.reverse();
    lines.truncate(LINES);
    let lines = lines.into_iter().map(|(at, machine, text)| Line { at: When::of(at, now), machine, text }).collect();
    let notices = status.map_or_else(Vec::new, |status| status.notices).into_iter().rev().map(|noticed| Notice {
        when: When::of(noticed.until, now),
        what: noticed.notice.to_string(),
        advice: noticed.notice.advice(),
        count: noticed.count,
    });
    page(&EventsPage { chrome: visitor.chrome("Events", "events"), notices: notices.collect(), lines })
}
