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
pub(crate) mod mapped;
pub mod metered;
pub mod range;
pub mod registry;
mod sendfile;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod trial;
pub mod ui;

use crate::appliance::Appliance;
use axum::{Router, middleware};
use std::sync::Arc;

/// Everything that machines may ask for.
pub fn provisioning_router(appliance: Arc<Appliance>) -> Router {
    boot::router()
        .merge(loaders::router(loaders::Served::of(&appliance)))
        .merge(blobs::router(blobs::Blobs::of(&appliance)))
        .layer(middleware::from_fn_with_state(appliance.clone(), metered::provisioning))
        .with_state(appliance)
}

/// Everything that people and their programs may ask for, behind one of the doors of [`access`].
pub fn management_router(appliance: Arc<Appliance>) -> Router {
    let api = api::router(appliance.clone());
    ui::router(api.clone(), appliance).fallback_service(api)
}
