//! Documents of kind Rule.

use super::{Kind, Wrong, desk::Desk, read, schema};
use crate::{
    Change, Records,
    assignment::Assignment,
    commands::{Refusal, rules::check_rule},
    rule::{MAX_RULES, Rule, RuleName},
    selector::Selector,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Which machines boot what, unless they have an assignment of their own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleDocument {
    /// Its name.
    #[schemars(with = "String")]
    name: RuleName,
    /// Which machines, such as `rack=r1,role in (web,api),!retired`; every machine, if it is absent.
    #[serde(default, skip_serializing_if = "Selector::is_everything")]
    #[schemars(with = "String")]
    selector: Selector,
    /// What they boot: `name:tag`, `sha256:…` or `local`.
    #[schemars(with = "String")]
    image: Assignment,
    /// Of the rules that mean a machine, that with the greatest wins; of equal ones, that whose name comes first.
    #[serde(default)]
    priority: i32,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
}

impl RuleDocument {
    fn of(rule: Rule) -> Self {
        let Rule { name, selector, image, priority, description } = rule;
        Self { name, selector, image, priority, description }
    }

    fn rule(&self) -> Rule {
        let Self { name, selector, image, priority, description } = self;
        let (name, selector, image) = (name.clone(), selector.clone(), image.clone());
        Rule { name, selector, image, priority: *priority, description: description.clone() }
    }
}

pub(super) struct Rules;

impl Kind for Rules {
    fn name(&self) -> &'static str {
        "Rule"
    }

    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let mut rules: BTreeMap<RuleName, Rule> =
            desk.view.records.rules().into_iter().map(|rule| (rule.name.clone(), rule)).collect();
        let before = rules.len();
        let mut seen = BTreeMap::new();
        for (place, document) in documents {
            let document: RuleDocument = read(place, document)?;
            if let Some(first) = seen.insert(document.name.clone(), place) {
                return Err(Wrong::twice(place, first, &format!("the rule {}", document.name)));
            }
            let rule = document.rule();
            check_rule(&rule).map_err(|refusal| Wrong::refused(place, "/description", &refusal))?;
            desk.check_assignment(place, &rule.image)?;
            let earlier = rules.insert(rule.name.clone(), rule.clone()).map(RuleDocument::of);
            if desk.note(self.name(), &rule.name, earlier.as_ref(), Some(&document)) {
                desk.changes.push(Change::PutRule(rule));
            }
        }
        if desk.prunes(self.name()) {
            for (name, rule) in rules.extract_if(.., |name, _| !seen.contains_key(name)) {
                desk.note(self.name(), &name, Some(&RuleDocument::of(rule)), None);
                desk.changes.push(Change::RemoveRule(name));
            }
        }
        match seen.values().max() {
            Some(last) if rules.len() > MAX_RULES.max(before) => Err(Wrong::refused(*last, "", &Refusal::TooManyRules)),
            _ => Ok(()),
        }
    }

    fn export(&self, records: &dyn Records) -> Vec<Value> {
        let rules = records.rules().into_iter().map(RuleDocument::of);
        rules.filter_map(|document| serde_json::to_value(document).ok()).collect()
    }

    fn schema(&self) -> Value {
        schema::of::<RuleDocument>()
    }
}
