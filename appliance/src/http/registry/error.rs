//! Refusals as clients of registries read them (OCI distribution specification, "Error Codes").

use super::reply;
use crate::ledger::Fault;
use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use bennu_images::store::StoreError;
use serde::Serialize;

/// The codes of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    Denied,
    Unsupported,
    Toomanyrequests,
    /// Not of the specification, which has no code for a server that fails.
    Unknown,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::Denied => StatusCode::CONFLICT,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::Toomanyrequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid
            | Self::TagInvalid => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    code: Code,
    message: String,
    headers: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct Told<'a> {
    errors: [One<'a>; 1],
}

#[derive(Serialize)]
struct One<'a> {
    code: Code,
    message: &'a str,
}

impl Refused {
    /// With the status that belongs to the code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::with(code.status(), code, message)
    }

    /// With a status of its own.
    pub fn with(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// And a header.
    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// As an answer.
    pub fn answer(self) -> Response<Body> {
        let told = Told { errors: [One { code: self.code, message: &self.message }] };
        let json = serde_json::to_vec(&told).unwrap_or_default();
        let mut headers = self.headers;
        headers.push(("content-type", "application/json".to_owned()));
        reply(self.status, &headers, json.into())
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::with(StatusCode::INSUFFICIENT_STORAGE, Code::Denied, error.to_string()),
            error => {
                tracing::error!(%error, "a request of the registry met a fault of the store");
                Self::new(Code::Unknown, error.to_string())
            }
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        tracing::error!(%fault, "a request of the registry met a fault of the ledger");
        Self::with(StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, fault.to_string())
    }
}
