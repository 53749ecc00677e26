//! `/v2/`: the OCI distribution API (OCI distribution specification 1.1), so that docker, skopeo, buildah, podman and oras
//! push to the appliance and pull from it.

mod blobs;
mod error;
mod listing;
mod manifests;
mod route;
#[cfg(test)]
mod tests;
mod uploads;

use super::{access::Caller, connection::Connection};
use crate::{appliance::Appliance, author, http::blobs::Blobs, observe};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, Response, StatusCode, request::Parts},
    routing::any,
};
use error::{Code, Refused};
use route::{Place, Target};
use std::sync::Arc;

/// What an answer is, or why there is none.
type Answer = Result<Response<Body>, Refused>;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    appliance: Arc<Appliance>,
    blobs: Blobs,
}

/// One request: where it goes, and what came with it.
struct Asked {
    shared: Shared,
    repository: String,
    parts: Parts,
    body: Body,
}

impl Asked {
    /// A field of the query.
    fn query(&self, key: &str) -> Option<String> {
        let query = self.parts.uri.query()?;
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let value = pairs.into_iter().find(|(name, _)| *name == key)?.1;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn connection(&self) -> Option<&Connection> {
        self.parts.extensions.get()
    }

    /// Who asks, for the record.
    fn by(&self) -> String {
        self.parts.extensions.get::<Caller>().map_or_else(|| "registry".to_owned(), |caller| caller.who.clone())
    }
}

/// The registry of one appliance.
pub fn router(appliance: Arc<Appliance>) -> Router {
    let blobs = Blobs::new(appliance.store.clone(), observe::to_nobody());
    let shared = Shared { appliance, blobs };
    Router::new()
        .route("/v2", any(answer))
        .route("/v2/", any(answer))
        .route("/v2/{*path}", any(answer))
        .with_state(shared)
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let place = match route::parse(parts.uri.path()) {
        Ok(place) => place,
        Err(refused) => return refused.answer(),
    };
    let Place { repository, target } = place;
    let asked = Asked { shared, repository, parts, body };
    let method = asked.parts.method.clone();
    // A task of its own ends what it began, such as giving an upload back, whatever becomes of the connection.
    match author::spawn(async move { dispatch(target, &method, asked).await }).await {
        Ok(answer) => answer.unwrap_or_else(Refused::answer),
        Err(panic) => {
            tracing::error!(%panic, "a request of the registry panicked");
            Refused::new(Code::Unknown, "bennu failed; see its log").answer()
        }
    }
}

async fn dispatch(target: Target, method: &Method, asked: Asked) -> Answer {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match (target, method.as_str()) {
        (Target::Base, _) if is_read => Ok(base()),
        (Target::Catalog, _) if is_read => listing::catalog(&asked),
        (Target::Tags, _) if is_read => listing::tags(&asked),
        (Target::Referrers(digest), _) if is_read => listing::referrers(&digest, &asked),
        (Target::Blob(digest), _) if is_read => blobs::read(&digest, &asked),
        (Target::Blob(digest), "DELETE") => blobs::delete(&digest, &asked),
        (Target::Manifest(reference), _) if is_read => manifests::read(&reference, &asked),
        (Target::Manifest(reference), "PUT") => manifests::put(&reference, asked).await,
        (Target::Manifest(reference), "DELETE") => {
            manifests::delete(&reference, asked.repository, asked.shared.appliance).await
        }
        (Target::Uploads, "POST") => uploads::begin(asked).await,
        (Target::Upload(id), _) if is_read => uploads::state(&id, &asked),
        (Target::Upload(id), "PATCH") => uploads::append(&id, asked).await,
        (Target::Upload(id), "PUT") => uploads::finish(&id, asked).await,
        (Target::Upload(id), "DELETE") => uploads::cancel(&id, &asked),
        _ => Err(Refused::with(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unsupported,
            format!("{} cannot be asked to {method}", asked.parts.uri.path()),
        )),
    }
}

/// Whether this is a registry ("Determining Support").
fn base() -> Response<Body> {
    reply(StatusCode::OK, &[("content-type", "application/json".into())], "{}".into())
}

/// An answer with headers made of digits, names and constants, so that building it cannot fail.
fn reply(status: StatusCode, headers: &[(&'static str, String)], body: Body) -> Response<Body> {
    let answer = Response::builder().status(status).header("docker-distribution-api-version", "registry/2.0");
    let answer = headers.iter().fold(answer, |answer, (name, value)| answer.header(*name, value));
    answer.body(body).unwrap_or_else(|_| Response::new(Body::empty()))
}
