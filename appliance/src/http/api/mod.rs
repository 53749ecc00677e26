//! The management API: `/v1/…`, JSON, problem documents, one file a resource.
//!
//! Points in time are milliseconds since 1970 (UTC). A listing is a page, `{"items": […], "next": …}`, and goes on with
//! `?after=<next>&limit=<n>`.

pub mod appliance;
pub mod apply;
pub mod audit;
pub mod backups;
pub mod boots;
pub mod browser;
mod conditional;
pub mod diff;
pub mod events;
pub mod exports;
pub mod gc;
mod heavy;
mod idempotency;
pub mod images;
pub mod imports;
pub mod leases;
mod lines;
pub mod logs;
pub mod machines;
pub mod metadata;
pub mod openapi;
mod outflow;
pub mod problem;
pub mod profiles;
pub mod pushes;
pub mod request;
pub mod roles;
pub mod rules;
pub mod scrub;
pub mod secrets;
pub mod status;
pub mod support;
pub mod tokens;
pub mod trials;

use crate::appliance::Appliance;
use axum::{Router, extract::State, middleware};
use openapi::Described;
use problem::{Kind, Problem};
use std::{ops::Deref, sync::Arc};
use utoipa_axum::routes;

/// What the handlers share.
pub struct Api {
    appliance: Arc<Appliance>,
    trials: trials::Trials,
    answers: idempotency::Answers,
    places: heavy::Places,
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
    let (trials, answers, places) = Default::default();
    let api = Arc::new(Api { appliance, trials, answers, places });
    let (described, _) = routes().parts();
    let api_routes = described
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(conditional::answer))
        .layer(middleware::from_fn_with_state(api.clone(), heavy::hold))
        .layer(middleware::from_fn_with_state(api.clone(), idempotency::answer))
        .with_state(api);
    api_routes.merge(registry)
}

/// Every route with its description: a handler comes here with its `#[utoipa::path]`, and cannot without.
fn routes() -> Described {
    Described::default()
        .routes(routes!(machines::list))
        .routes(routes!(machines::show, machines::edit, machines::forget))
        .routes(routes!(machines::assign, machines::unassign))
        .routes(routes!(boots::of_machine))
        .routes(routes!(machines::explain))
        .routes(routes!(boots::list))
        .routes(routes!(boots::show))
        .routes(routes!(logs::show))
        .routes(routes!(images::list))
        .routes(routes!(images::show, images::remove))
        .routes(routes!(images::show_tag, images::tag, images::act))
        .routes(routes!(pushes::list))
        .routes(routes!(pushes::show, pushes::act))
        .routes(routes!(scrub::run))
        .routes(routes!(imports::create))
        .routes(routes!(exports::create))
        .routes(routes!(diff::show))
        .routes(routes!(backups::create))
        .routes(routes!(backups::list))
        .routes(routes!(backups::restore))
        .routes(routes!(support::create))
        .routes(routes!(gc::run))
        .routes(routes!(trials::create))
        .routes(routes!(leases::list))
        .routes(routes!(events::follow))
        .routes(routes!(status::show))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::show, tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::show))
        .routes(routes!(metadata::list))
        .routes(routes!(metadata::show, metadata::set, metadata::remove))
        .routes(routes!(metadata::render))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::show, secrets::set, secrets::remove))
        .routes(routes!(apply::create))
        .routes(routes!(apply::export))
        .routes(routes!(roles::list))
        .routes(routes!(roles::show, roles::put, roles::remove))
        .routes(routes!(appliance::show))
        .routes(routes!(appliance::restart))
        .routes(routes!(appliance::power_off))
        .routes(routes!(appliance::upgrade))
        .routes(routes!(appliance::reset))
        .routes(routes!(profiles::list))
        .routes(routes!(profiles::show, profiles::put, profiles::remove))
        .routes(routes!(rules::list))
        .routes(routes!(rules::show, rules::put, rules::remove))
        .routes(routes!(status::metrics))
        .routes(routes!(status::healthy))
        .routes(routes!(status::ready))
        .routes(routes!(openapi::document))
        .routes(routes!(browser::page))
        .routes(routes!(browser::asset))
}

async fn nothing_here(uri: http::Uri) -> Problem {
    Problem::new(Kind::NotFound, format!("there is nothing at {}", uri.path()), "the API's resources are under /v1/")
}

async fn no_such_method(method: http::Method, uri: http::Uri) -> Problem {
    Problem::new(Kind::Method, format!("{} cannot be asked to {method}", uri.path()), "")
}

#[cfg(test)]
pub(crate) mod tests;
