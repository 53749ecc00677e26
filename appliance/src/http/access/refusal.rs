//! What is said to a request that is not let through.

use crate::http::{
    api::problem::{Kind, Problem},
    ui,
};
use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bennu_rules::{
    Timestamp,
    access::is_page,
    selector::Selector,
    token::{Scope, Scopes},
};
use serde_json::json;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        scopes: Scopes,
        /// One of these it would have to.
        needed: &'static [Scope],
    },
    /// A browser asks for a page of another site.
    Elsewhere,
    /// A browser took another host's name for the local socket.
    NotLocal,
    /// A session's write without the session's key.
    NoKey,
    /// Its token may not do it to this.
    Beyond(Selector),
    /// Too many wrong ones came from there.
    TooMany {
        /// For so long.
        wait_ms: u64,
    },
}

/// `read`, or `read or images`.
fn either(scopes: &[Scope]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

impl Refused {
    /// In a few words.
    pub fn why(&self) -> String {
        match self {
            Self::NoToken => "this needs a token".to_owned(),
            Self::Unknown => "nobody has this token: it was revoked, or is of another appliance".to_owned(),
            Self::Expired(at) => format!("this token ended at {at}"),
            Self::Denied { scopes, needed } => {
                format!("this needs the scope {}, and the token has {scopes}", either(needed))
            }
            Self::Beyond(limit) => format!("this token is limited to machines with {limit}"),
            Self::Elsewhere => "a page of another site asked for this".to_owned(),
            Self::NotLocal => "the local socket is no host of that name".to_owned(),
            Self::NoKey => "the form is not from this session".to_owned(),
            Self::TooMany { .. } => "too many wrong tokens came from this address".to_owned(),
        }
    }

    /// As the API tells it.
    pub fn problem(&self) -> Problem {
        let advice = match self {
            Self::NoToken => {
                "send `Authorization: Bearer …` (with bennu: set BENNU_TOKEN); `bennu token create` on the appliance \
                 makes a token"
                    .to_owned()
            }
            Self::Unknown | Self::Expired(_) => "`bennu token create` on the appliance makes another".to_owned(),
            Self::Denied { needed, .. } => {
                let scope = needed.first().map(ToString::to_string).unwrap_or_default();
                format!(
                    "use a token with that scope: `bennu token create NAME --scope {scope}` on the appliance makes one"
                )
            }
            Self::Elsewhere => "open Bennu's own page and do it there".to_owned(),
            Self::NotLocal => "reach a forwarded socket as localhost".to_owned(),
            Self::NoKey => "load the page again, then repeat it".to_owned(),
            Self::Beyond(_) => "use a token without that limit, or with another".to_owned(),
            Self::TooMany { .. } => "wait as long as Retry-After says, then try with the right token".to_owned(),
        };
        let kind = match self {
            Self::NoToken | Self::Unknown | Self::Expired(_) => Kind::Unauthorized,
            Self::Denied { .. } | Self::Beyond(_) | Self::Elsewhere | Self::NotLocal | Self::NoKey => Kind::Forbidden,
            Self::TooMany { .. } => Kind::TooMany,
        };
        Problem::new(kind, self.why(), advice)
    }

    /// The answer, in the form that clients of `path` read.
    pub fn response(&self, path: &str) -> Response {
        let is_registry = path == "/v2" || path.starts_with("/v2/");
        let problem = self.problem();
        if is_page(path) {
            return ui::refused(self, problem, path);
        }
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
            Self::Denied { .. } | Self::Beyond(_) | Self::Elsewhere | Self::NotLocal | Self::NoKey => {}
        }
        response
    }

    /// As the OCI distribution specification has errors ("Error Codes").
    fn registry_error(&self, problem: &Problem) -> Response {
        let code = match self {
            Self::NoToken | Self::Unknown | Self::Expired(_) => "UNAUTHORIZED",
            Self::Denied { .. } | Self::Beyond(_) | Self::Elsewhere | Self::NotLocal | Self::NoKey => "DENIED",
            Self::TooMany { .. } => "TOOMANYREQUESTS",
        };
        let body = json!({ "errors": [{ "code": code, "message": problem.detail, "detail": problem.advice }] });
        (problem.status(), Json(body)).into_response()
    }
}
