//! What documents change.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// What applying documents comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ApplyPlan)]
pub struct Plan {
    /// What changes, in order.
    pub steps: Vec<Step>,
    /// Documents that change nothing.
    pub unchanged: usize,
    /// Which configuration it was before.
    pub revision: String,
    /// Whether it was carried out; a dry run only says it.
    pub applied: bool,
}

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ApplyStep)]
pub struct Step {
    /// How.
    pub action: Action,
    /// Its kind of document.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What of it.
    pub fields: Vec<Field>,
}

/// How a thing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ApplyAction)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Action {
    Add,
    Change,
    Remove,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
        })
    }
}

/// One field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ApplyField)]
pub struct Field {
    /// Which, such as `priority` or `labels.rack`.
    pub field: String,
    /// What it is; absent, if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it becomes; absent, if it is not set any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The fields in which two documents differ; maps in them are compared entry by entry.
pub(super) fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<Field> {
    let mut fields = Vec::new();
    compare("", before, after, &mut fields);
    fields
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, fields: &mut Vec<Field>) {
    let (old, new) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    if old.is_none() && new.is_none() {
        if before != after {
            fields.push(Field { field: path.to_owned(), before: before.cloned(), after: after.cloned() });
        }
        return;
    }
    let nothing = Map::new();
    let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
    for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
        // The name says which thing it is, not what of it differs.
        if path.is_empty() && key == "name" {
            continue;
        }
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&inner, old.get(key), new.get(key), fields);
    }
}
