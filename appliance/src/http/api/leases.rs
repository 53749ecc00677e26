//! `/v1/leases`: who holds which address.

use super::{
    Shared, boots,
    problem::Answer,
    request::{Filling, Limit, Page, Params},
};
use crate::{author::Sight, ledger::Stored};
use axum::{Json, extract::State};
use bennu_rules::{MacAddress, Records, Timestamp, decision::lease_key, lease::Lease, settings::Settings};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, ops::ControlFlow};

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
    pub granted: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it holds now.
    pub active: bool,
    /// Set when a client found somebody else at the address.
    pub declined: bool,
    /// The host name that the client gave.
    pub hostname: Option<String>,
}

/// Which part of the leases.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Items at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// The last item of the page before.
    #[param(value_type = Option<String>, format = Ipv4)]
    after: Option<Ipv4Addr>,
}

/// `GET /v1/leases`, by address
#[utoipa::path(
    get,
    path = "/v1/leases",
    tag = "leases",
    params(Wanted),
    responses((status = OK, body = Page<LeaseShown>))
)]
pub async fn list(State(api): Shared, Params(wanted): Params<Wanted>) -> Answer<Json<Page<LeaseShown>>> {
    let Wanted { limit, after } = wanted;
    let (now, sight) = (boots::now(), Sight::current());
    let mut filling = Filling::new(limit);
    api.ledger.stored(|records| {
        records.each_lease(after, |lease| match sight.takes_in_card(lease.key.mac, records) {
            true => filling.take(LeaseShown::of(lease, records, now)),
            false => ControlFlow::Continue(()),
        });
    })?;
    Ok(Json(filling.page(|lease| lease.address.to_string())))
}

/// What one of a machine's cards holds now, the latest grant first.
pub fn active(macs: &[MacAddress], settings: &Settings, records: &Stored<'_>, now: Timestamp) -> Option<Lease> {
    let keys = macs.iter().flat_map(|mac| settings.subnets.iter().map(|subnet| lease_key(subnet.network, *mac)));
    let leases = keys.filter_map(|key| records.lease(&key));
    leases.filter(|lease| lease.is_active(now) && !lease.declined).max_by_key(|lease| lease.granted)
}

impl LeaseShown {
    /// As it is now.
    fn of(lease: Lease, records: &Stored<'_>, now: Timestamp) -> Self {
        Self {
            address: lease.address,
            mac: lease.key.mac,
            machine: records.machine_id(lease.key.mac),
            subnet: lease.key.subnet,
            granted: lease.granted,
            expires: lease.expires,
            active: lease.is_active(now),
            declined: lease.declined,
            hostname: lease.hostname,
        }
    }
}
