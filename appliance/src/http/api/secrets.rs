//! `/v1/secrets`: what is for machines alone. Nothing here ever answers what a secret is.

use super::{
    Shared,
    conditional::versioned,
    problem::{Answer, Kind, Problem},
    request::{Hidden, IfMatch, Page, Paging, Params, expected},
};
use crate::http::access::Caller;
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_rules::{
    MacAddress, Records, Timestamp,
    commands::{
        Refusal,
        secrets::{RemoveSecret, SetSecret, remove as remove_secret, set as set_secret, version},
    },
    secret::{Placement, Secret, SecretName, Target},
    selector::Selector,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A secret's bytes at most. Keys and passwords are far shorter; files that are longer are no secrets, or belong in pieces.
pub const MAX_VALUE: usize = 32 << 10;

/// A secret, without what it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretShown {
    /// Its name.
    pub name: SecretName,
    /// The machine whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MacAddress>,
    /// The machines whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// Where it is laid down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// With which permission bits, in octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it was set.
    pub set: Timestamp,
    /// By whom.
    pub by: String,
}

/// What `PUT` takes. Not to be printed.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretBody {
    /// The machine whose it is: this or a selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MacAddress>,
    /// The machines whose it is, by their labels; empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// Where stage 1 lays it down; without, it is kept and laid down nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Permission bits in octal; 0600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `user:group` of the image; root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is, as text: this or the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it is, as base64 (RFC 4648 §4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// `GET /v1/secrets`, by name
#[utoipa::path(
    get,
    path = "/v1/secrets",
    tag = "secrets",
    params(Paging),
    responses((status = OK, body = Page<SecretShown>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<SecretShown>>> {
    let secrets = api.ledger.stored(|records| records.secrets())?;
    Ok(Json(paging.page(secrets, |secret| secret.name.to_string(), SecretShown::of)))
}

/// `GET /v1/secrets/{name}`
#[utoipa::path(
    get,
    path = "/v1/secrets/{name}",
    tag = "secrets",
    params(("name" = SecretName, Path, description = "The secret's name.")),
    responses((status = OK, body = SecretShown))
)]
pub async fn show(State(api): Shared, Path(name): Path<String>) -> Answer<Response> {
    let name = named(&name)?;
    let secret = api.ledger.stored(|records| records.secret(&name))?;
    let secret = secret.ok_or(Refusal::UnknownSecret(name))?;
    Ok(versioned(&version(&secret), &SecretShown::of(secret)))
}

/// `PUT /v1/secrets/{name}`
#[utoipa::path(
    put,
    path = "/v1/secrets/{name}",
    tag = "secrets",
    params(("name" = SecretName, Path, description = "The secret's name."), IfMatch),
    request_body = SecretBody,
    responses((status = OK, body = SecretShown))
)]
pub async fn set(
    State(api): Shared,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    Hidden(body): Hidden<SecretBody>,
) -> Answer<Response> {
    let name = named(&name)?;
    if !api.keyring.lasts() {
        let detail = "the key that secrets are kept under could not be stored when the service started";
        return Err(Problem::new(Kind::Unavailable, detail, "make room in state_dir, then restart bennu"));
    }
    let target = body.target()?;
    let file = body.placement()?;
    let value = api.keyring.seal(&Secret::place(&name), &body.plain()?);
    let request = SetSecret { name, target, file, value, by: caller.who, expected: expected(&headers)? };
    let secret = api.ledger.decide(request, set_secret).await??;
    tracing::info!(name = %secret.name, by = secret.by, "a secret was set");
    Ok(versioned(&version(&secret), &SecretShown::of(secret)))
}

/// `DELETE /v1/secrets/{name}`
#[utoipa::path(
    delete,
    path = "/v1/secrets/{name}",
    tag = "secrets",
    params(("name" = SecretName, Path, description = "The secret's name."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn remove(
    State(api): Shared,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let name = named(&name)?;
    let request = RemoveSecret { name: name.clone(), expected: expected(&headers)? };
    api.ledger.decide(request, remove_secret).await??;
    tracing::info!(%name, by = caller.who, "a secret was removed");
    Ok(StatusCode::NO_CONTENT)
}

fn named(text: &str) -> Answer<SecretName> {
    text.parse().map_err(|error| Problem::told(Kind::Malformed, &error))
}

fn wrong(pointer: &str, detail: &str) -> Problem {
    Problem::new(Kind::Unprocessable, detail, "").at(pointer)
}

impl SecretBody {
    fn target(&self) -> Answer<Target> {
        match (self.machine, &self.selector) {
            (Some(mac), None) => Ok(Target::Machine(mac)),
            (None, Some(selector)) => Ok(Target::Selector(selector.clone())),
            (None, None) => Err(wrong("/selector", "whose it is does not stand there; write machine or selector")),
            (Some(_), Some(_)) => Err(wrong("/selector", "a machine and a selector stand there; write one of them")),
        }
    }

    fn placement(&self) -> Answer<Option<Placement>> {
        let Some(path) = self.path.clone() else {
            return match (&self.mode, &self.owner) {
                (None, None) => Ok(None),
                _ => Err(wrong("/path", "mode and owner are of a file, and there is no path")),
            };
        };
        let mode = match self.mode.as_deref() {
            None => 0o600,
            Some(text) => u32::from_str_radix(text, 8)
                .map_err(|_| wrong("/mode", "a mode is permission bits in octal, such as 0600"))?,
        };
        Ok(Some(Placement { path, mode, owner: self.owner.clone().unwrap_or_default() }))
    }

    fn plain(&self) -> Answer<Zeroizing<Vec<u8>>> {
        let plain = match (&self.value, &self.value_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(base64)) => {
                BASE64_STANDARD.decode(base64).map_err(|_| wrong("/value_base64", "that is no base64"))?
            }
            _ => return Err(wrong("/value", "what it is must stand in value or in value_base64, and in one of them")),
        };
        let plain = Zeroizing::new(plain);
        match plain.len() {
            0 => Err(wrong("/value", "it is empty")),
            1..=MAX_VALUE => Ok(plain),
            _ => Err(wrong("/value", &format!("it is longer than {MAX_VALUE} bytes"))),
        }
    }
}

impl SecretShown {
    fn of(secret: Secret) -> Self {
        let Secret { name, target, file, value: _, set, by } = secret;
        let (machine, selector) = match target {
            Target::Machine(mac) => (Some(mac), None),
            Target::Selector(selector) => (None, Some(selector)),
        };
        let mode = file.as_ref().map(|file| format!("{:04o}", file.mode));
        let owner = file.as_ref().map(|file| file.owner.clone()).filter(|owner| !owner.is_empty());
        Self { name, machine, selector, path: file.map(|file| file.path), mode, owner, set, by }
    }
}
