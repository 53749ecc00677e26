//! JSON Schemas of documents, for editors.

use super::KINDS;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

/// What a document of one type looks like, with everything in its place.
pub(super) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// What a document of any kind looks like (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|kind| {
            let mut schema = kind.schema();
            schema["title"] = kind.name().into();
            schema["properties"]["kind"] = json!({ "const": kind.name() });
            if let Some(required) = schema["required"].as_array_mut() {
                required.insert(0, "kind".into());
            }
            schema
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bennu's configuration as documents",
        "oneOf": kinds,
    })
}
