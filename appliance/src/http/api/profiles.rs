//! `/v1/profiles`: what is known of server models.

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
    commands::{
        Refusal,
        profiles::{PutProfile, RemoveProfile, put as put_profile, remove as remove_profile, version},
    },
    profile::{BootSettings, Fingerprint, Match, Profile, ProfileName},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

/// A hardware profile, and whose it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileShown {
    /// Its name.
    pub name: ProfileName,
    /// Which machines it is of.
    #[serde(rename = "match")]
    pub matches: Match,
    /// How they boot.
    pub settings: BootSettings,
    /// Facts of a real machine of this model.
    pub example: Fingerprint,
    /// Whether Bennu brings it along. Those that people keep go before them.
    pub built_in: bool,
}

/// What `PUT` takes: a profile but for its name.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileBody {
    /// Which machines it is of.
    #[serde(rename = "match")]
    pub matches: Match,
    /// How they boot.
    #[serde(default)]
    pub settings: BootSettings,
    /// Facts of a real machine of this model, which the profile must match.
    #[serde(default)]
    pub example: Fingerprint,
}

/// `GET /v1/profiles`, by name
#[utoipa::path(
    get,
    path = "/v1/profiles",
    tag = "profiles",
    params(Paging),
    responses((status = OK, body = Page<ProfileShown>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<ProfileShown>>> {
    let kept = api.ledger.read(|records, _| records.profiles())?;
    let known = api.config.settings.profiles.iter().cloned();
    let kept = kept.into_iter().map(|profile| ProfileShown::of(profile, false));
    let mut profiles: Vec<ProfileShown> = kept.chain(known.map(|profile| ProfileShown::of(profile, true))).collect();
    let key = |shown: &ProfileShown| format!("{} {}", shown.name, u8::from(shown.built_in));
    profiles.sort_by_key(key);
    Ok(Json(paging.page(profiles, key, |profile| profile)))
}

/// `GET /v1/profiles/{name}`: the one that counts, if Bennu brings one of the same name along
#[utoipa::path(
    get,
    path = "/v1/profiles/{name}",
    tag = "profiles",
    params(("name" = ProfileName, Path, description = "The profile's name.")),
    responses((status = OK, body = ProfileShown))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    shown(&api, &name(&text)?)
}

/// `PUT /v1/profiles/{name}`: goes before those that Bennu brings along
#[utoipa::path(
    put,
    path = "/v1/profiles/{name}",
    tag = "profiles",
    params(("name" = ProfileName, Path, description = "The profile's name."), IfMatch),
    request_body = ProfileBody,
    responses((status = OK, body = ProfileShown))
)]
pub async fn put(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(body): Body<ProfileBody>,
) -> Answer<Response> {
    let ProfileBody { matches, settings, example } = body;
    let profile = Profile { name: name(&text)?, matches, settings, example };
    let profile = api.ledger.decide(PutProfile { profile, expected: expected(&headers)? }, put_profile).await??;
    shown(&api, &profile.name)
}

/// `DELETE /v1/profiles/{name}`, of those that are kept here
///
/// Where the appliance has one of that name built in, that one counts again.
#[utoipa::path(
    delete,
    path = "/v1/profiles/{name}",
    tag = "profiles",
    params(("name" = ProfileName, Path, description = "The profile's name."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn remove(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<StatusCode> {
    let request = RemoveProfile { name: name(&text)?, expected: expected(&headers)? };
    api.ledger.decide(request, remove_profile).await??;
    Ok(StatusCode::NO_CONTENT)
}

impl ProfileShown {
    fn of(profile: Profile, built_in: bool) -> Self {
        let Profile { name, matches, settings, example } = profile;
        Self { name, matches, settings, example, built_in }
    }
}

fn name(text: &str) -> Answer<ProfileName> {
    text.parse().map_err(|error| Problem::told(Kind::Malformed, &error))
}

fn shown(api: &Api, name: &ProfileName) -> Answer<Response> {
    let is_meant = |profile: &Profile| profile.name == *name;
    let kept = api.ledger.read(|records, _| records.profiles())?.into_iter().find(is_meant);
    let known = || api.config.settings.profiles.iter().find(|profile| is_meant(profile)).cloned();
    let (profile, built_in) = match kept {
        Some(profile) => (profile, false),
        None => (known().ok_or_else(|| Problem::from(Refusal::UnknownProfile(name.clone())))?, true),
    };
    let version = version(&profile);
    Ok(versioned(&version, &ProfileShown::of(profile, built_in)))
}
