//! `/v1/apply` and `/v1/export`: the configuration as documents.

use super::{
    Shared,
    problem::{Answer, Kind, Problem},
    request::Body,
};
use crate::{http::access::Caller, ledger::Stored};
use axum::{Json, extract::State};
use bennu_rules::commands::apply::{self, Apply, Plan, Wrong, WrongKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Ten thousand machines with a dozen labels each.
pub const MAX_DOCUMENTS: usize = 16 << 20;

/// What `POST /v1/apply` takes.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// The documents, each with its `kind` and its `name`.
    #[schema(value_type = Vec<Object>)]
    pub documents: Vec<Value>,
    /// Kinds of which everything goes that no document names.
    #[serde(default)]
    pub prune: BTreeSet<String>,
    /// Only says what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// The revision of the configuration that was looked at; refused, if it is another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

/// The configuration as documents: what applies to nothing.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Exported {
    /// Which configuration it is.
    pub revision: String,
    /// All of it.
    #[schema(value_type = Vec<Object>)]
    pub documents: Vec<Value>,
    /// Kinds that the caller's token is not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
}

/// `POST /v1/apply`: all of it in one decision, or nothing
#[utoipa::path(
    post,
    path = "/v1/apply",
    tag = "configuration",
    request_body = ApplyBody,
    responses((status = OK, body = Plan), (status = PRECONDITION_FAILED, content_type = "application/problem+json", body = Problem, description = "The configuration is another than was looked at"))
)]
pub async fn create(
    State(api): Shared,
    caller: Caller,
    Body(body): Body<ApplyBody, MAX_DOCUMENTS>,
) -> Answer<Json<Plan>> {
    let ApplyBody { documents, prune, dry_run, expected } = body;
    let own_addresses = api.interfaces.now().iter().map(|interface| interface.address).collect();
    let request = Apply { documents, prune, dry_run, expected, own_addresses, by: caller.who, scopes: caller.scopes };
    // Thousands of documents take a second to look at, and what changes nothing need not be looked at where packets wait.
    let ledger = api.ledger.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let decision = ledger.ponder_aside(&request, apply::apply);
        decision.map(|decision| (decision, request))
    });
    let (decision, request) = looked
        .await
        .map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), "look at the service's log"))??;
    let plan = match decision.changes.is_empty() {
        true => decision.answer,
        false => api.ledger.store(request, apply::apply).await?,
    };
    Ok(Json(plan?))
}

/// `GET /v1/export`
#[utoipa::path(get, path = "/v1/export", tag = "configuration", responses((status = OK, body = Exported)))]
pub async fn export(State(api): Shared, caller: Caller) -> Answer<Json<Exported>> {
    let read = |records: &Stored<'_>| (apply::revision(records), apply::export_for(&caller.scopes, records));
    let (revision, documents) = api.ledger.stored(read)?;
    let hidden = apply::hidden(&caller.scopes).into_iter().map(str::to_owned).collect();
    Ok(Json(Exported { revision, documents, hidden }))
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        let kind = match wrong.kind {
            WrongKind::Document => Kind::Unprocessable,
            WrongKind::State => Kind::Conflict,
            WrongKind::Stale => Kind::Precondition,
            WrongKind::Forbidden => Kind::Forbidden,
        };
        let problem = Self::new(kind, wrong.reason, wrong.advice);
        match wrong.document {
            Some(place) => problem.at(format!("/documents/{place}{}", wrong.field)),
            None => problem,
        }
    }
}
