//! Work that one request starts and the whole host pays for: so much of it goes on at once, and no more.

use super::{
    Shared,
    problem::{Answer, Kind, Problem},
};
use axum::{
    body::{Body, Bytes},
    extract::{Query, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, Uri, header};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who comes when all places are taken waits so long for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// And is told to come again after so many seconds.
const AGAIN: u16 = 5;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Every byte of the store is read.
    Scrub,
    /// The whole audit log is read.
    Audit,
    /// An image is read, and sent as fast as the client takes it.
    Export,
    /// Two roots are unpacked and compared.
    Diff,
    /// The end of a boot's log: up to 8 MiB in memory.
    Log,
    /// Everything is read, and sent as fast as the client takes it.
    Backup,
    /// Hundreds of answers of the API are gathered.
    Support,
}

impl Work {
    const ALL: [Self; 7] = [Self::Scrub, Self::Audit, Self::Export, Self::Diff, Self::Log, Self::Backup, Self::Support];

    /// The work that a request is.
    fn of(method: &Method, uri: &Uri) -> Option<Self> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let follows = || Query::<Follow>::try_from_uri(uri).is_ok_and(|Query(asked)| asked.follow);
        match uri.path() {
            "/v1/scrub" => Some(Self::Scrub),
            "/v1/audit/verify" | "/v1/audit/export" => Some(Self::Audit),
            "/v1/diff" => Some(Self::Diff),
            "/v1/backup" => Some(Self::Backup),
            "/v1/support" => Some(Self::Support),
            path if path.starts_with("/v1/exports/") => Some(Self::Export),
            // Who follows a log has a place of the handler's, for as long as it reads what is there.
            path if path.starts_with("/v1/boots/") && path.ends_with("/logs") && !follows() => Some(Self::Log),
            _ => None,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Scrub => "scrubs of the store",
            Self::Audit => "readings of the whole audit log",
            Self::Export => "exports",
            Self::Diff => "comparisons of images",
            Self::Log => "readings of logs",
            Self::Backup => "backups",
            Self::Support => "support bundles",
        }
    }

    /// So many at once.
    fn most(self) -> usize {
        match self {
            Self::Scrub | Self::Audit | Self::Diff | Self::Backup | Self::Support => 2,
            Self::Export => 8,
            Self::Log => 8,
        }
    }
}

/// What of a query tells whether an answer goes on.
#[derive(Debug, serde::Deserialize)]
struct Follow {
    #[serde(default)]
    follow: bool,
}

/// The places of each kind.
#[derive(Debug)]
pub struct Places([Arc<Semaphore>; Work::ALL.len()]);

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Default for Places {
    fn default() -> Self {
        Self(Work::ALL.map(|work| Arc::new(Semaphore::new(work.most()))))
    }
}

impl Places {
    /// A place for this work; refused when none comes free.
    pub async fn take(&self, work: Work) -> Answer<Place> {
        let free = self.0[work as usize].clone().acquire_owned();
        match tokio::time::timeout(PATIENCE, free).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            _ => {
                let detail = format!("{} {} go on already, as many as there can be at once", work.most(), work.what());
                Err(Problem::new(Kind::TooMany, detail, "repeat this when one of them is over"))
            }
        }
    }
}

/// Has heavy work wait for a place, which it has until its answer has been sent.
pub async fn hold(State(api): Shared, request: Request, next: Next) -> Response {
    let Some(work) = Work::of(request.method(), request.uri()) else { return next.run(request).await };
    match api.places.take(work).await {
        Ok(place) => next.run(request).await.map(|body| Body::new(Held { body, _place: place })),
        Err(problem) => refused(problem),
    }
}

/// With the time after which to come again.
pub fn refused(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, AGAIN.into());
    response
}

/// A body that is sent by work that has a place.
struct Held {
    body: Body,
    _place: Place,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_again_when_it_is_given_back() {
        let places = Places::default();
        let (first, second) = (places.take(Work::Scrub).await.unwrap(), places.take(Work::Scrub).await.unwrap());
        let problem = places.take(Work::Scrub).await.unwrap_err();
        assert_eq!(problem.status, 429);
        assert_eq!(refused(problem).headers()["retry-after"], "5");
        assert!(places.take(Work::Audit).await.is_ok(), "other work has places of its own");
        drop(first);
        assert!(places.take(Work::Scrub).await.is_ok());
        drop(second);
    }

    #[test]
    fn heavy_work_is_known_by_its_path() {
        for (path, work) in [
            ("/v1/scrub", Some(Work::Scrub)),
            ("/v1/audit/verify", Some(Work::Audit)),
            ("/v1/exports/web:v1", Some(Work::Export)),
            ("/v1/diff", Some(Work::Diff)),
            ("/v1/support", Some(Work::Support)),
            ("/v1/boots/b/logs", Some(Work::Log)),
            ("/v1/boots/b/logs?lines=5&follow=false", Some(Work::Log)),
            ("/v1/boots/b/logs?lines=5&f%6fllow=true", None),
            ("/v1/boots/b", None),
            ("/v1/audit", None),
            ("/v1/machines", None),
        ] {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(Work::of(&Method::GET, &uri), work, "{path}");
            assert_eq!(Work::of(&Method::POST, &uri), None, "{path}");
        }
    }
}
