//! `/v1/rules`: which machines boot what, unless they have an assignment of their own.

use super::{
    Api, Shared,
    conditional::versioned,
    problem::{Answer, Kind, Problem},
    request::{Body, IfMatch, Page, Paging, Params, expected},
};
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use bennu_rules::{
    Records,
    assignment::Assignment,
    commands::{
        Refusal,
        rules::{PutRule, RemoveRule, put_rule, remove_rule, version},
    },
    rule::{self, Rule, RuleName},
    selector::Selector,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `PUT` takes. What is absent is as it is by default: no priority, and every machine.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleBody {
    /// Which machines, such as `rack=r1,role in (web,api)`; every machine, if it is empty.
    #[serde(default)]
    #[schema(value_type = String)]
    pub selector: Selector,
    /// What they boot: `name:tag`, `sha256:…` or `local`.
    pub image: Assignment,
    /// Of the rules that mean a machine, that with the greatest wins; of equal ones, that whose name comes first.
    #[serde(default)]
    pub priority: i32,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A rule, and whom it means.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleShown {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// How many machines its selector means.
    pub matches: usize,
    /// How many of them boot by it: those with no assignment of their own, and no rule before it.
    pub applies: usize,
}

/// `GET /v1/rules`, by name
#[utoipa::path(
    get,
    path = "/v1/rules",
    tag = "rules",
    params(Paging),
    responses((status = OK, body = Page<RuleShown>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<RuleShown>>> {
    let rules = shown(&api)?;
    Ok(Json(paging.page(rules, |shown| shown.rule.name.to_string(), |shown| shown)))
}

/// `GET /v1/rules/{name}`
#[utoipa::path(
    get,
    path = "/v1/rules/{name}",
    tag = "rules",
    params(("name" = RuleName, Path, description = "The rule's name.")),
    responses((status = OK, body = RuleShown))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let name = name(&text)?;
    with_etag(&api, &name)
}

/// `PUT /v1/rules/{name}`
#[utoipa::path(
    put,
    path = "/v1/rules/{name}",
    tag = "rules",
    params(("name" = RuleName, Path, description = "The rule's name."), IfMatch),
    request_body = RuleBody,
    responses((status = OK, body = RuleShown))
)]
pub async fn put(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(body): Body<RuleBody>,
) -> Answer<Response> {
    let RuleBody { selector, image, priority, description } = body;
    let rule = Rule { name: name(&text)?, selector, image, priority, description };
    let rule = api.ledger.decide(PutRule { rule, expected: expected(&headers)? }, put_rule).await??;
    with_etag(&api, &rule.name)
}

/// `DELETE /v1/rules/{name}`
#[utoipa::path(
    delete,
    path = "/v1/rules/{name}",
    tag = "rules",
    params(("name" = RuleName, Path, description = "The rule's name."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn remove(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<StatusCode> {
    let request = RemoveRule { name: name(&text)?, expected: expected(&headers)? };
    api.ledger.decide(request, remove_rule).await??;
    Ok(StatusCode::NO_CONTENT)
}

fn name(text: &str) -> Answer<RuleName> {
    text.parse().map_err(|error| Problem::told(Kind::Malformed, &error))
}

/// Every rule, and whom each means.
fn shown(api: &Api) -> Answer<Vec<RuleShown>> {
    let (rules, machines) = api.ledger.stored(|records| (records.rules(), records.machines()))?;
    let mut counts: BTreeMap<&RuleName, (usize, usize)> = BTreeMap::new();
    for machine in &machines {
        for (place, rule) in rule::matching(&rules, Some(machine), &api.ledger.settings()).into_iter().enumerate() {
            let (matches, applies) = counts.entry(&rule.name).or_default();
            *matches += 1;
            *applies += usize::from(place == 0 && machine.assignment.is_none());
        }
    }
    let show = |rule: &Rule| {
        let (matches, applies) = counts.get(&rule.name).copied().unwrap_or_default();
        RuleShown { rule: rule.clone(), matches, applies }
    };
    Ok(rules.iter().map(show).collect())
}

fn with_etag(api: &Api, name: &RuleName) -> Answer<Response> {
    let found = shown(api)?.into_iter().find(|shown| shown.rule.name == *name);
    let shown = found.ok_or_else(|| Problem::from(Refusal::UnknownRule(name.clone())))?;
    Ok(versioned(&version(&shown.rule), &shown))
}
