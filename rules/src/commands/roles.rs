//! Commands about roles.

use super::{
    Refusal,
    machines::Expected,
    precondition,
    tokens::{check_powers, follow},
};
use crate::{
    Change, Decision, Moment, Timestamp, View,
    role::{MAX_ROLES, Role, RoleName},
    token::TokenName,
};

/// What people say a role is for.
const MAX_DESCRIPTION: usize = 500;

/// The version of a role: changes whenever it does.
pub fn version(role: &Role) -> String {
    super::version(role)
}

/// Adds a role, or replaces the one of its name: its tokens follow.
#[derive(Debug, Clone)]
pub struct PutRole {
    /// As it shall be.
    pub role: Role,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Removes a role.
#[derive(Debug, Clone)]
pub struct RemoveRole {
    /// Which.
    pub name: RoleName,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// A command's answer: the role as it is, or was.
pub type Answer = Result<Role, Refusal>;

/// Carries out [`PutRole`].
pub fn put(request: &PutRole, view: &View<'_>, at: &Moment) -> Decision<Answer> {
    let PutRole { role, expected } = request;
    let earlier = view.records.role(&role.name);
    let check = || {
        check_expected(&role.name, earlier.as_ref(), expected)?;
        if earlier.is_none() && view.records.roles().len() >= MAX_ROLES {
            return Err(Refusal::TooManyRoles);
        }
        check_role(role).map_err(|(_, refusal)| refusal)
    };
    if let Err(refusal) = check() {
        return Decision::just(Err(refusal));
    }
    let changes = match earlier.as_ref() == Some(role) {
        true => Vec::new(),
        false => follow(role, view, at.now).into_iter().chain([Change::PutRole(role.clone())]).collect(),
    };
    Decision { changes, ..Decision::just(Ok(role.clone())) }
}

/// Carries out [`RemoveRole`], unless a token has it.
pub fn remove(request: &RemoveRole, view: &View<'_>, at: &Moment) -> Decision<Answer> {
    let Some(role) = view.records.role(&request.name) else {
        return Decision::just(Err(Refusal::UnknownRole(request.name.clone())));
    };
    let checked = check_expected(&role.name, Some(&role), &request.expected);
    if let Err(refusal) = checked.and_then(|()| check_unused(&role.name, view, at.now)) {
        return Decision::just(Err(refusal));
    }
    Decision { changes: vec![Change::RemoveRole(role.name.clone())], ..Decision::just(Ok(role)) }
}

fn check_expected(name: &RoleName, role: Option<&Role>, expected: &Option<Expected>) -> Result<(), Refusal> {
    precondition::check(expected, role.map(version), format_args!("role '{name}'"), |what| Refusal::Stale { what })
}

/// What of a role can be wrong by itself: the field, and why.
pub(super) fn check_role(role: &Role) -> Result<(), (&'static str, Refusal)> {
    check_powers(&role.scopes, role.limit.as_ref(), role.expires_in_days).map_err(|refusal| {
        let field = match &refusal {
            Refusal::NoScope => "/scopes",
            Refusal::BadLifetime { .. } => "/expires_in_days",
            _ => "/limit",
        };
        (field, refusal)
    })?;
    let description = &role.description;
    if description.chars().count() > MAX_DESCRIPTION || description.chars().any(char::is_control) {
        let reason = format!("a description is one line of up to {MAX_DESCRIPTION} characters");
        return Err(("/description", Refusal::BadRole { pointer: "/description", reason }));
    }
    Ok(())
}

/// A token whose role is gone would keep what it may do, and nothing would say so.
pub(super) fn check_unused(name: &RoleName, view: &View<'_>, now: Timestamp) -> Result<(), Refusal> {
    let mut tokens = view.records.tokens();
    tokens.retain(|token| token.role.as_ref() == Some(name) && !token.is_expired(now));
    let tokens: Vec<TokenName> = tokens.into_iter().map(|token| token.name).collect();
    if tokens.is_empty() { Ok(()) } else { Err(Refusal::RoleInUse { name: name.clone(), tokens }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Live, Records,
        commands::tokens::{CreateToken, create},
        image::Digest,
        memory::Memory,
        settings::Settings,
    };
    use std::sync::Arc;

    fn run<R, A>(memory: &mut Memory, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>) -> A {
        let at = Moment { now: Timestamp(1), entropy: [7; 32], settings: Arc::new(Settings::default()) };
        let live = Live::default();
        let decision = rule(request, &View { records: &*memory, live: &live }, &at);
        decision.changes.into_iter().for_each(|change| memory.apply(change));
        decision.answer
    }

    fn role(scopes: &str) -> Role {
        serde_json::from_value(serde_json::json!({ "name": "ci", "scopes": [scopes] })).unwrap()
    }

    fn removal() -> RemoveRole {
        RemoveRole { name: "ci".parse().unwrap(), expected: None }
    }

    #[test]
    fn tokens_follow_their_role_and_keep_it() {
        let mut memory = Memory::default();
        run(&mut memory, &PutRole { role: role("images"), expected: Some(Expected::Absent) }, put).unwrap();
        let token = CreateToken {
            name: "builder".parse().unwrap(),
            scopes: Default::default(),
            limit: None,
            role: Some("ci".parse().unwrap()),
            secret: Digest([9; 32]),
            days: None,
            by: "test".into(),
        };
        run(&mut memory, &token, create).unwrap();
        let before = version(&memory.role(&"ci".parse().unwrap()).unwrap());
        run(&mut memory, &PutRole { role: role("read"), expected: Some(Expected::Version(vec![before.clone()])) }, put)
            .unwrap();
        assert_eq!(memory.tokens()[0].scopes, role("read").scopes);
        let stale = PutRole { role: role("admin"), expected: Some(Expected::Version(vec![before])) };
        assert!(matches!(run(&mut memory, &stale, put), Err(Refusal::Stale { .. })));
        assert!(matches!(run(&mut memory, &removal(), remove), Err(Refusal::RoleInUse { .. })));
        let id = memory.tokens()[0].id;
        memory.apply(Change::RemoveToken(id));
        run(&mut memory, &removal(), remove).unwrap();
        assert!(matches!(run(&mut memory, &removal(), remove), Err(Refusal::UnknownRole(_))));
    }

    #[test]
    fn a_role_that_can_do_nothing_or_is_described_badly_is_none() {
        let mut memory = Memory::default();
        let refused = |memory: &mut Memory, role| run(memory, &PutRole { role, expected: None }, put).unwrap_err();
        let without = Role { scopes: Default::default(), ..role("read") };
        assert_eq!(refused(&mut memory, without), Refusal::NoScope);
        let long = Role { description: "x".repeat(MAX_DESCRIPTION + 1), ..role("read") };
        assert!(matches!(refused(&mut memory, long), Refusal::BadRole { pointer: "/description", .. }));
        assert!(memory.roles().is_empty());
    }
}
