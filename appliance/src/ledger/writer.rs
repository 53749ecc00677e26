//! Group commit: one thread, one open batch, many waiting answers.

use super::{
    Rule, Shared,
    records::{Stored, perform},
    storage::{Batch, Fault},
};
use bennu_rules::{Change, View};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};
use tokio::sync::oneshot;

/// Proposals in one batch at most, so that the first waits no longer than the disk makes it.
const BATCH: usize = 512;

/// The writer thread's owner: dropping it waits for the last commit.
pub struct Writer {
    proposals: Option<mpsc::Sender<Box<dyn Pending>>>,
    closed: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.proposals.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was its own report.
            let _ = thread.join();
        }
    }
}

/// A proposal without its types.
trait Pending: Send {
    fn run(&mut self, batch: &mut dyn Batch, shared: &Shared) -> Result<bool, Fault>;
    fn release(self: Box<Self>, outcome: Result<(), Fault>);
}

struct Proposal<R, A> {
    request: R,
    rule: Rule<R, A>,
    answer: Option<A>,
    reply: oneshot::Sender<Result<A, Fault>>,
}

impl<R: Send, A: Send> Pending for Proposal<R, A> {
    /// Decides again on what the batch holds by now; says whether anything was changed.
    fn run(&mut self, batch: &mut dyn Batch, shared: &Shared) -> Result<bool, Fault> {
        let moment = shared.moment();
        let mut volatile = shared.volatile();
        let decision = {
            let stored = Stored::new(batch.as_snapshot());
            let decision = (self.rule)(&self.request, &View { records: &stored, live: &volatile.live }, &moment);
            stored.check()?;
            decision
        };
        for change in &decision.changes {
            perform(batch, change)?;
            // A boot that ended says nothing of the one that replaced it.
            if let Change::PutBoot(boot) = change
                && volatile.live.boot(boot.machine).is_some_and(|live| live.id == boot.id)
            {
                volatile.dirty.remove(&boot.machine);
            }
        }
        shared.settle(&mut volatile, &decision);
        let changed = !decision.changes.is_empty();
        self.answer = Some(decision.answer);
        Ok(changed)
    }

    fn release(mut self: Box<Self>, outcome: Result<(), Fault>) {
        let answer = outcome.and_then(|()| self.answer.take().ok_or(Fault::Closed));
        // An asker who went away needs no answer.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    pub fn start(shared: Arc<Shared>) -> Self {
        let (proposals, waiting) = mpsc::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let flag = closed.clone();
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || work(&shared, &waiting, &flag))
            .expect("the system starts one thread");
        Self { proposals: Some(proposals), closed, thread: Some(thread) }
    }

    pub async fn propose<R, A>(&self, request: R, rule: Rule<R, A>) -> Result<A, Fault>
    where
        R: Send + 'static,
        A: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { request, rule, answer: None, reply };
        let proposals = self.proposals.as_ref().ok_or(Fault::Closed)?;
        proposals.send(Box::new(proposal)).map_err(|_| Fault::Closed)?;
        answer.await.unwrap_or(Err(Fault::Closed))
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

fn work(shared: &Shared, waiting: &mpsc::Receiver<Box<dyn Pending>>, closed: &AtomicBool) {
    while let Ok(first) = waiting.recv() {
        if closed.load(Ordering::Acquire) {
            first.release(Err(Fault::Closed));
            continue;
        }
        let (batch, outcome) = commit_together(shared, first, waiting);
        // After a failed write or sync nobody knows what is on disk: nothing more is acknowledged.
        if outcome.is_err() {
            closed.store(true, Ordering::Release);
        }
        for proposal in batch {
            proposal.release(outcome.clone());
        }
    }
}

fn commit_together(
    shared: &Shared,
    first: Box<dyn Pending>,
    waiting: &mpsc::Receiver<Box<dyn Pending>>,
) -> (Vec<Box<dyn Pending>>, Result<(), Fault>) {
    let mut proposals = vec![first];
    let mut run = || {
        let mut batch = shared.storage.begin()?;
        let mut changed = proposals[0].run(&mut *batch, shared)?;
        while proposals.len() < BATCH
            && let Ok(mut next) = waiting.try_recv()
        {
            let outcome = next.run(&mut *batch, shared);
            proposals.push(next);
            changed |= outcome?;
        }
        if changed { batch.commit() } else { Ok(()) }
    };
    let outcome = run();
    (proposals, outcome)
}
