//! What a boot's machine fetches of its metadata itself: cloud-init's data and Ignition's configuration. None of it is secret.

use super::plain;
use crate::appliance::Appliance;
use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bennu_rules::{
    boot::{
        Boot, Token,
        metadata::{MetadataRequest, decide},
    },
    metadata::{Merged, seed},
};
use std::sync::Arc;

/// What a boot was given, or why it is not told.
fn given(appliance: &Appliance, token: String) -> Result<(Boot, Merged), Box<Response>> {
    match appliance.ledger.ponder(&MetadataRequest { token: Token(token) }, decide) {
        Ok(decision) => decision.answer.ok_or_else(|| {
            let said = "Bennu: this token opens no boot, or no metadata document applies to it\n";
            Box::new((StatusCode::NOT_FOUND, said).into_response())
        }),
        Err(fault) => Err(Box::new((StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response())),
    }
}

/// cloud-init's NoCloud data source, for systems that fetch it themselves.
pub async fn nocloud(State(appliance): State<Arc<Appliance>>, Path((token, file)): Path<(String, String)>) -> Response {
    let (boot, merged) = match given(&appliance, token) {
        Ok(given) => given,
        Err(refusal) => return *refusal,
    };
    let seed = seed::nocloud(&boot, &merged);
    let text = seed.and_then(|seed| match file.as_str() {
        "meta-data" => Some(seed.meta_data),
        "user-data" => Some(seed.user_data),
        // cloud-init asks for it in any case, and again and again where there is none.
        "vendor-data" => Some(seed.vendor_data.unwrap_or_default()),
        "network-config" => seed.network_config,
        _ => None,
    });
    match text {
        Some(text) => plain(text),
        None => (StatusCode::NOT_FOUND, "Bennu: no metadata document of this machine says that\n").into_response(),
    }
}

/// Ignition's configuration.
pub async fn ignition(State(appliance): State<Arc<Appliance>>, Path(token): Path<String>) -> Response {
    match given(&appliance, token) {
        Ok((_, Merged { ignition: Some(ignition), .. })) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, ignition.value).into_response()
        }
        Ok(_) => {
            (StatusCode::NOT_FOUND, "Bennu: no metadata document of this machine has `ignition`\n").into_response()
        }
        Err(refusal) => *refusal,
    }
}
