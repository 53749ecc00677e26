//! Whose request is being answered: every write of the ledger takes its author from here, so that no handler can forget
//! to name one.

use bennu_rules::audit::Author;
use std::{future::Future, sync::Arc};

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
