//! Documents of kind Profile: hardware profiles that people keep here.

use super::{Kind, Wrong, desk::Desk, read, schema};
use crate::{
    Change, Records,
    commands::text::check_arguments,
    facts::Facts,
    profile::{MAX_PROFILES, Profile, ProfileName},
    token::Scope,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Characters of a pattern.
const MAX_PATTERN: usize = 128;
/// Consoles of one model.
const MAX_CONSOLES: usize = 8;

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
            check(&profile).map_err(|(field, reason)| {
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

/// What of a profile can be wrong by itself: the field, and why.
fn check(profile: &Profile) -> Result<(), (String, String)> {
    let Profile { name: _, matches, settings, example } = profile;
    let refuse = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));
    let patterns = [("/match/manufacturer", &matches.manufacturer), ("/match/product", &matches.product)];
    for (field, pattern) in patterns.iter().filter_map(|(field, pattern)| Some((field, pattern.as_ref()?))) {
        if pattern.trim().is_empty() || pattern.len() > MAX_PATTERN || pattern.chars().any(char::is_control) {
            return refuse(
                field,
                &format!("a pattern has 1 to {MAX_PATTERN} printable characters, such as PowerEdge*"),
            );
        }
    }
    if patterns.iter().all(|(_, pattern)| pattern.is_none()) {
        return refuse("/match", "it means no machine; name a manufacturer, a product, or both");
    }
    for (field, loader) in
        [("/settings/uefi_loader", &settings.uefi_loader), ("/settings/bios_loader", &settings.bios_loader)]
    {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if loader
            .as_ref()
            .is_some_and(|name| name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(word))
        {
            return refuse(field, "this is no loader's file name, such as ipxe.efi");
        }
    }
    if settings.consoles.len() > MAX_CONSOLES {
        return refuse("/settings/consoles", &format!("more than {MAX_CONSOLES} consoles"));
    }
    for (at, console) in settings.consoles.iter().enumerate() {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b',' | b'/' | b':' | b'-' | b'_' | b'.');
        if console.is_empty() || console.len() > 64 || !console.bytes().all(word) {
            return refuse(&format!("/settings/consoles/{at}"), "this is no value of console=, such as ttyS1,115200");
        }
    }
    if let Err(refusal) = check_arguments(&settings.arguments) {
        return refuse("/settings/arguments", &refusal.to_string());
    }
    let fits = [&example.manufacturer, &example.product].iter().all(|text| text.len() <= MAX_PATTERN);
    let facts = Facts {
        manufacturer: Some(example.manufacturer.clone()),
        product: Some(example.product.clone()),
        ..Facts::default()
    };
    if !fits || *example != Default::default() && !matches.is_met_by(&facts) {
        return refuse("/example", "the profile does not match its own example");
    }
    Ok(())
}
