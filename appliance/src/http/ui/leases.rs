//! Leases: who holds which address.

use super::{
    failure::{Shown, page},
    format::When,
    visitor::{Chrome, Visitor},
};
use crate::http::api::{boots::now, leases::LeaseShown, request::Params};
use askama::Template;
use serde::Deserialize;

/// What to show of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    q: String,
}

struct Row {
    lease: LeaseShown,
    look: (&'static str, &'static str),
    granted: When,
    expires: When,
}

#[derive(Template)]
#[template(path = "leases.html")]
struct LeasesPage {
    chrome: Chrome,
    rows: Vec<Row>,
    active: usize,
    q: String,
}

/// `GET /ui/leases`
pub async fn show(visitor: Visitor, Params(Wanted { q }): Params<Wanted>) -> Shown {
    let leases: Vec<LeaseShown> = visitor.list("/v1/leases").await?;
    let now = now();
    let words: Vec<String> = q.split_whitespace().map(str::to_lowercase).collect();
    let row = |lease: LeaseShown| Row {
        look: match (lease.declined, lease.active) {
            (true, _) => ("failed", "taken by somebody else"),
            (false, true) => ("up", "active"),
            (false, false) => ("never", "ended"),
        },
        granted: When::of(lease.granted, now),
        expires: When::of(lease.expires, now),
        lease,
    };
    let is_wanted = |row: &Row| {
        let name = row.lease.hostname.as_deref().unwrap_or_default();
        let line = format!("{} {} {} {} {name}", row.lease.address, row.lease.mac, row.lease.subnet, row.look.1);
        words.iter().all(|word| line.to_lowercase().contains(word))
    };
    let rows: Vec<Row> = leases.into_iter().map(row).filter(is_wanted).collect();
    let active = rows.iter().filter(|row| row.lease.active && !row.lease.declined).count();
    page(&LeasesPage { chrome: visitor.chrome("Leases", "leases"), rows, active, q })
}
