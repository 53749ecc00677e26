//! Images: what there is, what it costs, who runs it; where tags pointed; what became of pushes.

pub mod changes;

use super::{
    failure::{Shown, page},
    format::{When, bytes},
    visitor::{Chrome, Visitor},
};
use crate::http::api::{boots::now, images::ImageListed, pushes::PushShown, request::Params};
use askama::Template;
use axum::http::Method;
use bennu_rules::{
    Timestamp,
    image::{Content, Image, ImageName, Tag},
    registry::Outcome,
};
use serde::Deserialize;

/// What was just done.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    done: String,
}

struct Row {
    digest: String,
    full: String,
    kind: &'static str,
    os: String,
    size: String,
    unique: String,
    imported: When,
    source: String,
    tags: Vec<TagRow>,
    assigned: usize,
    running: usize,
    verdict: String,
}

struct TagRow {
    name: ImageName,
    moves: Vec<(String, When, String)>,
    may_roll_back: bool,
    may_remove: bool,
}

/// What whoever looks may do with a tag.
struct May {
    roll_back: bool,
    remove: bool,
}

struct PushRow {
    name: ImageName,
    outcome: String,
    kind: &'static str,
    advice: String,
    by: String,
    at: When,
    progress: Option<(String, u64, Option<u64>)>,
}

#[derive(Template)]
#[template(path = "images.html")]
struct ImagesPage {
    chrome: Chrome,
    rows: Vec<Row>,
    pushes: Vec<PushRow>,
    total: String,
    may_import: bool,
    may_retry: bool,
    done: &'static str,
}

/// `GET /ui/images`
pub async fn show(visitor: Visitor, Params(wanted): Params<Wanted>) -> Shown {
    let images: Vec<ImageListed> = visitor.list("/v1/images").await?;
    let pushes: Vec<PushShown> = match visitor.may(Method::GET, "/v1/pushes") {
        true => visitor.list("/v1/pushes").await?,
        false => Vec::new(),
    };
    let now = now();
    let may = |tag: &Tag| May {
        roll_back: visitor.may(Method::POST, &format!("/v1/tags/{}", tag.name)),
        remove: visitor.may(Method::DELETE, &format!("/v1/images/{}", tag.name)),
    };
    page(&ImagesPage {
        chrome: visitor.chrome("Images", "images"),
        total: bytes(images.iter().map(|listed| listed.unique).sum()),
        rows: images.iter().map(|listed| Row::of(listed, now, may)).collect(),
        pushes: pushes.into_iter().map(|push| PushRow::of(push, now)).collect(),
        may_import: visitor.may(Method::POST, "/v1/imports"),
        may_retry: visitor.may(Method::POST, "/v1/pushes/any:tag"),
        done: match wanted.done.as_str() {
            "rolled-back" => "Rolled back. Machines get it at their next boot.",
            "removed" => "Removed.",
            "tagged" => "The tag was moved. Machines get it at their next boot.",
            "imported" => "The image is here.",
            "known" => "The image is here; the same was here before.",
            "retried" => "It is tried again.",
            _ => "",
        },
    })
}

fn kind(content: &Content) -> &'static str {
    match content {
        Content::Root { .. } => "root",
        Content::Kernel { .. } => "kernel",
        _ => "foreign",
    }
}

impl Row {
    fn of(listed: &ImageListed, now: Timestamp, may: impl Fn(&Tag) -> May) -> Self {
        let shown = &listed.shown;
        let Image { digest, config, imported, source, .. } = &shown.image;
        let verdict = shown.image.verdict.as_ref().map(|verdict| verdict.to_string()).unwrap_or_default();
        Self {
            digest: digest.short(),
            full: digest.to_string(),
            kind: kind(&config.content),
            os: config.os.clone().unwrap_or_default(),
            size: bytes(shown.size),
            unique: bytes(listed.unique),
            imported: When::of(*imported, now),
            source: source.clone(),
            tags: shown.tags.iter().map(|tag| TagRow::of(tag, now, may(tag))).collect(),
            assigned: shown.assigned_to.len(),
            running: listed.running.len(),
            verdict,
        }
    }
}

impl TagRow {
    fn of(tag: &Tag, now: Timestamp, may: May) -> Self {
        let moves =
            tag.history.iter().rev().map(|moved| (moved.digest.short(), When::of(moved.at, now), moved.by.clone()));
        let earlier = tag.history.iter().any(|moved| moved.digest != tag.digest);
        Self {
            name: tag.name.clone(),
            moves: moves.collect(),
            may_roll_back: may.roll_back && earlier,
            may_remove: may.remove,
        }
    }
}

impl PushRow {
    fn of(shown: PushShown, now: Timestamp) -> Self {
        let push = shown.push;
        let (kind, advice) = match &push.outcome {
            Outcome::Waiting => ("booting", String::new()),
            Outcome::Image { .. } => ("up", String::new()),
            Outcome::Untrusted { .. } => ("waiting", "sign it with a key that the configuration trusts".to_owned()),
            Outcome::Failed { advice, .. } => ("failed", advice.clone()),
            Outcome::Kept => ("local", String::new()),
        };
        let progress = shown.progress.map(|now| (now.step, now.done, now.total));
        Self {
            name: push.name,
            outcome: push.outcome.to_string(),
            kind,
            advice,
            by: push.by,
            at: When::of(push.at, now),
            progress,
        }
    }
}
