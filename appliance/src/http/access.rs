//! Who asks the management plane: everybody on the local socket is its owner, and over the network each request needs a
//! token.

mod credentials;
mod refusal;

use super::{
    api::problem::{Answer, Kind, Problem},
    connection::{PeerAddr, PeerUid},
};
use crate::{
    appliance::{Appliance, Counters},
    author::by,
};
use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::{self, Next},
    response::Response,
};
use bennu_rules::{
    Timestamp,
    access::{Access, AccessRequest, Failures, decide, is_open},
    audit::{Author, Who},
    image::Digest,
    token::{Bearer, Role},
};
use credentials::Shown;
use http_body_util::BodyExt;
use refusal::Refused;
use ring::digest::{SHA256, digest};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Who asks, in the extensions of every request that is let through. Handlers take it as an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For what is kept of what they do: `local (uid 0)`, or `ci (token 01020304)`.
    pub who: String,
    /// What they may do. What a path needs has been looked at by then.
    pub role: Role,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let nobody = || Problem::new(Kind::Internal, "it is not known who asks", "report this to Bennu's authors");
        parts.extensions.get().cloned().ok_or_else(nobody)
    }
}

/// The SHA-256 of a token's secret: all that is kept of it.
pub fn digest_of(secret: &[u8; 32]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    Digest(bytes)
}

/// For the local socket, whose file says who may connect: they may do everything.
pub fn local(router: Router) -> Router {
    router.layer(middleware::from_fn(|mut request: Request, next: Next| async move {
        let uid = request.extensions().get().map(|PeerUid(uid)| *uid);
        let who = uid.map_or_else(|| "local".to_owned(), |uid| format!("local (uid {uid})"));
        request.extensions_mut().insert(Caller { who, role: Role::Admin });
        let author = author(Who::Local { uid, user: uid.and_then(crate::privileges::user::name) }, "socket", &request);
        by(author, next.run(request)).await
    }))
}

/// Whose writes these are, for the audit log.
fn author(who: Who, from: impl Into<String>, request: &Request) -> Author {
    const LONGEST_REQUEST: usize = 256;
    let asked = format!("{} {}", request.method(), request.uri().path());
    Author { who, from: from.into(), request: asked.chars().take(LONGEST_REQUEST).collect() }
}

/// For the network: who has no token that is good for it is refused.
pub fn remote(router: Router, appliance: Arc<Appliance>) -> Router {
    let guard = Arc::new(Guard { appliance, failures: Mutex::default(), log: Mutex::default() });
    router.layer(middleware::from_fn_with_state(guard, check))
}

struct Guard {
    appliance: Arc<Appliance>,
    failures: Mutex<Failures>,
    log: Mutex<LogPace>,
}

async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    if is_open(request.method().as_str(), request.uri().path()) {
        return next.run(request).await;
    }
    match guard.look(&request) {
        Ok(Ok((caller, who))) => {
            request.extensions_mut().insert(caller);
            let from = request.extensions().get().map_or_else(String::new, |PeerAddr(peer)| peer.to_string());
            let author = author(who, from, &request);
            by(author, next.run(request)).await
        }
        Ok(Err(refused)) => {
            let response = refused.response(request.uri().path());
            read_on(request.into_body());
            response
        }
        Err(problem) => axum::response::IntoResponse::into_response(problem),
    }
}

impl Guard {
    fn look(&self, request: &Request) -> Answer<Result<(Caller, Who), Refused>> {
        let peer = request.extensions().get().map(|PeerAddr(peer)| peer.ip().to_canonical());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let counters = &self.appliance.counters;
        let shown = match credentials::shown(request.headers()) {
            Shown::Nothing => return Ok(Err(Refused::NoToken)),
            Shown::Nonsense => None,
            Shown::Token(bearer) => Some(bearer),
        };
        // Time since the start, which nobody sets.
        let now = Timestamp(self.appliance.started.elapsed().as_millis() as u64);
        if let Err(wait_ms) = lock(&self.failures).admits(peer, now) {
            Counters::count(&counters.tokens_limited);
            return Ok(Err(Refused::TooMany { wait_ms }));
        }
        let access = match &shown {
            Some(bearer) => self.ask(bearer, request)?,
            None => Access::Unknown,
        };
        let refused = match access {
            Access::Granted { id, name, role } => {
                let who = Who::Token { id, name };
                return Ok(Ok((Caller { who: who.to_string(), role }, who)));
            }
            Access::Denied { role, needed } => {
                Counters::count(&counters.tokens_refused);
                return Ok(Err(Refused::Denied { role, needed }));
            }
            Access::Unknown => Refused::Unknown,
            Access::Expired(at) => Refused::Expired(at),
        };
        Counters::count(&counters.tokens_refused);
        lock(&self.failures).count(peer, now);
        if let Some(unsaid) = lock(&self.log).says(Instant::now()) {
            let token = shown.map_or_else(|| "none of Bennu's".to_owned(), |bearer| bearer.id.to_string());
            tracing::warn!(%peer, token, unsaid, "a request was refused: {}", refused.why());
        }
        Ok(Err(refused))
    }

    fn ask(&self, bearer: &Bearer, request: &Request) -> Answer<Access> {
        let request = AccessRequest {
            id: bearer.id,
            secret: digest_of(&bearer.secret),
            method: request.method().as_str().to_owned(),
            path: request.uri().path().to_owned(),
        };
        let ledger = &self.appliance.ledger;
        let decision = ledger.ponder(&request, decide)?;
        if !decision.changes.is_empty() {
            // That a token was used is good to know, and no reason to wait or to fail: with a full disk people must get
            // in to mend it.
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.decide(request, decide).await.map(drop) });
        }
        Ok(decision.answer)
    }
}

/// Reads on for a moment, so that a client that is still sending reads its refusal instead of a broken connection
/// (RFC 9112 §9.6).
fn read_on(mut body: Body) {
    const MOMENT: Duration = Duration::from_secs(2);
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(MOMENT, all).await;
    });
}

/// A few lines a second, and how many were left out.
#[derive(Debug, Default)]
struct LogPace {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl LogPace {
    const A_SECOND: u32 = 3;

    /// Whether to say something now; if so, how much was not said before.
    fn says(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.said) = (Some(now), 0);
        }
        if self.said >= Self::A_SECOND {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_a_few_a_second_and_how_many_more() {
        let (mut log, start) = (LogPace::default(), Instant::now());
        let said: Vec<_> = (0..10).map(|_| log.says(start)).collect();
        assert_eq!(said.iter().flatten().count(), 3);
        assert_eq!(log.says(start + Duration::from_secs(1)), Some(7));
        assert_eq!(log.says(start + Duration::from_secs(1)), Some(0));
    }
}
