//! What is said to a request that is not let through.

use crate::http::api::problem::{Kind, Problem};
use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bennu_rules::{Timestamp, token::Role};
use serde_json::json;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It shows no token.
    NoToken,
    /// It shows one that nobody has.
    Unknown,
    /// Its token has ended.
    Expired(Timestamp),
    /// Its token may not do this.
    Denied {
        /// What the token may do.
        role: Role,
        /// What it would have to.
        needed: Role,
    },
    /// Too many wrong ones came from there.
    TooMany {
        /// For so long.
        wait_ms: u64,
    },
}

impl Refused {
    /// In a few words.
    pub fn why(&self) -> String {
        match self {
            Self::NoToken => "this needs a token".to_owned(),
            Self::Unknown => "nobody has this token: it was revoked, or is of another appliance".to_owned(),
            Self::Expired(at) => format!("this token ended at {at}"),
            Self::Denied { role, needed } => format!("this needs the role {needed}, and the token has {role}"),
            Self::TooMany { .. } => "too many wrong tokens came from this address".to_owned(),
        }
    }

    fn problem(&self) -> Problem {
        let advice = match self {
            Self::NoToken => {
                "send `Authorization: Bearer …` (with bennu: set BENNU_TOKEN); `bennu token create` on the appliance \
                 makes a token"
                    .to_owned()
            }
            Self::Unknown | Self::Expired(_) => "`bennu token create` on the appliance makes another".to_owned(),
            Self::Denied { needed, .. } => {
                format!(
                    "use a token with that role: `bennu token create NAME --role {needed}` on the appliance makes one"
                )
            }
            Self::TooMany { .. } => "wait as long as Retry-After says, then try with the right token".to_owned(),
        };
        let kind = match self {
            Self::NoToken | Self::Unknown | Self::Expired(_) => Kind::Unauthorized,
            Self::Denied { .. } => Kind::Forbidden,
            Self::TooMany { .. } => Kind::TooMany,
        };
        Problem::new(kind, self.why(), advice)
    }

    /// The answer, in the form that clients of `path` read.
    pub fn response(&self, path: &str) -> Response {
        let is_registry = path == "/v2" || path.starts_with("/v2/");
        let problem = self.problem();
        let mut response = if is_registry { self.registry_error(&problem) } else { problem.into_response() };
        let headers = response.headers_mut();
        match self {
            Self::NoToken | Self::Unknown | Self::Expired(_) => {
                // Registry clients ask a Bearer realm for a token of its own, and answer Basic with the password.
                let challenge = if is_registry { "Basic realm=\"bennu\"" } else { "Bearer realm=\"bennu\"" };
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Self::TooMany { wait_ms } => {
                headers.insert(header::RETRY_AFTER, wait_ms.div_ceil(1000).into());
            }
            Self::Denied { .. } => {}
        }
        response
    }

    /// As the OCI distribution specification has errors ("Error Codes").
    fn registry_error(&self, problem: &Problem) -> Response {
        let code = match self {
            Self::NoToken | Self::Unknown | Self::Expired(_) => "UNAUTHORIZED",
            Self::Denied { .. } => "DENIED",
            Self::TooMany { .. } => "TOOMANYREQUESTS",
        };
        let body = json!({ "errors": [{ "code": code, "message": problem.detail, "detail": problem.advice }] });
        (problem.status(), Json(body)).into_response()
    }
}
