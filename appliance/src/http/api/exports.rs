//! `/v1/exports`: an image leaves as an OCI layout in a tar.

use super::{
    Shared,
    outflow::{Outflow, outflow},
    problem::{Answer, Kind, Problem},
    request::{Params, named},
};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bennu_images::oci::{Export, ExportError, OciError};
use bennu_rules::{
    image::ImageReference,
    registry::{image_leaving, source_leaving},
};
use http::header;
use serde::Deserialize;

/// The query of an export.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The container image that it was made of, instead.
    #[serde(default)]
    source: bool,
    /// Its name in the layout.
    #[param(pattern = "^[A-Za-z0-9]([A-Za-z0-9._:@/+-]{0,253}[A-Za-z0-9])?$")]
    tag: Option<String>,
}

/// `GET /v1/exports/{reference}`: a tar. A body that breaks off before its length is no image: a blob was damaged, and
/// the log says which.
#[utoipa::path(
    get,
    path = "/v1/exports/{*reference}",
    tag = "images",
    params(("reference" = ImageReference, Path, description = "`name:tag` or a digest."), Wanted),
    responses((status = OK, content_type = "application/x-tar", body = crate::http::api::openapi::Binary, description = "An OCI layout in a tar."))
)]
pub async fn create(State(api): Shared, Path(text): Path<String>, Params(wanted): Params<Wanted>) -> Answer<Response> {
    let reference: ImageReference = named(&text)?;
    if wanted.tag.as_deref().is_some_and(|tag| !is_ref_name(tag)) {
        let advice = "write letters, digits and separators (-._:@/+), beginning and ending with a letter or digit";
        return Err(Problem::new(Kind::Malformed, "query: tag is no name of an image in a layout", advice));
    }
    let leaving = api.ledger.stored(|records| match wanted.source {
        true => source_leaving(&reference, wanted.tag, records),
        false => image_leaving(&reference, wanted.tag, records),
    })??;
    let store = api.store.clone();
    let looked = tokio::task::spawn_blocking(move || Export::of(&leaving, &store)).await;
    let export = looked.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), ""))?.map_err(unusable)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, export.size().to_string()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let (outflow, body) = outflow();
    tokio::task::spawn_blocking(move || send(&export, &reference, outflow));
    Ok((headers, body).into_response())
}

fn send(export: &Export, reference: &ImageReference, outflow: Outflow) {
    match export.write(outflow.writer()) {
        Ok(()) => {}
        // Nobody is left to tell.
        Err(ExportError::Gone(_)) => tracing::debug!(%reference, "a client went away before its export's end"),
        Err(error) => {
            tracing::error!(%reference, %error, "an export was broken off");
            outflow.cut(error);
        }
    }
}

fn unusable(error: OciError) -> Problem {
    tracing::error!(%error, "an image cannot be exported");
    let advice = "import the image again: the store has lost a part of it, which `bennu image verify` names";
    Problem::new(Kind::Internal, error.to_string(), advice)
}

/// As the OCI image specification has them ("Pre-Defined Annotation Keys").
fn is_ref_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    let good = |c: char| alphanumeric(c) || "-._:@/+".contains(c);
    (1..=255).contains(&name.len())
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(good)
}
