//! `/v1/appliance`: the host of an appliance that runs from its own disc.

use super::{
    Api, Shared,
    problem::{Answer, Kind, Problem},
    request::{Body as Asked, Params},
};
use crate::{backup, door::DoorError, http::access::read_on};
use axum::{Json, body::Body, extract::State};
use bennu_host::{
    door::{Disc, InSlot, Request, Running, Source, Standing},
    reset::Reset,
    slots::{Release, Slot},
};
use bennu_rules::order::{Give, Order, give};
use futures_util::StreamExt;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// A refused disc is read on for so long.
const DRAIN: Duration = Duration::from_secs(60);

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
    /// The discs in the slots of the state disk.
    pub slots: Vec<SlotShown>,
    /// The version of an upgrade that did not become ready, until the next one is installed.
    pub failed: Option<String>,
    /// Whether the disc that runs has a key, without which it takes up no other.
    pub upgradable: bool,
}

/// A disc in a slot of the state disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlotShown {
    /// `a` or `b`.
    #[schema(value_type = String)]
    pub slot: Slot,
    /// The disc's version.
    pub version: String,
    /// When its contents were made, in seconds since 1970.
    pub built: u64,
    /// `good`: it starts, unless the medium is newer; `trial`: it is tried at the next start, or is being tried; `failed`: it did
    /// not become ready; `kept`: it starts when a person at the console chooses it.
    #[schema(value_type = String)]
    pub standing: Standing,
}

impl From<InSlot> for SlotShown {
    fn from(held: InSlot) -> Self {
        let InSlot { slot, release: Release { version, built }, standing } = held;
        Self { slot, version, built, standing }
    }
}

impl From<Running> for ApplianceShown {
    fn from(running: Running) -> Self {
        let Running { version, built, from, state_disk, slots, failed, upgradable } = running;
        let slots = slots.into_iter().map(SlotShown::from).collect();
        Self { version, built, from, state_disk, slots, failed, upgradable }
    }
}

/// `GET /v1/appliance`: what runs on the appliance's host.
#[utoipa::path(
    get,
    path = "/v1/appliance",
    tag = "appliance",
    responses(
        (status = CONFLICT, content_type = "application/problem+json", body = Problem, description = "The appliance does not run from its own disc"),
        (status = OK, body = ApplianceShown),
    )
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

/// What is to go, and that it is meant.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetWanted {
    /// The appliance's host name, as `/v1/status` tells it: what is asked for is meant for this one.
    #[schema(max_length = 64)]
    pub confirm: String,
    /// Whether the configuration stays.
    #[serde(default)]
    pub keep_configuration: bool,
}

/// `POST /v1/appliance/reset`: makes the appliance as it was when it came. The service ends, everything goes that is kept on the
/// state disk but the discs in its slots, and the host starts again, into its set-up. There is no way back but a backup that
/// lies elsewhere.
#[utoipa::path(
    post,
    path = "/v1/appliance/reset",
    tag = "appliance",
    request_body = ResetWanted,
    responses((status = ACCEPTED, body = Order, description = "It begins now."))
)]
pub async fn reset(State(api): Shared, Asked(wanted): Asked<ResetWanted>) -> Answer<(StatusCode, Json<Order>)> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match api.door.describe().await {
        Err(DoorError::NoDisc) => return Err(by_hand(&api)),
        described => described?,
    };
    if wanted.confirm != name {
        let detail =
            format!("this appliance is called '{name}', and not '{:.64}': nothing was changed", wanted.confirm);
        return Err(Problem::new(Kind::Unprocessable, detail, "confirm with its host name").at("/confirm"));
    }
    let keep_configuration = wanted.keep_configuration;
    let what = if keep_configuration { "reset, keeping the configuration" } else { "reset" };
    order(&api, what, Request::Reset(Reset { keep_configuration })).await
}

/// Where a distribution looks after the host, people know what else lies there.
fn by_hand(api: &Api) -> Problem {
    let config = &api.config;
    let mut what = vec![format!("the state directory {}", config.state_dir.display())];
    what.extend(config.secrets_key.iter().map(|key| format!("the key of secrets {}", key.display())));
    let detail = "this appliance does not run from Bennu's own disc, and nothing was changed";
    let advice = format!(
        "stop the service (systemctl stop bennu), remove {} and, for another set-up, the configuration ({})",
        what.join(", "),
        crate::config::DEFAULT_PATH
    );
    Problem::new(Kind::Conflict, detail, advice)
}

/// The query of an upgrade.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The body's bytes.
    size: u64,
    /// The signature over the body, as `cosign sign-blob` writes it: base64.
    #[param(min_length = 1, max_length = 2048)]
    signature: String,
    /// Whether it may be older than what runs.
    #[serde(default)]
    allow_older: bool,
    /// Whether a backup of the ledger is made first, and the upgrade refused where none can be made.
    #[serde(default = "yes")]
    #[param(default = true)]
    backup: bool,
}

fn yes() -> bool {
    true
}

/// `POST /v1/appliance/upgrade`: verifies a disc and puts it into the slot that does not run. The next start tries it once: when
/// its service does not become ready, what runs now starts again. A backup of the ledger is made before (`/v1/backups`).
#[utoipa::path(
    post,
    path = "/v1/appliance/upgrade",
    tag = "appliance",
    params(Wanted),
    request_body(content = crate::http::api::openapi::Binary, content_type = "application/octet-stream", description = "The disc (an .iso file)."),
    responses((status = OK, body = SlotShown))
)]
pub async fn upgrade(
    State(api): Shared,
    wanted: Result<Params<Wanted>, Problem>,
    body: Body,
) -> Answer<Json<SlotShown>> {
    let wanted = match wanted {
        Ok(Params(Wanted { size, signature, allow_older, backup })) => {
            let disc = Disc { size, signature, allow_older };
            backed_up(&api, backup).await.map(|()| disc)
        }
        Err(problem) => Err(problem),
    };
    let disc = match wanted {
        Ok(disc) => disc,
        Err(problem) => {
            read_on(body);
            return Err(problem);
        }
    };
    let mut body = body.into_data_stream();
    let installed = api.door.install(disc, &mut body).await;
    if installed.is_err() {
        // Who still sends a disc reads why it is refused when it is sent.
        tokio::spawn(tokio::time::timeout(DRAIN, async move { while let Some(Ok(_)) = body.next().await {} }));
    }
    let (slot, release) = installed?;
    let Release { version, built } = release;
    on_record(&api, &format!("try {version}, built {built}, from {slot}")).await;
    Ok(Json(SlotShown { slot, version, built, standing: Standing::Trial }))
}

/// Makes a backup of the ledger, where a disc may be taken up at all: a newer version may change the ledger's format, which the
/// present one then reads no more.
async fn backed_up(api: &Arc<Api>, is_wanted: bool) -> Answer<()> {
    let running = api.door.describe().await?;
    if !is_wanted || !running.upgradable || running.state_disk.is_none() {
        return Ok(());
    }
    let working = api.clone();
    let work = tokio::task::spawn_blocking(move || backup::make_before_upgrade(&working)).await;
    let made = work.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), ""))?;
    let (kind, why) = match made {
        Ok(true) => return Ok(()),
        Ok(false) => (Kind::DiskFull, "the disk is short of room".to_owned()),
        Err(error) => (Kind::Internal, error.to_string()),
    };
    tracing::error!(why, "no backup of the ledger was made, and so no upgrade");
    Err(Problem::new(
        kind,
        format!("no backup of the ledger can be made before the upgrade ({why}), and nothing was changed"),
        "make room (bennu image gc), or upgrade without one (--no-backup, backup=false) when you have one elsewhere",
    ))
}

/// Puts it on record and has it done. What nobody could do is not on record.
async fn order(api: &Api, what: &str, request: Request) -> Answer<(StatusCode, Json<Order>)> {
    api.door.describe().await?;
    let order = on_record(api, what).await;
    api.door.ask(&request).await?;
    Ok((StatusCode::ACCEPTED, Json(order)))
}

async fn on_record(api: &Api, what: &str) -> Order {
    tracing::info!(what, "the host was asked to do this");
    let order = api.ledger.decide(Give(what.to_owned()), give).await;
    // A restart is what heals a ledger that takes nothing more.
    order.unwrap_or_else(|fault| {
        tracing::error!(what, %fault, "this is not in the audit log");
        Order { what: what.to_owned(), at: api.ledger.now() }
    })
}
