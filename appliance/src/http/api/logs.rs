//! `/v1/boots/{id}/logs`: what a machine said during a boot.

use super::{
    Api, Shared, heavy,
    problem::{Answer, Kind, Problem},
    request::Params,
};
use crate::{
    author::Sight,
    http::access::Caller,
    logs::{Kept, LineId, Said, Which},
};
use axum::{
    Json,
    extract::{Path, State},
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
};
use bennu_rules::{MacAddress, boot::BootId, syslog::Severity};
use futures_util::{StreamExt, future, stream};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, convert::Infallible, io, sync::Arc};
use tokio::sync::broadcast::{self, error::RecvError};

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
    /// Only lines that are at least as severe.
    severity: Option<Severity>,
    /// Only what came after the line with this id.
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}-[0-9]{1,9}$")]
    after: Option<String>,
    /// Whether to go on with the next as they come, as server-sent events.
    #[serde(default)]
    follow: bool,
}

/// Where a client that follows goes on.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub struct LastLineId {
    /// The id of the last line that was seen: what came after it comes first.
    #[param(rename = "Last-Event-ID", pattern = "^([0-9]{1,18}-[0-9]{1,9})?$")]
    last_event_id: Option<String>,
}

/// The last lines of a boot, oldest first.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogShown {
    /// The boot.
    pub boot: BootId,
    /// The lines.
    pub items: Vec<Kept>,
    /// The id of the last line there is, to follow from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// `GET /v1/boots/{id}/logs`
///
/// With `follow=true` as server-sent events, each `event: log` with a line as data and its id, and the next lines as they
/// come. `Last-Event-ID`, or `after`, goes on behind a line that was seen.
#[utoipa::path(
    get,
    path = "/v1/boots/{id}/logs",
    tag = "boots",
    operation_id = "logs",
    params(("id" = BootId, Path, description = "As listings show it."), Wanted, LastLineId),
    responses((status = OK, body = LogShown))
)]
pub async fn show(
    State(api): Shared,
    caller: Caller,
    Path(id): Path<String>,
    Params(wanted): Params<Wanted>,
    headers: HeaderMap,
) -> Answer<Response> {
    let count = wanted.lines.unwrap_or(USUAL);
    if count > MOST {
        return Err(Problem::new(Kind::Malformed, format!("query: lines is at most {MOST}"), ""));
    }
    let after = match headers.get("last-event-id").filter(|id| wanted.follow && !id.is_empty()) {
        Some(id) => Some(line_id(id.to_str().unwrap_or_default())?),
        None => wanted.after.as_deref().map(line_id).transpose()?,
    };
    let id = BootId(id);
    let Some(boot) = api.ledger.boot(&id)? else {
        let detail = format!("there is no boot {}", id.0.chars().take(64).collect::<String>());
        return Err(Problem::new(Kind::NotFound, detail, "`bennu boot list` shows every boot that is kept"));
    };
    // Subscribed first: what is said while the file is read is not lost.
    let live = api.logs.follow();
    // Whoever goes on behind a line misses none, however many they are.
    let count = if after.is_some() && wanted.follow { MOST } else { count };
    let which = Which { count, after, least: wanted.severity };
    // One answer has its place from outside, until it has been sent.
    let place = match wanted.follow {
        true => match api.places.take(heavy::Work::Log).await {
            Ok(place) => Some(place),
            Err(problem) => return Ok(heavy::refused(problem)),
        },
        false => None,
    };
    let (machine, waiting) = (boot.machine, VecDeque::new());
    let mut follower = Follower { api: api.clone(), live, machine, boot: id, which, waiting, place };
    follower.look_up().await.map_err(|error| {
        Problem::new(Kind::Internal, format!("the boot's log cannot be read: {error}"), "look at the service's disk")
    })?;
    if !wanted.follow {
        let last = follower.which.after.map(|last| last.to_string());
        return Ok(Json(LogShown { boot: follower.boot, items: follower.waiting.into(), last }).into_response());
    }
    let stop = api.shutdown.clone().cancelled_owned();
    let (sight, ledger) = (Sight::current(), api.ledger.clone());
    let lost = sight.clone().loses(machine, ledger.clone());
    let ends = future::select(Box::pin(caller.leaves(sight, ledger)), Box::pin(lost));
    let lines = stream::unfold(follower, |mut follower| async move { Some((sent(&follower.next().await?), follower)) });
    let events = lines.map(Ok::<_, Infallible>).take_until(future::select(Box::pin(stop), ends));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response())
}

fn line_id(text: &str) -> Answer<LineId> {
    let refuse = |()| Problem::new(Kind::Malformed, "that is no line's id", "send the id of a line as it was");
    text.parse().map_err(refuse)
}

/// Somebody who reads on.
struct Follower {
    api: Arc<Api>,
    live: broadcast::Receiver<Said>,
    machine: MacAddress,
    boot: BootId,
    /// What is still of interest: `after` is the last line that was read.
    which: Which,
    waiting: VecDeque<Kept>,
    /// Until what waits has been sent.
    place: Option<heavy::Place>,
}

impl Follower {
    /// Takes from the file what has not been read.
    async fn look_up(&mut self) -> io::Result<()> {
        let (api, machine, boot, which) = (self.api.clone(), self.machine, self.boot.clone(), self.which);
        let look = move || api.logs.read(machine, &boot, &which);
        let lines = tokio::task::spawn_blocking(look).await.map_err(io::Error::other).flatten()?;
        if let Some(last) = lines.last() {
            self.which.after = Some(last.id());
        }
        self.waiting.extend(lines);
        Ok(())
    }

    /// The next line; `None` when there will be none.
    async fn next(&mut self) -> Option<Kept> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some(line);
            }
            self.place = None;
            match self.live.recv().await {
                Ok(Said { boot, line, .. }) if boot == self.boot && self.which.takes(&line) => {
                    self.which.after = Some(line.id());
                    return Some(line);
                }
                Ok(_) => {}
                // Who reads slower than machines speak reads on in the file.
                Err(RecvError::Lagged(_)) => {
                    self.which.count = MOST;
                    self.place = Some(self.api.places.take(heavy::Work::Log).await.ok()?);
                    self.look_up().await.ok()?;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn sent(line: &Kept) -> sse::Event {
    let data = serde_json::to_string(line).unwrap_or_default();
    sse::Event::default().event("log").id(line.id().to_string()).data(data)
}
