//! The audit log: who changed what, from where, and how it was before.

use super::{
    failure::{Shown, page},
    format::When,
    visitor::{Chrome, Visitor, encoded},
};
use crate::http::api::{
    boots::now,
    request::{Page, Params},
};
use askama::Template;
use bennu_rules::audit::AuditRecord;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Records on a page.
const ON_A_PAGE: usize = 100;

/// Longer values are cut: the API has them whole.
const LONGEST: usize = 160;

/// Which records.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// By whom.
    #[serde(default)]
    who: String,
    /// About what.
    #[serde(default)]
    target: String,
    /// The last record of the page before.
    #[serde(default)]
    after: String,
}

struct Row {
    seq: u64,
    at: When,
    who: String,
    from: String,
    request: String,
    action: String,
    target: String,
    link: Option<String>,
    changes: Vec<(String, String, String)>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    chrome: Chrome,
    rows: Vec<Row>,
    wanted: Wanted,
    next: Option<String>,
}

/// `GET /ui/audit`
pub async fn show(visitor: Visitor, Params(wanted): Params<Wanted>) -> Shown {
    let given = [("who", &wanted.who), ("target", &wanted.target), ("after", &wanted.after)];
    let given = given.into_iter().filter(|(_, value)| !value.trim().is_empty());
    let query: String = given.map(|(name, value)| format!("&{name}={}", encoded(value.trim()))).collect();
    let records: Page<AuditRecord> = visitor.get(&format!("/v1/audit?limit={ON_A_PAGE}{query}")).await?;
    let filter = [("who", &wanted.who), ("target", &wanted.target)];
    let filter: String = filter.into_iter().map(|(name, value)| format!("&{name}={}", encoded(value))).collect();
    page(&AuditPage {
        chrome: visitor.chrome("Audit", "audit"),
        rows: records.items.into_iter().map(Row::of).collect(),
        next: records.next.map(|next| format!("/ui/audit?after={}{filter}", encoded(&next))),
        wanted,
    })
}

impl Row {
    fn of(record: AuditRecord) -> Self {
        let link = (record.target.kind == "machine").then(|| format!("/ui/machines/{}", encoded(&record.target.name)));
        Self {
            seq: record.seq,
            at: When::of(record.at, now()),
            who: record.who.to_string(),
            from: record.from,
            request: record.request,
            action: record.action.to_string(),
            target: record.target.to_string(),
            link,
            changes: differences(record.before.as_ref(), record.after.as_ref()),
        }
    }
}

/// Field by field, how it was and how it is.
fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<(String, String, String)> {
    let mut fields = BTreeMap::<&str, (Option<&Value>, Option<&Value>)>::new();
    for (name, value) in before.and_then(Value::as_object).into_iter().flatten() {
        fields.entry(name).or_default().0 = Some(value);
    }
    for (name, value) in after.and_then(Value::as_object).into_iter().flatten() {
        fields.entry(name).or_default().1 = Some(value);
    }
    let differs = |(_, (old, new)): &(&str, (Option<&Value>, Option<&Value>))| old != new;
    let changed = fields.into_iter().filter(differs);
    changed
        .map(|(name, (old, new))| (name.to_owned(), text(old), text(new)))
        .filter(|(_, old, new)| old != new)
        .collect()
}

/// A value as people read it; empty where there is none.
fn text(value: Option<&Value>) -> String {
    let whole = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(fields)) if fields.values().all(Value::is_string) => {
            let pairs = fields.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
            pairs.collect::<Vec<_>>().join(" ")
        }
        Some(Value::Object(fields)) if fields.is_empty() => String::new(),
        Some(Value::Array(items)) if items.is_empty() => String::new(),
        Some(other) => other.to_string(),
    };
    match whole.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_shown_and_long_values_are_cut() {
        let (before, after) = (
            json!({ "labels": { "rack": "r1" }, "assignment": "web:v1", "macs": ["a"], "arguments": "" }),
            json!({ "labels": { "rack": "r2", "role": "db" }, "assignment": null, "macs": ["a"], "arguments": "é".repeat(500) }),
        );
        let shown = differences(Some(&before), Some(&after));
        let names: Vec<&str> = shown.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(names, ["arguments", "assignment", "labels"]);
        assert_eq!((shown[1].1.as_str(), shown[1].2.as_str()), ("web:v1", ""));
        assert_eq!((shown[2].1.as_str(), shown[2].2.as_str()), ("rack=r1", "rack=r2 role=db"));
        assert_eq!(shown[0].2.chars().count(), LONGEST + 1);
        assert!(differences(None, None).is_empty());
    }
}
