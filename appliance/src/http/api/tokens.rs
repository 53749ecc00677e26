//! `/v1/tokens`: who may ask from afar.

use super::{
    Shared,
    conditional::versioned,
    problem::{Answer, Kind, Problem},
    request::{Body, IfMatch, Page, Paging, Params, expected},
};
use crate::http::access::{Caller, digest_of};
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use bennu_rules::{
    Records, Timestamp,
    commands::{
        Refusal,
        tokens::{CreateToken, RevokeToken, create as create_token, revoke as revoke_token, version},
    },
    role::RoleName,
    selector::Selector,
    token::{Bearer, Scopes, Token, TokenId, TokenName},
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};

/// A token, without what only its bearer knows.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenShown {
    /// What it is known by.
    pub id: TokenId,
    /// What people call it.
    pub name: TokenName,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// The machines that its bearer sees and changes; `null`: all.
    pub limit: Option<Selector>,
    /// The role that says both; `null`: they were said when it was made.
    #[serde(default)]
    pub role: Option<RoleName>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub by: String,
    /// When it ends; `null`: when it is revoked.
    pub expires: Option<Timestamp>,
    /// Whether it has ended.
    pub expired: bool,
    /// When it was used, to the hour.
    pub last_used: Option<Timestamp>,
}

/// A token that was just made.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenMade {
    /// As listings show it.
    #[serde(flatten)]
    pub shown: TokenShown,
    /// The token itself. It is told this once and kept nowhere.
    pub token: String,
}

/// What `POST` takes.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// What to call it.
    pub name: TokenName,
    /// What its bearer may do: `read`, `assign`, `images`, `power`, `admin`.
    #[serde(default, skip_serializing_if = "Scopes::is_empty")]
    pub scopes: Scopes,
    /// The labels of the machines that its bearer sees and changes, such as `rack=r1`; all machines, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Selector>,
    /// The role that says both instead, and how long it lasts at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// How long it lasts; as its role says, or until it is revoked, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u32>,
}

/// `GET /v1/tokens`, by id
#[utoipa::path(
    get,
    path = "/v1/tokens",
    tag = "tokens",
    params(Paging),
    responses((status = OK, body = Page<TokenShown>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<TokenShown>>> {
    let now = api.ledger.now();
    let tokens = api.ledger.stored(|records| records.tokens())?;
    Ok(Json(paging.page(tokens, |token| token.id.to_string(), |token| TokenShown::of(token, now))))
}

/// `POST /v1/tokens`
#[utoipa::path(
    post,
    path = "/v1/tokens",
    tag = "tokens",
    request_body = TokenBody,
    responses((status = CREATED, body = TokenMade))
)]
pub async fn create(
    State(api): Shared,
    caller: Caller,
    Body(body): Body<TokenBody>,
) -> Answer<(StatusCode, [(HeaderName, &'static str); 1], Json<TokenMade>)> {
    let secret: [u8; 32] = rand::random();
    let TokenBody { name, scopes, limit, role, expires_in_days: days } = body;
    let request = CreateToken { name, scopes, limit, role, secret: digest_of(&secret), days, by: caller.who };
    let token = api.ledger.decide(request, create_token).await??;
    tracing::info!(id = %token.id, name = %token.name, scopes = %token.scopes, by = token.by, "a token was made");
    let made = Bearer { id: token.id, secret }.reveal();
    let shown = TokenShown::of(token, api.ledger.now());
    let not_kept = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, not_kept, Json(TokenMade { shown, token: made })))
}

/// `GET /v1/tokens/{id}`
#[utoipa::path(
    get,
    path = "/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = TokenId, Path, description = "As listings show it.")),
    responses((status = OK, body = TokenShown))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let id = known_by(&text)?;
    let token = api.ledger.read(|records, _| records.token(id))?.ok_or(Refusal::UnknownToken(id))?;
    Ok(versioned(&version(&token), &TokenShown::of(token, api.ledger.now())))
}

/// `DELETE /v1/tokens/{id}`
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = TokenId, Path, description = "As listings show it."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn revoke(
    State(api): Shared,
    caller: Caller,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let request = RevokeToken { id: known_by(&text)?, expected: expected(&headers)? };
    let token = api.ledger.decide(request, revoke_token).await??;
    tracing::info!(id = %token.id, name = %token.name, scopes = %token.scopes, by = caller.who, "a token was revoked");
    Ok(StatusCode::NO_CONTENT)
}

fn known_by(text: &str) -> Answer<TokenId> {
    text.parse().map_err(|error| Problem::told(Kind::Malformed, &error))
}

impl TokenShown {
    fn of(token: Token, now: Timestamp) -> Self {
        let expired = token.is_expired(now);
        let Token { id, name, scopes, limit, role, secret: _, created, by, expires, last_used } = token;
        Self { id, name, scopes, limit, role, created, by, expires, expired, last_used }
    }
}
