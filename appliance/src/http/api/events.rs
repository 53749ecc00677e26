//! `/v1/events`: what happens, as it happens (server-sent events, WHATWG HTML "Server-sent events").

use super::{
    Shared,
    problem::Answer,
    request::{Params, mac},
};
use crate::{
    author::Sight,
    http::access::Caller,
    ledger::{BootEvent, Event},
};
use axum::{
    extract::State,
    response::sse::{self, Sse},
};
use bennu_rules::{MacAddress, Records, boot::Boot};
use futures_util::{Stream, StreamExt, future, stream};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, convert::Infallible};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

/// Events of the past that a client who was away gets at most.
const MAX_MISSED: usize = 2000;

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    machine: Option<String>,
}

/// `GET /v1/events`: `event: boot` with a [`BootEvent`] as data, and, where no machine is named, `event: notice` with what
/// concerns the wire or the host, and `event: push` with what becomes of pushes. `Last-Event-ID` brings what was missed of boots, as far as it is known.
pub async fn follow(
    State(api): Shared,
    caller: Caller,
    Params(filter): Params<Filter>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static>> {
    let only = filter.machine.as_deref().map(mac).transpose()?;
    let only = match only {
        Some(mac) => Some(api.ledger.read(|records, _| records.machine(mac).map_or(mac, |machine| machine.id))?),
        None => None,
    };
    let sight = Sight::current();
    let (looking, seeing) = (api.ledger.clone(), sight.clone());
    let is_seen = move |machine: MacAddress| {
        seeing.is_whole() || looking.read(|records, _| seeing.takes_in_card(machine, records)).unwrap_or(false)
    };
    // What belongs to no machine is for those who see all.
    let all = only.is_none() && sight.is_whole();
    // Subscribe first: what happens while the past is looked up comes twice, and is dropped the second time.
    let live = BroadcastStream::new(api.ledger.follow());
    let past = match last_event_id(&headers) {
        Some(since) => {
            let mut boots = api.ledger.boots(only)?;
            boots.retain(|boot| is_seen(boot.machine));
            missed(&boots, since)
        }
        None => Vec::new(),
    };
    let told: BTreeSet<_> = past.iter().map(|event| (event.boot.clone(), event.observation.at)).collect();
    let live = live.filter_map(move |event| {
        future::ready(match event {
            Ok(Event::Boot(event)) if told.contains(&(event.boot.clone(), event.observation.at)) => None,
            Ok(Event::Boot(event)) => (is_wanted(&event, only) && is_seen(event.machine)).then(|| sent(&event)),
            Ok(Event::Notice(noticed)) => all.then(|| {
                let data = serde_json::to_string(&noticed).unwrap_or_default();
                sse::Event::default().event("notice").id(noticed.until.0.to_string()).data(data)
            }),
            Ok(Event::Push(push)) => all.then(|| {
                let data = serde_json::to_string(&push).unwrap_or_default();
                sse::Event::default().event("push").id(push.at.0.to_string()).data(data)
            }),
            Ok(Event::Audit(record)) => all.then(|| {
                let data = serde_json::to_string(&record).unwrap_or_default();
                sse::Event::default().event("audit").id(record.at.0.to_string()).data(data)
            }),
            Err(BroadcastStreamRecvError::Lagged(lost)) => {
                Some(sse::Event::default().event("lost").data(format!("{{\"lost\":{lost}}}")))
            }
        })
    });
    let past = stream::iter(past.iter().map(sent).collect::<Vec<_>>());
    let stop = api.shutdown.clone().cancelled_owned();
    let ends = Box::pin(sight.ends(api.ledger.clone(), caller.expires));
    let events = past.chain(live).map(Ok).take_until(future::select(Box::pin(stop), ends));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()))
}

fn is_wanted(event: &BootEvent, only: Option<MacAddress>) -> bool {
    only.is_none_or(|machine| machine == event.machine)
}

/// An event's id is its time: what came after it is what a client has missed.
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn missed(boots: &[Boot], since: u64) -> Vec<BootEvent> {
    let of_boot = |boot: &Boot| {
        let event = |observation: &bennu_rules::journey::Observation| BootEvent {
            boot: boot.id.clone(),
            machine: boot.machine,
            state: boot.state,
            observation: observation.clone(),
        };
        boot.timeline.iter().filter(|seen| seen.at.0 > since).map(event).collect::<Vec<_>>()
    };
    let mut events: Vec<BootEvent> = boots.iter().flat_map(of_boot).collect();
    events.sort_by_key(|event| event.observation.at);
    events.drain(..events.len().saturating_sub(MAX_MISSED));
    events
}

/// An event with what was seen as a sentence.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    event: &'a BootEvent,
    text: String,
}

fn sent(event: &BootEvent) -> sse::Event {
    let told = Told { event, text: event.observation.seen.to_string() };
    let data = serde_json::to_string(&told).unwrap_or_default();
    sse::Event::default().event("boot").id(event.observation.at.0.to_string()).data(data)
}
