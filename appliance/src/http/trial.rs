//! What the machine of a trial finds at the other end of its cable: its plan, its reports, and the blobs of its image.

use super::blobs::{self, Blobs};
use crate::{observe, trial::desk::Desk};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bennu_images::store::Store;
use bennu_plan::Report;
use bennu_rules::{boot::Token, image::Digest};
use std::sync::Arc;

/// A report with its inventory is a few KiB.
const MAX_REPORT: usize = 256 * 1024;

/// The routes of one trial.
pub fn router(desk: Arc<Desk>, store: Store) -> Router {
    let blobs = Blobs::new(store, observe::to_nobody());
    let its_own = middleware::from_fn_with_state(desk.clone(), its_own);
    Router::new()
        .route("/boot/{key}/plan.json", get(plan))
        .route("/boot/{key}/report", post(report).layer(DefaultBodyLimit::max(MAX_REPORT)))
        .with_state(desk)
        .merge(blobs::router::<()>(blobs).layer(its_own))
}

async fn plan(State(desk): State<Arc<Desk>>, Path(token): Path<String>) -> Response {
    match desk.plan(Token(token)) {
        Some(plan) => Json(plan).into_response(),
        None => unknown_token(),
    }
}

async fn report(State(desk): State<Arc<Desk>>, Path(token): Path<String>, Json(report): Json<Report>) -> Response {
    if desk.report(Token(token), report) { StatusCode::NO_CONTENT.into_response() } else { unknown_token() }
}

fn unknown_token() -> Response {
    (StatusCode::NOT_FOUND, "Bennu: this token opens no boot\n").into_response()
}

/// Lets through what the image needs.
async fn its_own(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let hex = request.uri().path().rsplit('/').next().unwrap_or_default();
    match Digest::from_hex(hex) {
        Ok(digest) if desk.serves(&digest) => next.run(request).await,
        _ => (StatusCode::NOT_FOUND, "Bennu: the image under test has no such blob\n").into_response(),
    }
}
