//! Commands about assignment rules.

use super::{
    Refusal,
    machines::{Expected, check_bootable},
    precondition,
};
use crate::{
    Change, Decision, Moment, Records, View,
    assignment::Assignment,
    rule::{MAX_RULES, Rule, RuleName},
};

/// What people say a rule is for.
const MAX_DESCRIPTION: usize = 500;

/// The version of a rule: changes whenever it does.
pub fn version(rule: &Rule) -> String {
    super::version(rule)
}

/// Adds a rule, or replaces the one of its name.
#[derive(Debug, Clone)]
pub struct PutRule {
    /// As it shall be.
    pub rule: Rule,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Removes a rule.
#[derive(Debug, Clone)]
pub struct RemoveRule {
    /// Which.
    pub name: RuleName,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// A command's answer: the rule as it is, or was.
pub type Answer = Result<Rule, Refusal>;

/// Carries out [`PutRule`]. Its image must exist, as a machine's own must.
pub fn put_rule(request: &PutRule, view: &View<'_>, _at: &Moment) -> Decision<Answer> {
    match put(request, view.records) {
        Ok(changes) => Decision { changes, ..Decision::just(Ok(request.rule.clone())) },
        Err(refusal) => Decision::just(Err(refusal)),
    }
}

fn put(request: &PutRule, records: &dyn Records) -> Result<Vec<Change>, Refusal> {
    let rule = &request.rule;
    let earlier = records.rule(&rule.name);
    check_expected(&rule.name, earlier.as_ref(), &request.expected)?;
    if earlier.is_none() && records.rules().len() >= MAX_RULES {
        return Err(Refusal::TooManyRules);
    }
    check_rule(rule)?;
    if let Assignment::Image(reference) = &rule.image {
        check_bootable(reference, records)?;
    }
    let same = earlier.as_ref() == Some(rule);
    Ok(if same { Vec::new() } else { vec![Change::PutRule(rule.clone())] })
}

/// What of a rule can be wrong by itself.
pub(super) fn check_rule(rule: &Rule) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::BadRule { name: rule.name.clone(), reason });
    let length = rule.description.chars().count();
    if length > MAX_DESCRIPTION {
        return refuse(format!("its description of {length} characters is longer than {MAX_DESCRIPTION}"));
    }
    if rule.description.chars().any(char::is_control) {
        return refuse("its description has a control character".into());
    }
    Ok(())
}

/// Carries out [`RemoveRule`].
pub fn remove_rule(request: &RemoveRule, view: &View<'_>, _at: &Moment) -> Decision<Answer> {
    let Some(rule) = view.records.rule(&request.name) else {
        return Decision::just(Err(Refusal::UnknownRule(request.name.clone())));
    };
    match check_expected(&rule.name, Some(&rule), &request.expected) {
        Ok(()) => Decision { changes: vec![Change::RemoveRule(rule.name.clone())], ..Decision::just(Ok(rule)) },
        Err(refusal) => Decision::just(Err(refusal)),
    }
}

fn check_expected(name: &RuleName, rule: Option<&Rule>, expected: &Option<Expected>) -> Result<(), Refusal> {
    let what = format_args!("rule '{name}'");
    precondition::check(expected, rule.map(version), what, |_| Refusal::RuleChanged(name.clone()))
}

#[cfg(test)]
mod tests;
