//! Asks the appliance what the view shows, and hears what happens there.

use super::view::{Event, Facts, Row, sorted};
use crate::{
    cli::{
        boot::EventReader,
        client::{Client, encoded},
        error::Done,
    },
    http::api::{
        boots::{BootShown, BootSummary, now},
        machines::MachineShown,
        tokens::TokenShown,
    },
};
use bennu_rules::{MacAddress, Timestamp, boot::BootId, image::Digest};
use http::Method;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use tokio::sync::mpsc;

/// Boots that are looked at, the newest.
const BOOTS: usize = 400;
/// Names that are looked up at once; the others come with the next look.
const NAMES_AT_ONCE: usize = 20;
/// How long to wait before asking again where events went.
const RECONNECT: Duration = Duration::from_secs(1);

/// Whom to ask, and what need not be asked twice.
pub struct Source {
    client: Client,
    names: BTreeMap<MacAddress, String>,
    roots: BTreeMap<Digest, Option<u64>>,
    is_begun: bool,
}

impl Source {
    /// The appliance that a client talks to.
    pub fn new(client: Client) -> Self {
        Self { client, names: BTreeMap::new(), roots: BTreeMap::new(), is_begun: false }
    }

    /// How everything is now. While nobody answers, what was known stays.
    pub async fn look(&mut self, facts: &mut Facts) {
        facts.now = now();
        match self.ask(facts).await {
            Ok(()) => facts.trouble = None,
            Err(error) => facts.trouble = Some(error.what),
        }
    }

    async fn ask(&mut self, facts: &mut Facts) -> Done {
        facts.status = Some(self.client.get("/v1/status").await?);
        let boots: Vec<BootSummary> = self.client.list("/v1/boots", Some(BOOTS)).await?;
        if !std::mem::replace(&mut self.is_begun, true) {
            self.begin(&boots, facts);
        }
        let mut known = BTreeSet::new();
        let latest: Vec<BootSummary> = boots.into_iter().filter(|boot| known.insert(boot.machine)).collect();
        let shown: Vec<&BootSummary> =
            latest.iter().filter(|boot| Row::of(boot, String::new(), None).is_some()).collect();
        self.learn(&shown).await;
        let row = |boot: &&BootSummary| {
            let root = boot.image.as_ref().and_then(|image| self.roots.get(&image.digest).copied().flatten());
            Row::of(boot, self.names.get(&boot.machine).cloned().unwrap_or_default(), root)
        };
        facts.machines = sorted(shown.iter().filter_map(row).collect());
        Ok(())
    }

    /// Before anything happens: the last thing that was seen of each of the newest boots.
    fn begin(&self, boots: &[BootSummary], facts: &mut Facts) {
        let mut past: Vec<&BootSummary> = boots.iter().take(30).collect();
        past.sort_by_key(|boot| boot.last_seen);
        let events = past.into_iter().map(|boot| Event {
            at: boot.last_seen,
            of: boot.machine.to_string(),
            text: boot.last.clone(),
        });
        let mut all: VecDeque<Event> = events.chain(facts.events.drain(..)).collect();
        std::mem::swap(&mut facts.events, &mut all);
    }

    /// What machines are called, and how large their roots are.
    async fn learn(&mut self, boots: &[&BootSummary]) {
        let unnamed: Vec<MacAddress> = boots
            .iter()
            .map(|boot| boot.machine)
            .filter(|machine| !self.names.contains_key(machine))
            .take(NAMES_AT_ONCE)
            .collect();
        for machine in unnamed {
            let shown = self.client.get::<MachineShown>(&format!("/v1/machines/{machine}")).await;
            let name = shown.ok().and_then(|shown| shown.machine.labels.get("name").cloned());
            self.names.insert(machine, name.unwrap_or_default());
        }
        let images: BTreeSet<Digest> =
            boots.iter().filter_map(|boot| boot.image.as_ref()).map(|image| image.digest).collect();
        for digest in images {
            if !self.roots.contains_key(&digest) {
                let image = self.client.get::<Value>(&format!("/v1/images/{digest}")).await;
                let size = image.ok().and_then(|image| root_size(&image));
                self.roots.insert(digest, size);
            }
        }
    }

    /// Names may have been given since; they are looked up again.
    pub fn forget_names(&mut self) {
        self.names.clear();
    }

    /// Whether somebody has a token that works.
    pub async fn is_a_token_used(&self) -> bool {
        let tokens: Done<Vec<TokenShown>> = self.client.list("/v1/tokens", None).await;
        tokens.is_ok_and(|tokens| tokens.iter().any(|token| token.last_used.is_some()))
    }

    /// One boot with all that was seen of it.
    pub async fn boot(&self, id: &BootId) -> Done<BootShown> {
        self.client.get(&format!("/v1/boots/{}", encoded(&id.to_string()).replace('/', "%2F"))).await
    }
}

/// The bytes of an image's root, wherever its description has them.
fn root_size(image: &Value) -> Option<u64> {
    match image {
        Value::Object(fields) => match fields.get("root").and_then(|root| root.get("size")).and_then(Value::as_u64) {
            Some(size) => Some(size),
            None => fields.values().find_map(root_size),
        },
        _ => None,
    }
}

/// An event as the API sends it, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Happened {
    machine: MacAddress,
    observation: Observed,
    #[serde(default)]
    text: String,
}

#[derive(Debug, Deserialize)]
struct Observed {
    at: Timestamp,
}

/// Sends on what happens for as long as somebody listens.
pub async fn follow(client: Client, to: mpsc::Sender<Event>) {
    let mut reader = EventReader::default();
    while !to.is_closed() {
        let headers: Vec<_> = reader.last_id().into_iter().map(|id| ("last-event-id", id)).collect();
        if let Ok(answer) = client.send_with(Method::GET, "/v1/events", None, &headers).await {
            reader.begin();
            let mut body = answer.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                for event in reader.take(&data).iter().filter_map(|text| event(text)) {
                    if to.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

fn event(text: &str) -> Option<Event> {
    if let Ok(Happened { machine, observation, text }) = serde_json::from_str(text) {
        return Some(Event { at: observation.at, of: machine.to_string(), text });
    }
    let noticed: bennu_rules::notice::Noticed = serde_json::from_str(text).ok()?;
    Some(Event { at: noticed.until, of: "notice".into(), text: noticed.notice.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_what_was_seen_and_notices() {
        let seen = r#"{"boot":"b","machine":"52:54:00:00:00:01","state":"up","observation":{"at":1000,"seen":"x"},"text":"is up"}"#;
        assert_eq!(
            event(seen).unwrap(),
            Event { at: Timestamp(1000), of: "52:54:00:00:00:01".into(), text: "is up".into() }
        );
        assert_eq!(event(r#"{"lost":3}"#), None);
    }

    #[test]
    fn the_size_of_a_root_is_found_in_an_images_description() {
        let image = serde_json::json!({"digest": "x", "config": {"content": {"root": {"digest": "y", "size": 7}}}});
        assert_eq!(root_size(&image), Some(7));
        assert_eq!(root_size(&serde_json::json!({"a": [1]})), None);
    }
}
