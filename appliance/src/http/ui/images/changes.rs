//! What the forms of the images' page do. Uploads go from the page's script to `/v1/imports`.

use super::super::{failure::Shown, form::Form, machine::changes::is_sure, visitor::Visitor};
use crate::http::api::problem::{Kind, Problem};
use axum::{
    http::Method,
    response::{IntoResponse, Redirect},
};
use bennu_rules::image::ImageName;
use serde::Deserialize;
use serde_json::json;

/// What to do with a tag.
#[derive(Deserialize)]
pub struct Act {
    tag: String,
    r#do: String,
    #[serde(default)]
    sure: String,
}

/// `POST /ui/tags`
pub async fn act(visitor: Visitor, Form(form): Form<Act>) -> Shown {
    let name: ImageName = crate::http::api::request::named(&form.tag)?;
    let done = match form.r#do.as_str() {
        "rollback" => {
            let rollback = json!({ "do": "rollback" });
            visitor.send(Method::POST, &format!("/v1/tags/{name}"), Some(rollback), None).await?;
            "rolled-back"
        }
        "remove" => {
            is_sure(&form.sure)?;
            visitor.send(Method::DELETE, &format!("/v1/images/{name}"), None, None).await?;
            "removed"
        }
        _ => {
            return Err(
                Problem::new(Kind::Malformed, "nobody knows what to do with the tag", "load the page again").into()
            );
        }
    };
    Ok(Redirect::to(&format!("/ui/images?done={done}")).into_response())
}

/// Which push.
#[derive(Deserialize)]
pub struct Retry {
    tag: String,
}

/// `POST /ui/pushes`
pub async fn retry(visitor: Visitor, Form(form): Form<Retry>) -> Shown {
    let name: ImageName = crate::http::api::request::named(&form.tag)?;
    visitor.send(Method::POST, &format!("/v1/pushes/{name}"), Some(json!({ "do": "retry" })), None).await?;
    Ok(Redirect::to("/ui/images?done=retried").into_response())
}
