//! `GET|HEAD|DELETE /v2/<name>/blobs/<digest>`

use super::{
    Answer, Asked, Shared,
    error::{Code, Refused},
};
use crate::http::delivery::{Item, deliver};
use axum::http::Method;
use bennu_images::store::StoreError;
use bennu_rules::image::Digest;

/// Any blob of the store: one repository's names hide nothing from another's readers.
pub fn read(digest: &Digest, asked: &Asked) -> Answer {
    let Shared { appliance, blobs } = &asked.shared;
    let (source, length) = blobs.open(digest).map_err(|error| match error {
        StoreError::Missing { .. } => unknown(digest),
        error => error.into(),
    })?;
    // Whoever is told that it is here will not send it.
    if asked.parts.method == Method::HEAD {
        appliance.registry.uploads.hold(&appliance.store);
        appliance.store.keep(digest);
    }
    let item = Item { source, length, digest: *digest, content_type: "application/octet-stream" };
    let connection = asked.connection().ok_or_else(|| Refused::new(Code::Unknown, "no connection"))?;
    let mut answer = deliver(item, &asked.parts.method, &asked.parts.headers, connection, |_| ());
    if let Ok(value) = digest.to_string().parse() {
        answer.headers_mut().insert("docker-content-digest", value);
    }
    Ok(answer)
}

/// A blob belongs to whatever names it, and goes when nothing does.
pub fn delete(digest: &Digest, asked: &Asked) -> Answer {
    if asked.shared.appliance.store.blob_size(digest).is_err() {
        return Err(unknown(digest));
    }
    Err(Refused::new(
        Code::Unsupported,
        "blobs go by themselves when no manifest names them any more; delete the manifest",
    ))
}

fn unknown(digest: &Digest) -> Refused {
    Refused::new(Code::BlobUnknown, format!("the store holds no blob {digest}"))
}
