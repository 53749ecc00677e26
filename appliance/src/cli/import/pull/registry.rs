//! A registry's side of a pull: manifests and blobs of one repository (OCI distribution specification, "Pull"), and the
//! login that it asks for.

use super::{
    challenge::{Challenge, challenges},
    credentials::Known,
    reference::Reference,
    url::Url,
    web::{Failure, Web, secret, short},
};
use crate::cli::{
    client::encoded,
    error::{CliError, Done},
};
use bennu_images::oci::{DOCKER_INDEX, DOCKER_MANIFEST, LARGEST_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use bennu_rules::image::Digest;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Deserialize;

/// A token with all it says is a few kilobytes; an error is less.
const LARGEST_ANSWER: u64 = 1 << 20;

/// One repository of a registry.
#[derive(Debug)]
pub struct Registry {
    /// What its requests go through.
    pub web: Web,
    base: Url,
    /// With its host, for people.
    place: String,
    name: String,
    login: Known,
    /// What the registry took last, or wants.
    authorization: Option<HeaderValue>,
}

/// A manifest as it came.
#[derive(Debug)]
pub struct Found {
    /// Its bytes; their digest is nobody's word yet.
    pub bytes: Vec<u8>,
    /// The media type that the registry gave it, where that says anything.
    pub media_type: Option<String>,
    /// The digest that the registry says it has.
    pub digest: Option<String>,
}

impl Registry {
    /// Finds out how to speak to it.
    pub async fn open(web: Web, reference: &Reference, login: Known) -> Done<Self> {
        let url = |secure| Url::new(secure, reference.registry.clone(), "/v2/");
        let (mut base, plain) = (url(true), url(false));
        let mut answer = web.get(&base, HeaderMap::new()).await;
        if matches!(answer, Err(Failure::Plain(_))) && web.may_be_plain(&plain) {
            base = plain;
            answer = web.get(&base, HeaderMap::new()).await;
        }
        let (answer, _) = answer.map_err(Failure::told)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Err(CliError::failed(
                format!("{base}: there is no registry of container images"),
                "look at the host and port",
            )),
            _ => Ok(Self {
                web,
                base,
                place: format!("{}/{}", reference.registry, reference.name),
                name: reference.name.clone(),
                login,
                authorization: None,
            }),
        }
    }

    /// The manifest of a tag or digest, if there is one.
    pub async fn manifest(&mut self, version: &str) -> Result<Option<Found>, Failure> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let accept = HeaderValue::from_str(&accept).map_err(|error| CliError::failed(error.to_string(), ""))?;
        let target = format!("manifests/{version}");
        let (mut answer, place) = self.ask(&target, &HeaderMap::from_iter([(header::ACCEPT, accept)])).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.succeed(&place, &mut answer).await?;
        let text = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let media_type = text("content-type").and_then(|text| Some(text.split(';').next()?.trim().to_owned()));
        // Plain file servers give every JSON the same type; what the document says of itself counts then.
        let media_type = media_type.filter(|name| !matches!(name.as_str(), "" | "application/json" | "text/plain"));
        let digest = text("docker-content-digest");
        let bytes = self.web.collect(&place.to_string(), answer.body_mut(), LARGEST_MANIFEST).await?;
        Ok(Some(Found { bytes, media_type, digest }))
    }

    /// A blob, from a byte on.
    pub async fn blob(&mut self, digest: &Digest, from: u64) -> Result<Response<Incoming>, Failure> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.insert(header::RANGE, range.map_err(|error| CliError::failed(error.to_string(), ""))?);
        }
        let target = format!("blobs/{digest}");
        let (mut answer, place) = self.ask(&target, &headers).await?;
        self.succeed(&place, &mut answer).await?;
        Ok(answer)
    }

    fn url(&self, target: &str) -> Url {
        self.base.join(&format!("/v2/{}/{target}", self.name)).unwrap_or_else(|| self.base.clone())
    }

    /// The answer, and who gave it.
    async fn ask(&mut self, target: &str, headers: &HeaderMap) -> Result<(Response<Incoming>, Url), Failure> {
        let url = self.url(target);
        let mut is_new = false;
        loop {
            let mut headers = headers.clone();
            headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
            let (answer, place) = self.web.get(&url, headers).await?;
            // Only the registry may ask for the login, and a token that was just given does not become better.
            if answer.status() != StatusCode::UNAUTHORIZED || is_new || !place.has_origin_of(&self.base) {
                return Ok((answer, place));
            }
            self.authorization = self.authorize(&challenges(answer.headers())).await?;
            is_new = true;
        }
    }

    /// Does what the registry asks for.
    async fn authorize(&self, ways: &[Challenge]) -> Result<Option<HeaderValue>, Failure> {
        let bearer = ways.iter().find_map(|way| match way {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        if let Some((realm, service, scope)) = bearer {
            let token = self.token(realm, service.as_deref(), scope.as_deref()).await?;
            let told = || CliError::failed(format!("{realm} gave a token that is none"), "");
            return secret(&format!("Bearer {token}")).map(Some).ok_or_else(|| told().into());
        }
        let basic = ways.contains(&Challenge::Basic);
        match &self.login.credentials {
            Some(login) if basic => Ok(secret(&login.basic())),
            Some(_) => {
                let what =
                    format!("the registry of {} asks for a login of a kind that Bennu does not know", self.place);
                Err(CliError::failed(what, "copy the image with skopeo, and import oci:DIR").into())
            }
            None => Err(self.login_wanted().into()),
        }
    }

    async fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String, Failure> {
        let failed = |why: String| {
            let what = format!("the registry of {} sends to {} for a token: {why}", self.place, short(realm));
            CliError::failed(what, "look at the registry's configuration, and at the login (--creds)")
        };
        let url = Url::parse(realm).ok_or_else(|| failed("this is no address".to_owned()))?;
        // A password goes there, and a token comes back.
        let is_local = !self.base.is_secure() && self.base.is_loopback() && url.is_loopback();
        if !url.is_secure() && !is_local {
            return Err(failed("it is not https, and would tell the password to anybody on the way".to_owned()).into());
        }
        let scope = scope.map_or_else(|| format!("repository:{}:pull", self.name), str::to_owned);
        let service = service.map(|service| format!("service={}&", encoded(service))).unwrap_or_default();
        let url = url.with_query(&format!("{service}scope={}", encoded(&scope)));
        let mut headers = HeaderMap::new();
        let basic = self.login.credentials.as_ref().and_then(|login| secret(&login.basic()));
        headers.extend(basic.map(|value| (header::AUTHORIZATION, value)));
        let (mut answer, _) = self.web.get(&url, headers).await?;
        let status = answer.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.login_refused().into());
        }
        if !status.is_success() {
            return Err(failed(format!("it answered {status}")).into());
        }
        #[derive(Deserialize)]
        struct Told {
            token: Option<String>,
            access_token: Option<String>,
        }
        let body = self.web.collect(&url.to_string(), answer.body_mut(), LARGEST_ANSWER).await?;
        let told: Option<Told> = serde_json::from_slice(&body).ok();
        let token = told.and_then(|told| told.token.or(told.access_token)).filter(|token| !token.is_empty());
        token.ok_or_else(|| failed("there is no token in its answer".to_owned()).into())
    }

    fn login_wanted(&self) -> CliError {
        let help = match &self.login.unusable {
            Some(why) => format!("{why}: give --creds USER:PASSWORD, or set BENNU_REGISTRY_CREDS"),
            None => "log in (skopeo login), give --creds USER:PASSWORD, or set BENNU_REGISTRY_CREDS; a name that the \
                     registry does not have may look so too"
                .to_owned(),
        };
        CliError::failed(format!("the registry of {} asks for a user and a password", self.place), help)
    }

    fn login_refused(&self) -> CliError {
        match &self.login.credentials {
            Some(login) => CliError::failed(
                format!("the registry of {} does not take the login {login:?}", self.place),
                "look at the user and the password, and whether this user may pull that image",
            ),
            None => self.login_wanted(),
        }
    }

    /// Turns whatever is no success into an error.
    async fn succeed(&self, place: &Url, answer: &mut Response<Incoming>) -> Result<(), Failure> {
        let status = answer.status();
        let is_registry = place.has_origin_of(&self.base);
        let help = match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_registry => return Err(self.login_refused().into()),
            _ if !is_registry => "the registry keeps its blobs there: look at its storage, and at both clocks",
            StatusCode::NOT_FOUND => "the image is not whole there: push it anew",
            StatusCode::TOO_MANY_REQUESTS => "the registry wants fewer requests: wait, or log in",
            _ if status.is_server_error() => "look at the registry's log, and try again",
            _ => "look whether this is a registry of container images",
        };
        let body = self.web.collect(&place.to_string(), answer.body_mut(), LARGEST_ANSWER).await.unwrap_or_default();
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = told["errors"][0]["message"].as_str().map(|told| format!(" ({})", short(told))).unwrap_or_default();
        let who = if is_registry { "the registry" } else { "the storage that the registry leads to" };
        Err(CliError::failed(format!("{place}: {who} answered {status}{told}"), help).into())
    }
}
