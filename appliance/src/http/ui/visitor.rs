//! Who looks at a page, and what they ask of the API.

use super::{Ui, assets, failure::Failed};
use crate::{
    appliance::Appliance,
    http::{
        access::{Caller, Door},
        api::{
            boots::now,
            problem::{Answer, Kind, Problem},
            request::Page,
        },
    },
};
use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    http::{Method, header, request::Parts},
    response::Response,
};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

/// Answers of the API to ourselves: a listing of thousands of machines, and no more than a fault could make of it.
const MAX_ANSWER: usize = 64 << 20;

/// Whoever looks at a page.
pub struct Visitor {
    /// How they came in.
    pub door: Door,
    who: String,
    ui: Arc<Ui>,
}

/// What every page has around its own content.
pub struct Chrome {
    /// The page's title.
    pub title: String,
    /// Which entry of the menu it is under.
    pub active: &'static str,
    /// Whom the page is for.
    pub who: String,
    /// What its forms show.
    pub key: String,
    /// Whether there is a session to end.
    pub is_session: bool,
    /// Whether rules are in the menu.
    pub sees_rules: bool,
    /// Whether tokens are in the menu.
    pub sees_tokens: bool,
    /// Whether the audit log is.
    pub sees_audit: bool,
    /// Now, in milliseconds since 1970: browsers' clocks are theirs.
    pub now: u64,
    /// The assets' version.
    pub version: &'static str,
}

/// The menu: what a view is known by, its name, and its address.
const VIEWS: [(&str, &str, &str); 7] = [
    ("rack", "Rack", "/"),
    ("images", "Images", "/ui/images"),
    ("rules", "Rules", "/ui/rules"),
    ("leases", "Leases", "/ui/leases"),
    ("events", "Events", "/ui/events"),
    ("audit", "Audit", "/ui/audit"),
    ("tokens", "Tokens", "/ui/tokens"),
];

impl Chrome {
    /// The menu of whoever looks.
    pub fn views(&self) -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
        VIEWS.iter().filter(|(id, _, _)| match *id {
            "rules" => self.sees_rules,
            "tokens" => self.sees_tokens,
            "audit" => self.sees_audit,
            _ => true,
        })
    }
}

impl FromRequestParts<Arc<Ui>> for Visitor {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, ui: &Arc<Ui>) -> Result<Self, Failed> {
        let door = parts.extensions.get::<Door>().cloned();
        let caller = Caller::from_request_parts(parts, &()).await.map_err(Failed)?;
        let door = door.ok_or_else(|| Failed(Problem::new(Kind::Internal, "it is not known who asks", "")))?;
        Ok(Self { door, who: caller.who, ui: ui.clone() })
    }
}

impl Visitor {
    /// What is around a page.
    pub fn chrome(&self, title: impl Into<String>, active: &'static str) -> Chrome {
        Chrome {
            title: title.into(),
            active,
            who: self.who.clone(),
            key: self.door.key().map_or(String::new(), |key| key.reveal().to_owned()),
            is_session: self.door.is_session(),
            sees_rules: self.may(Method::GET, "/v1/rules"),
            sees_tokens: self.may(Method::GET, "/v1/tokens"),
            sees_audit: self.may(Method::GET, "/v1/audit"),
            now: now().0,
            version: &assets::VERSION,
        }
    }

    /// Whether they might ask so.
    pub fn may(&self, method: Method, path: &str) -> bool {
        self.door.allows(&method, path)
    }

    /// What the API answers to a GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        let (_, bytes) = self.ask(Method::GET, path, Body::empty(), None).await?;
        read(&bytes)
    }

    /// What answers of the API to these GETs are made of, for whom it would give them to.
    pub fn behind(&self, paths: &[&str]) -> Answer<&Appliance> {
        for path in paths {
            let internal = |error: http::Error| Problem::new(Kind::Internal, error.to_string(), "");
            self.door.admit(&mut Request::get(*path).body(Body::empty()).map_err(internal)?)?;
        }
        Ok(&self.ui.appliance)
    }

    /// What the API answers to a GET, where whoever looks may ask so.
    pub async fn get_if_seen<T: DeserializeOwned>(&self, path: &str) -> Answer<Option<T>> {
        match self.may(Method::GET, path) {
            true => self.get(path).await.map(Some),
            false => Ok(None),
        }
    }

    /// A listing, all its pages.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Answer<Vec<T>> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let page: Page<T> = self.get(&format!("{path}{mark}limit=1000{after}")).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => after = format!("&after={}", encoded(&next)),
                None => return Ok(items),
            }
        }
    }

    /// Asks for a change; `etag` is of what the person looked at.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>, etag: Option<&str>) -> Answer<Vec<u8>> {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let etag = etag.filter(|etag| !etag.is_empty());
        Ok(self.ask(method, path, body, etag).await?.1)
    }

    /// An answer of the API with its ETag.
    pub async fn get_with_etag<T: DeserializeOwned>(&self, path: &str) -> Answer<(T, String)> {
        let (response, bytes) = self.ask(Method::GET, path, Body::empty(), None).await?;
        let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        Ok((read(&bytes)?, etag.to_owned()))
    }

    async fn ask(&self, method: Method, path: &str, body: Body, etag: Option<&str>) -> Answer<(Response<()>, Vec<u8>)> {
        let internal = |error: &dyn std::fmt::Display| Problem::new(Kind::Internal, error.to_string(), "");
        let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        let mut request = request.body(body).map_err(|error| internal(&error))?;
        self.door.admit(&mut request)?;
        let Ok(response) = self.ui.api.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| internal(&error))?;
        let bytes = body.to_bytes().to_vec();
        match parts.status.is_success() {
            true => Ok((Response::from_parts(parts, ()), bytes)),
            false => Err(read::<Problem>(&bytes).unwrap_or_else(|_| internal(&parts.status))),
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(
            Kind::Internal,
            format!("the API's answer cannot be read: {error}"),
            "report this to Bennu's authors",
        )
    })
}

/// Text as part of a path or a query.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
