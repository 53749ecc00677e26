//! Forms, and that they are our own.

use super::failure::Failed;
use crate::http::{
    access::{Door, Refused},
    api::problem::{Answer, Kind, Problem},
};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use serde::{Deserialize, de::DeserializeOwned};

/// Forms are a few fields.
const MAX_FORM: usize = 64 << 10;

/// A form that was sent from a page of the same session: it shows the session's key.
pub struct Form<T>(pub T);

/// A form that anybody may send: the one to log in with.
pub struct OpenForm<T>(pub T);

#[derive(Deserialize)]
struct Keyed {
    #[serde(default)]
    key: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failed> {
        let door = request.extensions().get::<Door>().cloned();
        let body = body(request).await?;
        let Keyed { key } = parse(&body)?;
        // A program that came with its token has no session, and no page makes it.
        let is_ours = door.is_some_and(|door| door.key().is_none_or(|own| own.is(&key)));
        if !is_ours {
            return Err(Failed(Refused::NoKey.problem()));
        }
        Ok(Self(parse(&body)?))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OpenForm<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failed> {
        Ok(Self(parse(&body(request).await?)?))
    }
}

async fn body(request: Request) -> Answer<Bytes> {
    axum::body::to_bytes(request.into_body(), MAX_FORM)
        .await
        .map_err(|_| Problem::new(Kind::TooLarge, format!("the form is longer than {MAX_FORM} bytes"), ""))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_urlencoded::from_bytes(body).map_err(|error| {
        Problem::new(Kind::Malformed, format!("the form cannot be read: {error}"), "load the page again")
    })
}
