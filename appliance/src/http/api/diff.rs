//! `/v1/diff`: what differs between two images.

use super::{
    Api, Shared,
    problem::{Answer, Kind, Problem},
    request::{Params, named},
};
use axum::{Json, extract::State};
use bennu_images::{
    import::Cancelled,
    squashfs::{self, ContentsError},
};
use bennu_rules::{
    Records,
    commands::{Refusal, find_image},
    difference::{Contents, Difference, contents, facts},
    image::{Content, Digest, FileSystem, Image, ImageReference},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The query of a comparison.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The image before.
    #[param(value_type = ImageReference)]
    from: String,
    /// The image after.
    #[param(value_type = ImageReference)]
    to: String,
    /// Whether every file is told of.
    #[serde(default)]
    files: bool,
}

/// Two images, and what differs between them.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiffShown {
    /// The image before.
    pub from: Digest,
    /// The image after.
    pub to: Digest,
    /// What differs.
    #[serde(flatten)]
    pub difference: Difference,
}

/// `GET /v1/diff`. Both roots are read; it ends when the client goes away.
#[utoipa::path(
    get,
    path = "/v1/diff",
    tag = "images",
    params(Wanted),
    responses((status = OK, body = DiffShown))
)]
pub async fn show(State(api): Shared, Params(wanted): Params<Wanted>) -> Answer<Json<DiffShown>> {
    let (from, to) = (find(&api, &wanted.from)?, find(&api, &wanted.to)?);
    let cancelled = CancellationToken::new();
    let _ends_with_the_client = cancelled.clone().drop_guard();
    let work = tokio::task::spawn_blocking(move || {
        let (from_digest, to_digest) = (from.digest, to.digest);
        let difference = compare(&api, &from, &to, wanted.files, &cancelled)?;
        Ok(Json(DiffShown { from: from_digest, to: to_digest, difference }))
    });
    work.await.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), "look at the service's log"))?
}

fn find(api: &Arc<Api>, text: &str) -> Answer<Image> {
    let reference: ImageReference = named(text)?;
    Ok(api.ledger.stored(|records| {
        let digest = find_image(&reference, records)?;
        records.image(&digest).ok_or(Refusal::UnknownImage { reference, near: Vec::new() })
    })??)
}

fn compare(api: &Api, from: &Image, to: &Image, list: bool, cancelled: &CancellationToken) -> Answer<Difference> {
    let mut difference = Difference { facts: facts(from, to), ..Difference::default() };
    let roots = (root(from), root(to));
    if roots.0.is_some() && roots.0 == roots.1 {
        // The same bytes hold the same files.
        (difference.packages, difference.files) = (Some(Vec::new()), Some(Default::default()));
        return Ok(difference);
    }
    let mut read = |which: &str, root: Option<Digest>| -> Answer<Option<Contents>> {
        let why = match root.map(|root| look(api, &root, cancelled)) {
            None => "it has no root filesystem".to_owned(),
            Some(Ok(contents)) => return Ok(Some(contents)),
            Some(Err(ContentsError::Other)) => "its root is another file system than squashfs".to_owned(),
            Some(Err(error)) => return Err(Problem::told(Kind::Internal, &error)),
        };
        let note = format!("the files and packages of {which} image cannot be compared: {why}");
        difference.notes.push(note);
        Ok(None)
    };
    let (before, after) = (read("the first", roots.0)?, read("the second", roots.1)?);
    if let (Some(before), Some(after)) = (before, after) {
        let (packages, files, notes) = contents(&before, &after, list);
        (difference.packages, difference.files) = (packages, Some(files));
        difference.notes.extend(notes);
    }
    Ok(difference)
}

fn root(image: &Image) -> Option<Digest> {
    match &image.config.content {
        Content::Root { root, filesystem: FileSystem::Squashfs, .. } => Some(root.digest),
        // A partition of a disk image is another file system, and the rest has no root that is ours.
        _ => None,
    }
}

fn look(api: &Api, root: &Digest, cancelled: &CancellationToken) -> Result<Contents, ContentsError> {
    let check = || if cancelled.is_cancelled() { Err(Cancelled) } else { Ok(()) };
    squashfs::contents(&api.store.blob_path(root), &check)
}
