//! `/v1/support`: what a colleague needs to help leaves as one file, without secrets.

use super::{Shared, outflow::outflow, problem::Answer, status::status};
use crate::{
    author,
    http::access::Caller,
    support::{gather, write},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bennu_rules::order::{Give, give};
use http::header;
use std::io;
use tokio::sync::mpsc;

/// `GET /v1/support`: a support bundle, a tar in zstd
///
/// It holds how the appliance is and was: configuration, machines, boots, leases, metrics, logs, and what the host's kernel
/// says. Secrets, tokens and keys are not in it. One without its last part, `contents.json`, was cut.
#[utoipa::path(
    get,
    path = "/v1/support",
    tag = "appliance",
    responses((status = OK, content_type = "application/zstd", body = crate::http::api::openapi::Binary, description = "The bundle."))
)]
pub async fn create(State(api): Shared, caller: Caller) -> Answer<Response> {
    // A ledger that takes nothing more is a reason to ask for help.
    if let Err(fault) = api.ledger.decide(Give("hand out a support bundle".to_owned()), give).await {
        tracing::error!(%fault, "that a support bundle is handed out is not in the audit log");
    }
    tracing::info!(by = caller.who, "a support bundle is handed out");
    let (parts, arriving) = mpsc::channel(1);
    let appliance = api.appliance.clone();
    let at = appliance.ledger.now();
    author::spawn(gather(appliance.clone(), super::router(appliance), status(&api).ok(), parts));
    let (outflow, body) = outflow();
    tokio::task::spawn_blocking(move || match write(arriving, at, outflow.writer()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            tracing::warn!("a client went away before its support bundle's end");
        }
        Err(error) => {
            tracing::error!(%error, "a support bundle was broken off");
            outflow.cut(error);
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/zstd"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}
