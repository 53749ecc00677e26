//! `/v1/audit`: who changed what, and whether that record is whole.

use super::{
    Shared,
    problem::{Answer, Kind, Problem},
    request::{Limit, Page, Params},
};
use crate::{audit::Verified, ledger::Ledger};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bennu_rules::{MacAddress, Timestamp, audit::AuditRecord, image::Digest};
use futures_util::stream;
use http::header;
use serde::Deserialize;
use std::ops::ControlFlow;

/// Records looked at for one page: a filter that nothing passes ends in a page that says where to go on.
const MAX_LOOKED_AT: usize = 20_000;

/// Which records.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Items at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// The number of the last record of the page before.
    after: Option<u64>,
    /// About the machine that has this MAC, or had it.
    machine: Option<MacAddress>,
    /// About what has this name, such as `web:v1`, or kind and name: `tag web:v1`.
    target: Option<String>,
    /// By whom: a user's or a token's name or id, `local` or `bennu`.
    who: Option<String>,
    /// From this moment on.
    since: Option<Timestamp>,
}

impl Filter {
    fn wants(&self, record: &AuditRecord) -> bool {
        let named = |target: &String| *target == record.target.name || *target == record.target.to_string();
        self.machine.is_none_or(|mac| record.concerns(mac))
            && self.target.as_ref().is_none_or(named)
            && self.who.as_ref().is_none_or(|who| record.who.is(who))
            && self.since.is_none_or(|since| record.at >= since)
    }
}

/// `GET /v1/audit`, newest first
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(Filter),
    responses((status = OK, body = Page<AuditRecord>))
)]
pub async fn list(State(api): Shared, Params(filter): Params<Filter>) -> Answer<Json<Page<AuditRecord>>> {
    let extent = api.ledger.audit_extent()?;
    let newest = filter.after.map_or(extent.last, |after| after.saturating_sub(1).min(extent.last));
    let limit = Limit::or_usual(filter.limit);
    let (mut items, mut last) = (Vec::new(), None);
    let numbers = (extent.first..=newest).rev().take(MAX_LOOKED_AT);
    api.ledger.audit_records(numbers, |record| {
        last = Some(record.seq);
        if filter.wants(&record) {
            items.push(record);
        }
        if items.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let next = last.filter(|last| *last > extent.first).map(|last| last.to_string());
    Ok(Json(Page { items, next }))
}

/// `GET /v1/audit/{seq}`
#[utoipa::path(
    get,
    path = "/v1/audit/{seq}",
    tag = "audit",
    params(("seq" = u64, Path, description = "Its place in the log.")),
    responses((status = OK, body = AuditRecord))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Json<AuditRecord>> {
    let seq: u64 = text
        .parse()
        .map_err(|_| Problem::new(Kind::Malformed, format!("'{text}' is no record's number"), "write 1, 2, 3, …"))?;
    let mut found = None;
    api.ledger.audit_records(std::iter::once(seq), |record| {
        found = Some(record);
        ControlFlow::Break(())
    })?;
    let none = || {
        Problem::new(
            Kind::NotFound,
            format!("the audit log has no record {seq}"),
            "`bennu audit list` shows what it has",
        )
    };
    found.map(Json).ok_or_else(none)
}

/// `GET /v1/audit/export`: every record as it is stored, oldest first, one a line.
#[utoipa::path(
    get,
    path = "/v1/audit/export",
    tag = "audit",
    responses((status = OK, content_type = "application/x-ndjson", body = AuditRecord, description = "JSON lines, one a record."))
)]
pub async fn export(State(api): Shared) -> Answer<Response> {
    let extent = api.ledger.audit_extent()?;
    let ledger = api.ledger.clone();
    let parts = stream::unfold(Some(extent.first), move |next| {
        let part = next.filter(|next| *next <= extent.last).map(|next| part(&ledger, next, extent.last));
        async move {
            let (lines, next) = part?;
            let is_broken = lines.is_err();
            Some((lines, next.filter(|_| !is_broken)))
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// The next lines of an export, and where to go on.
fn part(ledger: &Ledger, from: u64, last: u64) -> (Result<Bytes, std::io::Error>, Option<u64>) {
    const AT_ONCE: u64 = 256;
    let through = last.min(from.saturating_add(AT_ONCE - 1));
    let mut lines = String::new();
    let read = ledger.audit_texts(from..=through, |_, text| {
        // What is missing is missing in the export too, and its verification says so.
        if let Some(text) = text {
            lines += &text;
            lines.push('\n');
        }
        ControlFlow::Continue(())
    });
    (read.map(|()| Bytes::from(lines)).map_err(std::io::Error::other), Some(through + 1))
}

/// The query of a verification.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Kept {
    /// A head that was kept elsewhere: some record must have this hash.
    head: Option<Digest>,
}

/// `GET /v1/audit/verify`
#[utoipa::path(
    get,
    path = "/v1/audit/verify",
    tag = "audit",
    params(Kept),
    responses((status = OK, body = Verified))
)]
pub async fn verify(State(api): Shared, Params(kept): Params<Kept>) -> Answer<Json<Verified>> {
    let ledger = api.ledger.clone();
    let walk = tokio::task::spawn_blocking(move || ledger.verify_audit(kept.head)).await;
    let verified =
        walk.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), "look at the service's log"))?;
    let verified = verified?;
    if let Some(bad) = &verified.bad {
        tracing::error!(record = bad.seq, "the audit log is not as it was written: {}", bad.reason);
    }
    Ok(Json(verified))
}
