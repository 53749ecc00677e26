//! `/v1/boots`: attempts of machines, what was seen of each, and what to think of it.

use super::{
    Api, Shared,
    problem::{Answer, Kind, Problem},
    request::{Filling, Limit, Page, Paging, Params, mac},
};
use crate::author::Sight;
use axum::{
    Json,
    extract::{Path, State},
};
use bennu_rules::{
    MacAddress, Machine, Records, Timestamp,
    boot::{Boot, BootId, Pinned, State as BootState},
    facts::ClientSystem,
    image::Digest,
    journey::{Diagnosis, Furthest, Observation, diagnose},
};
use serde::{Deserialize, Serialize};
use std::{
    ops::ControlFlow,
    time::{SystemTime, UNIX_EPOCH},
};

/// A boot in one line.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootSummary {
    /// Its name.
    pub id: BootId,
    /// The machine's id.
    pub machine: MacAddress,
    /// First packet.
    pub opened: Timestamp,
    /// When it ended; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// How far it came.
    pub state: BootState,
    /// What it boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Pinned>,
    /// Bytes sent to the machine.
    pub bytes: u64,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// The last thing seen, as a sentence.
    pub last: String,
    /// The furthest step of its way, for programs.
    #[serde(default)]
    pub furthest: Furthest,
    /// Why it failed or is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// One line of a timeline.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TimelineEntry {
    /// What was seen.
    #[serde(flatten)]
    pub observation: Observation,
    /// The same as a sentence.
    pub text: String,
    /// Milliseconds since the boot's first packet.
    pub after_ms: u64,
}

/// A boot with all that was seen of it. Its token is nobody's to read.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootShown {
    /// In one line.
    #[serde(flatten)]
    pub summary: BootSummary,
    /// What kind of firmware asked.
    pub system: Option<ClientSystem>,
    /// The stage 1 that its script named.
    pub stage1: Option<Digest>,
    /// The kernel that its script named.
    pub kernel: Option<Digest>,
    /// Oldest first.
    pub timeline: Vec<TimelineEntry>,
}

impl BootSummary {
    /// In one line, as things are now.
    pub fn of(boot: &Boot) -> Self {
        let last = boot.timeline.last();
        Self {
            id: boot.id.clone(),
            machine: boot.machine,
            opened: boot.opened,
            closed: boot.closed,
            state: boot.state,
            image: boot.image.clone(),
            bytes: boot.bytes,
            last_seen: last.map_or(boot.opened, |last| last.until.unwrap_or(last.at)),
            last: last.map(|last| last.seen.to_string()).unwrap_or_default(),
            furthest: Furthest::of(&boot.timeline),
            diagnosis: diagnose(boot, now()),
        }
    }
}

impl BootShown {
    fn of(boot: &Boot) -> Self {
        let entry = |observation: &Observation| TimelineEntry {
            text: observation.seen.to_string(),
            after_ms: observation.at.since(boot.opened),
            observation: observation.clone(),
        };
        Self {
            summary: BootSummary::of(boot),
            system: boot.system,
            stage1: boot.stage1,
            kernel: boot.kernel,
            timeline: boot.timeline.iter().map(entry).collect(),
        }
    }
}

/// What a listing of boots takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only this machine's, by any of its MACs.
    #[param(value_type = Option<MacAddress>)]
    machine: Option<String>,
    /// Items at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// The last item of the page before.
    after: Option<String>,
}

/// `GET /v1/boots`, newest first
#[utoipa::path(
    get,
    path = "/v1/boots",
    tag = "boots",
    params(Filter),
    responses((status = OK, body = Page<BootSummary>))
)]
pub async fn list(State(api): Shared, Params(filter): Params<Filter>) -> Answer<Json<Page<BootSummary>>> {
    let Filter { machine, limit, after } = filter;
    if let Some(text) = machine {
        let boots = seen(&api, of_mac(&api, mac(&text)?)?)?;
        return Ok(Json(page(boots, &Paging::new(limit, after))));
    }
    let (sight, after) = (Sight::current(), after.map(BootId));
    let mut filling = Filling::new(limit);
    api.ledger.each_boot(after.as_ref(), |boot| match takes_in(&api, &sight, &boot) {
        true => filling.take(BootSummary::of(&boot)),
        false => ControlFlow::Continue(()),
    })?;
    Ok(Json(filling.page(|boot| boot.id.to_string())))
}

fn takes_in(api: &Api, sight: &Sight, boot: &Boot) -> bool {
    sight.is_whole() || api.ledger.stored(|records| sight.takes_in_card(boot.machine, records)).unwrap_or(false)
}

/// `GET /v1/machines/{mac}/boots`, newest first
#[utoipa::path(
    get,
    path = "/v1/machines/{mac}/boots",
    tag = "boots",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine."), Paging),
    responses((status = OK, body = Page<BootSummary>))
)]
pub async fn of_machine(
    State(api): Shared,
    Path(text): Path<String>,
    Params(paging): Params<Paging>,
) -> Answer<Json<Page<BootSummary>>> {
    Ok(Json(page(of_mac(&api, mac(&text)?)?, &paging)))
}

/// `GET /v1/boots/{id}`
#[utoipa::path(
    get,
    path = "/v1/boots/{id}",
    tag = "boots",
    params(("id" = BootId, Path, description = "As listings show it.")),
    responses((status = OK, body = BootShown))
)]
pub async fn show(State(api): Shared, Path(id): Path<String>) -> Answer<Json<BootShown>> {
    let boot = api.ledger.boot(&BootId(id.clone()))?;
    let boot = boot.ok_or_else(|| {
        let detail = format!("there is no boot {}", id.chars().take(64).collect::<String>());
        Problem::new(Kind::NotFound, detail, "`bennu boot list` shows every boot that is kept")
    })?;
    Ok(Json(BootShown::of(&boot)))
}

/// Those of machines that whoever asks may see.
fn seen(api: &Api, mut boots: Vec<Boot>) -> Answer<Vec<Boot>> {
    let sight = Sight::current();
    boots.retain(|boot| takes_in(api, &sight, boot));
    Ok(boots)
}

fn page(boots: Vec<Boot>, paging: &Paging) -> Page<BootSummary> {
    paging.page(boots, |boot| boot.id.to_string(), |boot| BootSummary::of(&boot))
}

/// Boots of whoever owns a MAC; of the MAC alone when nobody declared it. An unknown MAC without boots is an error.
fn of_mac(api: &Api, mac: MacAddress) -> Answer<Vec<Boot>> {
    if let Some(machine) = api.ledger.stored(|records| records.machine(mac))? {
        return of(api, &machine);
    }
    match api.ledger.boots(Some(mac))? {
        boots if boots.is_empty() => Err(bennu_rules::commands::Refusal::UnknownMachine(mac).into()),
        boots => Ok(boots),
    }
}

/// Boots of a machine, newest first, those of machines that it took in among them.
fn of(api: &Api, machine: &Machine) -> Answer<Vec<Boot>> {
    let mut boots = Vec::new();
    for mac in &machine.macs {
        boots.extend(api.ledger.boots(Some(*mac))?);
    }
    boots.sort_by(|a: &Boot, b: &Boot| b.id.cmp(&a.id));
    boots.dedup_by(|a, b| a.id == b.id);
    Ok(boots)
}

/// The present, for what is shown; rules get theirs from the ledger.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since_epoch.as_millis() as u64)
}
