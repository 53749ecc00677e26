//! Commands about hardware profiles that people keep here.

use super::{Refusal, machines::Expected, precondition, text::check_arguments};
use crate::{
    Change, Decision, Moment, View,
    facts::Facts,
    profile::{MAX_PROFILES, Profile, ProfileName},
};

/// Characters of a pattern.
const MAX_PATTERN: usize = 128;
/// Consoles of one model.
const MAX_CONSOLES: usize = 8;

/// The version of a profile: changes whenever it does.
pub fn version(profile: &Profile) -> String {
    super::version(profile)
}

/// Adds a profile, or replaces the one of its name.
#[derive(Debug, Clone)]
pub struct PutProfile {
    /// As it shall be.
    pub profile: Profile,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// Removes a profile.
#[derive(Debug, Clone)]
pub struct RemoveProfile {
    /// Which.
    pub name: ProfileName,
    /// The record looked at.
    pub expected: Option<Expected>,
}

/// A command's answer: the profile as it is, or was.
pub type Answer = Result<Profile, Refusal>;

/// Carries out [`PutProfile`].
pub fn put(request: &PutProfile, view: &View<'_>, _at: &Moment) -> Decision<Answer> {
    let PutProfile { profile, expected } = request;
    let kept = view.records.profiles();
    let earlier = kept.iter().find(|kept| kept.name == profile.name);
    let check = || {
        check_expected(&profile.name, earlier, expected)?;
        if earlier.is_none() && kept.len() >= MAX_PROFILES {
            return Err(Refusal::TooManyProfiles);
        }
        check_profile(profile).map_err(|(pointer, reason)| Refusal::BadProfile { pointer, reason })
    };
    if let Err(refusal) = check() {
        return Decision::just(Err(refusal));
    }
    let same = earlier == Some(profile);
    let changes = if same { Vec::new() } else { vec![Change::PutProfile(profile.clone())] };
    Decision { changes, ..Decision::just(Ok(profile.clone())) }
}

/// Carries out [`RemoveProfile`].
pub fn remove(request: &RemoveProfile, view: &View<'_>, _at: &Moment) -> Decision<Answer> {
    let Some(profile) = view.records.profiles().into_iter().find(|kept| kept.name == request.name) else {
        return Decision::just(Err(Refusal::UnknownProfile(request.name.clone())));
    };
    match check_expected(&profile.name, Some(&profile), &request.expected) {
        Ok(()) => {
            Decision { changes: vec![Change::RemoveProfile(profile.name.clone())], ..Decision::just(Ok(profile)) }
        }
        Err(refusal) => Decision::just(Err(refusal)),
    }
}

fn check_expected(name: &ProfileName, profile: Option<&Profile>, expected: &Option<Expected>) -> Result<(), Refusal> {
    let what = format_args!("hardware profile '{name}'");
    precondition::check(expected, profile.map(version), what, |what| Refusal::Stale { what })
}

/// What of a profile can be wrong by itself: the field, and why.
pub(super) fn check_profile(profile: &Profile) -> Result<(), (String, String)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Live, Records, Timestamp, memory::Memory, settings::Settings};
    use serde_json::json;
    use std::sync::Arc;

    fn run<R, A>(memory: &mut Memory, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>) -> A {
        let at = Moment { now: Timestamp(1), entropy: [0; 32], settings: Arc::new(Settings::default()) };
        let live = Live::default();
        let decision = rule(request, &View { records: &*memory, live: &live }, &at);
        decision.changes.into_iter().for_each(|change| memory.apply(change));
        decision.answer
    }

    fn profile(name: &str, product: &str) -> Profile {
        serde_json::from_value(json!({
            "name": name,
            "match": { "product": product },
            "settings": {},
            "example": { "manufacturer": "Acme", "product": product },
        }))
        .unwrap()
    }

    #[test]
    fn a_profile_is_kept_replaced_and_removed() {
        let mut memory = Memory::default();
        let first = profile("acme", "One");
        let adds = PutProfile { profile: first.clone(), expected: Some(Expected::Absent) };
        run(&mut memory, &adds, put).unwrap();
        assert!(matches!(run(&mut memory, &adds, put), Err(Refusal::IsThere { .. })));
        let second = profile("acme", "Two");
        let expected = Some(Expected::Version(vec![version(&first)]));
        let replaces = PutProfile { profile: second.clone(), expected };
        run(&mut memory, &replaces, put).unwrap();
        assert_eq!(memory.profiles(), [second]);
        assert!(matches!(run(&mut memory, &replaces, put), Err(Refusal::Stale { .. })));
        let removes = RemoveProfile { name: first.name, expected: None };
        run(&mut memory, &removes, remove).unwrap();
        assert!(matches!(run(&mut memory, &removes, remove), Err(Refusal::UnknownProfile(_))));
    }

    #[test]
    fn what_means_no_machine_is_refused_with_its_place() {
        let mut memory = Memory::default();
        let request = PutProfile { profile: profile("acme", " "), expected: None };
        let refused = run(&mut memory, &request, put).unwrap_err();
        assert!(matches!(&refused, Refusal::BadProfile { pointer, .. } if pointer == "/match/product"), "{refused}");
        assert!(memory.profiles().is_empty());
    }
}
