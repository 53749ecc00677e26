//! `/v2/<name>/blobs/uploads/`: blobs in one piece or in several, mounts, and uploads that go on after a broken
//! connection (OCI distribution specification, "Pushing blobs").

use super::{
    Answer, Asked,
    error::{Code, Refused},
    reply,
};
use crate::{
    appliance::Appliance,
    http::body::{BodyReader, pump},
    registry::uploads::NoSession,
};
use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use bennu_images::store::{BlobWriter, Finished};
use bennu_rules::image::Digest;
use std::sync::Arc;

/// `POST`: a mount of a blob that is here, a blob in one piece (`?digest=`), or a session.
pub async fn begin(asked: Asked) -> Answer {
    let appliance = asked.shared.appliance.clone();
    if let Some(mount) = asked.query("mount") {
        let digest = expected(&mount)?;
        appliance.registry.uploads.hold(&appliance.store);
        if appliance.store.keep(&digest) {
            return Ok(created(&asked.repository, &digest));
        }
    }
    let id = appliance.registry.uploads.begin(&asked.repository, &appliance.store)?;
    let id = id.ok_or_else(|| Refused::new(Code::Toomanyrequests, "too many uploads go on; try again in a while"))?;
    if asked.query("digest").is_some() {
        let repository = asked.repository.clone();
        let finished = finish(&id, asked).await;
        if finished.is_err() {
            appliance.registry.uploads.end(&id);
        }
        tracing::debug!(repository, "a blob came in one piece");
        return finished;
    }
    Ok(accepted(StatusCode::ACCEPTED, &asked.repository, &id, 0))
}

/// `GET`: how far a session is.
pub fn state(id: &str, asked: &Asked) -> Answer {
    let written = written(id, asked)?;
    Ok(accepted(StatusCode::NO_CONTENT, &asked.repository, id, written))
}

/// `DELETE`: ends a session.
pub fn cancel(id: &str, asked: &Asked) -> Answer {
    written(id, asked)?;
    asked.shared.appliance.registry.uploads.end(id);
    Ok(reply(StatusCode::NO_CONTENT, &[], Body::empty()))
}

/// `PATCH`: a further piece. What came of one whose connection broke stays, and the session goes on after it.
pub async fn append(id: &str, asked: Asked) -> Answer {
    let repository = asked.repository.clone();
    let appliance = asked.shared.appliance.clone();
    let (writer, outcome) = receive(id, asked).await?;
    let written = writer.written();
    appliance.registry.uploads.put_back(id, writer);
    outcome?;
    Ok(accepted(StatusCode::ACCEPTED, &repository, id, written))
}

/// `PUT ?digest=`: the last piece, which may be empty, and what all of them come to.
pub async fn finish(id: &str, asked: Asked) -> Answer {
    let repository = asked.repository.clone();
    let appliance = asked.shared.appliance.clone();
    let digest = asked.query("digest").ok_or_else(|| Refused::new(Code::DigestInvalid, "the query names no digest"))?;
    let digest = expected(&digest)?;
    let (writer, outcome) = receive(id, asked).await?;
    if let Err(refused) = outcome {
        appliance.registry.uploads.put_back(id, writer);
        return Err(refused);
    }
    appliance.registry.uploads.end(id);
    let finished = tokio::task::spawn_blocking(move || writer.finish_as(&digest)).await;
    match finished.map_err(|panic| Refused::new(Code::Unknown, panic.to_string()))?? {
        Finished::Stored(blob) => Ok(created(&repository, &blob.digest)),
        Finished::Other(blob) => Err(Refused::new(
            Code::DigestInvalid,
            format!("what came has the digest {}, and {digest} was announced; send it again", blob.digest),
        )),
    }
}

/// Writes a request's body behind what a session has. The outer error leaves the session as it was; the inner one has
/// the writer back, with what came before it.
async fn receive(id: &str, asked: Asked) -> Result<(BlobWriter, Result<(), Refused>), Refused> {
    let appliance = asked.shared.appliance.clone();
    let from = range_start(asked.header("content-range"))?;
    let writer = appliance.registry.uploads.take(id, &asked.repository).map_err(|error| match error {
        NoSession::Unknown => unknown(id),
        NoSession::Busy => Refused::with(
            StatusCode::CONFLICT,
            Code::BlobUploadInvalid,
            "another request writes to this upload; send one piece after the other",
        ),
    })?;
    let written = writer.written();
    if from.is_some_and(|from| from != written) {
        appliance.registry.uploads.put_back(id, writer);
        let refused = Refused::with(
            StatusCode::RANGE_NOT_SATISFIABLE,
            Code::BlobUploadInvalid,
            format!("the upload goes on at byte {written}"),
        );
        return Err(refused.header("range", range(written)).header("location", location(&asked.repository, id)));
    }
    let (chunks, reader) = BodyReader::new();
    let pumping = tokio::spawn(pump(asked.body, chunks));
    let work = tokio::task::spawn_blocking(move || write(writer, reader, &appliance));
    let done = work.await.map_err(|panic| Refused::new(Code::Unknown, panic.to_string()));
    // The answer waits for the body's end: a client that still sends would not see it.
    let _ = pumping.await;
    done
}

fn write(
    mut writer: BlobWriter,
    mut body: BodyReader,
    appliance: &Arc<Appliance>,
) -> (BlobWriter, Result<(), Refused>) {
    let outcome = writer.take(|| {
        let broke_off = |error| Refused::new(Code::BlobUploadInvalid, format!("the body broke off: {error}"));
        let chunk = body.next_chunk().map_err(broke_off)?;
        if chunk.is_some() {
            appliance.store.check_room()?;
        }
        Ok(chunk)
    });
    (writer, outcome)
}

/// Where a piece begins: `<start>-<end>`, with or without a unit.
fn range_start(header: Option<&str>) -> Result<Option<u64>, Refused> {
    let Some(header) = header else { return Ok(None) };
    let text = header.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let start = text.split_once('-').and_then(|(start, _)| start.parse().ok());
    start.map(Some).ok_or_else(|| {
        Refused::new(Code::BlobUploadInvalid, format!("Content-Range '{header}' is no <start>-<end> in bytes"))
    })
}

fn expected(text: &str) -> Result<Digest, Refused> {
    text.parse().map_err(|error| Refused::new(Code::DigestInvalid, format!("{error}; Bennu's store uses SHA-256 only")))
}

fn written(id: &str, asked: &Asked) -> Result<u64, Refused> {
    asked.shared.appliance.registry.uploads.written(id, &asked.repository).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Refused {
    Refused::new(Code::BlobUploadUnknown, format!("there is no upload {id}; begin it anew"))
}

fn location(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// Inclusive, so that nothing yet is `0-0` as well: what the specification's clients expect.
fn range(written: u64) -> String {
    format!("0-{}", written.saturating_sub(1))
}

fn accepted(status: StatusCode, repository: &str, id: &str, written: u64) -> Response<Body> {
    let headers = [
        ("location", location(repository, id)),
        ("range", range(written)),
        ("docker-upload-uuid", id.to_owned()),
        ("content-length", "0".to_owned()),
    ];
    let headers = if status == StatusCode::NO_CONTENT { &headers[..3] } else { &headers[..] };
    reply(status, headers, Body::empty())
}

fn created(repository: &str, digest: &Digest) -> Response<Body> {
    let headers = [
        ("location", format!("/v2/{repository}/blobs/{digest}")),
        ("docker-content-digest", digest.to_string()),
        ("content-length", "0".to_owned()),
    ];
    reply(StatusCode::CREATED, &headers, Body::empty())
}
