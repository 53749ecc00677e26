//! `GET|HEAD /loader/<file>`: boot programs for UEFI HTTP boot, and for loaders that fetch the next one.

use super::{
    connection::{Connection, PeerAddr},
    delivery::{Item, deliver},
    sendfile::Source,
};
use crate::{appliance::Appliance, loaders::Loaders, observe, observe::Observe};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, Response, StatusCode},
    response::IntoResponse,
    routing::get,
};
use bennu_rules::{journey::Seen, tftp::request::normalise};
use std::sync::Arc;

/// The loaders, as they are served.
#[derive(Clone)]
pub struct Served {
    loaders: Loaders,
    observe: Observe,
}

impl Served {
    /// These loaders; `observe` learns of every delivery.
    pub fn new(loaders: Loaders, observe: Observe) -> Self {
        Self { loaders, observe }
    }

    /// The loaders of an appliance.
    pub fn of(appliance: &Arc<Appliance>) -> Self {
        Self::new(appliance.loaders.clone(), observe::over_http(appliance))
    }
}

/// The routes, with their own state.
pub fn router<S: Clone + Send + Sync + 'static>(served: Served) -> Router<S> {
    Router::new().route("/loader/{*name}", get(loader)).with_state(served)
}

async fn loader(
    State(served): State<Served>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
    peer: Option<Extension<PeerAddr>>,
    Extension(connection): Extension<Connection>,
) -> Response<Body> {
    // Names, never paths: the rule that TFTP has.
    let Some(loader) = normalise(&name).and_then(|name| served.loaders.get(&name)) else {
        return (StatusCode::NOT_FOUND, "there is no such loader\n").into_response();
    };
    let item = Item {
        length: loader.bytes.len() as u64,
        digest: loader.sha256(),
        source: Source::Memory(loader.bytes),
        content_type: content_type(&loader.name),
    };
    deliver(item, &method, &headers, &connection, move |delivered| {
        let Some(Extension(PeerAddr(peer))) = peer else { return };
        let complete = delivered.is_complete();
        let detail = if complete { String::new() } else { "the connection ended before the file did".to_owned() };
        let seen = Seen::LoaderRead {
            by: "http".to_owned(),
            file: loader.name,
            bytes: delivered.sent,
            complete,
            detail,
            took_ms: delivered.took_ms,
        };
        (served.observe)(peer.ip(), seen);
    })
}

/// UEFI HTTP boot (UEFI 2.10 §24.7.3.1) runs `application/efi`, and otherwise judges by the name's end.
fn content_type(name: &str) -> &'static str {
    if name.ends_with(".efi") { "application/efi" } else { "application/octet-stream" }
}
