//! Documents of kind Tag.

use super::{Kind, Wrong, desk::Desk, read, schema};
use crate::{
    Change, Records,
    commands::{Refusal, images::moved},
    facts::Architecture,
    image::{Digest, ImageName, ImageReference, Tag},
    token::Scope,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Which image a tag points at.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TagDocument {
    /// The tag, such as `web:stable`.
    #[schemars(with = "String")]
    name: ImageName,
    /// The image, by digest or by another tag.
    #[schemars(with = "String")]
    image: ImageReference,
    /// The images for machines of other architectures, by digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    others: BTreeMap<Architecture, Digest>,
}

impl TagDocument {
    fn of(tag: &Tag) -> Self {
        Self { name: tag.name.clone(), image: ImageReference::Digest(tag.digest), others: tag.others.clone() }
    }
}

pub(super) struct Tags;

impl Kind for Tags {
    fn name(&self) -> &'static str {
        "Tag"
    }

    fn needs(&self) -> Scope {
        Scope::Images
    }

    fn cannot_prune(&self) -> Option<&'static str> {
        Some("tags come with imports and pushes, and `bennu image remove` takes them away")
    }

    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let mut read_all = BTreeMap::new();
        for (place, document) in documents {
            let document: TagDocument = read(place, document)?;
            let name = document.name.clone();
            if let Some((first, _)) = read_all.insert(name.clone(), (place, document)) {
                return Err(Wrong::twice(place, first, &format!("the tag {name}")));
            }
        }
        for (name, (place, document)) in &read_all {
            // Else the order of documents would say what it means, and tags could name one another.
            if let ImageReference::Name(other) = &document.image
                && read_all.contains_key(other)
            {
                let reason = format!("{other} is itself set by a document, number {}", read_all[other].0 + 1);
                return Err(Wrong::new(*place, "/image", reason, "write the image's digest"));
            }
            let (digest, others) = self.images(*place, document, desk)?;
            let earlier = desk.view.records.tag(name);
            let by = format!("apply by {}", desk.by);
            let (tag, has_moved) = moved(name, digest, others, by, desk.view.records, desk.at.now);
            let before = earlier.as_ref().map(TagDocument::of);
            let changes = desk.note(self.name(), name, before.as_ref(), Some(&TagDocument::of(&tag)));
            if has_moved && changes {
                desk.tags.insert(name.clone(), tag.clone());
                desk.changes.push(Change::PutTag(tag));
            }
        }
        Ok(())
    }

    fn export(&self, records: &dyn Records) -> Vec<Value> {
        records.tags().iter().filter_map(|tag| serde_json::to_value(TagDocument::of(tag)).ok()).collect()
    }

    fn schema(&self) -> Value {
        schema::of::<TagDocument>()
    }
}

impl Tags {
    /// The images that a document gives its tag. Another tag brings those for other architectures along.
    fn images(
        &self,
        place: usize,
        document: &TagDocument,
        desk: &Desk<'_>,
    ) -> Result<(Digest, BTreeMap<Architecture, Digest>), Wrong> {
        let digest = desk.find(&document.image).map_err(|refusal| Wrong::refused(place, "/image", &refusal))?;
        for (architecture, other) in &document.others {
            let known = desk.find(&ImageReference::Digest(*other));
            let word = serde_json::to_value(architecture).ok();
            let field = format!("/others/{}", word.as_ref().and_then(Value::as_str).unwrap_or_default());
            known.map_err(|refusal: Refusal| Wrong::refused(place, field, &refusal))?;
        }
        match &document.image {
            ImageReference::Name(name) if document.others.is_empty() => {
                Ok((digest, desk.view.records.tag(name).map(|tag| tag.others).unwrap_or_default()))
            }
            ImageReference::Name(_) => {
                let reason = "a tag brings its own images for other architectures";
                Err(Wrong::new(place, "/others", reason, "leave this out, or write the image's digest"))
            }
            ImageReference::Digest(_) => Ok((digest, document.others.clone())),
        }
    }
}
