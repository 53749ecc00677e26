//! The management API: `/v1/…`, JSON, problem documents, one file a resource.
//!
//! Points in time are milliseconds since 1970 (UTC). A listing is a page, `{"items": […], "next": …}`, and goes on with
//! `?after=<next>&limit=<n>`.

pub mod audit;
pub mod boots;
pub mod diff;
pub mod events;
pub mod exports;
pub mod gc;
pub mod images;
pub mod imports;
pub mod leases;
mod lines;
pub mod logs;
pub mod machines;
pub mod metadata;
pub mod problem;
pub mod pushes;
pub mod request;
pub mod rules;
pub mod scrub;
pub mod secrets;
pub mod status;
pub mod tokens;
pub mod trials;

use crate::appliance::Appliance;
use axum::{
    Router,
    extract::State,
    routing::{delete, get, post, put},
};
use problem::{Kind, Problem};
use std::{ops::Deref, sync::Arc};

/// What the handlers share.
pub struct Api {
    appliance: Arc<Appliance>,
    trials: trials::Trials,
}

impl Deref for Api {
    type Target = Appliance;

    fn deref(&self) -> &Appliance {
        &self.appliance
    }
}

type Shared = State<Arc<Api>>;

/// The API of one appliance, behind one of the doors of [`crate::http::access`].
pub fn router(appliance: Arc<Appliance>) -> Router {
    let registry = super::registry::router(appliance.clone());
    let api = Arc::new(Api { appliance, trials: Default::default() });
    let api_routes = Router::new()
        .route("/v1/machines", get(machines::list))
        .route("/v1/machines/{mac}", get(machines::show).patch(machines::edit).delete(machines::forget))
        .route("/v1/machines/{mac}/assignment", put(machines::assign).delete(machines::unassign))
        .route("/v1/machines/{mac}/boots", get(boots::of_machine))
        .route("/v1/machines/{mac}/explain", get(machines::explain))
        .route("/v1/boots", get(boots::list))
        .route("/v1/boots/{id}", get(boots::show))
        .route("/v1/boots/{id}/logs", get(logs::show))
        .route("/v1/images", get(images::list))
        .route("/v1/images/{*reference}", get(images::show).merge(delete(images::remove)))
        .route("/v1/tags/{*name}", get(images::show_tag).put(images::tag).post(images::act))
        .route("/v1/pushes", get(pushes::list))
        .route("/v1/pushes/{*name}", get(pushes::show).post(pushes::act))
        .route("/v1/scrub", get(scrub::run))
        .route("/v1/imports", post(imports::create))
        .route("/v1/exports/{*reference}", get(exports::create))
        .route("/v1/diff", get(diff::show))
        .route("/v1/gc", post(gc::run))
        .route("/v1/tests", post(trials::create))
        .route("/v1/leases", get(leases::list))
        .route("/v1/events", get(events::follow))
        .route("/v1/status", get(status::show))
        .route("/v1/rules", get(rules::list))
        .route("/v1/rules/{name}", get(rules::show).put(rules::put).delete(rules::remove))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/audit", get(audit::list))
        .route("/v1/audit/export", get(audit::export))
        .route("/v1/audit/verify", get(audit::verify))
        .route("/v1/audit/{seq}", get(audit::show))
        .route("/v1/metadata", get(metadata::list))
        .route("/v1/metadata/{name}", get(metadata::show).put(metadata::set).merge(delete(metadata::remove)))
        .route("/v1/machines/{mac}/metadata", get(metadata::render))
        .route("/v1/secrets", get(secrets::list))
        .route("/v1/secrets/{name}", get(secrets::show).put(secrets::set).delete(secrets::remove))
        .route("/metrics", get(status::metrics))
        .route("/healthz", get(status::healthy))
        .route("/readyz", get(status::ready))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api);
    api_routes.merge(registry)
}

async fn nothing_here(uri: http::Uri) -> Problem {
    Problem::new(Kind::NotFound, format!("there is nothing at {}", uri.path()), "the API's resources are under /v1/")
}

async fn no_such_method(method: http::Method, uri: http::Uri) -> Problem {
    Problem::new(Kind::Method, format!("{} cannot be asked to {method}", uri.path()), "")
}

#[cfg(test)]
pub(crate) mod tests;
