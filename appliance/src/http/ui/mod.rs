//! The web page: rendered on the server, one file a view.
//!
//! It is a client of the API, in this process: what a page shows it reads from `/v1/…`, and what a form changes it changes
//! there, through the door by which its reader came ([`Door`]). It holds no rights and knows no state of its own. The rack
//! asks the same door, and then reads beside the API: thousands of machines as JSON and back would take seconds. Every
//! page can be read, and every form but the upload be sent, without the script, which keeps pages fresh (`/v1/events`).

mod assets;
mod audit;
mod events;
mod failure;
mod form;
mod format;
mod images;
mod leases;
mod login;
mod logs;
mod machine;
mod rack;
mod rules;
pub mod states;
#[cfg(test)]
mod tests;
mod timeline;
mod tokens;
mod visitor;

pub use failure::refused;

use crate::appliance::Appliance;
use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use std::sync::Arc;

/// What the views share.
pub struct Ui {
    /// What they ask.
    api: Router,
    /// What the rack is read from.
    appliance: Arc<Appliance>,
}

/// The pages, in front of the API that they ask.
pub fn router(api: Router, appliance: Arc<Appliance>) -> Router {
    Router::new()
        .route("/", get(rack::show))
        .route("/login", get(login::show).post(login::enter))
        .route("/ui/logout", post(login::leave))
        .route("/ui/machines/{mac}", get(machine::show))
        .route("/ui/machines/{mac}/assignment", post(machine::changes::assign))
        .route("/ui/machines/{mac}/labels", post(machine::changes::label))
        .route("/ui/machines/{mac}/forget", post(machine::changes::forget))
        .route("/ui/boots/{id}/logs", get(logs::show))
        .route("/ui/images", get(images::show))
        .route("/ui/tags", post(images::changes::act))
        .route("/ui/pushes", post(images::changes::retry))
        .route("/ui/events", get(events::show))
        .route("/ui/rules", get(rules::show).post(rules::change))
        .route("/ui/audit", get(audit::show))
        .route("/ui/tokens", get(tokens::show).post(tokens::change))
        .route("/ui/leases", get(leases::show))
        .route("/ui/assets/{version}/{file}", get(assets::get))
        .layer(middleware::from_fn(dress))
        .with_state(Arc::new(Ui { api, appliance }))
}

/// Nothing on a page is from anywhere but here, and nothing in it runs but our one script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The headers of every page. There is no Strict-Transport-Security: with a certificate of our own it would keep people
/// from ever accepting it, and there is no plain HTTP on the management plane that it could protect from.
async fn dress(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    put_on(&mut response);
    response
}

fn put_on(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not no-referrer: with that browsers send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
