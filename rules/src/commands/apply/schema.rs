//! JSON Schemas of documents, for editors.

use super::KINDS;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// What a document of one type looks like, with everything in its place.
pub(super) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The same of a type that the API describes.
pub(super) fn described<T: utoipa::ToSchema>() -> Value {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    let part = |(name, part)| Some((name, serde_json::to_value(part).ok()?));
    let parts: Map<String, Value> = parts.into_iter().filter_map(part).collect();
    let mut schema = serde_json::to_value(T::schema()).unwrap_or_default();
    inline(&mut schema, &parts);
    schema
}

/// Puts what a schema refers to into its place. No document holds another of its own type, so this comes to an end.
fn inline(schema: &mut Value, parts: &Map<String, Value>) {
    match schema {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str).and_then(|to| to.rsplit('/').next());
            if let Some(mut part) = name.and_then(|name| parts.get(name).cloned()) {
                if let (Some(own), Some(part)) = (fields.get("description"), part.as_object_mut()) {
                    part.insert("description".to_owned(), own.clone());
                }
                inline(&mut part, parts);
                *schema = part;
            } else {
                fields.values_mut().for_each(|field| inline(field, parts));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline(item, parts)),
        _ => {}
    }
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
