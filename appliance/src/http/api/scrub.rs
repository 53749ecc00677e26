//! `/v1/scrub`: every byte of the images is read from the disk and compared with its digest.

use super::{
    Api, Shared,
    images::ImageShown,
    lines::{self, Lines},
    problem::Answer,
    request::{Params, named},
};
use axum::{extract::State, response::Response};
use bennu_images::import::Cancelled;
use bennu_rules::{
    MacAddress, Records,
    commands::{Refusal, find_image},
    image::{BlobRef, Digest, Image, ImageName, ImageReference},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The query of a scrub.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only this one.
    #[param(value_type = Option<ImageReference>)]
    image: Option<String>,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ScrubLine)]
#[serde(untagged)]
pub enum Line {
    /// How far it is.
    Step {
        /// Bytes.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// A blob that is not what it was.
    Damaged(Damaged),
    /// The end: everything was read.
    Done {
        /// Blobs that were read.
        blobs: usize,
        /// Their bytes.
        bytes: u64,
        /// How many of them are damaged.
        damaged: usize,
    },
}

/// A blob that is not what it was, and what needs it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Damaged {
    /// Which.
    pub digest: Digest,
    /// Bytes that it should have.
    pub size: u64,
    /// What is wrong.
    pub damage: String,
    /// The images that need it.
    pub used_by: Vec<Use>,
}

/// An image that needs a blob.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = BlobUse)]
pub struct Use {
    /// The image.
    pub image: Digest,
    /// What the blob is to it.
    pub part: String,
    /// Its tags.
    pub tags: Vec<ImageName>,
    /// Machines whose assignment names it.
    pub assigned_to: Vec<MacAddress>,
    /// Where it was imported from: importing it again repairs it.
    pub source: String,
}

/// Blobs and who needs them, each once however many images share it.
type Blobs = BTreeMap<Digest, (u64, Vec<Use>)>;

/// `GET /v1/scrub`: JSON lines ([`Line`]). It ends when the client goes away.
#[utoipa::path(
    get,
    path = "/v1/scrub",
    tag = "images",
    params(Wanted),
    responses((status = OK, content_type = "application/x-ndjson", body = Line, description = "JSON lines, as the work goes on; the last is the end."))
)]
pub async fn run(State(api): Shared, Params(wanted): Params<Wanted>) -> Answer<Response> {
    let reference: Option<ImageReference> = wanted.image.as_deref().map(named).transpose()?;
    let blobs = blobs(&api, reference.as_ref())?;
    let (lines, answer) = lines::answer();
    tokio::task::spawn_blocking(move || {
        // Nobody is left to tell of a scrub that was cancelled.
        let _: Result<(), Cancelled> = scrub(&api, &blobs, &lines);
    });
    Ok(answer)
}

fn blobs(api: &Api, wanted: Option<&ImageReference>) -> Answer<Blobs> {
    let (images, tags, machines) = api.ledger.stored(|records| {
        let images = match wanted {
            Some(reference) => records.image(&find_image(reference, records)?).into_iter().collect(),
            None => records.images(),
        };
        Ok::<_, Refusal>((images, records.tags(), records.outlines()))
    })??;
    let mut blobs = Blobs::new();
    for image in images {
        let ImageShown { image, tags, assigned_to, .. } = ImageShown::of(image, &tags, &machines);
        let tags: Vec<ImageName> = tags.into_iter().map(|tag| tag.name).collect();
        for (part, blob) in files(&image) {
            let used = Use {
                image: image.digest,
                part: part.to_owned(),
                tags: tags.clone(),
                assigned_to: assigned_to.clone(),
                source: image.source.clone(),
            };
            blobs.entry(blob.digest).or_insert((blob.size, Vec::new())).1.push(used);
        }
    }
    Ok(blobs)
}

/// Every file that an image has in the store.
fn files(image: &Image) -> Vec<(&'static str, BlobRef)> {
    let manifest = BlobRef { digest: image.digest, size: image.manifest_size };
    let parts = image.config.parts().into_iter().map(|(part, blob)| (part, blob.clone()));
    [("manifest", manifest), ("config", image.config_blob.clone())].into_iter().chain(parts).collect()
}

fn scrub(api: &Arc<Api>, blobs: &Blobs, lines: &Lines<Line>) -> Result<(), Cancelled> {
    let total = blobs.values().map(|(size, _)| size).sum();
    let (mut done, mut damaged) = (0, 0);
    for (digest, (size, used_by)) in blobs {
        let blob = BlobRef { digest: *digest, size: *size };
        let (mut read, before) = (0, done);
        let found = api.store.examine(&blob, &mut |count| {
            read += count;
            // A slow reader misses steps, but never the end.
            lines.hint(Line::Step { done: before + read.min(*size), total })
        })?;
        done += size;
        // An image that was removed meanwhile took its blobs along.
        let is_used = || api.blobs_in_use().is_ok_and(|used| used.contains(digest));
        if let Some(damage) = found.filter(|_| is_used()) {
            damaged += 1;
            tracing::error!(%digest, %damage, "a blob of the store is damaged");
            let used_by = used_by.clone();
            lines.tell(Line::Damaged(Damaged { digest: *digest, size: *size, damage: damage.to_string(), used_by }))?;
        }
    }
    lines.tell(Line::Done { blobs: blobs.len(), bytes: total, damaged })
}
