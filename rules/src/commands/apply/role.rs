//! Documents of kind Role: what tokens of one purpose may do. Never a token, and never a secret.

use super::{Kind, Wrong, WrongKind, desk::Desk, read, schema};
use crate::{
    Change, Records,
    commands::{
        Refusal,
        tokens::{check_powers, follow},
    },
    role::{MAX_ROLES, Role, RoleName},
    token::{Scope, TokenName},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What people say a role is for.
const MAX_DESCRIPTION: usize = 500;

pub(super) struct Roles;

impl Kind for Roles {
    fn name(&self) -> &'static str {
        "Role"
    }

    fn needs(&self) -> Scope {
        Scope::Admin
    }

    fn shown_to(&self) -> Scope {
        Scope::Admin
    }

    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let kept = desk.view.records.roles();
        let mut roles: BTreeMap<RoleName, Role> = kept.into_iter().map(|role| (role.name.clone(), role)).collect();
        let before = roles.len();
        let mut seen = BTreeMap::new();
        for (place, document) in documents {
            let role: Role = read(place, document)?;
            if let Some(first) = seen.insert(role.name.clone(), place) {
                return Err(Wrong::twice(place, first, &format!("the role {}", role.name)));
            }
            check(place, &role)?;
            let earlier = roles.insert(role.name.clone(), role.clone());
            if desk.note(self.name(), &role.name, earlier.as_ref(), Some(&role)) {
                desk.changes.extend(follow(&role, desk.view, desk.at.now));
                desk.changes.push(Change::PutRole(role));
            }
        }
        if desk.prunes(self.name()) {
            for (name, role) in roles.extract_if(.., |name, _| !seen.contains_key(name)) {
                check_unused(&name, desk)?;
                desk.note(self.name(), &name, Some(&role), None);
                desk.changes.push(Change::RemoveRole(name));
            }
        }
        match seen.values().max() {
            Some(last) if roles.len() > MAX_ROLES.max(before) => {
                let reason = format!("with it there are more than {MAX_ROLES} roles");
                Err(Wrong::new(*last, "", reason, "remove those that no token has"))
            }
            _ => Ok(()),
        }
    }

    fn export(&self, records: &dyn Records) -> Vec<Value> {
        records.roles().iter().filter_map(|role| serde_json::to_value(role).ok()).collect()
    }

    fn schema(&self) -> Value {
        schema::described::<Role>()
    }
}

fn check(place: usize, role: &Role) -> Result<(), Wrong> {
    check_powers(&role.scopes, role.limit.as_ref(), role.expires_in_days).map_err(|refusal| {
        let field = match &refusal {
            Refusal::NoScope => "/scopes",
            Refusal::BadLifetime { .. } => "/expires_in_days",
            _ => "/limit",
        };
        Wrong { kind: WrongKind::Document, ..Wrong::refused(place, field, &refusal) }
    })?;
    let description = &role.description;
    if description.chars().count() > MAX_DESCRIPTION || description.chars().any(char::is_control) {
        let reason = format!("a description is one line of up to {MAX_DESCRIPTION} characters");
        return Err(Wrong::new(place, "/description", reason, "describe it in one line"));
    }
    Ok(())
}

/// A token whose role is gone would keep what it may do, and no document would say so.
fn check_unused(name: &RoleName, desk: &Desk<'_>) -> Result<(), Wrong> {
    let mut tokens = desk.view.records.tokens();
    tokens.retain(|token| token.role.as_ref() == Some(name) && !token.is_expired(desk.at.now));
    let names: Vec<TokenName> = tokens.into_iter().map(|token| token.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let reason = format!("the role {name} cannot go: these tokens have it: {}", crate::commands::list(&names));
    let wrong = Wrong::new(0, "", reason, "revoke them first, or keep the role's document");
    Err(Wrong { document: None, kind: WrongKind::State, ..wrong })
}
