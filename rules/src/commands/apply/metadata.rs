//! Documents of kind Metadata: what one image becomes on each machine, templates and all.

use super::{Kind, Wrong, WrongKind, desk::Desk, read, schema};
use crate::{
    Change, Records,
    commands::{Refusal, metadata::check_room},
    metadata::{BadDocument, Document, MetadataName},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Metadata;

impl Kind for Metadata {
    fn name(&self) -> &'static str {
        "Metadata"
    }

    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let before: BTreeMap<MetadataName, Document> =
            desk.view.records.all_metadata().into_iter().map(|known| (known.name.clone(), known)).collect();
        let mut after = before.clone();
        let mut seen = BTreeMap::new();
        for (place, value) in documents {
            let document: Document = read(place, value)?;
            if let Some(first) = seen.insert(document.name.clone(), place) {
                return Err(Wrong::twice(place, first, &format!("the metadata document {}", document.name)));
            }
            document.check().map_err(|BadDocument { pointer, reason }| {
                Wrong::new(place, pointer, reason, "mend the document; nothing was changed")
            })?;
            let earlier = after.insert(document.name.clone(), document.clone());
            if desk.note(self.name(), &document.name.as_str(), earlier.as_ref(), Some(&document)) {
                desk.changes.push(Change::PutMetadata(document));
            }
        }
        if desk.prunes(self.name()) {
            for (name, document) in after.extract_if(.., |name, _| !seen.contains_key(name)) {
                desk.note(self.name(), &name.as_str(), Some(&document), None);
                desk.changes.push(Change::RemoveMetadata(name));
            }
        }
        check_room(&before, &after).map_err(|(name, refusal): (MetadataName, Refusal)| {
            let place = seen.get(&name).copied().unwrap_or_default();
            Wrong { kind: WrongKind::State, ..Wrong::refused(place, "", &refusal) }
        })
    }

    fn export(&self, records: &dyn Records) -> Vec<Value> {
        records.all_metadata().iter().filter_map(|document| serde_json::to_value(document).ok()).collect()
    }

    fn schema(&self) -> Value {
        schema::described::<Document>()
    }
}
