//! HTTP: the provisioning plane (scripts, plans, reports, loaders, blobs) and the management API, each a router of its own.

pub mod access;
pub mod api;
pub mod blobs;
pub mod body;
pub mod boot;
pub mod connection;
mod deadline;
mod delivery;
mod gate;
mod guests;
mod listener;
pub mod loaders;
mod mapped;
pub mod range;
pub mod registry;
mod sendfile;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod trial;

use crate::appliance::{Appliance, Counters};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use std::sync::Arc;

/// Everything that machines may ask for.
pub fn provisioning_router(appliance: Arc<Appliance>) -> Router {
    boot::router()
        .merge(loaders::router(loaders::Served::of(&appliance)))
        .merge(blobs::router(blobs::Blobs::of(&appliance)))
        .layer(middleware::from_fn_with_state(appliance.clone(), count))
        .with_state(appliance)
}

async fn count(State(appliance): State<Arc<Appliance>>, request: Request, next: Next) -> Response {
    Counters::count(&appliance.counters.http_requests);
    let response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        Counters::count(&appliance.counters.http_refused);
    }
    response
}
