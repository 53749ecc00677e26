//! `/v1/gc`: what nothing needs goes.

use super::{
    Api, Shared,
    images::write_index,
    problem::{Answer, Kind, Problem},
    request::Body,
};
use axum::{Json, extract::State};
use bennu_rules::{
    Records,
    commands::collect::{Collect, Collected, Verdict, collect, ran},
    image::{BlobRef, Digest, Image},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `POST /v1/gc` takes.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = GcBody)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GcShown {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Every image, and what becomes of it.
    pub images: Vec<Judged>,
    /// Artifacts of the registry that go.
    pub artifacts: Vec<Digest>,
    /// Files of the store that go, those of images and artifacts that go among them.
    pub blobs: Vec<BlobRef>,
    /// Bytes of these files.
    pub bytes: u64,
}

/// An image, and what becomes of it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Judged {
    /// The image.
    pub digest: Digest,
    /// Where it was imported from.
    pub source: String,
    /// Bytes of all its blobs, shared ones counted in full.
    pub size: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why it goes or stays.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// `POST /v1/gc`
#[utoipa::path(
    post,
    path = "/v1/gc",
    tag = "images",
    request_body = Wanted,
    responses((status = OK, body = GcShown))
)]
pub async fn run(State(api): Shared, Body(wanted): Body<Wanted>) -> Answer<Json<GcShown>> {
    let dry_run = wanted.dry_run;
    let looking = api.clone();
    // Years of boots take their time.
    let ran = blocking(move || Ok(ran(&looking.ledger.boots(None)?, looking.ledger.now()))).await?;
    let named = api.config.import.kernel.iter().cloned().collect();
    let settling = api.registry.settling.lock().await;
    let images = api.ledger.stored(|records| records.images())?;
    let collected = api.ledger.decide(Collect { dry_run, ran, named }, collect).await?;
    let sweeping = api.clone();
    let (collected, blobs) = blocking(move || {
        let blobs = sweep(&sweeping, &collected, dry_run)?;
        Ok((collected, blobs))
    })
    .await?;
    drop(settling);
    let shown = shown(dry_run, &images, collected, blobs);
    let has_removed = !dry_run && (!shown.blobs.is_empty() || !shown.artifacts.is_empty());
    if has_removed {
        let images = shown.images.iter().filter(|image| image.goes).count();
        let (artifacts, blobs, bytes) = (shown.artifacts.len(), shown.blobs.len(), shown.bytes);
        tracing::info!(images, artifacts, blobs, bytes, "removed what nothing needs");
    }
    Ok(Json(shown))
}

/// The files that go. For holders of `settling`.
fn sweep(api: &Api, collected: &Collected, dry_run: bool) -> Answer<Vec<BlobRef>> {
    let fault = |error: anyhow::Error| Problem::new(Kind::Internal, format!("{error:#}"), "");
    if !dry_run {
        write_index(api)?;
        return Ok(api.store.collect(&api.blobs_in_use().map_err(fault)?)?);
    }
    let artifacts = collected.artifacts.iter().map(|artifact| artifact.digest).collect();
    Ok(api.store.unnamed(&api.blobs_in_use_without(&collected.gone(), &artifacts).map_err(fault)?)?)
}

fn shown(dry_run: bool, images: &[Image], collected: Collected, blobs: Vec<BlobRef>) -> GcShown {
    let by_digest: BTreeMap<Digest, &Image> = images.iter().map(|image| (image.digest, image)).collect();
    let judged = |(digest, verdict): (Digest, Verdict)| {
        let image = by_digest.get(&digest);
        let source = image.map(|image| image.source.clone()).unwrap_or_default();
        Judged { digest, source, size: image.map_or(0, |image| image.size()), goes: verdict.goes(), verdict }
    };
    GcShown {
        dry_run,
        images: collected.images.into_iter().map(judged).collect(),
        artifacts: collected.artifacts.into_iter().map(|artifact| artifact.digest).collect(),
        bytes: blobs.iter().map(|blob| blob.size).sum(),
        blobs,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    let work = tokio::task::spawn_blocking(work).await;
    work.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), "look at the service's log"))?
}
