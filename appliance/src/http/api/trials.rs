//! `/v1/tests`: an image boots in a virtual machine on the appliance's host, and the answer tells how it went.

use super::{
    Api, Shared,
    images::write_index,
    lines,
    problem::{Answer, Kind, Problem},
    request::Body,
};
use crate::author;
use crate::trial::{self, Order, desk::moment, machine};
use axum::{extract::State, response::Response};
use bennu_rules::{
    Records,
    commands::{
        Refusal, find_image,
        images::{MoveTag, move_tag},
    },
    image::{Digest, ImageName, ImageReference},
    trial::{Trial, TrialRefusal, TrialRequest, check_memory},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Seconds until a test has failed, unless it is said otherwise: without KVM a boot takes a minute or two.
pub const TIMEOUT: u64 = 300;
/// The machine's memory in MiB, unless it is said otherwise.
pub const MEMORY: u64 = 2048;
const TIMEOUTS: std::ops::RangeInclusive<u64> = 10..=7200;
const MEMORIES: std::ops::RangeInclusive<u64> = 128..=1 << 20;
const LONGEST_TEXT: usize = 200;

/// The tests of one appliance: one at a time, since each takes a processor and the memory of a machine.
pub struct Trials(Arc<Semaphore>);

impl Default for Trials {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// What `POST /v1/tests` takes.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = TestBody)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Which image.
    pub image: ImageReference,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// A text that its console must show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// The tag to point at it once it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<ImageName>,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = TestLine)]
#[serde(untagged)]
pub enum Line {
    /// How far it is.
    Step {
        /// A sentence.
        step: String,
    },
    /// A line of its console, without what a terminal obeys.
    Console {
        /// The line.
        console: String,
    },
    /// The end.
    Ended(Box<Ended>),
    /// The end: the test could not be made.
    Problem {
        /// Why.
        problem: Problem,
    },
}

/// What a test came to.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = TestEnded)]
pub struct Ended {
    /// Whether the image does what it should.
    pub passed: bool,
    /// What it came to, or why it did not.
    pub reason: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// The image that was tested: where the tag pointed when the test began.
    pub image: Digest,
    /// The tag that points at it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<ImageName>,
    /// How long the machine was on.
    pub took_ms: u64,
    /// The last lines of its console.
    pub console: Vec<String>,
}

/// The lines.
pub type Lines = lines::Lines<Line>;

/// `POST /v1/tests`: JSON lines ([`Line`]). It ends when the client goes away.
#[utoipa::path(
    post,
    path = "/v1/tests",
    tag = "images",
    request_body = Asked,
    responses((status = OK, content_type = "application/x-ndjson", body = Line, description = "JSON lines, as the test goes on; the last is what it came to."))
)]
pub async fn create(State(api): Shared, Body(asked): Body<Asked>) -> Answer<Response> {
    let memory = within(asked.memory.unwrap_or(MEMORY), MEMORIES, "memory", "MiB")?;
    let timeout = Duration::from_secs(within(asked.timeout.unwrap_or(TIMEOUT), TIMEOUTS, "timeout", "seconds")?);
    if let Some(text) = &asked.expect
        && (text.is_empty() || text.len() > LONGEST_TEXT || text.chars().any(char::is_control))
    {
        let detail = format!("expect is empty, longer than {LONGEST_TEXT} bytes, or no line of text");
        return Err(
            Problem::new(Kind::Unprocessable, detail, "write a text that one line of the console holds").at("/expect")
        );
    }
    let image = api.ledger.stored(|records| {
        let reference = asked.image.clone();
        let digest = find_image(&reference, records)?;
        records.image(&digest).ok_or(Refusal::UnknownImage { reference, near: Vec::new() })
    })??;
    let digest = image.digest;
    let request = TrialRequest { image, reference: asked.image, stage1: api.stage1.clone(), expect: asked.expect };
    let (trial, start) = Trial::begin(&request, &moment(&api))?;
    let program = machine::find().ok_or_else(|| {
        let advice =
            "install it there: the package is qemu-system-x86 (Debian, Ubuntu) or qemu-kvm-core (Fedora, RHEL)";
        Problem::new(
            Kind::Unavailable,
            "the appliance's host has no qemu-system-x86_64, which images are tested in",
            advice,
        )
    })?;
    if let Some(available) = machine::available_memory() {
        check_memory(memory, available)?;
    }
    let place = api.trials.0.clone().try_acquire_owned();
    let place =
        place.map_err(|_| Problem::new(Kind::Conflict, "another image is being tested", "wait until it is done"))?;
    let (lines, answer) = lines::answer();
    author::spawn(async move {
        let _place = place;
        let order = Order { trial, start, program, memory, timeout };
        let end = match run(&api, order, digest, asked.promote, &lines).await {
            Ok(ended) => Line::Ended(Box::new(ended)),
            Err(problem) => Line::Problem { problem },
        };
        let _ = lines.send(end).await;
    });
    Ok(answer)
}

fn within(value: u64, range: std::ops::RangeInclusive<u64>, what: &str, unit: &str) -> Answer<u64> {
    if range.contains(&value) {
        return Ok(value);
    }
    let detail = format!("{what} is {value} {unit}");
    let advice = format!("write {} to {}", range.start(), range.end());
    Err(Problem::new(Kind::Unprocessable, detail, advice).at(format!("/{what}")))
}

async fn run(api: &Arc<Api>, order: Order, image: Digest, promote: Option<ImageName>, lines: &Lines) -> Answer<Ended> {
    let outcome = trial::run(&api.appliance, order, lines).await?;
    let (console, took_ms) = (outcome.tail, outcome.took.as_millis() as u64);
    let end = |passed, reason, advice, promoted| Ended { passed, reason, advice, image, promoted, took_ms, console };
    match outcome.failure {
        Some(failure) => {
            tracing::info!(%image, reason = failure.reason, "an image failed its test");
            Ok(end(false, failure.reason, failure.advice, None))
        }
        None => {
            tracing::info!(%image, "an image passed its test");
            if let Some(name) = &promote {
                point(api, name, image).await?;
            }
            Ok(end(true, outcome.came_to, String::new(), promote))
        }
    }
}

/// Points the tag at what was tested, wherever the tag it was named by points now.
async fn point(api: &Arc<Api>, name: &ImageName, image: Digest) -> Answer<()> {
    let request = MoveTag { name: name.clone(), to: ImageReference::Digest(image), expected: None };
    let settling = api.registry.settling.lock().await;
    api.ledger.decide(request, move_tag).await??;
    write_index(api)?;
    drop(settling);
    Ok(())
}

impl From<TrialRefusal> for Problem {
    fn from(refusal: TrialRefusal) -> Self {
        let kind = match &refusal {
            TrialRefusal::Memory { .. } => Kind::Conflict,
            TrialRefusal::Foreign(_)
            | TrialRefusal::Whole(_)
            | TrialRefusal::Architecture { .. }
            | TrialRefusal::NotGiven { .. } => Kind::Unprocessable,
        };
        Self::new(kind, refusal.to_string(), refusal.advice())
    }
}
