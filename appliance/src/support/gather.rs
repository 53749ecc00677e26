//! Where the parts come from.

use super::{Part, host, memory};
use crate::{
    appliance::Appliance,
    doctor,
    door::DoorError,
    http::api::{boots::now, status::Status},
    ledger::{EventId, Ledger},
};
use axum::{
    Router,
    body::{Body, to_bytes},
};
use bennu_rules::support::redact;
use http::Request;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc::{Sender, error::SendError};
use tower::ServiceExt;

/// Answers of the API: a part's name, where it is asked for, and how many pages of it at most.
const ANSWERS: [(&str, &str, usize); 11] = [
    ("status", "/v1/status", 1),
    ("appliance", "/v1/appliance", 1),
    ("machines", "/v1/machines?limit=250", 40),
    ("leases", "/v1/leases?limit=500", 20),
    ("images", "/v1/images?limit=250", 8),
    ("pushes", "/v1/pushes?limit=250", 2),
    ("rules", "/v1/rules?limit=250", 4),
    ("profiles", "/v1/profiles?limit=250", 4),
    ("backups", "/v1/backups", 1),
    ("audit", "/v1/audit?limit=500", 2),
    ("boots", "/v1/boots?limit=250", 4),
];
/// One of them.
const MOST_ANSWER: usize = 16 << 20;
/// Boots that are told step by step: the latest, and of those before the latest that failed.
const RECENT: usize = 40;
const FAILED: usize = 60;
/// Of those that are in memory.
const EVENTS: usize = 2000;

/// Where parts go; who takes no more has gone.
type Parts = Sender<Part>;
type Gone = SendError<Part>;

/// Gathers every part, one after the other. It ends early when nobody takes them any more.
pub async fn gather(appliance: Arc<Appliance>, api: Router, status: Option<Status>, parts: Parts) {
    let gathering = Gathering { appliance, api, parts };
    let _gone = gathering.all(status).await;
}

struct Gathering {
    appliance: Arc<Appliance>,
    api: Router,
    parts: Parts,
}

impl Gathering {
    async fn all(&self, status: Option<Status>) -> Result<(), Gone> {
        self.parts.send(self.about()).await?;
        self.parts.send(configuration(&self.appliance.config.text)).await?;
        for (name, path, pages) in ANSWERS {
            self.listing(name, path, pages).await?;
        }
        self.metrics().await?;
        self.parts.send(events(&self.appliance.ledger)).await?;
        self.parts.send(Part::text("log/service.log", &memory::said())).await?;
        self.parts.send(self.findings(status).await).await?;
        self.first_process().await?;
        let state = self.appliance.config.state_dir.clone();
        let parts = self.parts.clone();
        let work =
            tokio::task::spawn_blocking(move || host::parts(&state).try_for_each(|part| parts.blocking_send(part)));
        work.await.unwrap_or(Ok(()))
    }

    fn about(&self) -> Part {
        let kernel = rustix::system::uname();
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "architecture": std::env::consts::ARCH,
            "at": now(),
            "uptime_ms": self.appliance.started.elapsed().as_millis() as u64,
            "host": kernel.nodename().to_string_lossy(),
            "kernel": kernel.release().to_string_lossy(),
        });
        Part::document("about.json", about)
    }

    /// Page by page; of boots the more telling ones with all that was seen.
    async fn listing(&self, name: &str, path: &str, pages: usize) -> Result<(), Gone> {
        let (mut after, mut boots) = (String::new(), Vec::new());
        for page in 1..=pages {
            let part = if pages == 1 { format!("{name}.json") } else { format!("{name}/{page}.json") };
            let answer = match self.ask(&format!("{path}{after}")).await {
                Ok(text) => serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()),
                Err(why) => Err(why),
            };
            let mut answer = match answer {
                Ok(answer) => answer,
                Err(why) => return self.parts.send(Part::missing(part, why)).await,
            };
            let next = answer["next"].as_str().map(str::to_owned);
            if name == "boots" {
                boots.extend(answer["items"].as_array().into_iter().flatten().map(seen));
            }
            if name == "audit" {
                without_documents(&mut answer);
            }
            self.parts.send(Part::document(part, answer)).await?;
            match next {
                Some(next) => after = format!("&after={}", crate::cli::client::encoded(&next)),
                None => break,
            }
        }
        for id in telling(boots) {
            let part = match self.ask(&format!("/v1/boots/{}", crate::cli::client::encoded(&id))).await {
                Ok(text) => Part::document(format!("boot/{}.json", plain(&id)), parsed(&text)),
                Err(why) => Part::missing(format!("boot/{}.json", plain(&id)), why),
            };
            self.parts.send(part).await?;
        }
        Ok(())
    }

    async fn metrics(&self) -> Result<(), Gone> {
        let part = match self.ask("/metrics").await {
            Ok(text) => Part::text("metrics.txt", &text),
            Err(why) => Part::missing("metrics.txt", why),
        };
        self.parts.send(part).await
    }

    /// Asks the API as any client does.
    async fn ask(&self, path: &str) -> Result<String, String> {
        let request = Request::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = self.api.clone().oneshot(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let bytes = to_bytes(answer.into_body(), MOST_ANSWER).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() { Ok(text) } else { Err(format!("the API answers {path} with {status}: {text}")) }
    }

    async fn findings(&self, status: Option<Status>) -> Part {
        const NAME: &str = "doctor.json";
        let Some(status) = status else { return Part::missing(NAME, "the ledger cannot be read") };
        let appliance = self.appliance.clone();
        let look = move || doctor::of_service(&appliance.config, &status, now());
        match tokio::task::spawn_blocking(look).await {
            Ok(findings) => Part::document(NAME, json!(findings)),
            Err(panic) => Part::missing(NAME, panic),
        }
    }

    /// On a disc its first process reads what the service may not.
    async fn first_process(&self) -> Result<(), Gone> {
        const NAME: &str = "log/appliance.log";
        match self.appliance.door.logs().await {
            Ok((kernel, appliance)) => {
                self.parts.send(Part::text("log/kernel-of-disc.log", &kernel)).await?;
                self.parts.send(Part::text(NAME, &appliance)).await
            }
            Err(error @ DoorError::NoDisc) => self.parts.send(Part::missing(NAME, error)).await,
            Err(error) => self.parts.send(Part::missing(NAME, error)).await,
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// A boot's name, and whether it is one to look at.
fn seen(boot: &Value) -> (String, bool) {
    let is_bad = boot["state"] == "failed" || !boot["diagnosis"].is_null();
    (boot["id"].as_str().unwrap_or_default().to_owned(), is_bad)
}

fn telling(boots: Vec<(String, bool)>) -> Vec<String> {
    let (recent, before) = boots.split_at(boots.len().min(RECENT));
    let failed = before.iter().filter(|(_, is_bad)| *is_bad).take(FAILED);
    recent.iter().chain(failed).map(|(id, _)| id.clone()).collect()
}

/// As part of a file's name.
fn plain(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect()
}

/// Metadata is what people write for their machines, hashes of passwords among it.
fn without_documents(answer: &mut Value) {
    answer["items"].as_array_mut().into_iter().flatten().for_each(without_document);
}

fn without_document(record: &mut Value) {
    if !record["target"].as_str().is_some_and(|target| target.starts_with("metadata ")) {
        return;
    }
    for side in ["before", "after"] {
        if !record[side].is_null() {
            record[side] = json!("[left out]");
        }
    }
}

/// The configuration in use, without its remarks: nobody knows what is written there.
fn configuration(text: &str) -> Part {
    const NAME: &str = "bennu.toml";
    let read = toml::from_str::<Value>(text).map_err(|error| error.to_string());
    let written = read.and_then(|mut value| {
        redact(&mut value);
        toml::to_string(&value).map_err(|error| error.to_string())
    });
    match written {
        Ok(text) => Part::File { name: NAME.into(), content: text.into_bytes() },
        Err(why) => Part::missing(NAME, why),
    }
}

/// What happened lately, as those hear it who follow.
fn events(ledger: &Ledger) -> Part {
    let mut text = String::new();
    for told in ledger.recent(EVENTS) {
        let mut event = parsed(told.json());
        if event["target"].is_string() {
            without_document(&mut event);
        }
        redact(&mut event);
        let EventId { at, .. } = told.id;
        text += &format!("{}\n", json!({"at": at, "event": event}));
    }
    Part::File { name: "events.ndjson".into(), content: text.into_bytes() }
}
