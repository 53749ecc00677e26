//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): who does not know whether a request came through sends
//! it again under its key, and it is carried out once.
//!
//! What was answered is in memory alone and ends with the service. It is sealed under the key that the client has and we
//! do not keep, since some answers hold what is told once (a new token). Who must be sure over a restart too sends
//! `If-Match`: what was carried out has changed the resource's ETag.

use super::{
    Shared,
    apply::MAX_DOCUMENTS,
    problem::{Answer, Kind, Problem},
    request::MAX_BODY,
};
use crate::{author, http::access::Caller};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bennu_rules::{
    Timestamp,
    idempotency::{Kept, Turn},
    image::Digest,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    digest::{Context, SHA256},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The header.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a key looks like: a string (RFC 8941 §3.3.3), or the same without its quotes, as many clients send it.
pub const PATTERN: &str = "^(\"[!#-+\\--:<-\\[\\]-~]{1,128}\"|[!#-+\\--:<-\\[\\]-~]{1,128})$";
const LONGEST: usize = 128;

/// A longer answer is not kept.
const MAX_ANSWER: usize = 4 << 20;

/// Headers that are told again.
const TOLD: [HeaderName; 4] = [header::CONTENT_TYPE, header::ETAG, header::CACHE_CONTROL, header::LOCATION];

/// The answers that are kept.
pub type Answers = Arc<Mutex<Kept<Sealed>>>;

/// An answer, under its client's key.
#[derive(Debug, Clone)]
pub struct Sealed {
    status: StatusCode,
    headers: HeaderMap,
    nonce: [u8; 12],
    /// `None`: it was too long to be kept, or came as the work went on.
    body: Option<Bytes>,
}

/// Whether a key is heeded here: by what is not idempotent by itself and has an answer that can be kept. Imports and tests come
/// to the same when they are repeated, and tell of their work as it goes on.
pub fn is_heeded(method: &str, path: &str) -> bool {
    let one_of = |collection: &str| path.strip_prefix(collection).is_some_and(|name| !name.is_empty());
    match method {
        "POST" => matches!(path, "/v1/tokens" | "/v1/apply" | "/v1/gc") || one_of("/v1/tags/") || one_of("/v1/pushes/"),
        "PATCH" => one_of("/v1/machines/") && path.matches('/').count() == 3,
        _ => false,
    }
}

/// Carries a request out, unless it came before.
pub async fn answer(State(api): Shared, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(HEADER) || !is_heeded(request.method().as_str(), request.uri().path()) {
        return next.run(request).await;
    }
    let now = Timestamp(api.started.elapsed().as_millis() as u64);
    match once(&api.answers, now, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn once(answers: &Answers, now: Timestamp, request: Request, next: Next) -> Answer<Response> {
    let key = key(request.headers())?;
    let caller = request.extensions().get::<Caller>().map(|caller| caller.who.clone());
    let caller = caller.ok_or_else(|| Problem::new(Kind::Internal, "it is not known who asks", ""))?;
    let (parts, body) = request.into_parts();
    // As much as the same request may have without a key.
    let most = if parts.uri.path() == "/v1/apply" { MAX_DOCUMENTS } else { MAX_BODY };
    let cut = |_| Problem::new(Kind::TooLarge, format!("the body is longer than {most} bytes, or was cut short"), "");
    let body = axum::body::to_bytes(body, most).await.map_err(cut)?;
    let what = what(&parts.method, &parts.uri, &parts.headers, &body);
    let running = Running { answers: answers.clone(), key: digest(&[b"name", key.as_bytes()]), caller, secret: key };
    let turn = lock(answers).came(&running.caller, running.key, what, now);
    match turn {
        Turn::First => {}
        Turn::Again(sealed) => return running.open(sealed),
        Turn::Running => {
            let advice = "wait for its answer, or repeat it a little later under the same key";
            return Err(Problem::new(Kind::Conflict, "this request is being carried out", advice));
        }
        Turn::Other => {
            let advice = "draw a new key for each request; repeat one only with the same method, path and body";
            return Err(Problem::new(Kind::Unprocessable, "another request came under this Idempotency-Key", advice));
        }
        Turn::Busy => {
            let advice = "repeat this when some of them are over";
            return Err(Problem::new(Kind::Unavailable, "too many requests under keys are being carried out", advice));
        }
    }
    // It goes on when the client goes away: that is when it will ask again.
    let work = author::spawn(async move {
        let running = FirstTime(Some(running));
        running.answered(next.run(Request::from_parts(parts, Body::from(body))).await).await
    });
    work.await.map_err(|error| Problem::new(Kind::Internal, error.to_string(), "look at the service's log"))
}

/// A request under its key.
struct Running {
    answers: Answers,
    caller: String,
    key: Digest,
    secret: String,
}

impl Running {
    fn cipher(&self) -> Option<LessSafeKey> {
        let key = digest(&[b"seal", self.caller.as_bytes(), self.secret.as_bytes()]);
        UnboundKey::new(&CHACHA20_POLY1305, &key.0).ok().map(LessSafeKey::new)
    }

    fn seal(&self, status: StatusCode, headers: &HeaderMap, body: Option<&Bytes>) -> Sealed {
        let nonce: [u8; 12] = rand::random();
        let seal = |plain: &Bytes| {
            let mut bytes = plain.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.cipher()?.seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes).ok()?;
            Some(Bytes::from(bytes))
        };
        let told = TOLD.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
        Sealed { status, headers: told.collect(), nonce, body: body.and_then(seal) }
    }

    /// The answer of before.
    fn open(&self, sealed: Sealed) -> Answer<Response> {
        let Sealed { status, headers, nonce, body } = sealed;
        let lost = || {
            let detail = format!("this request was carried out, with the status {}", status.as_u16());
            Problem::new(Kind::Conflict, detail, "its answer was too long to be kept: look at the resource")
        };
        let mut bytes = body.ok_or_else(lost)?.to_vec();
        let cipher = self.cipher().ok_or_else(lost)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = cipher.open_in_place(nonce, Aad::empty(), &mut bytes).map_err(|_| lost())?;
        let mut response = Response::new(Body::from(plain.to_vec()));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// A request that is carried out for the first time. Whatever ends it: its key does not stay in use.
struct FirstTime(Option<Running>);

impl FirstTime {
    /// Keeps the answer, and passes it on. What failed may be tried again.
    async fn answered(mut self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let is_kept = !parts.status.is_server_error() && parts.status != StatusCode::TOO_MANY_REQUESTS;
        let is_short = body.size_hint().exact().is_some_and(|length| length <= MAX_ANSWER as u64);
        let Some(running) = self.0.take_if(|_| is_kept) else { return Response::from_parts(parts, body) };
        let (bytes, body) = match is_short {
            false => (None, body),
            true => match axum::body::to_bytes(body, MAX_ANSWER).await {
                Ok(bytes) => (Some(bytes.clone()), Body::from(bytes)),
                Err(error) => {
                    self.0 = Some(running);
                    return Problem::new(Kind::Internal, error.to_string(), "").into_response();
                }
            },
        };
        let sealed = running.seal(parts.status, &parts.headers, bytes.as_ref());
        let size = sealed.body.as_ref().map_or(0, Bytes::len);
        lock(&running.answers).answered(&running.caller, running.key, sealed, size);
        Response::from_parts(parts, body)
    }
}

impl Drop for FirstTime {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            lock(&running.answers).forget(&running.caller, running.key);
        }
    }
}

fn key(headers: &HeaderMap) -> Answer<String> {
    let refuse = || {
        let advice = format!("send one string of up to {LONGEST} printable characters, such as a UUID");
        Problem::new(Kind::Malformed, "Idempotency-Key is no key", advice)
    };
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refuse()) };
    let text = value.to_str().map_err(|_| refuse())?;
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let is_good = |byte: u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b',' | b';' | b'\\');
    match (1..=LONGEST).contains(&key.len()) && key.bytes().all(is_good) {
        true => Ok(key.to_owned()),
        false => Err(refuse()),
    }
}

/// All that makes a request this one.
fn what(method: &Method, uri: &http::Uri, headers: &HeaderMap, body: &Bytes) -> Digest {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let heeded = [header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH];
    let values = heeded.iter().map(|name| {
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        values.join(&b"\0"[..])
    });
    let values: Vec<Vec<u8>> = values.collect();
    let mut parts: Vec<&[u8]> = vec![b"what", method.as_str().as_bytes(), target.as_bytes()];
    parts.extend(values.iter().map(Vec::as_slice));
    parts.push(body);
    digest(&parts)
}

/// SHA-256 of parts, none of which runs into the next.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Digest(bytes)
}

fn lock(answers: &Answers) -> MutexGuard<'_, Kept<Sealed>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_strings_with_or_without_their_quotes() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_str(value).unwrap());
            }
            key(&headers).ok()
        };
        let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        assert_eq!(read(&[uuid]).as_deref(), Some(uuid));
        assert_eq!(read(&[&format!("\"{uuid}\"")]).as_deref(), Some(uuid), "RFC 8941");
        for wrong in ["", "\"\"", "a b", "\"a", "a\"b", "a,b", "a;b", "\\a", &"a".repeat(LONGEST + 1)] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
        assert_eq!(read(&["a", "a"]), None, "twice");
    }

    #[test]
    fn only_what_is_not_idempotent_heeds_a_key() {
        for (method, path) in [("POST", "/v1/tokens"), ("POST", "/v1/tags/web:v1"), ("PATCH", "/v1/machines/x")] {
            assert!(is_heeded(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("PUT", "/v1/rules/x"),
            ("POST", "/v1/imports"),
            ("POST", "/v2/web/blobs/uploads/"),
            ("PATCH", "/v1/tags/web:v1"),
            ("PATCH", "/v1/gc"),
            ("POST", "/v1/machines/x"),
            ("PATCH", "/v1/machines/x/explain"),
            ("POST", "/v1/tokens/01020304"),
        ] {
            assert!(!is_heeded(method, path), "{method} {path}");
        }
    }

    #[test]
    fn an_answer_is_read_with_its_key_alone() {
        let running = |secret: &str| Running {
            answers: Default::default(),
            caller: "ci".into(),
            key: Digest([0; 32]),
            secret: secret.into(),
        };
        let sealed = running("a").seal(StatusCode::CREATED, &HeaderMap::new(), Some(&Bytes::from("the token")));
        assert!(!format!("{sealed:?}").contains("the token"));
        assert_eq!(running("b").open(sealed.clone()).unwrap_err().status, 409);
        assert_eq!(running("a").open(sealed).unwrap().status(), StatusCode::CREATED);
    }
}
