//! Assignment rules: which machines boot what, unless they have an assignment of their own.

use super::{
    failure::{Shown, page},
    form::Form,
    visitor::{Chrome, Visitor, encoded},
};
use crate::http::api::{
    images::ImageListed,
    problem::{Kind, Problem},
    request::Params,
};
use askama::Template;
use axum::{
    http::Method,
    response::{IntoResponse, Redirect},
};
use serde::Deserialize;
use serde_json::json;

/// What was just done.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    done: String,
}

/// A rule, as far as the page shows it.
#[derive(Deserialize)]
struct Rule {
    name: String,
    #[serde(default)]
    selector: String,
    image: String,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    description: String,
    #[serde(default)]
    matches: u64,
    #[serde(default)]
    applies: u64,
}

#[derive(Template)]
#[template(path = "rules.html")]
struct RulesPage {
    chrome: Chrome,
    rules: Vec<Rule>,
    images: Vec<String>,
    may_change: bool,
    done: &'static str,
}

/// `GET /ui/rules`
pub async fn show(visitor: Visitor, Params(wanted): Params<Wanted>) -> Shown {
    let mut rules: Vec<Rule> = visitor.list("/v1/rules").await?;
    rules.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
    let images: Vec<ImageListed> = visitor.list("/v1/images").await?;
    page(&RulesPage {
        chrome: visitor.chrome("Rules", "rules"),
        rules,
        images: super::machine::bootable(&images),
        may_change: visitor.may(Method::PUT, "/v1/rules/any"),
        done: match wanted.done.as_str() {
            "set" => "The rule is set. Machines go by it from their next boot on.",
            "removed" => "The rule is gone.",
            _ => "",
        },
    })
}

/// What the form sends.
#[derive(Deserialize)]
pub struct Change {
    r#do: String,
    name: String,
    #[serde(default)]
    selector: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    priority: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    sure: String,
}

/// `POST /ui/rules`
pub async fn change(visitor: Visitor, Form(form): Form<Change>) -> Shown {
    let path = format!("/v1/rules/{}", encoded(&form.name));
    let done = match form.r#do.as_str() {
        "remove" => {
            super::machine::changes::is_sure(&form.sure)?;
            visitor.send(Method::DELETE, &path, None, None).await?;
            "removed"
        }
        _ => {
            let priority = if form.priority.trim().is_empty() { "0" } else { form.priority.trim() };
            let wrong =
                || Problem::new(Kind::Malformed, "the priority is no whole number", "write one such as 10 or -5");
            let priority: i32 = priority.parse().map_err(|_| wrong())?;
            let rule = json!({
                "selector": form.selector,
                "image": form.image,
                "priority": priority,
                "description": form.description,
            });
            visitor.send(Method::PUT, &path, Some(rule), None).await?;
            "set"
        }
    };
    Ok(Redirect::to(&format!("/ui/rules?done={done}")).into_response())
}
