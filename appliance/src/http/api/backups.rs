//! `/v1/backup`, `/v1/backups` and `/v1/restore`: everything that makes this appliance leaves as one file, and comes back.

use super::{
    Shared,
    outflow::outflow,
    problem::{Answer, Kind, Problem},
    request::{Page, Paging, Params},
};
use crate::{
    backup::{self, BackupError, Kept},
    http::{
        access::{Caller, read_on},
        body::{BodyReader, pump},
    },
};
use axum::{
    Json,
    body::{Body, HttpBody},
    extract::State,
    response::{IntoResponse, Response},
};
use bennu_rules::{
    Timestamp,
    backup::{Reason, Take, take},
};
use http::header;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The query of a backup.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Whether with the blobs of images.
    #[serde(default = "yes")]
    #[param(default = true)]
    images: bool,
}

fn yes() -> bool {
    true
}

/// `GET /v1/backup`: a tar. One without its last part, `bennu-backup.end.json`, was cut, and the log says why.
#[utoipa::path(
    get,
    path = "/v1/backup",
    tag = "backup",
    params(Wanted),
    responses((status = OK, content_type = "application/x-tar", body = crate::http::api::openapi::Binary, description = "Everything that makes this appliance, its secrets among it."))
)]
pub async fn create(State(api): Shared, caller: Caller, Params(wanted): Params<Wanted>) -> Answer<Response> {
    let images = wanted.images;
    // First, so that the file itself tells of it.
    api.ledger.decide(Take { images }, take).await?;
    tracing::info!(images, by = caller.who, "a backup is taken");
    let (outflow, body) = outflow();
    tokio::task::spawn_blocking(move || match backup::write(&api, images, Reason::Asked, outflow.writer()) {
        Ok(_) => {}
        Err(BackupError::Gone(error)) => tracing::warn!(%error, "a client went away before its backup's end"),
        Err(error) => {
            tracing::error!(%error, "a backup was broken off");
            outflow.cut(error);
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-tar"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// `GET /v1/backups`: those of the ledger that are kept on the appliance's own disk, newest first
#[utoipa::path(
    get,
    path = "/v1/backups",
    tag = "backup",
    params(Paging),
    responses((status = OK, body = Page<Kept>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<Kept>>> {
    let state = api.config.state_dir.clone();
    let kept = tokio::task::spawn_blocking(move || backup::kept(&state)).await;
    let mut kept = kept.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), ""))?;
    kept.sort_by_key(|kept| kept.at);
    Ok(Json(paging.page(kept, |kept| kept.at.0.to_string(), |kept| kept)))
}

/// The query of a restore.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Replacing {
    /// Whether the state of an appliance that has machines or images may be put aside for it.
    #[serde(default)]
    replace: bool,
}

/// A backup that was taken in.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RestoreShown {
    /// When it was made.
    pub of: Timestamp,
    /// On which host.
    pub host: String,
    /// Whether the blobs of images are in it.
    pub images: bool,
    /// How many parts it has.
    pub parts: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// `POST /v1/restore`: the body is a backup. When all of it has arrived and is whole, the appliance starts anew with its state;
/// before that nothing is changed.
#[utoipa::path(
    post,
    path = "/v1/restore",
    tag = "backup",
    params(Replacing),
    request_body(content = crate::http::api::openapi::Binary, content_type = "application/octet-stream", description = "What `GET /v1/backup` gave."),
    responses((status = OK, body = RestoreShown))
)]
pub async fn restore(
    State(api): Shared,
    caller: Caller,
    replacing: Result<Params<Replacing>, Problem>,
    body: Body,
) -> Answer<Json<RestoreShown>> {
    let may = replacing.and_then(|Params(Replacing { replace })| {
        let used = api.ledger.stored(|records| records.machine_count() + records.image_count() > 0)?;
        match used && !replace {
            true => Err(Problem::new(
                Kind::Conflict,
                "this appliance has machines or images, and nothing was changed",
                "repeat this with replace=true (--replace), which puts its state aside and deletes nothing of it",
            )),
            false if body.is_end_stream() => {
                Err(Problem::new(Kind::Malformed, "there is no body", "send the backup as the body"))
            }
            false => Ok(()),
        }
    });
    if let Err(problem) = may {
        read_on(body);
        return Err(problem);
    }
    let (chunks, reader) = BodyReader::new();
    tokio::spawn(pump(body, chunks));
    let working = api.clone();
    let work = tokio::task::spawn_blocking(move || {
        backup::make(&working, Reason::Restore)?;
        backup::unpack(reader, &working.config.state_dir, true, working.ledger.now())
    });
    let checked = work.await.map_err(|panic| Problem::new(Kind::Internal, panic.to_string(), ""))??;
    let (head, parts, bytes) = (checked.head, checked.parts, checked.bytes);
    tracing::warn!(of = %head.at, host = head.host, by = caller.who, "a backup is put in place at the start that follows");
    let restart = api.restart.clone();
    tokio::spawn(async move {
        // The answer leaves first.
        tokio::time::sleep(Duration::from_secs(1)).await;
        restart.cancel();
    });
    Ok(Json(RestoreShown { of: head.at, host: head.host, images: head.images, parts, bytes }))
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let kind = match error {
            BackupError::Ledger(fault) => return fault.into(),
            BackupError::Store(error) => return error.into(),
            BackupError::Foreign(_) | BackupError::Cut | BackupError::Damaged(_) | BackupError::TooNew(_) => {
                Kind::Import
            }
            BackupError::InPlace(_) | BackupError::Waiting(_) => Kind::Conflict,
            BackupError::Gone(_) => Kind::Malformed,
            BackupError::Strange(_) | BackupError::Io { .. } => Kind::Internal,
        };
        Self::told(kind, &error)
    }
}
