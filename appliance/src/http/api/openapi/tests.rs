//! The description says of every operation what a client needs to know.

use super::super::routes;
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    routes().parts().1
}

/// Path, method and operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let operation = |(method, operation): (&String, &Value)| (path.clone(), method.clone(), operation.clone());
        item.as_object().unwrap().iter().map(operation).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn every_operation_is_described() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let operations = operations(&document);
    assert!(operations.len() > 30, "{}", operations.len());
    let mut ids = BTreeSet::new();
    for (path, method, operation) in &operations {
        let of = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "two operations have {of}'s id");
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(!summary.is_empty(), "{of} has no summary: write a line of documentation over its handler");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{of} never succeeds");
        let is_open = matches!(path.as_str(), "/healthz" | "/readyz");
        assert_eq!(responses.contains_key("401"), !is_open, "{of}");
        let named: BTreeSet<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let described: BTreeSet<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(named, described, "{of} and its parameters");
    }
}

/// Every `$ref` leads somewhere, and every schema is reached from an operation.
#[test]
fn schemas_are_all_there() {
    fn refs(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    found.insert(to.clone());
                }
                map.values().for_each(|value| refs(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    refs(&document, &mut found);
    for to in found {
        let pointer = to.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
    }
}

#[test]
fn no_two_types_share_a_name() {
    let clashes = routes().clashes;
    assert!(clashes.is_empty(), "several types have these names: {clashes:?}");
}
