//! What templates see of a machine and its boot.

use super::Occasion;
use crate::{Machine, image::ImageReference};
use minijinja::{Value, value::Serde};
use serde_json::{Map, Value as Json, json};

/// Machines say of themselves what they like, in reports that nobody vouches for: each text is cut, and has no line break
/// that could end a line of somebody's configuration.
const MAX_TEXT: usize = 128;
/// Disks and network cards.
const MAX_ITEMS: usize = 64;

/// The values of [`super::syntax::ROOTS`].
pub fn context(machine: &Machine, occasion: &Occasion<'_>) -> Value {
    Value::from(Serde(json!({
        "labels": machine.labels,
        "facts": facts(machine),
        "machine": {
            "id": machine.id,
            "mac": machine.id,
            "macs": machine.macs,
            "hyphened": machine.id.hyphened(),
            "reservation": machine.reservation,
        },
        "boot": { "id": occasion.boot.id, "origin": occasion.origin },
        "image": image(occasion),
    })))
}

fn image(occasion: &Occasion<'_>) -> Json {
    let mut image = json!({ "reference": occasion.reference, "digest": occasion.digest });
    if let ImageReference::Name(name) = occasion.reference {
        image["name"] = name.name().into();
        image["tag"] = name.tag().into();
    }
    image
}

/// Facts that nobody knows are not there, so that a template that needs them says so.
fn facts(machine: &Machine) -> Json {
    let mut facts = tamed(serde_json::to_value(&machine.facts).unwrap_or_default());
    if let Json::Object(fields) = &mut facts {
        fields.retain(|_, value| !value.is_null());
        // There even before discovery, so that `facts.inventory.disks | default([])` holds for every machine.
        fields.entry("inventory").or_insert_with(|| json!({}));
    }
    facts
}

fn tamed(value: Json) -> Json {
    match value {
        Json::String(text) => {
            Json::String(text.chars().filter(|c| !crate::facts::ends_a_line(*c)).take(MAX_TEXT).collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().take(MAX_ITEMS).map(tamed).collect()),
        Json::Object(fields) => {
            Json::Object(fields.into_iter().map(|(key, value)| (key, tamed(value))).collect::<Map<_, _>>())
        }
        other => other,
    }
}
