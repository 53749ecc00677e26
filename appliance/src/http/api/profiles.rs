//! `/v1/profiles`: what is known of server models.

use super::{
    Shared,
    problem::Answer,
    request::{Page, Paging, Params},
};
use axum::{Json, extract::State};
use bennu_rules::{
    Records,
    profile::{BootSettings, Fingerprint, Match, Profile, ProfileName},
};
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

/// `GET /v1/profiles`, by name. Documents of kind Profile change those that are kept here
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
    let shown = |built_in| {
        move |Profile { name, matches, settings, example }| ProfileShown { name, matches, settings, example, built_in }
    };
    let mut profiles: Vec<ProfileShown> = kept.into_iter().map(shown(false)).chain(known.map(shown(true))).collect();
    let key = |shown: &ProfileShown| format!("{} {}", shown.name, u8::from(shown.built_in));
    profiles.sort_by_key(key);
    Ok(Json(paging.page(profiles, key, |profile| profile)))
}
