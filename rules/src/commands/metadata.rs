//! Commands about metadata documents.

use super::{Refusal, machines::Expected};
use crate::{
    Change, Decision, Moment, View,
    metadata::{Document, MetadataName},
};

/// Documents for every machine. Each boot reads them all.
const MAX_SHARED: usize = 256;
/// Documents for one machine.
const MAX_OWN: usize = 16;

/// The version of a document: changes whenever it does.
pub fn version(document: &Document) -> String {
    super::version(document)
}

/// Adds or replaces a document.
#[derive(Debug, Clone)]
pub struct PutMetadata {
    /// The document.
    pub document: Document,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Removes a document.
#[derive(Debug, Clone)]
pub struct RemoveMetadata {
    /// Which.
    pub name: MetadataName,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Carries out [`PutMetadata`]. Boots whose metadata is settled keep theirs.
pub fn put(request: &PutMetadata, view: &View<'_>, _at: &Moment) -> Decision<Result<Document, Refusal>> {
    let PutMetadata { document, expected } = request;
    let refuse = |refusal| Decision::just(Err(refusal));
    let old = view.records.metadata(&document.name);
    if let Err(refusal) = check_expected(&document.name, old.as_ref(), expected) {
        return refuse(refusal);
    }
    if let Err(bad) = document.check() {
        return refuse(Refusal::BadMetadata { pointer: bad.pointer, reason: bad.reason });
    }
    if old.as_ref() == Some(document) {
        return Decision::just(Ok(document.clone()));
    }
    let shared = |document: &Document| document.machine.is_none();
    if shared(document) && !old.as_ref().is_some_and(shared) && view.records.metadata_for(&[]).len() >= MAX_SHARED {
        return refuse(Refusal::TooMuchMetadata { most: MAX_SHARED });
    }
    if let (Some(machine), None) = (document.machine, &old) {
        let own = view.records.metadata_for(&[machine]).iter().filter(|document| !shared(document)).count();
        if own >= MAX_OWN {
            return refuse(Refusal::TooMuchMetadata { most: MAX_OWN });
        }
    }
    Decision { changes: vec![Change::PutMetadata(document.clone())], ..Decision::just(Ok(document.clone())) }
}

/// Carries out [`RemoveMetadata`].
pub fn remove(request: &RemoveMetadata, view: &View<'_>, _at: &Moment) -> Decision<Result<Document, Refusal>> {
    let Some(document) = view.records.metadata(&request.name) else {
        return Decision::just(Err(Refusal::UnknownMetadata(request.name.clone())));
    };
    match check_expected(&request.name, Some(&document), &request.expected) {
        Ok(()) => {
            let changes = vec![Change::RemoveMetadata(request.name.clone())];
            Decision { changes, ..Decision::just(Ok(document)) }
        }
        Err(refusal) => Decision::just(Err(refusal)),
    }
}

fn check_expected(name: &MetadataName, old: Option<&Document>, expected: &Option<Expected>) -> Result<(), Refusal> {
    let is_met = match (expected, old) {
        (None, _) | (Some(Expected::Exists), Some(_)) => true,
        (Some(Expected::Version(versions)), Some(old)) => versions.contains(&version(old)),
        (Some(_), None) => false,
    };
    if is_met { Ok(()) } else { Err(Refusal::ChangedMetadata(name.clone())) }
}

#[cfg(test)]
mod tests;
