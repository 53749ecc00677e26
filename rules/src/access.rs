//! Who may ask the management plane for what.

mod failures;
mod reach;

pub use failures::{FAILURES_AT_ONCE, Failures, MAX_FAILING, RETRY_MS};
pub use reach::{Reach, beyond, is_within, reach, sees};

use crate::{
    Change, Decision, Moment, Timestamp, View,
    image::Digest,
    selector::Selector,
    token::{Scope, Scopes, Token, TokenId, TokenName},
};

/// When a token was used is written this often: nobody needs to know it better, and each time costs a commit.
const USED_PACE_MS: u64 = 3_600_000;

/// Whether anybody may ask for this, without a token: what load balancers look at, and what a browser needs to log in.
pub fn is_open(method: &str, path: &str) -> bool {
    let asset = path.starts_with("/ui/assets/");
    is_reading(method) && (asset || matches!(path, "/healthz" | "/readyz")) || path == "/login"
}

/// Whether this is one of the pages for people. What a page shows or changes it asks of the API, as the same caller and by
/// the same rules, so that whoever may read anything may open every page.
pub fn is_page(path: &str) -> bool {
    path == "/" || path == "/ui" || path.starts_with("/ui/")
}

/// The scopes of which one is enough to ask for `path` so. What is not known here needs the greatest.
pub fn needed(method: &str, path: &str) -> &'static [Scope] {
    let under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let under_any = |roots: &[&str]| roots.iter().any(|root| under(root));
    if under_any(&["/v1/tokens", "/v1/secrets", "/v1/roles", "/v1/backup", "/v1/backups", "/v1/restore", "/v1/support"])
    {
        &[Scope::Admin]
    } else if under("/v2") {
        // Who pushes looks what is there already.
        if is_reading(method) { &[Scope::Read, Scope::Images] } else { &[Scope::Images] }
    } else if method == "POST" && path == "/v1/apply" {
        // Which of these depends on the kinds of its documents: `commands::apply` looks at each.
        &[Scope::Assign, Scope::Images]
    } else if is_reading(method) || under("/ui") {
        &[Scope::Read]
    } else if under_any(&["/v1/imports", "/v1/images", "/v1/tags", "/v1/pushes", "/v1/gc", "/v1/tests"]) {
        &[Scope::Images]
    } else if under("/v1/machines") && path.ends_with("/power") {
        &[Scope::Power]
    } else if under_any(&["/v1/machines", "/v1/rules", "/v1/metadata"]) {
        &[Scope::Assign]
    } else {
        &[Scope::Admin]
    }
}

/// Whether who has `scopes` may ask for `path` so.
pub fn allowed(scopes: &Scopes, method: &str, path: &str) -> bool {
    needed(method, path).iter().any(|scope| scopes.have(*scope))
}

pub(super) fn is_reading(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

/// A request that came with a token.
#[derive(Debug, Clone)]
pub struct AccessRequest {
    /// Which token it says it is.
    pub id: TokenId,
    /// SHA-256 of the secret that it showed.
    pub secret: Digest,
    /// The request's method.
    pub method: String,
    /// The request's path, without its query.
    pub path: String,
}

/// Whether a request is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By this caller.
    Granted {
        /// Its token.
        id: TokenId,
        /// What people call that.
        name: TokenName,
        /// What they may do.
        scopes: Scopes,
        /// The machines that they see and change; `None`: all.
        limit: Option<Selector>,
        /// When the token ends.
        expires: Option<Timestamp>,
    },
    /// Nobody's token.
    Unknown,
    /// The token has ended.
    Expired(Timestamp),
    /// The token may not do this.
    Denied {
        /// What it may do.
        scopes: Scopes,
        /// One of these it would have to.
        needed: &'static [Scope],
    },
    /// The token may not do it to this.
    Beyond(Selector),
}

/// Looks whose token it is and what they may. The change notes that it was used; an answer need not wait for it.
pub fn decide(request: &AccessRequest, view: &View<'_>, at: &Moment) -> Decision<Access> {
    let token = view.records.token(request.id).filter(|token| is_same(&token.secret, &request.secret));
    let Some(token) = token else { return Decision::just(Access::Unknown) };
    if let Some(expires) = token.expires.filter(|_| token.is_expired(at.now)) {
        return Decision::just(Access::Expired(expires));
    }
    let access = access(&token, request, view);
    // By the distance, since clocks are set back too.
    let is_noted = token.last_used.is_some_and(|used| at.now.0.abs_diff(used.0) < USED_PACE_MS);
    let changes =
        if is_noted { Vec::new() } else { vec![Change::PutToken(Token { last_used: Some(at.now), ..token })] };
    Decision { changes, ..Decision::just(access) }
}

fn access(token: &Token, request: &AccessRequest, view: &View<'_>) -> Access {
    let (method, path) = (&request.method, &request.path);
    if !allowed(&token.scopes, method, path) {
        return Access::Denied { scopes: token.scopes.clone(), needed: needed(method, path) };
    }
    if let Some(limit) = token.limit.as_ref().filter(|limit| !is_within(&reach(method, path), limit, view)) {
        return Access::Beyond(limit.clone());
    }
    let Token { id, name, scopes, limit, expires, .. } = token.clone();
    Access::Granted { id, name, scopes, limit, expires }
}

/// Compares in a time that tells nothing of where they differ.
fn is_same(a: &Digest, b: &Digest) -> bool {
    std::hint::black_box(a.0.iter().zip(&b.0).fold(0, |differs, (a, b)| differs | (a ^ b))) == 0
}

#[cfg(test)]
mod tests;
