//! `/v1/events`: what happens, as it happens (server-sent events, WHATWG HTML "Server-sent events").

use super::{
    Shared,
    problem::{Answer, Kind, Problem},
    request::{Params, mac},
};
use crate::{
    author::Sight,
    http::access::Caller,
    ledger::{BootEvent, Event, EventId, Following, Ledger, Told, Worded},
};
use axum::{
    extract::State,
    response::sse::{self, Sse},
};
use bennu_rules::{MacAddress, Records, Timestamp, boot::Boot, journey::Observation};
use futures_util::{Stream, StreamExt, future, stream};
use http::HeaderMap;
use serde::Deserialize;
use std::{collections::BTreeSet, convert::Infallible, ops::ControlFlow};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

/// Events of the past that a client who was away gets at most.
const MAX_MISSED: usize = 2000;

/// A boot that is over, and went on for longer than this, is not looked for.
const LONG_BOOT_MS: u64 = 24 * 60 * 60 * 1000;

/// What was seen is told a moment later.
const SLACK_MS: u64 = 1000;

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only this machine's boots, by any of its MACs.
    #[param(value_type = Option<MacAddress>)]
    machine: Option<String>,
}

/// Where a client goes on.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub struct LastEventId {
    /// The id of the last event that was seen: what came after it comes first, as far as it is known.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<String>,
}

/// `GET /v1/events`: what happens, as it happens
///
/// `event: boot` with what was seen of a boot as data, and, where no machine is named, `event: notice` with what concerns
/// the wire or the host, `event: push` with what becomes of pushes and `event: audit` with what people wrote. Every event
/// has an id. `Last-Event-ID` brings what was missed, from memory; where that was too long ago, or before a restart,
/// `event: lost` says so, and what was seen of boots is looked up instead.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(Filter, LastEventId),
    responses((status = OK, content_type = "text/event-stream", body = String, description = "Server-sent events: `boot`, `notice`, `push`, `audit` and `lost`, each with a JSON document as data and an id to go on from."))
)]
pub async fn follow(
    State(api): Shared,
    caller: Caller,
    Params(filter): Params<Filter>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static>> {
    let only = filter.machine.as_deref().map(mac).transpose()?;
    let only = match only {
        Some(mac) => Some(api.ledger.stored(|records| records.machine(mac).map_or(mac, |machine| machine.id))?),
        None => None,
    };
    let sight = Sight::current();
    let (looking, seeing) = (api.ledger.clone(), sight.clone());
    // What belongs to no machine is for those who see all.
    let is_wanted = move |event: &Event| {
        is_of(event, only)
            && (seeing.is_whole()
                || machine_of(event).is_some_and(|machine| {
                    looking.stored(|records| seeing.takes_in_card(machine, records)).unwrap_or(false)
                }))
    };
    let last = last_event_id(&headers)?;
    let Following { missed, live } = api.ledger.follow(last);
    // What happens while the past is looked up comes twice, and is dropped the second time.
    let (past, told) = match (missed, last) {
        (Some(missed), _) => {
            let wanted = missed.iter().filter(|told| is_wanted(&told.event));
            (wanted.map(|told| sent(told)).collect(), BTreeSet::new())
        }
        (None, Some(last)) => {
            let lost = sse::Event::default().event("lost").data("{\"lost\":null}");
            let mut seen = looked_up(&api.ledger, only, Timestamp(last.at.0.saturating_sub(SLACK_MS)))?;
            seen.retain(|event| is_wanted(&Event::Boot(event.clone())));
            let told = seen.iter().map(|event| (event.boot.clone(), event.observation.at)).collect();
            (std::iter::once(lost).chain(seen.iter().map(again)).collect(), told)
        }
        (None, None) => (Vec::new(), BTreeSet::new()),
    };
    let live = BroadcastStream::new(live).filter_map(move |told_now| {
        future::ready(match told_now {
            Ok(now) => match &now.event {
                Event::Boot(event) if told.contains(&(event.boot.clone(), event.observation.at)) => None,
                event => is_wanted(event).then(|| sent(&now)),
            },
            Err(BroadcastStreamRecvError::Lagged(lost)) => {
                Some(sse::Event::default().event("lost").data(format!("{{\"lost\":{lost}}}")))
            }
        })
    });
    let stop = api.shutdown.clone().cancelled_owned();
    let ends = Box::pin(caller.leaves(sight, api.ledger.clone()));
    let events = stream::iter(past).chain(live).map(Ok).take_until(future::select(Box::pin(stop), ends));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()))
}

fn is_of(event: &Event, only: Option<MacAddress>) -> bool {
    only.is_none() || machine_of(event) == only
}

/// The machine that an event is of, if it is of one.
fn machine_of(event: &Event) -> Option<MacAddress> {
    match event {
        Event::Boot(event) => Some(event.machine),
        Event::Notice(_) | Event::Push(_) | Event::Audit(_) => None,
    }
}

/// An empty one is that of a client that has seen nothing (WHATWG HTML, "The `Last-Event-ID` header").
fn last_event_id(headers: &HeaderMap) -> Answer<Option<EventId>> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else { return Ok(None) };
    let refuse =
        || Problem::new(Kind::Malformed, "Last-Event-ID is no event's id", "send the id of an event as it was");
    id.to_str().ok().and_then(|id| id.parse().ok()).map(Some).ok_or_else(refuse)
}

/// What is on record of boots, from a moment on: what was seen in that moment may come twice, and is not missed. Of boots
/// that are over, those are looked at that began since, or a day before at most.
fn looked_up(ledger: &Ledger, only: Option<MacAddress>, since: Timestamp) -> Answer<Vec<BootEvent>> {
    let is_wanted = |boot: &&Boot| only.is_none_or(|machine| boot.machine == machine);
    let (mut events, mut known) = (Vec::new(), BTreeSet::new());
    ledger.live(|live, _| {
        for boot in live.boots().filter(is_wanted) {
            known.insert(boot.id.clone());
            events.extend(seen_since(boot, since));
        }
    });
    let mut look = |boot: Boot| {
        let is_new = is_wanted(&&boot) && !known.contains(&boot.id);
        events.extend(is_new.then(|| seen_since(&boot, since)).into_iter().flatten());
        let is_enough = boot.opened.0.saturating_add(LONG_BOOT_MS) < since.0 || events.len() > 2 * MAX_MISSED;
        if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match only {
        Some(machine) => drop(ledger.boots(Some(machine))?.into_iter().try_for_each(look)),
        None => ledger.each_boot(None, &mut look)?,
    }
    events.sort_by_key(|event| event.observation.at);
    events.drain(..events.len().saturating_sub(MAX_MISSED));
    Ok(events)
}

fn seen_since(boot: &Boot, since: Timestamp) -> Vec<BootEvent> {
    let event = |observation: &Observation| BootEvent {
        boot: boot.id.clone(),
        machine: boot.machine,
        state: boot.state,
        observation: observation.clone(),
    };
    boot.timeline.iter().filter(|seen| seen.at >= since).map(event).collect()
}

fn sent(told: &Told) -> sse::Event {
    let name = match told.event {
        Event::Boot(_) => "boot",
        Event::Notice(_) => "notice",
        Event::Push(_) => "push",
        Event::Audit(_) => "audit",
    };
    sse::Event::default().event(name).id(told.id.to_string()).data(told.json())
}

fn again(event: &BootEvent) -> sse::Event {
    let id = EventId { at: event.observation.at, run: 0, sequence: 0 };
    let data = serde_json::to_string(&Worded::of(event)).unwrap_or_default();
    sse::Event::default().event("boot").id(id.to_string()).data(data)
}
