//! What could not be shown or done, as a page that says why and what to do.

use super::{assets, put_on, visitor::encoded};
use crate::http::{access::Refused, api::problem::Problem};
use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
};

/// A problem of the API's, for a person.
#[derive(Debug)]
pub struct Failed(pub Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// What a view gives.
pub type Shown = Result<Response, Failed>;

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    problem: &'a Problem,
    version: &'a str,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let page = FailurePage { problem: &self.0, version: &assets::VERSION };
        (status, rendered(&page)).into_response()
    }
}

/// A template's page.
pub fn page(template: &impl Template) -> Shown {
    Ok(rendered(template))
}

fn rendered(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be rendered; see the service's log\n").into_response()
        }
    }
}

/// For a browser that is not let in: the way to log in, or why that would not help.
pub fn refused(refused: &Refused, problem: Problem, path: &str) -> Response {
    let mut response = match refused {
        Refused::NoToken | Refused::Unknown | Refused::Expired(_) => {
            let next = if path == "/" { String::new() } else { format!("?next={}", encoded(path)) };
            Redirect::to(&format!("/login{next}")).into_response()
        }
        _ => Failed(problem).into_response(),
    };
    put_on(&mut response);
    response
}
