//! Configuration as documents: what differs from them, and all of it changed at once.
//!
//! A document is the whole of what people say about one thing: a field that it leaves out is as if nobody had set it. What
//! the appliance knows by itself (hardware, boots, histories) is no document's affair. Each kind has a file of its own and
//! a place in [`KINDS`].

mod desk;
mod machine;
mod metadata;
mod plan;
mod profile;
mod role;
mod rule;
mod schema;
mod tag;

pub use plan::{Action, Field, Plan, Step};
pub use schema::schema;

use super::{Refusal, version};
use crate::{
    Decision, Moment, Records, View,
    token::{Scope, Scopes},
};
use desk::Desk;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// A kind of document.
trait Kind: Sync {
    /// As documents write it.
    fn name(&self) -> &'static str;
    /// What the bearer of a token must be allowed to change by itself.
    fn needs(&self) -> Scope {
        Scope::Assign
    }
    /// What the bearer of a token must be allowed to be shown it.
    fn shown_to(&self) -> Scope {
        Scope::Read
    }
    /// Whether what no document names can be taken away, and why not.
    fn cannot_prune(&self) -> Option<&'static str> {
        None
    }
    /// Notes what documents of this kind change. Each comes with its place among all of them, and without its `kind`.
    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong>;
    /// Everything of this kind as documents, without their `kind`.
    fn export(&self, records: &dyn Records) -> Vec<Value>;
    /// What such a document looks like, without its `kind`.
    fn schema(&self) -> Value;
}

/// Every kind, in the order in which they are looked at: what others name comes first.
const KINDS: [&dyn Kind; 6] =
    [&tag::Tags, &rule::Rules, &machine::Machines, &profile::Profiles, &metadata::Metadata, &role::Roles];

/// Makes the configuration what documents say.
#[derive(Debug, Clone, Default)]
pub struct Apply {
    /// The documents.
    pub documents: Vec<Value>,
    /// Kinds of which everything goes that no document names.
    pub prune: BTreeSet<String>,
    /// Only says what would change.
    pub dry_run: bool,
    /// The configuration looked at ([`Plan::revision`]).
    pub expected: Option<String>,
    /// Our own addresses, which no machine can have.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Who asks, for histories.
    pub by: String,
    /// What they may do.
    pub scopes: Scopes,
}

/// Why documents cannot be applied. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which document, counted from zero; none, if it is none's fault.
    pub document: Option<usize>,
    /// Where in it, as a JSON pointer (RFC 6901).
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub advice: String,
    /// Whether the configuration is another than was expected, or may be another time.
    pub kind: WrongKind,
}

/// What kind of wrong it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongKind {
    /// The document can never be applied.
    Document,
    /// The state of things forbids it.
    State,
    /// Somebody changed the configuration meanwhile.
    Stale,
    /// Whoever asks may not change this kind of thing.
    Forbidden,
}

impl Wrong {
    fn new(document: usize, field: impl Into<String>, reason: impl Into<String>, advice: impl Into<String>) -> Self {
        let (field, reason, advice) = (field.into(), reason.into(), advice.into());
        Self { document: Some(document), field, reason, advice, kind: WrongKind::Document }
    }

    /// What the command for one thing would have said.
    fn refused(document: usize, field: impl Into<String>, refusal: &Refusal) -> Self {
        let wrong = Self::new(document, field, refusal.to_string(), refusal.advice());
        Self { kind: WrongKind::State, ..wrong }
    }

    fn twice(document: usize, first: usize, what: &str) -> Self {
        let reason = format!("{what} has a document already, number {}", first + 1);
        Self::new(document, "/name", reason, "say everything about one thing in one document")
    }
}

/// Carries out [`Apply`]: all of it, or nothing.
pub fn apply(request: &Apply, view: &View<'_>, at: &Moment) -> Decision<Result<Plan, Wrong>> {
    match planned(request, view, at) {
        Ok(desk) => desk.decide(request.dry_run),
        Err(wrong) => Decision::just(Err(wrong)),
    }
}

fn planned<'a>(request: &'a Apply, view: &'a View<'a>, at: &'a Moment) -> Result<Desk<'a>, Wrong> {
    let revision = revision(view.records);
    let everything =
        |reason: String, advice: &str, kind| Wrong { document: None, kind, ..Wrong::new(0, "", reason, advice) };
    if request.expected.as_ref().is_some_and(|expected| *expected != revision) {
        let reason = format!("the configuration was changed by somebody else since you looked: it is {revision} now");
        return Err(everything(reason, "look at the plan again (--dry-run), then apply it", WrongKind::Stale));
    }
    for name in &request.prune {
        let refuse = |reason: String| everything(reason, &format!("there are {}", names()), WrongKind::Document);
        let kind = KINDS.iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| refuse(format!("'{name}' is no kind of document that could be pruned")))?;
        check_allowed(*kind, request).map_err(|(reason, advice)| everything(reason, &advice, WrongKind::Forbidden))?;
        if let Some(why) = kind.cannot_prune() {
            return Err(everything(
                format!("{name} cannot be pruned: {why}"),
                "prune other kinds",
                WrongKind::Document,
            ));
        }
    }
    let mut by_kind: [Vec<(usize, Value)>; KINDS.len()] = Default::default();
    for (place, document) in request.documents.iter().enumerate() {
        let (kind, rest) = parted(place, document)?;
        check_allowed(KINDS[kind], request).map_err(|(reason, advice)| Wrong {
            kind: WrongKind::Forbidden,
            ..Wrong::new(place, "/kind", reason, advice)
        })?;
        by_kind[kind].push((place, rest));
    }
    let mut desk = Desk::new(request, view, at, revision);
    for (kind, documents) in KINDS.iter().zip(by_kind) {
        kind.plan(documents, &mut desk)?;
    }
    Ok(desk)
}

/// Whether who asks may change things of a kind at all; else why not, and what to do.
fn check_allowed(kind: &dyn Kind, request: &Apply) -> Result<(), (String, String)> {
    let (name, needed) = (kind.name(), kind.needs());
    if request.scopes.have(needed) {
        return Ok(());
    }
    let reason = format!("documents of kind {name} need the scope {needed}, and this token may {}", request.scopes);
    Err((reason, format!("use a token with the scope {needed}, or leave these documents out")))
}

/// A document's kind, and the rest of it.
fn parted(place: usize, document: &Value) -> Result<(usize, Value), Wrong> {
    let advice = || format!("there are {}", names());
    let Value::Object(fields) = document else {
        return Err(Wrong::new(place, "", "it is no map of fields", "begin it with its kind and its name"));
    };
    let kind = match fields.get("kind") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(Wrong::new(place, "/kind", "the kind is no text", advice())),
        None => return Err(Wrong::new(place, "/kind", "it has no kind", advice())),
    };
    let known = KINDS.iter().position(|known| known.name() == kind);
    let shown: String = kind.chars().filter(|c| !c.is_control()).take(40).collect();
    let known =
        known.ok_or_else(|| Wrong::new(place, "/kind", format!("'{shown}' is no kind of document"), advice()))?;
    let rest: Map<String, Value> =
        fields.iter().filter(|(key, _)| *key != "kind").map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok((known, Value::Object(rest)))
}

/// Every kind of document.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name())
}

fn names() -> String {
    KINDS.map(Kind::name).join(", ")
}

/// Reads one document.
fn read<T: DeserializeOwned>(place: usize, document: Value) -> Result<T, Wrong> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let field = pointer(error.path());
        Wrong::new(
            place,
            field,
            error.into_inner().to_string(),
            "`bennu apply --schema` prints what documents look like",
        )
    })
}

/// A path as a JSON pointer (RFC 6901 §3).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", escaped(key))),
        _ => None,
    };
    path.iter().filter_map(segment).collect()
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The kinds of document that who has `scopes` is not shown.
pub fn hidden(scopes: &Scopes) -> Vec<&'static str> {
    KINDS.iter().filter(|kind| !scopes.have(kind.shown_to())).map(|kind| kind.name()).collect()
}

/// The configuration as documents, without what who has `scopes` is not shown.
pub fn export_for(scopes: &Scopes, records: &dyn Records) -> Vec<Value> {
    export_of(KINDS.iter().filter(|kind| scopes.have(kind.shown_to())), records)
}

/// The whole configuration as documents: what applies to nothing.
pub fn export(records: &dyn Records) -> Vec<Value> {
    export_of(KINDS.iter(), records)
}

fn export_of<'k>(kinds: impl Iterator<Item = &'k &'static dyn Kind>, records: &dyn Records) -> Vec<Value> {
    let mut documents = Vec::new();
    for kind in kinds {
        documents.extend(kind.export(records).into_iter().map(|document| with_kind(kind.name(), document)));
    }
    documents
}

/// Which configuration it is: another whenever a document would be.
pub fn revision(records: &dyn Records) -> String {
    version(&export(records))
}

fn with_kind(kind: &str, document: Value) -> Value {
    let mut fields = Map::from_iter([("kind".to_owned(), Value::from(kind))]);
    if let Value::Object(rest) = document {
        fields.extend(rest);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests;
