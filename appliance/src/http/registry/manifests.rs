//! `/v2/<name>/manifests/<reference>`: what was pushed, as it was pushed; images of Bennu's own under their digests.

use super::{
    Answer, Asked,
    error::{Code, Refused},
    reply,
};
use crate::{appliance::Appliance, http::api::images::tidy};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use bennu_images::{
    import::{MANIFEST_TYPE, is_ours},
    oci::{Document, LARGEST_MANIFEST},
};
use bennu_rules::{
    Records,
    commands::registry::{Delete, TakePush, delete as delete_rule, take_push},
    image::{BlobRef, Digest, ImageName, ImageReference},
    registry::Outcome,
};
use ring::digest::SHA256;
use std::{io::Read as _, sync::Arc};

/// A manifest on record.
struct Known {
    digest: Digest,
    media_type: String,
}

/// What a reference stands for in a repository: what was pushed, else the image that the tag points at.
fn find(reference: &ImageReference, repository: &str, records: &dyn Records) -> Option<Known> {
    let image = |digest: Digest| Known { digest, media_type: MANIFEST_TYPE.to_owned() };
    match reference {
        ImageReference::Name(name) => match records.push(name) {
            Some(push) => {
                let artifact = records.artifact(&push.digest);
                Some(
                    artifact
                        .map_or_else(|| image(push.digest), |a| Known { digest: a.digest, media_type: a.media_type }),
                )
            }
            None => records.tag(name).map(|tag| image(tag.digest)),
        },
        ImageReference::Digest(digest) => {
            let artifact = records.artifact(digest).filter(|artifact| artifact.repositories.contains(repository));
            let artifact = artifact.map(|artifact| Known { digest: *digest, media_type: artifact.media_type });
            artifact.or_else(|| records.image(digest).map(|_| image(*digest)))
        }
    }
}

/// `GET`, `HEAD`
pub fn read(reference: &ImageReference, asked: &Asked) -> Answer {
    let appliance = &asked.shared.appliance;
    let known = appliance.ledger.stored(|records| find(reference, &asked.repository, records))?;
    let Known { digest, media_type } = known.ok_or_else(|| unknown(reference))?;
    let (file, size) = appliance.store.open_blob(&digest)?;
    let headers = [
        ("content-type", media_type),
        ("docker-content-digest", digest.to_string()),
        ("etag", format!("\"{digest}\"")),
        ("content-length", size.to_string()),
    ];
    if asked.parts.method == Method::HEAD {
        return Ok(reply(StatusCode::OK, &headers, Body::empty()));
    }
    let mut bytes = Vec::new();
    let read = file.take(size).read_to_end(&mut bytes);
    read.map_err(|error| appliance.store.failed("read", &appliance.store.blob_path(&digest), error))?;
    Ok(reply(StatusCode::OK, &headers, bytes.into()))
}

/// `PUT`
pub async fn put(reference: &ImageReference, asked: Asked) -> Answer {
    let named = asked.header("content-type").map(|named| named.split(';').next().unwrap_or(named).trim().to_owned());
    let (by, repository) = (asked.by(), asked.repository);
    let appliance = asked.shared.appliance;
    let bytes = axum::body::to_bytes(asked.body, LARGEST_MANIFEST as usize).await.map_err(|_| {
        let what = format!("the manifest is longer than {LARGEST_MANIFEST} bytes, or broke off");
        Refused::with(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, what)
    })?;
    let document = Document::parse(&bytes, named.as_deref()).map_err(|why| Refused::new(Code::ManifestInvalid, why))?;
    let digest = digest_of(&bytes);
    let name = match reference {
        ImageReference::Digest(wanted) if *wanted != digest => {
            let what = format!("the manifest has the digest {digest}, and {wanted} was announced");
            return Err(Refused::new(Code::DigestInvalid, what));
        }
        ImageReference::Digest(_) => None,
        ImageReference::Name(name) => Some(name.clone()),
    };
    let media_type = document.media_type(named.as_deref()).to_owned();
    let blob = BlobRef { digest, size: bytes.len() as u64 };
    let artifact = document.artifact(&blob, &media_type, &repository);
    let subject = artifact.subject;
    let request = TakePush { artifact, name: name.clone(), is_image: is_image(&document), by };
    store(&appliance, &document, bytes.to_vec(), request).await?;
    let shown = name.as_ref().map_or_else(|| digest.to_string(), |name| name.tag().to_owned());
    let mut headers = vec![
        ("location", format!("/v2/{repository}/manifests/{shown}")),
        ("docker-content-digest", digest.to_string()),
        ("content-length", "0".to_owned()),
    ];
    headers.extend(subject.map(|subject| ("oci-subject", subject.to_string())));
    Ok(reply(StatusCode::CREATED, &headers, Body::empty()))
}

/// Whether something that boots may be made of it; which it is, the making says.
fn is_image(document: &Document) -> bool {
    match document {
        Document::Manifest(manifest) => manifest.is_image() || is_ours(manifest),
        Document::Index(index) => index.artifact_type.is_none() && index.subject.is_none(),
    }
}

/// The blob and its record, with no collection between them.
async fn store(
    appliance: &Arc<Appliance>,
    document: &Document,
    bytes: Vec<u8>,
    request: TakePush,
) -> Result<(), Refused> {
    let settling = appliance.registry.settling.lock().await;
    let hold = appliance.store.hold();
    check_parts(document, appliance)?;
    let putting = appliance.clone();
    let put = tokio::task::spawn_blocking(move || putting.store.put(&bytes)).await;
    put.map_err(|panic| Refused::new(Code::Unknown, panic.to_string()))??;
    let (name, digest) = (request.name.clone(), request.artifact.digest);
    let waits = appliance.ledger.decide(request, take_push).await?;
    drop((hold, settling));
    if let Some(name) = name {
        tracing::info!(%name, %digest, waits, "a manifest was pushed");
        if waits {
            appliance.ledger.announce(&name, digest, Outcome::Waiting, "");
        }
    }
    // Even where nothing waits: it may be a signature that something waits for.
    appliance.registry.conversions.wake();
    Ok(())
}

/// A manifest's parts come before it ("Pushing Manifests").
fn check_parts(document: &Document, appliance: &Appliance) -> Result<(), Refused> {
    for part in document.parts() {
        match appliance.store.blob_size(&part.digest) {
            Ok(size) if size == part.size => {}
            Ok(size) => {
                let what = format!("{} has {size} bytes, and the manifest says {}", part.digest, part.size);
                return Err(Refused::new(Code::ManifestInvalid, what));
            }
            Err(_) => {
                let what = format!("the manifest names {}, which was not pushed", part.digest);
                return Err(Refused::new(Code::ManifestBlobUnknown, what));
            }
        }
    }
    Ok(())
}

/// `DELETE`
pub async fn delete(reference: &ImageReference, repository: String, appliance: Arc<Appliance>) -> Answer {
    let request = Delete { repository, reference: reference.clone() };
    let settling = appliance.registry.settling.lock().await;
    let deleted = appliance.ledger.decide(request, delete_rule).await?;
    let deleted = deleted.map_err(|refusal| Refused::new(Code::Denied, format!("{refusal}. {}", refusal.advice())))?;
    if deleted.is_none() {
        return Err(unknown(reference));
    }
    if let Err(problem) = tidy(&appliance).await {
        tracing::warn!(detail = problem.detail, "cannot remove what nothing names any more; the next start does");
    }
    drop(settling);
    Ok(reply(StatusCode::ACCEPTED, &[("content-length", "0".to_owned())], Body::empty()))
}

fn unknown(reference: &ImageReference) -> Refused {
    let shown = |name: &ImageName| name.to_string();
    let text = match reference {
        ImageReference::Name(name) => shown(name),
        ImageReference::Digest(digest) => digest.to_string(),
    };
    Refused::new(Code::ManifestUnknown, format!("there is no manifest {text}"))
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&SHA256, bytes).as_ref());
    Digest(digest)
}
