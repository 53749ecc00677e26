//! `/v1/boots/{id}/logs`: what a machine said during a boot.

use super::{
    Shared,
    problem::{Answer, Kind, Problem},
    request::Params,
};
use crate::{
    author::Sight,
    http::access::Caller,
    logs::{Kept, Said},
};
use axum::{
    Json,
    extract::{Path, State},
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
};
use bennu_rules::boot::BootId;
use futures_util::{StreamExt, future, stream};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

/// Lines of one answer.
const MOST: usize = 20_000;
const USUAL: usize = 1000;

/// Which lines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// How many of the last; 1000 unless told otherwise.
    #[param(value_type = Option<usize>, maximum = 20000)]
    lines: Option<usize>,
    /// Whether to go on with the next as they come, as server-sent events.
    #[serde(default)]
    follow: bool,
}

/// The last lines of a boot, oldest first.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogShown {
    /// The boot.
    pub boot: BootId,
    /// The lines.
    pub items: Vec<Kept>,
}

/// `GET /v1/boots/{id}/logs`
///
/// With `follow=true` as server-sent events, each `event: log` with a line as data, and the next lines as they come.
#[utoipa::path(
    get,
    path = "/v1/boots/{id}/logs",
    tag = "boots",
    operation_id = "logs",
    params(("id" = BootId, Path, description = "As listings show it."), Wanted),
    responses((status = OK, body = LogShown))
)]
pub async fn show(
    State(api): Shared,
    caller: Caller,
    Path(id): Path<String>,
    Params(wanted): Params<Wanted>,
) -> Answer<Response> {
    let lines = wanted.lines.unwrap_or(USUAL);
    if lines > MOST {
        return Err(Problem::new(Kind::Malformed, format!("query: lines is at most {MOST}"), ""));
    }
    let id = BootId(id);
    if api.ledger.boot(&id)?.is_none() {
        let detail = format!("there is no boot {}", id.0.chars().take(64).collect::<String>());
        return Err(Problem::new(Kind::NotFound, detail, "`bennu boot list` shows every boot that is kept"));
    }
    // Subscribed first: what is said while the file is read is not lost.
    let live = BroadcastStream::new(api.logs.follow());
    let (shared, of) = (api.clone(), id.clone());
    let items = tokio::task::spawn_blocking(move || shared.logs.last(&of, lines)).await;
    let items = items.map_err(std::io::Error::other).flatten().map_err(|error| {
        Problem::new(Kind::Internal, format!("the boot's log cannot be read: {error}"), "look at the service's disk")
    })?;
    if !wanted.follow {
        return Ok(Json(LogShown { boot: id, items }).into_response());
    }
    let last = items.last().cloned();
    let mut is_new = last.is_none();
    let live = live.filter_map(move |said| {
        future::ready(match said {
            Ok(Said { boot, line }) if boot == id => {
                // What was in the file already comes no second time.
                let known = !is_new && last.as_ref().is_some_and(|last| line.at <= last.at);
                is_new |= !known;
                (!known).then(|| sent(&line))
            }
            Ok(_) => None,
            Err(BroadcastStreamRecvError::Lagged(lost)) => {
                Some(sse::Event::default().event("lost").data(format!("{{\"lost\":{lost}}}")))
            }
        })
    });
    let past = stream::iter(items.iter().map(sent).collect::<Vec<_>>());
    let stop = api.shutdown.clone().cancelled_owned();
    let ends = Box::pin(Sight::current().ends(api.ledger.clone(), caller.expires));
    let events = past.chain(live).map(Ok::<_, Infallible>).take_until(future::select(Box::pin(stop), ends));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response())
}

fn sent(line: &Kept) -> sse::Event {
    sse::Event::default().event("log").data(serde_json::to_string(line).unwrap_or_default())
}
