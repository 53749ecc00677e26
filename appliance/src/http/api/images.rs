//! `/v1/images` and `/v1/tags`.

use super::{
    Shared,
    conditional::versioned,
    problem::{Answer, Problem},
    request::{Body, IfMatch, Page, Paging, Params, expected, named},
};
use crate::{appliance::Appliance, author::Sight, ledger::Stored};
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use bennu_images::store::IndexEntry;
use bennu_rules::{
    Live, MacAddress, Records,
    assignment::Assignment,
    boot,
    commands::{
        Refusal, find_image,
        images::{MoveTag, RemoveImage, RollBack, image_version, move_tag, remove_image, roll_back, version},
    },
    image::{Digest, Image, ImageName, ImageReference, Tag},
    machine::Outline,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// An image, the tags that point at it, and who boots it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageShown {
    /// Its record.
    #[serde(flatten)]
    pub image: Image,
    /// Bytes of all its blobs, shared ones counted in full.
    pub size: u64,
    /// With their histories.
    pub tags: Vec<Tag>,
    /// Machines whose assignment names it.
    pub assigned_to: Vec<MacAddress>,
}

/// An image as it is listed and shown: with what it costs and who runs it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageListed {
    /// It.
    #[serde(flatten)]
    pub shown: ImageShown,
    /// Bytes of its blobs that no other image has: what the disk has back when it goes.
    #[serde(default)]
    pub unique: u64,
    /// Machines whose newest boot is up on it.
    #[serde(default)]
    pub running: Vec<MacAddress>,
}

/// What `PUT /v1/tags/{name}` takes.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TagBody {
    /// Where to point: another tag, or a digest.
    pub image: ImageReference,
}

/// What `POST /v1/tags/{name}` does.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum TagAction {
    /// Points it at what it pointed at before.
    Rollback,
}

/// What a removal came to.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RemovedShown {
    /// The tags that are gone.
    pub tags: Vec<ImageName>,
    /// The image, if it is gone as well.
    pub image: Option<Digest>,
    /// Bytes that the disk has back.
    pub freed: u64,
}

/// `GET /v1/images`, newest first
#[utoipa::path(
    get,
    path = "/v1/images",
    tag = "images",
    params(Paging),
    responses((status = OK, body = Page<ImageListed>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<ImageListed>>> {
    let (mut images, tags, machines) =
        api.ledger.stored(|records| (records.images(), records.tags(), seen(records)))?;
    let running = api.ledger.read(|records, live| running(live, records))?;
    let holders = holders(&images);
    images.sort_by_key(|image| Reverse((image.imported, image.digest)));
    let listed = |image| ImageListed::of(ImageShown::of(image, &tags, &machines), &holders, &running);
    Ok(Json(paging.page(images, |image| image.digest.to_string(), listed)))
}

/// `GET /v1/images/{reference}`
#[utoipa::path(
    get,
    path = "/v1/images/{*reference}",
    tag = "images",
    params(("reference" = ImageReference, Path, description = "`name:tag` or a digest.")),
    responses((status = OK, body = ImageListed))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let reference: ImageReference = named(&text)?;
    let running = api.ledger.read(|records, live| running(live, records))?;
    let (version, shown) = api.ledger.stored(|records| {
        let digest = find_image(&reference, records)?;
        let image = records.image(&digest).ok_or(Refusal::UnknownImage { reference, near: Vec::new() })?;
        let version = image_version(&image, records);
        let shown = ImageShown::of(image, &records.tags(), &seen(records));
        Ok::<_, Refusal>((version, ImageListed::of(shown, &holders(&records.images()), &running)))
    })??;
    Ok(versioned(&version, &shown))
}

/// `DELETE /v1/images/{reference}`: a digest goes with its tags, a tag alone unless it is the last one.
#[utoipa::path(
    delete,
    path = "/v1/images/{*reference}",
    tag = "images",
    params(("reference" = ImageReference, Path, description = "`name:tag` or a digest."), IfMatch),
    responses((status = OK, body = RemovedShown))
)]
pub async fn remove(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<Json<RemovedShown>> {
    let request = RemoveImage { reference: named(&text)?, expected: expected(&headers)? };
    let settling = api.registry.settling.lock().await;
    let removed = api.ledger.decide(request, remove_image).await??;
    let freed = tidy(&api.appliance).await?;
    drop(settling);
    Ok(Json(RemovedShown { tags: removed.tags, image: removed.image, freed }))
}

/// `PUT /v1/tags/{name}`
#[utoipa::path(
    put,
    path = "/v1/tags/{*name}",
    tag = "images",
    params(("name" = ImageName, Path, description = "`name:tag`."), IfMatch),
    request_body = TagBody,
    responses((status = OK, body = Tag))
)]
pub async fn tag(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(body): Body<TagBody>,
) -> Answer<Response> {
    let request = MoveTag { name: named(&text)?, to: body.image, expected: expected(&headers)? };
    let settling = api.registry.settling.lock().await;
    let tag = api.ledger.decide(request, move_tag).await??;
    write_index(&api)?;
    drop(settling);
    Ok(versioned(&version(&tag), &tag))
}

/// `GET /v1/tags/{name}`, with its history
#[utoipa::path(
    get,
    path = "/v1/tags/{*name}",
    tag = "images",
    params(("name" = ImageName, Path, description = "`name:tag`.")),
    responses((status = OK, body = Tag))
)]
pub async fn show_tag(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let name: ImageName = named(&text)?;
    let reference = ImageReference::Name(name.clone());
    let tag = api.ledger.stored(|records| {
        find_image(&reference, records)?;
        records.tag(&name).ok_or(Refusal::UnknownImage { reference, near: Vec::new() })
    })??;
    Ok(versioned(&version(&tag), &tag))
}

/// `POST /v1/tags/{name}`
#[utoipa::path(
    post,
    path = "/v1/tags/{*name}",
    tag = "images",
    params(("name" = ImageName, Path, description = "`name:tag`."), IfMatch),
    request_body = TagAction,
    responses((status = OK, body = Tag))
)]
pub async fn act(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(action): Body<TagAction>,
) -> Answer<Response> {
    let (name, expected) = (named(&text)?, expected(&headers)?);
    let settling = api.registry.settling.lock().await;
    let tag = match action {
        TagAction::Rollback => api.ledger.decide(RollBack { name, expected }, roll_back).await??,
    };
    write_index(&api)?;
    drop(settling);
    Ok(versioned(&version(&tag), &tag))
}

/// Removes blobs that no record names and writes the index anew. For holders of `settling`.
pub async fn tidy(appliance: &Arc<Appliance>) -> Answer<u64> {
    let appliance = appliance.clone();
    let work = tokio::task::spawn_blocking(move || {
        let used = appliance.blobs_in_use().map_err(|error| internal(&error))?;
        write_index(&appliance)?;
        Ok(appliance.store.collect(&used)?.iter().map(|blob| blob.size).sum())
    });
    work.await.map_err(|panic| internal(&panic))?
}

/// Derives the layout's index from the records. For holders of `settling`.
pub fn write_index(appliance: &Appliance) -> Answer<()> {
    let (images, tags) = appliance.ledger.stored(|records| (records.images(), records.tags()))?;
    Ok(appliance.store.write_index(&index(&images, &tags))?)
}

fn index(images: &[Image], tags: &[Tag]) -> Vec<IndexEntry> {
    let entries = |image: &Image| {
        let entry = |name| IndexEntry { digest: image.digest, size: image.manifest_size, name };
        let named: Vec<_> =
            tags.iter().filter(|tag| tag.digest == image.digest).map(|tag| entry(Some(tag.name.clone()))).collect();
        if named.is_empty() { vec![entry(None)] } else { named }
    };
    images.iter().flat_map(entries).collect()
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(super::problem::Kind::Internal, error.to_string(), "")
}

/// How many images have each blob.
fn holders(images: &[Image]) -> BTreeMap<Digest, usize> {
    let mut holders = BTreeMap::new();
    for image in images {
        for digest in blobs(image).into_keys() {
            *holders.entry(digest).or_default() += 1;
        }
    }
    holders
}

/// An image's blobs, each once, and their bytes.
fn blobs(image: &Image) -> BTreeMap<Digest, u64> {
    let own = [(image.digest, image.manifest_size), (image.config_blob.digest, image.config_blob.size)];
    own.into_iter().chain(image.config.blobs().map(|blob| (blob.digest, blob.size))).collect()
}

/// The machines that whoever asks may see.
fn seen(records: &Stored<'_>) -> Vec<Outline> {
    let (mut machines, sight) = (records.outlines(), Sight::current());
    machines.retain(|machine| sight.takes_in(&machine.labels));
    machines
}

/// Machines by the image that they run, as far as whoever asks may see them.
fn running(live: &Live, records: &dyn Records) -> BTreeMap<Digest, Vec<MacAddress>> {
    let sight = Sight::current();
    let is_seen = |boot: &&boot::Boot| sight.is_whole() || sight.takes_in_card(boot.machine, records);
    let mut running = BTreeMap::<_, Vec<MacAddress>>::new();
    for boot in live.boots().filter(|boot| boot.state == boot::State::Up).filter(is_seen) {
        if let Some(image) = &boot.image {
            running.entry(image.digest).or_default().push(boot.machine);
        }
    }
    running
}

impl ImageListed {
    fn of(shown: ImageShown, holders: &BTreeMap<Digest, usize>, running: &BTreeMap<Digest, Vec<MacAddress>>) -> Self {
        let alone = |(digest, _): &(Digest, u64)| holders.get(digest).is_none_or(|count| *count < 2);
        let unique = blobs(&shown.image).into_iter().filter(alone).map(|(_, size)| size).sum();
        let running = running.get(&shown.image.digest).cloned().unwrap_or_default();
        Self { shown, unique, running }
    }
}

impl ImageShown {
    pub(super) fn of(image: Image, tags: &[Tag], machines: &[Outline]) -> Self {
        let tags: Vec<Tag> = tags.iter().filter(|tag| tag.digest == image.digest).cloned().collect();
        let names_it = |machine: &&Outline| match &machine.assignment {
            Some(Assignment::Image(ImageReference::Digest(digest))) => *digest == image.digest,
            Some(Assignment::Image(ImageReference::Name(name))) => tags.iter().any(|tag| tag.name == *name),
            Some(Assignment::Local) | None => false,
        };
        let assigned_to = machines.iter().filter(names_it).map(|machine| machine.id).collect();
        Self { size: image.size(), tags, assigned_to, image }
    }
}
