//! `/v1/exports`: an image leaves as an OCI layout in a tar.

use super::{
    Shared,
    problem::{Answer, Kind, Problem},
    request::{Params, named},
};
use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bennu_images::oci::{Export, ExportError, OciError};
use bennu_rules::{
    image::ImageReference,
    registry::{image_leaving, source_leaving},
};
use futures_util::stream;
use http::header;
use serde::Deserialize;
use std::io::{self, BufWriter, Write};
use tokio::sync::mpsc;

/// What is on its way to the client at once, at most, is some of these.
const CHUNK: usize = 256 << 10;

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
    let (chunks, arriving) = mpsc::channel::<io::Result<Bytes>>(4);
    let body = stream::unfold(arriving, |mut arriving| async {
        let chunk = arriving.recv().await?;
        if chunk.is_err() {
            // What came before, the answer's head above all, leaves before the connection is cut.
            tokio::task::yield_now().await;
        }
        Some((chunk, arriving))
    });
    tokio::task::spawn_blocking(move || send(&export, &reference, chunks));
    Ok((headers, Body::from_stream(body)).into_response())
}

fn send(export: &Export, reference: &ImageReference, chunks: mpsc::Sender<io::Result<Bytes>>) {
    match export.write(BufWriter::with_capacity(CHUNK, Chunks(chunks.clone()))) {
        Ok(()) => {}
        // Nobody is left to tell.
        Err(ExportError::Gone(_)) => tracing::debug!(%reference, "a client went away before its export's end"),
        Err(error) => {
            tracing::error!(%reference, %error, "an export was broken off");
            let _ = chunks.blocking_send(Err(io::Error::other(error)));
        }
    }
}

/// Writes into the body.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK);
        let chunk = Bytes::copy_from_slice(&bytes[..count]);
        self.0.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
