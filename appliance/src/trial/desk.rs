//! Where the machine of a trial asks and reports.

use crate::appliance::Appliance;
use bennu_plan::{Plan, Report};
use bennu_rules::{Moment, boot::Token, image::Digest, trial::Trial};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The trial's rules, as its machine reaches them.
pub struct Desk {
    trial: Mutex<Trial>,
    changed: Notify,
    appliance: Arc<Appliance>,
}

impl Desk {
    /// The desk of a trial that has begun.
    pub fn new(trial: Trial, appliance: Arc<Appliance>) -> Self {
        Self { trial: Mutex::new(trial), changed: Notify::new(), appliance }
    }

    /// Looks at the trial.
    pub fn with<T>(&self, look: impl FnOnce(&mut Trial) -> T) -> T {
        look(&mut self.trial.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stage 1 asks for its plan.
    pub fn plan(&self, token: Token) -> Option<Plan> {
        let at = moment(&self.appliance);
        self.with(|trial| trial.plan(token, &at))
    }

    /// The machine reports; whether it may.
    pub fn report(&self, token: Token, report: Report) -> bool {
        let at = moment(&self.appliance);
        let taken = self.with(|trial| trial.report(token, report, &at));
        self.changed.notify_one();
        taken
    }

    /// Whether the machine may read a blob.
    pub fn serves(&self, digest: &Digest) -> bool {
        self.with(|trial| trial.serves(digest))
    }

    /// Waits for a report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Now, with chance of its own.
pub fn moment(appliance: &Appliance) -> Moment {
    Moment { now: appliance.ledger.now(), entropy: rand::random(), settings: appliance.settings().clone() }
}
