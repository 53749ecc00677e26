//! One thing that never changes, as an answer to GET or HEAD: conditions, ranges, exact lengths, and a report of what
//! was sent.

use super::{
    connection::Connection,
    range::{Selection, select},
    sendfile::Source,
};
use axum::{
    body::Body,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use bennu_rules::image::Digest;
use bytes::Bytes;
use std::{ops::Range, time::Instant};

/// What is delivered.
pub struct Item {
    /// Its bytes.
    pub source: Source,
    /// How many.
    pub length: u64,
    /// Their digest: the entity tag.
    pub digest: Digest,
    /// Their type.
    pub content_type: &'static str,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The bytes that were asked for.
    pub asked: Range<u64>,
    /// How many of them were sent.
    pub sent: u64,
    /// Milliseconds.
    pub took_ms: u64,
}

impl Delivered {
    /// Whether everything that was asked for was sent.
    pub fn is_complete(&self) -> bool {
        self.sent == self.asked.end - self.asked.start
    }
}

/// Answers a request for `item`; `report` runs when a body has been sent or given up, never for an answer without one.
pub fn deliver(
    item: Item,
    method: &Method,
    headers: &HeaderMap,
    connection: &Connection,
    report: impl FnOnce(Delivered) + Send + Sync + 'static,
) -> Response<Body> {
    let etag = format!("\"{}\"", item.digest);
    let common = Response::builder()
        .header(header::ETAG, &etag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "public, immutable, max-age=31536000");
    // RFC 9110 §14.2: a range means nothing to HEAD; EDK2 asks HEAD for the whole length.
    let selection = match select(headers, &etag, item.length) {
        Selection::Part(_) if method == Method::HEAD => Selection::Whole,
        selection => selection,
    };
    let (status, range) = match selection {
        Selection::Whole => (StatusCode::OK, 0..item.length),
        Selection::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Selection::NotModified => return finish(common.status(StatusCode::NOT_MODIFIED), Body::empty()),
        Selection::PreconditionFailed => return finish(common.status(StatusCode::PRECONDITION_FAILED), Body::empty()),
        Selection::Unsatisfiable => {
            let unsatisfied = common.header(header::CONTENT_RANGE, format!("bytes */{}", item.length));
            return finish(unsatisfied.status(StatusCode::RANGE_NOT_SATISFIABLE), Body::empty());
        }
    };
    let mut answer = common
        .status(status)
        .header(header::CONTENT_TYPE, item.content_type)
        .header(header::CONTENT_LENGTH, range.end - range.start);
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, item.length);
        answer = answer.header(header::CONTENT_RANGE, text);
    }
    if method == Method::HEAD {
        return finish(answer, Body::empty());
    }
    finish(answer, Body::from(body(item.source, range, connection, report)))
}

fn body(
    source: Source,
    range: Range<u64>,
    connection: &Connection,
    report: impl FnOnce(Delivered) + Send + Sync + 'static,
) -> Bytes {
    let started = Instant::now();
    let within = range.start as usize..range.end as usize;
    connection.0.announce(source, within, move |sent| {
        report(Delivered { asked: range, sent, took_ms: started.elapsed().as_millis() as u64 });
    })
}

/// Every header here is made of digits and constants, so that building cannot fail.
fn finish(answer: axum::http::response::Builder, body: Body) -> Response<Body> {
    answer.body(body).unwrap_or_else(|_| Response::new(Body::empty()))
}
