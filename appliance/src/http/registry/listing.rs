//! What there is: repositories, tags, and the manifests that are about another.

use super::{
    Answer, Asked,
    error::{Code, Refused},
    reply,
};
use axum::http::StatusCode;
use bennu_images::{
    import::{ARTIFACT_TYPE, MANIFEST_TYPE},
    oci::{Descriptor, Index, OCI_INDEX},
};
use bennu_rules::{
    Records,
    image::{BlobRef, Digest},
    registry,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Names a page has unless fewer are asked for.
const PAGE: usize = 1000;

#[derive(Serialize)]
struct Catalog {
    repositories: Vec<String>,
}

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<String>,
}

/// `GET /v2/_catalog`
pub fn catalog(asked: &Asked) -> Answer {
    let names: BTreeSet<String> = asked.shared.appliance.ledger.stored(|records| {
        let pushed = records.pushes().into_iter().map(|push| push.name.name().to_owned());
        pushed.chain(records.tags().into_iter().map(|tag| tag.name.name().to_owned())).collect()
    })?;
    let (repositories, next) = page(names, asked)?;
    Ok(json(&Catalog { repositories }, next, "/v2/_catalog", Vec::new()))
}

/// `GET /v2/<name>/tags/list` ("Listing Tags")
pub fn tags(asked: &Asked) -> Answer {
    let name = &asked.repository;
    let tags: BTreeSet<String> = asked.shared.appliance.ledger.stored(|records| {
        let names = records.pushes().into_iter().map(|push| push.name);
        let names = names.chain(records.tags().into_iter().map(|tag| tag.name));
        names.filter(|known| known.name() == name).map(|known| known.tag().to_owned()).collect()
    })?;
    if tags.is_empty() {
        return Err(Refused::new(Code::NameUnknown, format!("there is no repository {name}")));
    }
    let (tags, next) = page(tags, asked)?;
    Ok(json(&Tags { name, tags }, next, &format!("/v2/{name}/tags/list"), Vec::new()))
}

/// Where the next page begins: its length, and the last name of this one.
type Next = Option<(usize, String)>;

/// A page by `n` and `last`.
fn page(names: BTreeSet<String>, asked: &Asked) -> Result<(Vec<String>, Next), Refused> {
    let refuse =
        |text: &str| Refused::with(StatusCode::BAD_REQUEST, Code::Unsupported, format!("n={text} is no count"));
    let wanted = asked.query("n").map(|text| text.parse::<usize>().map_err(|_| refuse(&text))).transpose()?;
    let count = wanted.unwrap_or(PAGE).min(PAGE);
    let last = asked.query("last").unwrap_or_default();
    let mut rest = names.into_iter().filter(|name| *name > last);
    let shown: Vec<String> = rest.by_ref().take(count).collect();
    let next = shown.last().cloned().filter(|_| rest.next().is_some());
    Ok((shown, next.map(|last| (count, last))))
}

/// `GET /v2/<name>/referrers/<digest>` ("Listing Referrers"): signatures and the like, and the bootable images that were
/// made of it.
pub fn referrers(subject: &Digest, asked: &Asked) -> Answer {
    let wanted = asked.query("artifactType");
    let mut manifests = asked.shared.appliance.ledger.stored(|records| {
        let artifacts = registry::referrers(subject, &asked.repository, records).into_iter().map(|artifact| {
            let blob = BlobRef { digest: artifact.digest, size: artifact.size };
            let mut descriptor = Descriptor::new(&artifact.media_type, &blob);
            (descriptor.artifact_type, descriptor.annotations) = (Some(artifact.kind), artifact.annotations);
            descriptor
        });
        let of_subject = |derived: &bennu_rules::image::Derivation| derived.source.digest == *subject;
        let images = records.images().into_iter().filter(|image| image.config.derived.as_ref().is_some_and(of_subject));
        let images = images.map(|image| {
            let mut descriptor =
                Descriptor::new(MANIFEST_TYPE, &BlobRef { digest: image.digest, size: image.manifest_size });
            descriptor.artifact_type = Some(ARTIFACT_TYPE.to_owned());
            descriptor
        });
        artifacts.chain(images).collect::<Vec<_>>()
    })?;
    let mut headers = Vec::new();
    if let Some(wanted) = wanted {
        manifests.retain(|descriptor| descriptor.artifact_type.as_ref() == Some(&wanted));
        headers.push(("oci-filters-applied", "artifactType".to_owned()));
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    headers.push(("content-type", OCI_INDEX.to_owned()));
    Ok(json(&index, None, "", headers))
}

fn json(
    body: &impl Serialize,
    next: Next,
    path: &str,
    mut headers: Vec<(&'static str, String)>,
) -> axum::http::Response<axum::body::Body> {
    if headers.iter().all(|(name, _)| *name != "content-type") {
        headers.push(("content-type", "application/json".to_owned()));
    }
    // RFC 8288 §3.
    headers.extend(next.map(|(count, last)| ("link", format!("<{path}?n={count}&last={last}>; rel=\"next\""))));
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    reply(StatusCode::OK, &headers, bytes.into())
}
