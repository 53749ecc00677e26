//! `/v1/roles`: what tokens of one purpose may do.

use super::{
    Api, Shared,
    conditional::versioned,
    problem::{Answer, Kind, Problem},
    request::{Body, IfMatch, Page, Paging, Params, expected},
};
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use bennu_rules::{
    Records,
    commands::{
        Refusal,
        roles::{PutRole, RemoveRole, put as put_role, remove as remove_role, version},
    },
    role::{Role, RoleName},
    selector::Selector,
    token::Scopes,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

/// What `PUT` takes: a role but for its name.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleBody {
    /// What the bearers of its tokens may do: `read`, `assign`, `images`, `power`, `admin`.
    pub scopes: Scopes,
    /// The labels of the machines that they see and change, such as `rack=r1`; all machines, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Selector>,
    /// Days that such a token lasts at most; without, until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u32>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// `GET /v1/roles`, by name
#[utoipa::path(
    get,
    path = "/v1/roles",
    tag = "tokens",
    params(Paging),
    responses((status = OK, body = Page<Role>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<Role>>> {
    let roles = api.ledger.read(|records, _| records.roles())?;
    Ok(Json(paging.page(roles, |role| role.name.to_string(), |role| role)))
}

/// `GET /v1/roles/{name}`
#[utoipa::path(
    get,
    path = "/v1/roles/{name}",
    tag = "tokens",
    params(("name" = RoleName, Path, description = "The role's name.")),
    responses((status = OK, body = Role))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    shown(&api, &name(&text)?)
}

/// `PUT /v1/roles/{name}`: the tokens that were made with it may do from now on what it says
#[utoipa::path(
    put,
    path = "/v1/roles/{name}",
    tag = "tokens",
    params(("name" = RoleName, Path, description = "The role's name."), IfMatch),
    request_body = RoleBody,
    responses((status = OK, body = Role))
)]
pub async fn put(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(body): Body<RoleBody>,
) -> Answer<Response> {
    let RoleBody { scopes, limit, expires_in_days, description } = body;
    let role = Role { name: name(&text)?, scopes, limit, expires_in_days, description };
    let role = api.ledger.decide(PutRole { role, expected: expected(&headers)? }, put_role).await??;
    shown(&api, &role.name)
}

/// `DELETE /v1/roles/{name}`, unless a token has it
#[utoipa::path(
    delete,
    path = "/v1/roles/{name}",
    tag = "tokens",
    params(("name" = RoleName, Path, description = "The role's name."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn remove(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<StatusCode> {
    let request = RemoveRole { name: name(&text)?, expected: expected(&headers)? };
    api.ledger.decide(request, remove_role).await??;
    Ok(StatusCode::NO_CONTENT)
}

fn name(text: &str) -> Answer<RoleName> {
    text.parse().map_err(|error| Problem::told(Kind::Malformed, &error))
}

fn shown(api: &Api, name: &RoleName) -> Answer<Response> {
    let role = api.ledger.read(|records, _| records.role(name))?;
    let role = role.ok_or_else(|| Problem::from(Refusal::UnknownRole(name.clone())))?;
    Ok(versioned(&version(&role), &role))
}
