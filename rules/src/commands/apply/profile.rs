//! Documents of kind Profile: hardware profiles that people keep here.

use super::{Kind, Wrong, desk::Desk, read, schema};
use crate::{
    Change, Records,
    commands::profiles::check_profile,
    profile::{MAX_PROFILES, Profile, ProfileName},
    token::Scope,
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Profiles;

impl Kind for Profiles {
    fn name(&self) -> &'static str {
        "Profile"
    }

    fn needs(&self) -> Scope {
        Scope::Admin
    }

    fn plan(&self, documents: Vec<(usize, Value)>, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let kept = desk.view.records.profiles();
        let mut profiles: BTreeMap<ProfileName, Profile> =
            kept.into_iter().map(|profile| (profile.name.clone(), profile)).collect();
        let before = profiles.len();
        let mut seen = BTreeMap::new();
        for (place, document) in documents {
            let profile: Profile = read(place, document)?;
            if let Some(first) = seen.insert(profile.name.clone(), place) {
                return Err(Wrong::twice(place, first, &format!("the profile {}", profile.name)));
            }
            check_profile(&profile).map_err(|(field, reason)| {
                Wrong::new(place, field, reason, "`bennu apply --schema` prints what documents look like")
            })?;
            let earlier = profiles.insert(profile.name.clone(), profile.clone());
            if desk.note(self.name(), &profile.name, earlier.as_ref(), Some(&profile)) {
                desk.changes.push(Change::PutProfile(profile));
            }
        }
        if desk.prunes(self.name()) {
            for (name, profile) in profiles.extract_if(.., |name, _| !seen.contains_key(name)) {
                desk.note(self.name(), &name, Some(&profile), None);
                desk.changes.push(Change::RemoveProfile(name));
            }
        }
        match seen.values().max() {
            Some(last) if profiles.len() > MAX_PROFILES.max(before) => {
                let reason = format!("with it there are more than {MAX_PROFILES} hardware profiles");
                Err(Wrong::new(*last, "", reason, "remove those of models that are gone, or let one mean several: '*'"))
            }
            _ => Ok(()),
        }
    }

    fn export(&self, records: &dyn Records) -> Vec<Value> {
        records.profiles().iter().filter_map(|profile| serde_json::to_value(profile).ok()).collect()
    }

    fn schema(&self) -> Value {
        schema::described::<Profile>()
    }
}
