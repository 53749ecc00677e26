//! What the forms of a machine's page do.

use super::super::{failure::Shown, form::Form, visitor::Visitor};
use crate::http::api::{
    problem::{Kind, Problem},
    request::mac,
};
use axum::{
    extract::Path,
    http::Method,
    response::{IntoResponse, Redirect},
};
use bennu_rules::MacAddress;
use serde::Deserialize;
use serde_json::json;

/// Which image; none where it is empty.
#[derive(Deserialize)]
pub struct Assign {
    image: String,
    #[serde(default)]
    etag: String,
}

/// A label; without a value it goes.
#[derive(Deserialize)]
pub struct Label {
    name: String,
    value: Option<String>,
}

/// That the person means it.
#[derive(Deserialize)]
pub struct Forget {
    #[serde(default)]
    sure: String,
    #[serde(default)]
    etag: String,
}

fn back(mac: MacAddress, done: &str) -> Shown {
    Ok(Redirect::to(&format!("/ui/machines/{mac}?done={done}")).into_response())
}

/// `POST /ui/machines/{mac}/assignment`
pub async fn assign(visitor: Visitor, Path(text): Path<String>, Form(form): Form<Assign>) -> Shown {
    let mac = mac(&text)?;
    let path = format!("/v1/machines/{mac}/assignment");
    if form.image.is_empty() {
        visitor.send(Method::DELETE, &path, None, Some(&form.etag)).await?;
        return back(mac, "unassigned");
    }
    visitor.send(Method::PUT, &path, Some(json!({ "image": form.image })), Some(&form.etag)).await?;
    back(mac, "assigned")
}

/// `POST /ui/machines/{mac}/labels`
pub async fn label(visitor: Visitor, Path(text): Path<String>, Form(form): Form<Label>) -> Shown {
    let mac = mac(&text)?;
    let change = json!({ "labels": { form.name: form.value } });
    visitor.send(Method::PATCH, &format!("/v1/machines/{mac}"), Some(change), None).await?;
    back(mac, "changed")
}

/// `POST /ui/machines/{mac}/forget`
pub async fn forget(visitor: Visitor, Path(text): Path<String>, Form(form): Form<Forget>) -> Shown {
    let mac = mac(&text)?;
    is_sure(&form.sure)?;
    visitor.send(Method::DELETE, &format!("/v1/machines/{mac}"), None, Some(&form.etag)).await?;
    Ok(Redirect::to("/").into_response())
}

/// Whether the box was ticked that browsers ask for.
pub fn is_sure(sure: &str) -> Result<(), Problem> {
    match sure {
        "yes" => Ok(()),
        _ => Err(Problem::new(
            Kind::Malformed,
            "the form does not say that it is meant",
            "tick its box, then send it again",
        )),
    }
}
