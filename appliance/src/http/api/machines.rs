//! `/v1/machines`: what is declared and known of each, and what it boots.

use super::{
    Api, Shared,
    boots::BootSummary,
    conditional::versioned,
    openapi::changes,
    problem::{Answer, Kind, Problem},
    request::{Body, Filling, IfMatch, Limit, Page, Params, expected, mac},
};
use crate::author::Sight;
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bennu_rules::{
    MacAddress, Machine, Records,
    assignment::{Assignment, Chosen, choose},
    commands::{
        Refusal,
        machines::{self as commands, Assign, Edit, EditMachine, Forget, version},
    },
    dhcp::{OptionCode, OptionValue, site::BadOption},
    rule::Rule,
    schema,
    selector::Selector,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr, ops::ControlFlow};
use utoipa::openapi::Schema;

/// A machine, and how it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineShown {
    /// Its record.
    #[serde(flatten)]
    pub machine: Machine,
    /// What it boots next, and who says so.
    pub next: Chosen,
    /// Its latest boot.
    #[serde(default)]
    pub last_boot: Option<BootSummary>,
    /// The public halves of its SSH host keys, as `known_hosts` has them behind the host's name. Listings leave them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
}

/// What `PATCH` takes. A field that is absent stays as it is.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = MachinePatch)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Labels to set; `null` removes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = label_changes)]
    pub labels: BTreeMap<String, Option<String>>,
    /// The address to hold; `null` holds none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub reservation: Option<Option<Ipv4Addr>>,
    /// Kernel arguments of this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(?!.*\\$\\{)[ -~]{0,1024}$")]
    pub arguments: Option<String>,
    /// DHCP options to set, by number, such as `"12": "text:web1"`; `null` removes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = option_changes)]
    pub options: BTreeMap<String, Option<String>>,
    /// MACs that are this machine's too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<MacAddress>,
}

fn label_changes() -> Schema {
    changes(schema::LABEL_KEY, schema::LABEL_VALUE)
}

fn option_changes() -> Schema {
    changes(schema::OPTION_CODE, schema::OPTION_VALUE)
}

/// Tells `null` from a field that is absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What `PUT …/assignment` takes.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignmentBody {
    /// `name:tag`, `sha256:…` or `local`.
    pub image: Assignment,
}

/// Which machines are asked for, and which part of them.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Items at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// The last item of the page before.
    after: Option<MacAddress>,
    /// Which machines; all, if it is absent.
    #[serde(default)]
    #[param(value_type = String)]
    selector: Selector,
}

/// `GET /v1/machines`
#[utoipa::path(
    get,
    path = "/v1/machines",
    tag = "machines",
    params(Wanted),
    responses((status = OK, body = Page<MachineShown>))
)]
pub async fn list(State(api): Shared, Params(wanted): Params<Wanted>) -> Answer<Json<Page<MachineShown>>> {
    let Wanted { limit, after, selector } = wanted;
    let sight = Sight::current();
    let settings = api.ledger.settings();
    let is_wanted = |machine: &Machine| sight.takes_in(&machine.labels) && selector.matches_machine(machine, &settings);
    let mut filling = Filling::new(limit);
    let rules = api.ledger.stored(|records| {
        records.each_machine(after, |machine| match is_wanted(&machine) {
            true => filling.take(machine),
            false => ControlFlow::Continue(()),
        });
        records.rules()
    })?;
    let Page { items, next } = filling.page(|machine| machine.id.to_string());
    let items = shown(&api, items, &rules)?;
    Ok(Json(Page { items, next }))
}

/// `GET /v1/machines/{mac}`
#[utoipa::path(
    get,
    path = "/v1/machines/{mac}",
    tag = "machines",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine.")),
    responses((status = OK, body = MachineShown))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let machine = find(&api, mac(&text)?)?;
    with_etag(&api, machine)
}

/// `PATCH /v1/machines/{mac}`
#[utoipa::path(
    patch,
    path = "/v1/machines/{mac}",
    tag = "machines",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine."), IfMatch),
    request_body = Patch,
    responses((status = OK, body = MachineShown))
)]
pub async fn edit(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(patch): Body<Patch>,
) -> Answer<Response> {
    let Patch { labels, reservation, arguments, options, join } = patch;
    let edit = Edit { labels, reservation, arguments, options: checked(&options)?, join };
    let own_addresses = api.interfaces.now().iter().map(|interface| interface.address).collect();
    let request = EditMachine { mac: mac(&text)?, edit, own_addresses, expected: expected(&headers)? };
    let machine = api.ledger.decide(request, commands::edit).await??;
    with_etag(&api, machine)
}

/// Options as they were written, each refused where it stands.
fn checked(options: &BTreeMap<String, Option<String>>) -> Answer<BTreeMap<OptionCode, Option<OptionValue>>> {
    let option = |(code, value): (&String, &Option<String>)| {
        let refuse = |bad: BadOption| Problem::told(Kind::Unprocessable, &bad).at(format!("/options/{code}"));
        let value = value.as_deref().map(str::parse).transpose().map_err(refuse)?;
        Ok((code.parse().map_err(refuse)?, value))
    };
    options.iter().map(option).collect()
}

/// `DELETE /v1/machines/{mac}`
#[utoipa::path(
    delete,
    path = "/v1/machines/{mac}",
    tag = "machines",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn forget(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<StatusCode> {
    let request = Forget { mac: mac(&text)?, expected: expected(&headers)? };
    api.ledger.decide(request, commands::forget).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/machines/{mac}/assignment`
#[utoipa::path(
    put,
    path = "/v1/machines/{mac}/assignment",
    tag = "machines",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine."), IfMatch),
    request_body = AssignmentBody,
    responses((status = OK, body = MachineShown))
)]
pub async fn assign(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(body): Body<AssignmentBody>,
) -> Answer<Response> {
    let request = Assign { mac: mac(&text)?, assignment: Some(body.image), expected: expected(&headers)? };
    let machine = api.ledger.decide(request, commands::assign).await??;
    with_etag(&api, machine)
}

/// `DELETE /v1/machines/{mac}/assignment`
#[utoipa::path(
    delete,
    path = "/v1/machines/{mac}/assignment",
    tag = "machines",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine."), IfMatch),
    responses((status = OK, body = MachineShown))
)]
pub async fn unassign(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<Response> {
    let request = Assign { mac: mac(&text)?, assignment: None, expected: expected(&headers)? };
    let machine = api.ledger.decide(request, commands::assign).await??;
    with_etag(&api, machine)
}

/// `GET /v1/machines/{mac}/explain`: what the machine would get now. Mints and stores nothing; a MAC that nobody
/// knows gets what the policy for unknown machines says.
#[utoipa::path(
    get,
    path = "/v1/machines/{mac}/explain",
    tag = "machines",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine.")),
    responses((status = OK, body = crate::http::boot::Explanation))
)]
pub async fn explain(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let explanation = crate::http::boot::explain(&api, mac(&text)?)?;
    Ok(Json(explanation).into_response())
}

/// The machine that owns a MAC.
pub(super) fn find(api: &Api, mac: MacAddress) -> Answer<Machine> {
    let machine = api.ledger.stored(|records| records.machine(mac))?;
    machine.ok_or_else(|| Problem::from(Refusal::UnknownMachine(mac)))
}

/// Machines, what each boots next, and how its latest boot is, those of machines that it took in among them.
pub fn shown(api: &Api, machines: Vec<Machine>, rules: &[Rule]) -> Answer<Vec<MachineShown>> {
    let latest = api.ledger.latest_boots(machines.iter().map(|machine| machine.macs.as_slice()), BootSummary::of)?;
    let settings = api.ledger.settings();
    let show = |(machine, last_boot): (Machine, _)| MachineShown {
        next: choose(Some(&machine), rules, &settings),
        machine,
        last_boot,
        ssh_host_keys: Vec::new(),
    };
    Ok(machines.into_iter().zip(latest).map(show).collect())
}

fn with_etag(api: &Api, machine: Machine) -> Answer<Response> {
    let etag = version(&machine);
    let (rules, keys) = api.ledger.stored(|records| (records.rules(), records.host_keys(machine.id)))?;
    let ssh_host_keys = keys.map(|keys| keys.public).unwrap_or_default();
    let shown = shown(api, vec![machine], &rules)?.pop().map(|shown| MachineShown { ssh_host_keys, ..shown });
    Ok(versioned(&etag, &shown))
}
