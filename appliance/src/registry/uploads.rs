//! Uploads that go on: a session a blob, resumable while it lives.

use crate::{appliance::Appliance, http::api::images::tidy};
use anyhow::Result;
use bennu_images::store::{BlobWriter, Hold, Store, StoreError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A session that nobody wrote to for so long is over.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Blobs that arrived wait so long for the manifest that names them.
const UNNAMED: Duration = Duration::from_secs(15 * 60);
/// Sessions at a time: a push of a large image has some dozens.
const MOST: usize = 256;
/// How often the idle are looked for.
const PACE: Duration = Duration::from_secs(30);

/// Sessions by their id.
#[derive(Default)]
pub struct Uploads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Session>,
    /// Keeps what arrived until a manifest names it.
    hold: Option<(Hold, Instant)>,
}

struct Session {
    repository: String,
    /// With whoever writes now, if that is not us.
    writer: Option<BlobWriter>,
    written: u64,
    touched: Instant,
}

/// Why a session cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSession {
    /// It ended, or never was.
    Unknown,
    /// Another request writes to it.
    Busy,
}

impl Uploads {
    fn state(&self) -> MutexGuard<'_, State> {
        // The map is whole between any two statements, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps blobs that arrive, or that somebody was told are here, for a while.
    pub fn hold(&self, store: &Store) {
        let mut state = self.state();
        let hold = state.hold.take().map_or_else(|| store.hold(), |(hold, _)| hold);
        state.hold = Some((hold, Instant::now()));
    }

    /// Begins a session and gives its id; `None`: there are too many.
    pub fn begin(&self, repository: &str, store: &Store) -> Result<Option<String>, StoreError> {
        self.hold(store);
        let writer = store.writer()?;
        let mut state = self.state();
        if state.sessions.len() >= MOST {
            return Ok(None);
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let repository = repository.to_owned();
        let session = Session { repository, writer: Some(writer), written: 0, touched: Instant::now() };
        state.sessions.insert(id.clone(), session);
        Ok(Some(id))
    }

    /// Bytes of a session so far.
    pub fn written(&self, id: &str, repository: &str) -> Option<u64> {
        let state = self.state();
        state.sessions.get(id).filter(|session| session.repository == repository).map(|session| session.written)
    }

    /// Takes a session's writer, to give it back or to end it.
    pub fn take(&self, id: &str, repository: &str) -> Result<BlobWriter, NoSession> {
        let mut state = self.state();
        let session = state.sessions.get_mut(id).filter(|session| session.repository == repository);
        session.ok_or(NoSession::Unknown)?.writer.take().ok_or(NoSession::Busy)
    }

    /// Gives it back.
    pub fn put_back(&self, id: &str, writer: BlobWriter) {
        if let Some(session) = self.state().sessions.get_mut(id) {
            (session.written, session.touched) = (writer.written(), Instant::now());
            session.writer = Some(writer);
        }
    }

    /// Ends a session. What it wrote is gone, unless its writer was taken.
    pub fn end(&self, id: &str) -> bool {
        self.state().sessions.remove(id).is_some()
    }

    /// Ends what is idle. Whether blobs that no manifest came to name may go now.
    fn drop_idle(&self, now: Instant) -> bool {
        let mut state = self.state();
        // A session whose writer is out is being written to.
        state.sessions.retain(|_, session| session.writer.is_none() || now - session.touched < IDLE);
        let is_over = state.sessions.is_empty() && state.hold.as_ref().is_some_and(|(_, since)| now - *since > UNNAMED);
        if is_over {
            state.hold = None;
        }
        is_over
    }
}

/// Ends what nobody goes on with, until the appliance shuts down.
pub async fn expire(appliance: Arc<Appliance>) -> Result<()> {
    loop {
        tokio::select! {
            () = appliance.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(PACE) => {}
        }
        if appliance.registry.uploads.drop_idle(Instant::now()) {
            let _settling = appliance.registry.settling.lock().await;
            if let Err(problem) = tidy(&appliance).await {
                tracing::warn!(detail = problem.detail, "cannot remove what was pushed in part; the next start does");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_writers_at_a_time_and_ends_when_it_is_idle() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let uploads = Uploads::default();
        let id = uploads.begin("web", &store).unwrap().unwrap();
        assert_eq!(uploads.take(&id, "other").err(), Some(NoSession::Unknown));
        let mut writer = uploads.take(&id, "web").unwrap();
        assert_eq!(uploads.take(&id, "web").err(), Some(NoSession::Busy));
        std::io::Write::write_all(&mut writer, b"abc").unwrap();
        assert!(!uploads.drop_idle(Instant::now() + 2 * IDLE));
        uploads.put_back(&id, writer);
        assert_eq!(uploads.written(&id, "web"), Some(3));
        assert!(uploads.drop_idle(Instant::now() + 2 * IDLE));
        assert_eq!(uploads.written(&id, "web"), None);
        assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
        assert!(uploads.state().hold.is_none());
    }

    #[test]
    fn sessions_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let uploads = Uploads::default();
        for _ in 0..MOST {
            assert!(uploads.begin("web", &store).unwrap().is_some());
        }
        assert_eq!(uploads.begin("web", &store).unwrap(), None);
        assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), MOST);
    }
}
