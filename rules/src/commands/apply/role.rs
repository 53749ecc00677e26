//! Documents of kind Role: what tokens of one purpose may do. Never a token, and never a secret.

use super::{Kind, Wrong, WrongKind, desk::Desk, read, schema};
use crate::{
    Change, Records,
    commands::{
        roles::{check_role, check_unused},
        tokens::follow,
    },
    role::{MAX_ROLES, Role, RoleName},
    token::Scope,
};
use serde_json::Value;
use std::collections::BTreeMap;

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
            check_role(&role).map_err(|(field, refusal)| Wrong {
                kind: WrongKind::Document,
                ..Wrong::refused(place, field, &refusal)
            })?;
            let earlier = roles.insert(role.name.clone(), role.clone());
            if desk.note(self.name(), &role.name, earlier.as_ref(), Some(&role)) {
                desk.changes.extend(follow(&role, desk.view, desk.at.now));
                desk.changes.push(Change::PutRole(role));
            }
        }
        if desk.prunes(self.name()) {
            for (name, role) in roles.extract_if(.., |name, _| !seen.contains_key(name)) {
                check_unused(&name, desk.view, desk.at.now).map_err(|refusal| Wrong {
                    document: None,
                    kind: WrongKind::State,
                    ..Wrong::refused(0, "", &refusal)
                })?;
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
