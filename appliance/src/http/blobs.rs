//! `GET|HEAD /blobs/sha256/<hex>`: any blob of the store, by its digest. What follows, `/<any name>`, is the name that a
//! live system wants to see in a URL.

use super::{
    connection::{Connection, PeerAddr},
    delivery::{Item, deliver},
    mapped::Mapped,
    sendfile::Source,
};
use crate::{appliance::Appliance, observe, observe::Observe};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, Response, StatusCode},
    response::IntoResponse,
    routing::get,
};
use bennu_images::store::{Store, StoreError};
use bennu_rules::{image::Digest, journey::Seen};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The blobs, as they are served.
#[derive(Clone)]
pub struct Blobs {
    store: Store,
    observe: Observe,
    /// Blobs that are being sent: machines that boot together share one descriptor and mapping.
    open: Arc<Mutex<HashMap<Digest, Weak<Mapped>>>>,
}

impl Blobs {
    /// Blobs of `store`; `observe` learns of every delivery.
    pub fn new(store: Store, observe: Observe) -> Self {
        Self { store, observe, open: Arc::default() }
    }

    /// The blobs of an appliance.
    pub fn of(appliance: &Arc<Appliance>) -> Self {
        Self::new(appliance.store.clone(), observe::over_http(appliance))
    }

    /// A blob to be sent.
    pub(super) fn open(&self, digest: &Digest) -> Result<(Source, u64), StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A blob that was imported again, because a disk damaged it, is another file under the same name.
        let is_current = |mapped: &Arc<Mapped>| mapped.is_at(&self.store.blob_path(digest));
        if let Some(mapped) = open.get(digest).and_then(Weak::upgrade).filter(is_current) {
            let length = mapped.bytes().len() as u64;
            return Ok((Source::Mapped(mapped), length));
        }
        let (file, length) = self.store.open_blob(digest)?;
        if length == 0 {
            return Ok((Source::Memory(Bytes::new()), 0));
        }
        let mapped = Mapped::new(file, length as usize)
            .map_err(|error| self.store.failed("map", &self.store.blob_path(digest), error))?;
        let mapped = Arc::new(mapped);
        open.retain(|_, held| held.strong_count() > 0);
        open.insert(*digest, Arc::downgrade(&mapped));
        Ok((Source::Mapped(mapped), length))
    }
}

/// The routes, with their own state.
pub fn router<S: Clone + Send + Sync + 'static>(blobs: Blobs) -> Router<S> {
    let named = get(blob);
    Router::new().route("/blobs/sha256/{hex}", get(blob)).route("/blobs/sha256/{hex}/{*name}", named).with_state(blobs)
}

async fn blob(
    State(blobs): State<Blobs>,
    Path(path): Path<HashMap<String, String>>,
    method: Method,
    headers: HeaderMap,
    peer: Option<Extension<PeerAddr>>,
    Extension(connection): Extension<Connection>,
) -> Response<Body> {
    let Some(digest) = path.get("hex").and_then(|hex| Digest::from_hex(hex).ok()) else {
        return (StatusCode::NOT_FOUND, "a blob's name is 64 hex digits\n").into_response();
    };
    let (source, length) = match blobs.open(&digest) {
        Ok(found) => found,
        Err(missing @ StoreError::Missing { .. }) => {
            return (StatusCode::NOT_FOUND, format!("{missing}\n")).into_response();
        }
        Err(error) => {
            tracing::error!(%error, "a blob cannot be served");
            return (StatusCode::INTERNAL_SERVER_ERROR, "the blob cannot be read; see the appliance's log\n")
                .into_response();
        }
    };
    let item = Item { source, length, digest, content_type: "application/octet-stream" };
    deliver(item, &method, &headers, &connection, move |delivered| {
        let Some(Extension(PeerAddr(peer))) = peer else { return };
        let (bytes, complete, took_ms) = (delivered.sent, delivered.is_complete(), delivered.took_ms);
        (blobs.observe)(peer.ip(), Seen::BlobRead { digest, part: String::new(), bytes, complete, took_ms });
    })
}
