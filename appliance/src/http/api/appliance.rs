//! `/v1/appliance`: the host of an appliance that runs from its own disc.

use super::{Api, Shared, problem::Answer};
use axum::{Json, extract::State};
use bennu_host::door::{Request, Running, Source};
use bennu_rules::order::{Give, Order, give};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// What runs on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApplianceShown {
    /// The version of the disc that runs.
    pub version: String,
    /// When its contents were made, in seconds since 1970; a later disc has a greater number.
    pub built: u64,
    /// Where it was started from: `medium` (the disc or stick), `slot_a` or `slot_b` (of the state disk).
    #[schema(value_type = String)]
    pub from: Source,
    /// The disk that holds the state; `null`: it is in memory, and gone at power-off.
    pub state_disk: Option<String>,
}

impl From<Running> for ApplianceShown {
    fn from(running: Running) -> Self {
        let Running { version, built, from, state_disk } = running;
        Self { version, built, from, state_disk }
    }
}

/// `GET /v1/appliance`: what runs on the appliance's host. 409 where the appliance does not run from its own disc.
#[utoipa::path(
    get,
    path = "/v1/appliance",
    tag = "appliance",
    responses((status = OK, body = ApplianceShown))
)]
pub async fn show(State(api): Shared) -> Answer<Json<ApplianceShown>> {
    Ok(Json(api.door.describe().await?.into()))
}

/// `POST /v1/appliance/restart`: ends the service cleanly and starts the host again.
#[utoipa::path(
    post,
    path = "/v1/appliance/restart",
    tag = "appliance",
    responses((status = ACCEPTED, body = Order, description = "It begins now."))
)]
pub async fn restart(State(api): Shared) -> Answer<(StatusCode, Json<Order>)> {
    order(&api, "restart", Request::Restart).await
}

/// `POST /v1/appliance/power-off`: ends the service cleanly and switches the host off.
#[utoipa::path(
    post,
    path = "/v1/appliance/power-off",
    tag = "appliance",
    responses((status = ACCEPTED, body = Order, description = "It begins now."))
)]
pub async fn power_off(State(api): Shared) -> Answer<(StatusCode, Json<Order>)> {
    order(&api, "power off", Request::PowerOff).await
}

/// Puts it on record and has it done. What nobody could do is not on record.
async fn order(api: &Api, what: &str, request: Request) -> Answer<(StatusCode, Json<Order>)> {
    api.door.describe().await?;
    let order = api.ledger.decide(Give(what.to_owned()), give).await;
    // A restart is what heals a ledger that takes nothing more.
    let order = order.unwrap_or_else(|fault| {
        tracing::error!(what, %fault, "this is not in the audit log");
        Order { what: what.to_owned(), at: api.ledger.now() }
    });
    tracing::info!(what, "the host was asked to do this");
    api.door.ask(&request).await?;
    Ok((StatusCode::ACCEPTED, Json(order)))
}
