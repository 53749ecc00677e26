//! `/v1/leases`: who holds which address.

use super::{
    Shared, boots,
    problem::Answer,
    request::{Page, Paging, Params},
};
use crate::author::Sight;
use axum::{Json, extract::State};
use bennu_rules::{MacAddress, Records, lease::Lease};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One binding of an address.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeaseShown {
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// The card that holds it.
    pub mac: MacAddress,
    /// The machine whose card it is, if that is declared.
    pub machine: Option<MacAddress>,
    /// The subnet.
    #[schema(value_type = String)]
    pub subnet: Ipv4Net,
    /// When it was last acknowledged.
    pub granted: bennu_rules::Timestamp,
    /// When it ends.
    pub expires: bennu_rules::Timestamp,
    /// Whether it holds now.
    pub active: bool,
    /// Set when a client found somebody else at the address.
    pub declined: bool,
    /// The host name that the client gave.
    pub hostname: Option<String>,
}

/// `GET /v1/leases`, by address
#[utoipa::path(
    get,
    path = "/v1/leases",
    tag = "leases",
    params(Paging),
    responses((status = OK, body = Page<LeaseShown>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<LeaseShown>>> {
    let (now, sight) = (boots::now(), Sight::current());
    let mut leases = api.ledger.read(|records, _| {
        let shown = |lease: Lease| LeaseShown {
            address: lease.address,
            mac: lease.key.mac,
            machine: records.machine(lease.key.mac).map(|machine| machine.id),
            subnet: lease.key.subnet,
            granted: lease.granted,
            expires: lease.expires,
            active: lease.is_active(now),
            declined: lease.declined,
            hostname: lease.hostname,
        };
        let mut leases = records.leases();
        leases.retain(|lease| sight.is_whole() || sight.takes_in_card(lease.key.mac, records));
        leases.into_iter().map(shown).collect::<Vec<_>>()
    })?;
    leases.sort_by_key(|lease| lease.address);
    Ok(Json(paging.page(leases, |lease| lease.address.to_string(), |lease| lease)))
}
