//! Who asks the management plane: everybody on the local socket is its owner, and over the network each request needs a
//! token.

pub(in crate::http) mod credentials;
mod door;
mod origin;
mod refusal;
pub mod sessions;

pub use door::Door;
pub use refusal::Refused;

use super::{
    api::problem::{Answer, Kind, Problem},
    connection::{PeerAddr, PeerUid},
};
use crate::{
    appliance::{Appliance, Counters},
    author::{Sight, by},
    ledger::Ledger,
};
use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, Method, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bennu_rules::{
    Timestamp,
    access::{Access, AccessRequest, Failures, decide, is_open, is_page},
    audit::{Author, Who},
    image::Digest,
    selector::Selector,
    token::{Bearer, Scope, Scopes},
};
use credentials::Shown;
use door::Way;
use http_body_util::BodyExt;
use ring::digest::{SHA256, digest};
use sessions::{FormKey, Held, SessionEnd, Sessions};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Who asks, in the extensions of every request that is let through. Handlers take it as an argument.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For what is kept of what they do: `local (uid 0)`, or `ci (token 01020304)`.
    pub who: String,
    /// What they may do. What a path needs has been looked at by then.
    pub scopes: Scopes,
    /// When they are let in no longer.
    pub expires: Option<Timestamp>,
    /// The end of the browser's session that they came with.
    pub session: Option<SessionEnd>,
}

impl Caller {
    /// Waits until they are let in no longer: their token was revoked or has ended, or their session is over. For answers
    /// that go on as long as somebody listens.
    pub async fn leaves(self, sight: Sight, ledger: Ledger) {
        let session = async {
            match self.session {
                Some(session) => session.comes().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = session => {}
            () = sight.ends(ledger, self.expires) => {}
        }
    }
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
    let key = FormKey::random();
    let router = router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        let key = key.clone();
        async move {
            if let Err(refused) = from_here(&request) {
                return refused.response(request.uri().path());
            }
            let uid = request.extensions().get().map(|PeerUid(uid)| *uid);
            let who = uid.map_or_else(|| "local".to_owned(), |uid| format!("local (uid {uid})"));
            let caller = Caller { who, scopes: [Scope::Admin].into(), expires: None, session: None };
            let door = Door::new(Way::Local { caller: caller.clone(), key }, &request);
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(door);
            let user = uid.and_then(crate::privileges::user::name);
            by(author(Who::Local { uid, user }, "socket", None, &request), next.run(request)).await
        }
    }));
    router.layer(middleware::map_response(as_it_says))
}

/// No browser is to take an answer for another kind than it says, whoever wrote what is in it.
async fn as_it_says(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whose writes these are, for the audit log.
fn author(who: Who, from: impl Into<String>, limit: Option<Selector>, request: &Request) -> Author {
    const LONGEST_REQUEST: usize = 256;
    let asked = format!("{} {}", request.method(), request.uri().path());
    Author { who, from: from.into(), request: asked.chars().take(LONGEST_REQUEST).collect(), limit }
}

/// Browsers reach the socket where somebody forwards it, and go where pages of others lead them.
fn from_here(request: &Request) -> Result<(), Refused> {
    if !origin::is_local_name(request.headers()) {
        return Err(Refused::NotLocal);
    }
    match origin::is_from_elsewhere(request.method(), request.uri().path(), request.headers()) {
        true => Err(Refused::Elsewhere),
        false => Ok(()),
    }
}

/// For the network: who has no token that is good for it is refused.
pub fn remote(router: Router, appliance: Arc<Appliance>) -> Router {
    let guard = Guard { appliance, failures: Mutex::default(), log: Mutex::default(), sessions: Mutex::default() };
    let guard = Arc::new(guard);
    router.layer(middleware::from_fn_with_state(guard, check)).layer(middleware::map_response(as_it_says))
}

/// Where scripts of ours show their session's key.
pub const KEY_HEADER: &str = "x-bennu-key";

struct Guard {
    appliance: Arc<Appliance>,
    failures: Mutex<Failures>,
    log: Mutex<LogPace>,
    sessions: Mutex<Sessions>,
}

async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    if origin::is_from_elsewhere(request.method(), request.uri().path(), request.headers()) {
        return turned_away(Refused::Elsewhere, request);
    }
    if is_open(request.method().as_str(), request.uri().path()) {
        let door = Door::new(Way::Open { guard }, &request);
        request.extensions_mut().insert(door);
        return next.run(request).await;
    }
    match guard.look(&request) {
        Ok(Ok(Seen { granted: Granted { caller, who, limit }, held, key })) => {
            let door = Door::new(Way::Token { guard, held, key }, &request);
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(door);
            let from = request.extensions().get().map_or_else(String::new, |PeerAddr(peer)| peer.to_string());
            let author = author(who, from, limit, &request);
            by(author, next.run(request)).await
        }
        Ok(Err(refused)) => turned_away(refused, request),
        Err(problem) => problem.into_response(),
    }
}

fn turned_away(refused: Refused, request: Request) -> Response {
    let response = refused.response(request.uri().path());
    read_on(request.into_body());
    response
}

/// Whoever is let in with a token, and the machines that they see and change.
struct Granted {
    caller: Caller,
    who: Who,
    limit: Option<Selector>,
}

/// Who asks, with which token, and the key of their session.
struct Seen {
    granted: Granted,
    held: Held,
    key: Option<FormKey>,
}

impl Guard {
    fn look(&self, request: &Request) -> Answer<Result<Seen, Refused>> {
        let (method, path) = (request.method(), request.uri().path());
        let peer = request.extensions().get().map(|PeerAddr(peer)| peer.ip().to_canonical());
        let shown = match credentials::shown(request.headers()) {
            Shown::Nothing => return self.look_at_session(request),
            Shown::Nonsense => None,
            Shown::Token(bearer) => Some(bearer),
        };
        self.weigh(peer, shown, method, path)
    }

    /// A browser's session. Registry clients have none.
    fn look_at_session(&self, request: &Request) -> Answer<Result<Seen, Refused>> {
        let (method, path) = (request.method(), request.uri().path());
        let is_registry = path == "/v2" || path.starts_with("/v2/");
        let Some(cookie) = credentials::cookie(request.headers()).filter(|_| !is_registry) else {
            return Ok(Err(Refused::NoToken));
        };
        let Some(session) = lock(&self.sessions).find(cookie, self.now()) else { return Ok(Err(Refused::NoToken)) };
        // Forms show the key in their fields, where their handlers look for it.
        let shows_key = || {
            let shown = request.headers().get(KEY_HEADER).and_then(|shown| shown.to_str().ok());
            shown.is_some_and(|shown| session.key.is(shown))
        };
        if !method.is_safe() && !is_page(path) && !shows_key() {
            return Ok(Err(Refused::NoKey));
        }
        let judged = self.judge(session.held, method, path)?;
        if let Err(Refused::Unknown | Refused::Expired(_)) = judged {
            lock(&self.sessions).end(cookie);
        }
        Ok(judged.map(|mut granted| {
            granted.caller.session = Some(session.end(self.now()));
            Seen { granted, held: session.held, key: Some(session.key) }
        }))
    }

    /// Begins a session for a token that may look at the pages.
    fn log_in(&self, peer: Option<IpAddr>, shown: Option<Bearer>) -> Answer<Result<String, Refused>> {
        let seen = self.weigh(peer, shown, &Method::GET, "/")?;
        Ok(seen.map(|seen| lock(&self.sessions).begin(seen.held, self.now())))
    }

    /// Time since the start, which nobody sets.
    fn now(&self) -> Timestamp {
        Timestamp(self.appliance.started.elapsed().as_millis() as u64)
    }

    /// Judges a token that was shown, and counts against its address when it is none.
    fn weigh(
        &self,
        peer: Option<IpAddr>,
        shown: Option<Bearer>,
        method: &Method,
        path: &str,
    ) -> Answer<Result<Seen, Refused>> {
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let now = self.now();
        if let Err(wait_ms) = lock(&self.failures).admits(peer, now) {
            Counters::count(&self.appliance.counters.tokens_limited);
            return Ok(Err(Refused::TooMany { wait_ms }));
        }
        let held = shown.as_ref().map(|bearer| Held { id: bearer.id, secret: digest_of(&bearer.secret) });
        let refused = match held {
            None => Refused::Unknown,
            Some(held) => match self.judge(held, method, path)? {
                Ok(granted) => return Ok(Ok(Seen { granted, held, key: None })),
                Err(refused) => refused,
            },
        };
        Counters::count(&self.appliance.counters.tokens_refused);
        if matches!(refused, Refused::Denied { .. } | Refused::Beyond(_)) {
            return Ok(Err(refused));
        }
        lock(&self.failures).count(peer, now);
        if let Some(unsaid) = lock(&self.log).says(Instant::now()) {
            let token = shown.map_or_else(|| "none of Bennu's".to_owned(), |bearer| bearer.id.to_string());
            tracing::warn!(%peer, token, unsaid, "a request was refused: {}", refused.why());
        }
        Ok(Err(refused))
    }

    /// What the rules say of a token that asks so.
    fn judge(&self, held: Held, method: &Method, path: &str) -> Answer<Result<Granted, Refused>> {
        Ok(match self.ask(held, method, path)? {
            Access::Granted { id, name, scopes, limit, expires } => {
                let who = Who::Token { id, name };
                let caller = Caller { who: who.to_string(), scopes, expires, session: None };
                Ok(Granted { caller, who, limit })
            }
            Access::Denied { scopes, needed } => Err(Refused::Denied { scopes, needed }),
            Access::Beyond(limit) => Err(Refused::Beyond(limit)),
            Access::Unknown => Err(Refused::Unknown),
            Access::Expired(at) => Err(Refused::Expired(at)),
        })
    }

    fn ask(&self, held: Held, method: &Method, path: &str) -> Answer<Access> {
        let request = AccessRequest {
            id: held.id,
            secret: held.secret,
            method: method.as_str().to_owned(),
            path: path.to_owned(),
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
pub fn read_on(mut body: Body) {
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
