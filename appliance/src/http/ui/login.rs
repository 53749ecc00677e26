//! Logging in with a token, and out again.

use super::{
    assets,
    failure::{Shown, page},
    form::{Form, OpenForm},
};
use crate::http::{
    access::{Door, Refused, credentials, sessions::COOKIE},
    api::{problem::Problem, request::Params},
};
use askama::Template;
use axum::{
    Extension,
    http::{HeaderMap, header},
    response::{IntoResponse, Redirect},
};
use serde::Deserialize;

/// Where to go afterwards.
#[derive(Debug, Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
}

/// What the form sends.
#[derive(Deserialize)]
pub struct LoginForm {
    token: String,
    #[serde(default)]
    next: String,
}

/// What needs no field.
#[derive(Debug, Deserialize)]
pub struct Empty {}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    version: &'a str,
    next: &'a str,
    problem: Option<Problem>,
}

/// A page of ours, whatever a link says.
fn own(next: &str) -> &str {
    let is_ours = next.starts_with("/ui/") && !next.contains("//") && !next.contains('\\');
    if is_ours && next.bytes().all(|byte| byte.is_ascii_graphic()) { next } else { "/" }
}

/// `GET /login`
pub async fn show(Extension(door): Extension<Door>, Params(Next { next }): Params<Next>) -> Shown {
    if door.is_local() {
        return Ok(Redirect::to(own(&next)).into_response());
    }
    page(&LoginPage { version: &assets::VERSION, next: own(&next), problem: None })
}

/// `POST /login`
pub async fn enter(Extension(door): Extension<Door>, OpenForm(form): OpenForm<LoginForm>) -> Shown {
    let next = own(&form.next);
    if door.is_local() {
        return Ok(Redirect::to(next).into_response());
    }
    match door.log_in(&form.token)? {
        Ok(cookie) => {
            let cookie = format!("{COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict");
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response())
        }
        Err(refused) => {
            let problem = refused.problem();
            let status = problem.status();
            let mut response = page(&LoginPage { version: &assets::VERSION, next, problem: Some(problem) })?;
            *response.status_mut() = status;
            if let Refused::TooMany { wait_ms } = refused {
                response.headers_mut().insert(header::RETRY_AFTER, wait_ms.div_ceil(1000).into());
            }
            Ok(response)
        }
    }
}

/// `POST /ui/logout`
pub async fn leave(Extension(door): Extension<Door>, headers: HeaderMap, Form(Empty {}): Form<Empty>) -> Shown {
    if let Some(cookie) = credentials::cookie(&headers) {
        door.log_out(cookie);
    }
    let gone = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok(([(header::SET_COOKIE, gone)], Redirect::to("/login")).into_response())
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn nobody_is_led_elsewhere() {
        for good in ["/ui/images", "/ui/machines/52:54:00:00:00:01"] {
            assert_eq!(own(good), good);
        }
        for bad in
            ["", "/", "//evil.example", "https://evil.example", "/ui//evil", "/ui/\\evil", "/ui/a\r\nb", "/login"]
        {
            assert_eq!(own(bad), "/", "{bad}");
        }
    }
}
