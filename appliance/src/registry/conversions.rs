//! Pushed images that are being made bootable: one at a time, in the order they were pushed.

use super::{
    convert::{Converted, Wanted, convert, trusted},
    trust::{self, Arriving},
};
use crate::{
    appliance::Appliance,
    author,
    http::api::{
        images::tidy,
        imports::parted,
        problem::{Kind, Problem},
    },
};
use anyhow::Result;
use bennu_images::import::{ImportStep, Options, Progress};
use bennu_rules::{
    Records,
    audit::Author,
    commands::registry::{SettlePush, settle_push},
    image::{BlobRef, Digest, ImageName},
    registry::{Outcome, Push},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// After a fault of the ledger or the disk, the next try.
const PAUSE: Duration = Duration::from_secs(5);
/// What a person may have been told of one push.
const MOST_NOTES: usize = 50;

/// What goes on.
#[derive(Default)]
pub struct Conversions {
    wake: Notify,
    now: Mutex<Option<Now>>,
}

/// How far the push is that is being converted.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PushProgress)]
pub struct Now {
    /// Its tag.
    pub name: ImageName,
    /// What was pushed.
    pub digest: Digest,
    /// `read`, `modules`, `root` or `store`.
    pub step: String,
    /// Bytes (`modules`: files).
    pub done: u64,
    /// Of so many, if that is known.
    pub total: Option<u64>,
    /// Sentences to read.
    pub notes: Vec<String>,
}

impl Conversions {
    /// Something was pushed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What is being converted.
    pub fn now(&self) -> Option<Now> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Now>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts what waits, until the appliance shuts down. What was not done then is done after the next start.
pub async fn keep(appliance: Arc<Appliance>) -> Result<()> {
    let conversions = &appliance.registry.conversions;
    loop {
        // What was pushed may be a signature, and after a start the keys may be others.
        if let Err(error) = trust::refresh(&appliance).await {
            tracing::error!(%error, "the images' signatures could not be looked at");
        }
        let next = appliance.ledger.stored(|records| first(records));
        let done = match next {
            Ok(None) => tokio::select! {
                () = appliance.shutdown.cancelled() => return Ok(()),
                () = conversions.wake.notified() => continue,
            },
            Ok(Some((push, wanted))) => tokio::select! {
                () = appliance.shutdown.cancelled() => return Ok(()),
                done = run(&appliance, push, wanted) => done,
            },
            Err(fault) => Err(fault.into()),
        };
        if let Err(problem) = done {
            tracing::error!(detail = problem.detail, "a push could not be settled; it is tried again");
            tokio::select! {
                () = appliance.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// The push that waits longest.
fn first(records: &dyn Records) -> Option<(Push, Wanted)> {
    let waiting = records.pushes().into_iter().filter(|push| push.outcome == Outcome::Waiting);
    let push = waiting.min_by_key(|push| push.at)?;
    let artifact = records.artifact(&push.digest);
    let (size, media_type) = artifact.map(|artifact| (artifact.size, artifact.media_type)).unwrap_or_default();
    let document = BlobRef { digest: push.digest, size };
    let repository = push.name.name().to_owned();
    Some((push, Wanted { document, media_type, repository, kernel: None }))
}

async fn run(appliance: &Arc<Appliance>, push: Push, wanted: Wanted) -> Result<(), Problem> {
    let Push { name, digest, by, .. } = push;
    let begun = Now { name: name.clone(), digest, step: String::new(), done: 0, total: None, notes: Vec::new() };
    *appliance.registry.conversions.lock() = Some(begun);
    let stop = Arc::new(AtomicBool::new(false));
    // The work's thread goes on when this is dropped at a shutdown; it is told to end.
    let _stopping = Stopping(stop.clone());
    let working = appliance.clone();
    let work = tokio::task::spawn_blocking(move || {
        let options = Options {
            level: working.config.import.compression_level,
            trusted: trusted(&working),
            ..Options::default()
        };
        convert(&wanted, &options, &working, &Teller { appliance: &working, stop: &stop })
    });
    let made = match work.await {
        Ok(made) => made.map_err(Problem::from),
        Err(panic) => {
            tracing::error!(%panic, "making an image panicked");
            Err(Problem::new(Kind::Internal, "the image could not be made, by a fault in bennu", "look at its log"))
        }
    };
    let settled = author::by(Author::bennu(Some(by)), settle(appliance, name, digest, made)).await;
    *appliance.registry.conversions.lock() = None;
    settled
}

async fn settle(
    appliance: &Arc<Appliance>,
    name: ImageName,
    digest: Digest,
    made: Result<Converted, Problem>,
) -> Result<(), Problem> {
    let _settling = appliance.registry.settling.lock().await;
    let (made, holds) = match made {
        Ok(converted) => {
            let source = format!("push {name}");
            let (mut images, holds): (Vec<_>, Vec<_>) =
                converted.images.into_iter().map(|made| parted(made, &source)).unzip();
            trust::judge_new(&mut images, &Arriving::default(), appliance);
            (Ok(images), holds)
        }
        Err(problem) => {
            tracing::warn!(%name, advice = problem.advice, "no image was made of a push: {}", problem.detail);
            (Err((problem.detail, problem.advice)), Vec::new())
        }
    };
    let request = SettlePush { name: name.clone(), digest, made };
    let added = appliance.ledger.decide(request, settle_push).await?;
    drop(holds);
    if let Ok(Some(push)) = appliance.ledger.stored(|records| records.push(&name)) {
        appliance.ledger.announce(&name, push.digest, push.outcome, "");
    }
    match added {
        Some(added) => {
            for image in added {
                tracing::info!(%name, digest = %image.image.digest, known = image.known, "made an image of a push");
            }
        }
        None => tracing::info!(%name, "another push came meanwhile"),
    }
    tidy(appliance).await.map(drop)
}

struct Stopping(Arc<AtomicBool>);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Teller<'a> {
    appliance: &'a Appliance,
    stop: &'a AtomicBool,
}

impl Progress for Teller<'_> {
    fn step(&self, step: ImportStep, done: u64, total: Option<u64>) {
        if let Some(now) = &mut *self.appliance.registry.conversions.lock() {
            if now.step != step.name() {
                self.appliance.ledger.announce(&now.name, now.digest, Outcome::Waiting, step.name());
            }
            (now.step, now.done, now.total) = (step.name().to_owned(), done, total);
        }
    }

    fn note(&self, note: &str) {
        tracing::info!("{note}");
        if let Some(now) = &mut *self.appliance.registry.conversions.lock()
            && now.notes.len() < MOST_NOTES
        {
            now.notes.push(note.to_owned());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.appliance.shutdown.is_cancelled()
    }
}
