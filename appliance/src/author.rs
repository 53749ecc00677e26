//! Whose request is being answered: every write of the ledger takes its author from here, so that no handler can forget
//! to name one; and what they may see.

use crate::ledger::{Event, Ledger};
use bennu_rules::{
    MacAddress, Records, Timestamp, access,
    audit::{Author, Who},
};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;

tokio::task_local! {
    static AUTHOR: Arc<Author>;
}

/// Who writes now; `None`: a machine's packet is being answered, or the appliance works by itself.
pub fn current() -> Option<Arc<Author>> {
    AUTHOR.try_with(Arc::clone).ok()
}

/// Does `work` for `author`.
pub async fn by<T>(author: Author, work: impl Future<Output = T>) -> T {
    AUTHOR.scope(Arc::new(author), work).await
}

/// Starts a task that goes on for whoever is the author now.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    match current() {
        Some(author) => tokio::spawn(AUTHOR.scope(author, work)),
        None => tokio::spawn(work),
    }
}

/// What whoever asks may see, to take along where the request's task is left.
#[derive(Debug, Clone, Default)]
pub struct Sight(Option<Arc<Author>>);

impl Sight {
    /// Of whoever asks now.
    pub fn current() -> Self {
        Self(current())
    }

    /// Whether it takes in every machine, and what belongs to none.
    pub fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|author| author.limit.is_none())
    }

    /// Whether it takes in a machine with these labels.
    pub fn takes_in(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.as_ref().and_then(|author| author.limit.as_ref()).is_none_or(|limit| limit.matches(labels))
    }

    /// Whether it takes in the machine that has this card.
    pub fn takes_in_card(&self, mac: MacAddress, records: &dyn Records) -> bool {
        let limit = self.0.as_ref().and_then(|author| author.limit.as_ref());
        limit.is_none_or(|limit| access::sees(limit, mac, records))
    }

    /// Waits until they may no longer see a machine: it is forgotten, or has lost the labels that they are limited to.
    pub async fn loses(self, machine: MacAddress, ledger: Ledger) {
        if self.is_whole() {
            return std::future::pending().await;
        }
        let mut events = ledger.follow(None).live;
        while ledger.read(|records, _| self.takes_in_card(machine, records)).unwrap_or(false) {
            loop {
                match events.recv().await {
                    Ok(told) if matches!(told.event, Event::Audit(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    /// Waits until what they were let in with is no longer as it was: their token was revoked, or has ended. For answers
    /// that go on as long as somebody listens.
    pub async fn ends(self, ledger: Ledger, expires: Option<Timestamp>) {
        let Some(Who::Token { id, .. }) = self.0.as_ref().map(|author| &author.who) else {
            return std::future::pending().await;
        };
        let name = format!("token {id}");
        let mut events = ledger.follow(None).live;
        let may = || ledger.stored(|records| records.token(*id).map(|token| (token.scopes, token.limit)));
        let limit = self.0.as_ref().and_then(|author| author.limit.clone());
        let let_in = match may() {
            Ok(Some((scopes, now))) if now == limit => scopes,
            Ok(_) => return,
            Err(_) => return std::future::pending().await,
        };
        // A role may have taken something from it.
        let is_as_it_was = || may().is_ok_and(|may| may == Some((let_in.clone(), limit.clone())));
        while is_as_it_was() {
            let is_over = |at: Timestamp| ledger.now() >= at;
            if expires.is_some_and(is_over) {
                return;
            }
            // A clock that is set is noticed within a minute.
            const LOOK: Duration = Duration::from_secs(60);
            let left = expires.map_or(LOOK, |at| Duration::from_millis(at.since(ledger.now())).min(LOOK));
            let told = tokio::time::timeout(left, async {
                loop {
                    match events.recv().await {
                        Ok(told) if matches!(&told.event, Event::Audit(record) if record.target.to_string() == name) => {
                            return true;
                        }
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return false,
                        Err(RecvError::Closed) => return true,
                    }
                }
            });
            // Whatever became of it: it may be less than it was.
            if told.await == Ok(true) {
                return;
            }
        }
    }
}
