//! What is true of every answer of the API: an ETag and 304 at reading (RFC 9110 §13), and a problem document for every
//! refusal, whoever refuses.

use super::problem::{Kind, Problem};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use ring::digest::{SHA256, digest};

/// Longer answers are not compared; no page of a listing is as long.
const MAX_COMPARED: u64 = 16 << 20;

/// Completes an answer.
pub async fn answer(request: Request, next: Next) -> Response {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let known: Vec<HeaderValue> = match is_reading {
        true => request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        false => Vec::new(),
    };
    let response = next.run(request).await;
    let is_a_resource = is_reading || response.headers().contains_key(header::ETAG);
    match is_a_resource && response.status() == StatusCode::OK && is_json(response.headers()) {
        true => tagged(response, known).await,
        false => explained(response).await,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}

/// Gives an answer its ETag: the record's version where the handler gave one, and a hash of the answer, which tells of
/// more than the record (a machine's latest boot). `If-Match` looks at the version alone.
async fn tagged(response: Response, known: Vec<HeaderValue>) -> Response {
    // A body that comes as the work goes on has no length yet.
    if response.body().size_hint().exact().is_none_or(|length| length > MAX_COMPARED) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, MAX_COMPARED as usize).await else {
        return Problem::new(Kind::Internal, "the answer broke off", "").into_response();
    };
    let hash = digest(&SHA256, &bytes);
    let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let version = parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim_matches('"'));
    let tag = match version {
        Some(version) => format!("\"{version}-{hash}\""),
        None => format!("\"{hash}\""),
    };
    let is_known = known.iter().filter_map(|value| value.to_str().ok()).any(|value| matches(value, &tag));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    // Answers are for whoever asked, and to be asked for again.
    parts.headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    if is_known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// An answer that tells of a record, by whose version writes are conditional.
pub fn versioned(version: &str, told: &impl serde::Serialize) -> Response {
    let mut response = axum::Json(told).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether `If-None-Match` names the tag. Weak comparison (RFC 9110 §13.1.2).
fn matches(value: &str, tag: &str) -> bool {
    value.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// A problem document in place of what the framework says of a path or a body that it cannot read.
async fn explained(response: Response) -> Response {
    let status = response.status();
    let is_text =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/"));
    if !(status.is_client_error() || status.is_server_error()) || !is_text {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let kind = match status {
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Kind::Method,
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::MediaType,
        _ if status.is_client_error() => Kind::Malformed,
        _ => Kind::Internal,
    };
    let mut response = Problem::new(kind, String::from_utf8_lossy(&text), "").into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly() {
        for (value, is_match) in [("\"a-b\"", true), ("W/\"a-b\"", true), ("\"x\", \"a-b\"", true), ("*", true)] {
            assert_eq!(matches(value, "\"a-b\""), is_match, "{value}");
        }
        for value in ["\"a\"", "a-b", "", "\"a-b"] {
            assert!(!matches(value, "\"a-b\""), "{value}");
        }
    }
}
