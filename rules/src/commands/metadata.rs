//! Commands about metadata documents.

use super::{Refusal, machines::Expected, precondition};
use crate::{
    Change, Decision, MacAddress, Moment, View,
    metadata::{Document, MetadataName},
};
use std::collections::BTreeMap;

/// Documents for every machine. Each boot reads them all.
const MAX_SHARED: usize = 256;
/// Documents for one machine.
const MAX_OWN: usize = 16;
/// Bytes of all documents for every machine together, as JSON: each boot reads them.
const MAX_SHARED_BYTES: usize = 4 << 20;

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
    let beside: Vec<MacAddress> = document.machine.into_iter().collect();
    let mut before = by_name(view.records.metadata_for(&beside));
    before.extend(old.map(|old| (old.name.clone(), old)));
    let mut after = before.clone();
    after.insert(document.name.clone(), document.clone());
    if let Err((_, refusal)) = check_room(&before, &after) {
        return refuse(refusal);
    }
    Decision { changes: vec![Change::PutMetadata(document.clone())], ..Decision::just(Ok(document.clone())) }
}

fn by_name(documents: Vec<Document>) -> BTreeMap<MetadataName, Document> {
    documents.into_iter().map(|document| (document.name.clone(), document)).collect()
}

/// Documents by name.
type Documents = BTreeMap<MetadataName, Document>;

/// Whether there are not too many documents, nor too long ones, or at least no more than before. Else the name of one that
/// is new or another.
pub(super) fn check_room(before: &Documents, after: &Documents) -> Result<(), (MetadataName, Refusal)> {
    let is_news = |document: &&Document| before.get(&document.name) != Some(*document);
    let shared = |documents: &Documents| {
        let shared = documents.values().filter(|document| document.machine.is_none());
        shared.fold((0, 0), |(count, bytes), document| (count + 1, bytes + document.size()))
    };
    let ((count, bytes), (had, had_bytes)) = (shared(after), shared(before));
    let too_many = count > MAX_SHARED.max(had);
    if too_many || bytes > MAX_SHARED_BYTES.max(had_bytes) {
        let mut news = after.values().filter(is_news).filter(|document| document.machine.is_none());
        let refusal = match too_many {
            true => Refusal::TooMuchMetadata { most: MAX_SHARED },
            false => Refusal::TooLongMetadata { bytes, most: MAX_SHARED_BYTES },
        };
        return news.next_back().map_or(Ok(()), |document| Err((document.name.clone(), refusal)));
    }
    let own = |documents: &Documents| {
        let mut own: BTreeMap<MacAddress, usize> = BTreeMap::new();
        documents.values().filter_map(|document| document.machine).for_each(|mac| *own.entry(mac).or_default() += 1);
        own
    };
    let had = own(before);
    for (mac, count) in own(after) {
        if count > MAX_OWN.max(had.get(&mac).copied().unwrap_or_default()) {
            let mut news = after.values().filter(is_news).filter(|document| document.machine == Some(mac));
            let refusal = Refusal::TooMuchMetadata { most: MAX_OWN };
            return news.next_back().map_or(Ok(()), |document| Err((document.name.clone(), refusal)));
        }
    }
    Ok(())
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
    let what = format_args!("metadata document {name}");
    precondition::check(expected, old.map(version), what, |_| Refusal::ChangedMetadata(name.clone()))
}

#[cfg(test)]
mod tests;
