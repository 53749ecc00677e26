//! Boot scripts, plans and reports: the part of the provisioning plane that decides.

mod metadata;
mod session;

use super::{
    api::metadata::MetadataShown,
    connection::{LocalAddr, PeerAddr},
};
use crate::{
    appliance::{Appliance, Counters},
    config::http_origin,
    ledger::Fault,
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Extension, Path, Query, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bennu_plan::Plan;
use bennu_rules::{
    MacAddress,
    assignment::Resolution,
    boot::{
        Token,
        explain::{self, Explained},
        plan::{self, PlanRequest},
        script::{self, Script, ScriptRequest},
    },
    facts::Facts,
    rule::Rule,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// The routes.
pub fn router() -> Router<Arc<Appliance>> {
    // One name for the parameter: the router takes no two names at one place of a path.
    Router::new()
        .route("/boot.ipxe", get(entry))
        .route("/boot/{key}", get(machine_script))
        .route("/boot/{key}/plan.json", get(boot_plan))
        .route("/boot/{key}/nocloud/{file}", get(metadata::nocloud))
        .route("/boot/{key}/ignition.json", get(metadata::ignition))
        .route("/boot/{key}/report", post(session::report).layer(DefaultBodyLimit::max(session::MAX_REPORT)))
        .route("/boot/{key}/session", post(session::open).layer(DefaultBodyLimit::max(session::MAX_REQUEST)))
}

/// What a machine would get at its next boot, for people.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Explanation {
    /// Image and origin.
    pub resolution: Resolution,
    /// The rules that mean the machine, the one that wins over the others first.
    pub rules: Vec<Rule>,
    /// The hardware profile that matches.
    pub profile: Option<String>,
    /// The loaders that a UEFI firmware is given by PXE, and why.
    pub loader: String,
    /// The script, its token all zero.
    pub script: String,
    /// The plan for stage 1.
    #[schema(value_type = Option<Object>)]
    pub plan: Option<Plan>,
    /// What its metadata documents come to, and which of them says what.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<MetadataShown>,
}

/// Explains a machine's next boot; mints and stores nothing.
pub fn explain(appliance: &Appliance, mac: MacAddress) -> Result<Explanation, Fault> {
    let request = next_boot(appliance, mac);
    let chain = appliance.ledger.ponder(&request, explain::chain)?.answer;
    let request = ScriptRequest { tftp: chain.signed.then(|| appliance.address_for(Ipv4Addr::UNSPECIFIED)), ..request };
    let Explained { resolution, rules, profile, script, plan, metadata } =
        appliance.ledger.ponder(&request, explain::decide)?.answer;
    let rendered = if chain.signed { bennu_ipxe::grub::render(&script) } else { bennu_ipxe::render(&script) };
    let script = rendered.unwrap_or_else(|error| format!("# {error}\n"));
    let loader = chain.describe();
    Ok(Explanation { resolution, rules, profile, loader, script, plan, metadata: metadata.map(MetadataShown::from) })
}

/// A machine's loader asks, as far as that is known before it does.
pub fn next_boot(appliance: &Appliance, mac: MacAddress) -> ScriptRequest {
    ScriptRequest {
        mac,
        facts: Facts::default(),
        origin: appliance.origin_for(Ipv4Addr::UNSPECIFIED),
        stage1: appliance.stage1.clone(),
        starts: true,
        vouched: true,
        tftp: None,
    }
}

/// Where the machine behind a connection reaches us.
fn origin(local: LocalAddr, appliance: &Appliance) -> String {
    match local.0.ip().to_canonical() {
        IpAddr::V4(address) => http_origin(address, appliance.config.settings.http_port),
        IpAddr::V6(address) => format!("http://[{address}]:{}", appliance.config.settings.http_port),
    }
}

async fn entry(State(appliance): State<Arc<Appliance>>, Extension(local): Extension<LocalAddr>) -> Response {
    let origin = origin(local, &appliance);
    match bennu_ipxe::entry(&origin) {
        Ok(text) => plain(text),
        Err(error) => failed(&error.to_string(), &format!("{origin}/boot.ipxe")),
    }
}

async fn machine_script(
    State(appliance): State<Arc<Appliance>>,
    Extension(local): Extension<LocalAddr>,
    Extension(peer): Extension<PeerAddr>,
    Path(file): Path<String>,
    method: Method,
    uri: Uri,
) -> Response {
    let origin = origin(local, &appliance);
    let Some(mac) = file.strip_suffix(".ipxe").and_then(|name| name.parse::<MacAddress>().ok()) else {
        return (StatusCode::NOT_FOUND, "Bennu: boot scripts are at /boot/<mac>.ipxe\n").into_response();
    };
    let again = format!("{origin}/boot/{}.ipxe", mac.hyphened());
    if let Some(refusal) = refuse_stranger(&appliance, mac, peer.0.ip(), &again) {
        return rendered(&refusal, &again);
    }
    let request = ScriptRequest {
        mac,
        facts: facts_in(&uri),
        origin,
        stage1: appliance.stage1.clone(),
        starts: uri.query().is_some(),
        vouched: appliance.machine_at(peer.0.ip()) == Some(mac),
        tftp: None,
    };
    let answer = if method == Method::HEAD {
        appliance.ledger.ponder(&request, script::decide).map(|decision| decision.answer)
    } else {
        appliance.ledger.decide(request, script::decide).await
    };
    match answer {
        Ok(script) => rendered(&script, &again),
        Err(fault) => failed(&fault.to_string(), &again),
    }
}

/// On our own wire the kernel knows which card has the client's address: nobody fetches another machine's script, and with
/// it the token of its boot.
pub fn refuse_stranger(appliance: &Appliance, mac: MacAddress, peer: IpAddr, again: &str) -> Option<Script> {
    let IpAddr::V4(address) = peer.to_canonical() else { return None };
    let seen = appliance.neighbour(address)?;
    let same = seen == mac
        || appliance
            .ledger
            .read(|records, _| {
                use bennu_rules::Records;
                records.machine(mac).is_some_and(|machine| machine.macs.contains(&seen))
            })
            .unwrap_or(false);
    if same {
        return None;
    }
    Counters::count(&appliance.counters.http_refused);
    tracing::warn!(%mac, %seen, %address, "refused a boot script: it was asked for by another card");
    Some(Script::Refused {
        machine: mac,
        reason: format!("its script was asked for by the card {seen}"),
        advice: format!("If both cards are of one machine, join them: bennu machine join {mac} {seen}"),
        again: again.to_owned(),
    })
}

fn rendered(script: &Script, again: &str) -> Response {
    match bennu_ipxe::render(script) {
        Ok(text) => plain(text),
        Err(error) => failed(&error.to_string(), again),
    }
}

/// A script even now: loaders show nothing of an HTTP error's body.
fn failed(reason: &str, again: &str) -> Response {
    tracing::error!(reason, "cannot give a boot script");
    plain(bennu_ipxe::failure(reason, again).unwrap_or_else(|error| format!("#!ipxe\n# {error}\n")))
}

fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// What iPXE said of the hardware in the query that our entry script composes.
fn facts_in(uri: &Uri) -> Facts {
    let said = Query::<BTreeMap<String, String>>::try_from_uri(uri).map(|query| query.0).unwrap_or_default();
    Facts::from_loader(&said)
}

async fn boot_plan(
    State(appliance): State<Arc<Appliance>>,
    Extension(local): Extension<LocalAddr>,
    Path(token): Path<String>,
) -> Response {
    let request = PlanRequest { token: Token(token), origin: origin(local, &appliance) };
    match appliance.ledger.decide(request, plan::decide).await {
        Ok(Some(plan)) => Json(plan).into_response(),
        Ok(None) => unknown_token(),
        Err(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response(),
    }
}

fn unknown_token() -> Response {
    (StatusCode::NOT_FOUND, "Bennu: this token opens no boot; the machine was started again or forgotten: restart it\n")
        .into_response()
}

#[cfg(test)]
mod tests;
