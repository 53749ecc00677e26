//! The configuration as decisions see it: the file's, and the hardware profiles that people keep in the ledger. They are
//! read when they change, so that no packet reads them.

use super::{
    records::Stored,
    storage::{Fault, Storage},
};
use bennu_rules::{Change, Records, settings::Settings};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

pub struct Effective {
    now: RwLock<Arc<Settings>>,
    is_stale: AtomicBool,
}

impl Effective {
    pub fn new(settings: Arc<Settings>, storage: &dyn Storage) -> Result<Self, Fault> {
        let effective = Self { now: RwLock::new(settings), is_stale: AtomicBool::new(true) };
        effective.refresh(storage).map(|()| effective)
    }

    pub fn now(&self) -> Arc<Settings> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what a batch changes of it.
    pub fn note(&self, change: &Change) {
        if matches!(change, Change::PutProfile(_) | Change::RemoveProfile(_)) {
            self.is_stale.store(true, Ordering::Relaxed);
        }
    }

    /// Reads it again if it was changed. Called with every commit, before its answers are released.
    pub fn refresh(&self, storage: &dyn Storage) -> Result<(), Fault> {
        if !self.is_stale.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let read = || {
            let snapshot = storage.snapshot()?;
            let stored = Stored::new(&*snapshot);
            let profiles = stored.profiles();
            stored.check().map(|()| profiles)
        };
        match read() {
            Ok(kept_profiles) => {
                let settings = Settings { kept_profiles, ..(*self.now()).clone() };
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
                Ok(())
            }
            Err(fault) => {
                self.is_stale.store(true, Ordering::Relaxed);
                Err(fault)
            }
        }
    }
}
