//! Tokens: who may come from afar, and to do what.

use super::{
    failure::{Shown, page},
    form::Form,
    format::When,
    visitor::{Chrome, Visitor, encoded},
};
use crate::http::api::{
    boots::now,
    problem::{Kind, Problem},
    request::Params,
    tokens::{TokenMade, TokenShown},
};
use askama::Template;
use axum::{
    http::Method,
    response::{IntoResponse, Redirect},
};
use bennu_rules::token::Scope;
use serde::Deserialize;
use serde_json::json;

/// What was just done.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    done: String,
}

struct Row {
    id: String,
    name: String,
    may: String,
    by: String,
    created: When,
    expires: Option<When>,
    used: Option<When>,
    look: (&'static str, &'static str),
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    chrome: Chrome,
    rows: Vec<Row>,
    scopes: Vec<String>,
    made: Option<TokenMade>,
    done: &'static str,
}

impl Row {
    fn of(token: TokenShown) -> Self {
        let now = now();
        Self {
            id: token.id.to_string(),
            name: token.name.to_string(),
            may: match &token.limit {
                Some(limit) => format!("{} on {limit}", token.scopes),
                None => token.scopes.to_string(),
            },
            by: token.by,
            created: When::of(token.created, now),
            expires: token.expires.map(|at| When::of(at, now)),
            used: token.last_used.map(|at| When::of(at, now)),
            look: if token.expired { ("never", "ended") } else { ("up", "valid") },
        }
    }
}

async fn shown(visitor: &Visitor, made: Option<TokenMade>, done: &'static str) -> Shown {
    let tokens: Vec<TokenShown> = visitor.list("/v1/tokens").await?;
    page(&TokensPage {
        chrome: visitor.chrome("Tokens", "tokens"),
        rows: tokens.into_iter().map(Row::of).collect(),
        scopes: Scope::ALL.iter().map(ToString::to_string).collect(),
        made,
        done,
    })
}

/// `GET /ui/tokens`
pub async fn show(visitor: Visitor, Params(wanted): Params<Wanted>) -> Shown {
    shown(
        &visitor,
        None,
        if wanted.done == "revoked" { "Revoked: the next request that shows it is refused." } else { "" },
    )
    .await
}

/// What the forms send.
#[derive(Deserialize)]
pub struct Change {
    r#do: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scopes: String,
    #[serde(default)]
    limit: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    sure: String,
}

/// `POST /ui/tokens`. The token that is made is in this answer, and nowhere after it.
pub async fn change(visitor: Visitor, Form(form): Form<Change>) -> Shown {
    if form.r#do == "revoke" {
        super::machine::changes::is_sure(&form.sure)?;
        visitor.send(Method::DELETE, &format!("/v1/tokens/{}", encoded(&form.id)), None, None).await?;
        return Ok(Redirect::to("/ui/tokens?done=revoked").into_response());
    }
    let scopes: Vec<&str> = form.scopes.split([',', ' ']).filter(|scope| !scope.is_empty()).collect();
    let mut body = json!({ "name": form.name.trim(), "scopes": scopes });
    if !form.limit.trim().is_empty() {
        body["limit"] = json!(form.limit.trim());
    }
    if !form.days.trim().is_empty() {
        let wrong = |_| Problem::new(Kind::Malformed, "the days are no whole number", "write how many, or nothing");
        body["expires_in_days"] = json!(form.days.trim().parse::<u32>().map_err(wrong)?);
    }
    let made = visitor.send(Method::POST, "/v1/tokens", Some(body), None).await?;
    let made = serde_json::from_slice(&made).map_err(|error| Problem::new(Kind::Internal, error.to_string(), ""))?;
    shown(&visitor, Some(made), "").await
}
