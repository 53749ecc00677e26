//! Errors as RFC 9457 problem documents: what happened, where, and what to do.

use crate::ledger::Fault;
use axum::response::{IntoResponse, Response};
use bennu_images::store::StoreError;
use bennu_rules::commands::Refusal;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

/// A problem document. `advice` and `pointer` are extension members (RFC 9457 §3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, utoipa::ToSchema)]
#[error("{detail}")]
pub struct Problem {
    /// What kind of problem: stable, for programs.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// The kind in words; the same for every problem of the kind.
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// This very problem.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// Which part of the request's body is wrong, as a JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

/// The kinds of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be read.
    Malformed,
    /// The request is read, and asks for what cannot be.
    Unprocessable,
    /// What it names does not exist.
    NotFound,
    /// The resource has no such method.
    Method,
    /// The state of things forbids it.
    Conflict,
    /// `If-Match` does not match.
    Precondition,
    /// The request's body is too long.
    TooLarge,
    /// The body is of another kind than the resource takes.
    MediaType,
    /// The source is no image.
    Import,
    /// The disk is full.
    DiskFull,
    /// Nobody is known to ask.
    Unauthorized,
    /// Whoever asks may not.
    Forbidden,
    /// Too often.
    TooMany,
    /// Something of ours failed.
    Internal,
    /// Not now.
    Unavailable,
}

impl Kind {
    fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::Malformed => ("malformed", "The request cannot be read", StatusCode::BAD_REQUEST),
            Self::Unprocessable => {
                ("unprocessable", "The request asks for what cannot be", StatusCode::UNPROCESSABLE_ENTITY)
            }
            Self::NotFound => ("not-found", "There is no such thing", StatusCode::NOT_FOUND),
            Self::Method => ("method", "The resource has no such method", StatusCode::METHOD_NOT_ALLOWED),
            Self::Conflict => ("conflict", "The present state forbids it", StatusCode::CONFLICT),
            Self::Precondition => {
                ("precondition", "The resource is not as it was expected", StatusCode::PRECONDITION_FAILED)
            }
            Self::TooLarge => ("too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::MediaType => ("media-type", "The body is of another kind", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::Import => ("import", "The source cannot be imported", StatusCode::UNPROCESSABLE_ENTITY),
            Self::DiskFull => ("disk-full", "The disk is full", StatusCode::INSUFFICIENT_STORAGE),
            Self::Unauthorized => ("unauthorized", "The request needs a valid token", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", "The token may not do this", StatusCode::FORBIDDEN),
            Self::TooMany => ("too-many", "Too many requests", StatusCode::TOO_MANY_REQUESTS),
            Self::Internal => ("internal", "Bennu failed", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unavailable => ("unavailable", "Bennu cannot do this now", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl Problem {
    /// A problem and what to do about it.
    pub fn new(kind: Kind, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        let (name, title, status) = kind.parts();
        Self {
            kind: format!("urn:bennu:problem:{name}").into(),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            advice: advice.into(),
            pointer: None,
        }
    }

    /// A problem from an error that says what to do itself.
    pub fn told(kind: Kind, error: &impl std::fmt::Display) -> Self {
        let (detail, advice) = parted(&error.to_string());
        Self::new(kind, detail, advice)
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The same, about one part of the request's body.
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }
}

/// Parts what happened from what to do about it, which errors of ours say after it: as a sentence of its own, or
/// after a semicolon.
pub fn parted(text: &str) -> (String, String) {
    let sentence =
        text.match_indices(". ").find(|(at, _)| text[at + 2..].starts_with(|c: char| c.is_ascii_uppercase()));
    let semicolon = text.find("; ");
    match (sentence, semicolon) {
        (Some((at, _)), _) => (text[..at].to_owned(), text[at + 2..].to_owned()),
        (None, Some(at)) => (text[..at].to_owned(), text[at + 2..].to_owned()),
        (None, None) => (text.to_owned(), String::new()),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let pointer = match &refusal {
            Refusal::BadMetadata { pointer, .. } => Some(pointer.clone()),
            Refusal::BadProfile { pointer, .. } => Some(pointer.clone()),
            Refusal::BadSecret { pointer, .. } | Refusal::BadRole { pointer, .. } => Some((*pointer).to_owned()),
            _ => None,
        };
        let kind = match &refusal {
            Refusal::UnknownMachine(_)
            | Refusal::UnknownImage { .. }
            | Refusal::UnknownToken(_)
            | Refusal::UnknownMetadata(_)
            | Refusal::UnknownSecret(_)
            | Refusal::UnknownRule(_)
            | Refusal::UnknownProfile(_)
            | Refusal::UnknownRole(_) => Kind::NotFound,
            Refusal::Changed(_) | Refusal::ChangedMetadata(_) | Refusal::RuleChanged(_) => Kind::Precondition,
            Refusal::Stale { .. } | Refusal::IsThere { .. } => Kind::Precondition,
            Refusal::KernelOnly(_)
            | Refusal::BadAddress { .. }
            | Refusal::BadLabel { .. }
            | Refusal::BadArguments(_)
            | Refusal::BadMetadata { .. }
            | Refusal::BadSecret { .. }
            | Refusal::BadRule { .. }
            | Refusal::BadRole { .. }
            | Refusal::BadProfile { .. }
            | Refusal::RoleAndScopes(_)
            | Refusal::NoScope
            | Refusal::BadLimit(_)
            | Refusal::BadLifetime { .. } => Kind::Unprocessable,
            Refusal::Conflict { .. }
            | Refusal::AddressReserved { .. }
            | Refusal::AddressLeased { .. }
            | Refusal::NothingEarlier(_)
            | Refusal::NoSource(_)
            | Refusal::Assigned { .. }
            | Refusal::NamedByPolicy(_)
            | Refusal::TokenExists { .. }
            | Refusal::NoTokenId
            | Refusal::TooMuchMetadata { .. }
            | Refusal::TooLongMetadata { .. }
            | Refusal::TooManySecrets(_)
            | Refusal::AssignedByRule { .. }
            | Refusal::TooManyRules
            | Refusal::TooManyRoles
            | Refusal::TooManyProfiles
            | Refusal::RoleInUse { .. }
            | Refusal::SecretInUse { .. }
            | Refusal::Booting { .. } => Kind::Conflict,
        };
        Self { pointer, ..Self::new(kind, refusal.to_string(), refusal.advice()) }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        if !matches!(fault, Fault::Beyond { .. }) {
            tracing::error!(%fault, "a request of the API met a fault of the ledger");
        }
        let (detail, advice) = parted(&fault.to_string());
        let kind = match fault {
            Fault::Full(_) => Kind::DiskFull,
            Fault::Closed => Kind::Unavailable,
            Fault::Beyond { .. } => Kind::Forbidden,
            _ => Kind::Internal,
        };
        Self::new(kind, detail, advice)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::told(Kind::DiskFull, &error),
            _ => {
                tracing::error!(%error, "a request of the API met a fault of the store");
                Self::told(Kind::Internal, &error)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), axum::Json(self)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// What a handler gives.
pub type Answer<T> = Result<T, Problem>;

#[cfg(test)]
mod tests {
    use super::parted;

    #[test]
    fn what_to_do_is_parted_from_what_happened() {
        for (text, what, advice) in [
            (
                "the tar is cut short within './a.b c'. Make it again",
                "the tar is cut short within './a.b c'",
                "Make it again",
            ),
            ("the ledger is closed; restart it", "the ledger is closed", "restart it"),
            ("no advice in 4.5.1", "no advice in 4.5.1", ""),
        ] {
            assert_eq!(parted(text), (what.to_owned(), advice.to_owned()));
        }
    }
}
