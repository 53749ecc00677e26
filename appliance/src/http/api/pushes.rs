//! `/v1/pushes`: what came through the registry, and what became of it.

use super::{
    Shared,
    conditional::versioned,
    problem::{Answer, Kind, Problem},
    request::{Body, IfMatch, Page, Paging, Params, expected, named},
};
use crate::registry::conversions::Now;
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use bennu_rules::{
    Records,
    commands::registry::{Retry, retry, version},
    image::ImageName,
    registry::{Outcome, Push},
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// A push, and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PushShown {
    /// Its record.
    #[serde(flatten)]
    pub push: Push,
    /// While it is being made bootable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Now>,
}

/// What `POST /v1/pushes/{name}` does.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum PushAction {
    /// Tries again what came to nothing.
    Retry,
}

fn shown(push: Push, now: Option<&Now>) -> PushShown {
    let is_it = |now: &&Now| push.outcome == Outcome::Waiting && now.name == push.name && now.digest == push.digest;
    PushShown { progress: now.filter(is_it).cloned(), push }
}

/// `GET /v1/pushes`, by name
#[utoipa::path(
    get,
    path = "/v1/pushes",
    tag = "pushes",
    params(Paging),
    responses((status = OK, body = Page<PushShown>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<PushShown>>> {
    let pushes = api.ledger.stored(|records| records.pushes())?;
    let now = api.registry.conversions.now();
    Ok(Json(paging.page(pushes, |push| push.name.to_string(), |push| shown(push, now.as_ref()))))
}

/// `GET /v1/pushes/{name}`
#[utoipa::path(
    get,
    path = "/v1/pushes/{*name}",
    tag = "pushes",
    params(("name" = ImageName, Path, description = "`name:tag`.")),
    responses((status = OK, body = PushShown))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let name: ImageName = named(&text)?;
    let push = api.ledger.stored(|records| records.push(&name))?.ok_or_else(|| unknown(&name))?;
    Ok(versioned(&version(&push), &shown(push, api.registry.conversions.now().as_ref())))
}

/// `POST /v1/pushes/{name}`
#[utoipa::path(
    post,
    path = "/v1/pushes/{*name}",
    tag = "pushes",
    params(("name" = ImageName, Path, description = "`name:tag`."), IfMatch),
    request_body = PushAction,
    responses((status = OK, body = PushShown))
)]
pub async fn act(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(action): Body<PushAction>,
) -> Answer<Response> {
    let name: ImageName = named(&text)?;
    let PushAction::Retry = action;
    let request = Retry { name: name.clone(), expected: expected(&headers)? };
    let push = api.ledger.decide(request, retry).await??.ok_or_else(|| unknown(&name))?;
    api.registry.conversions.wake();
    Ok(versioned(&version(&push), &shown(push, None)))
}

fn unknown(name: &ImageName) -> Problem {
    Problem::new(Kind::NotFound, format!("nothing was pushed as {name}"), "`bennu image pushes` shows what was")
}
