//! Group commit: one thread, one open batch, many waiting answers.

use super::{
    Event, Rule, Shared, audit, clock,
    records::{Stored, perform},
    storage::{Batch, Fault},
};
use crate::author;
use bennu_rules::{
    Change, MacAddress, Records, View, Volatile, access,
    audit::{AuditRecord, Author},
    boot::Boot,
    notice::Notice,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Proposals in one batch at most, so that the first waits no longer than the disk makes it.
const BATCH: usize = 512;

/// How long at most a batch waits for those who are on their way. A disk slower than four times this is no
/// disk to wait for.
const GATHERING: Duration = Duration::from_millis(3);

/// A full disk is looked at this often.
const RETRY_PACE: Duration = Duration::from_secs(1);

/// The writer thread's owner: dropping it waits for the last commit.
pub struct Writer {
    proposals: Option<mpsc::Sender<Task>>,
    queued: Arc<AtomicUsize>,
    condition: Arc<Condition>,
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

/// Whether the ledger takes writes.
#[derive(Default)]
struct Condition(AtomicU8);

impl Condition {
    const SERVES: u8 = 0;
    const FULL: u8 = 1;
    const CLOSED: u8 = 2;

    fn is(&self, condition: u8) -> bool {
        self.0.load(Ordering::Acquire) == condition
    }

    fn become_as(&self, condition: u8) {
        self.0.store(condition, Ordering::Release);
    }
}

/// What waits for the writer thread.
struct Queue {
    tasks: mpsc::Receiver<Task>,
    length: Arc<AtomicUsize>,
}

impl Queue {
    /// The next task, if one comes within `patience`.
    fn next(&self, patience: Duration) -> Result<Task, RecvTimeoutError> {
        let task = self.tasks.recv_timeout(patience)?;
        self.length.fetch_sub(1, Ordering::Relaxed);
        Ok(task)
    }

    fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }
}

/// What the writer thread is asked.
enum Task {
    Decide(Box<dyn Pending>),
    FollowClock,
}

/// A proposal without its types.
trait Pending: Send {
    fn run(&mut self, batch: &mut dyn Batch, shared: &Shared, undo: &mut Undo) -> Result<bool, Fault>;
    fn release(self: Box<Self>, outcome: Result<(), Fault>, shared: &Shared);
}

struct Proposal<R, A> {
    request: R,
    rule: Rule<R, A>,
    author: Option<Arc<Author>>,
    answer: Option<A>,
    audited: Vec<AuditRecord>,
    refused: Option<Fault>,
    reply: oneshot::Sender<Result<A, Fault>>,
}

impl<R: Send, A: Send> Pending for Proposal<R, A> {
    /// Decides again on what the batch holds by now; says whether anything was changed.
    fn run(&mut self, batch: &mut dyn Batch, shared: &Shared, undo: &mut Undo) -> Result<bool, Fault> {
        let entropy = rand::random();
        let mut volatile = shared.volatile();
        let moment = shared.moment(entropy);
        let author = self.author.as_deref();
        let (decision, watch, beyond) = {
            let stored = Stored::new(batch.as_snapshot());
            let decision = (self.rule)(&self.request, &View { records: &stored, live: &volatile.live }, &moment);
            let watch = audit::Watch::before(&decision.changes, author, &stored);
            let beyond = author.and_then(|author| beyond(&decision.changes, author, &stored));
            stored.check()?;
            (decision, watch, beyond)
        };
        let changed = !decision.changes.is_empty();
        if let Some(refused) = beyond {
            self.refused = Some(refused);
            return Ok(false);
        }
        for change in &decision.changes {
            perform(batch, change)?;
            shared.settings.note(change);
            // A boot that ended says nothing of the one that replaced it.
            if let Change::PutBoot(boot) = change
                && volatile.live.boot(boot.machine).is_some_and(|live| live.id == boot.id)
                && volatile.dirty.remove(&boot.machine)
            {
                undo.cleaned.push(boot.machine);
            }
        }
        self.audited = watch.write(batch, author, moment.now, audit::Retention::DEFAULT)?;
        if changed {
            for change in &decision.volatile {
                let machine = match change {
                    Volatile::PutBoot(boot) => boot.machine,
                    Volatile::DropBoot(machine) => *machine,
                    // Offers and the like end by themselves, and promise nothing.
                    _ => continue,
                };
                undo.boots.push((machine, volatile.live.boot(machine).cloned()));
            }
        }
        self.answer = Some(shared.settle(&mut volatile, decision));
        Ok(changed)
    }

    fn release(mut self: Box<Self>, outcome: Result<(), Fault>, shared: &Shared) {
        if outcome.is_ok() {
            for record in self.audited.drain(..) {
                shared.events.send(Event::Audit(Box::new(record)));
            }
        }
        let answer = outcome.and_then(|()| match self.refused.take() {
            Some(refused) => Err(refused),
            None => self.answer.take().ok_or(Fault::Closed),
        });
        // An asker who went away needs no answer.
        let _ = self.reply.send(answer);
    }
}

/// Why an author may not make these changes, if so.
fn beyond(changes: &[Change], author: &Author, records: &dyn Records) -> Option<Fault> {
    let limit = author.limit.as_ref()?;
    let what = access::beyond(changes, limit, records)?;
    Some(Fault::Beyond { limit: limit.to_string(), what: what.to_string() })
}

/// What a batch did to the volatile state, and must not outlast it when it cannot be committed: a boot would
/// seem to have a token, or a machine, that is nowhere on record.
#[derive(Default)]
struct Undo {
    /// The open boots as they were, oldest first.
    boots: Vec<(MacAddress, Option<Boot>)>,
    /// Machines whose news were in the batch.
    cleaned: Vec<MacAddress>,
}

impl Undo {
    fn perform(self, shared: &Shared) {
        let mut volatile = shared.volatile();
        for (machine, boot) in self.boots.into_iter().rev() {
            volatile.live.restore_boot(machine, boot);
        }
        volatile.dirty.extend(self.cleaned);
    }
}

impl Writer {
    pub fn start(shared: Arc<Shared>) -> Self {
        let (proposals, tasks) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let waiting = Queue { tasks, length: queued.clone() };
        let condition = Arc::new(Condition::default());
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn({
                let condition = condition.clone();
                move || work(&shared, &waiting, &condition)
            })
            .expect("the system starts one thread");
        Self { proposals: Some(proposals), queued, condition, thread: Some(thread) }
    }

    pub async fn propose<R, A>(&self, request: R, rule: Rule<R, A>) -> Result<A, Fault>
    where
        R: Send + 'static,
        A: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let author = author::current();
        let proposal = Proposal { request, rule, author, answer: None, audited: Vec::new(), refused: None, reply };
        self.send(Task::Decide(Box::new(proposal)))?;
        answer.await.unwrap_or(Err(Fault::Closed))
    }

    /// Has the wall clock followed, soon.
    pub fn follow_clock(&self) {
        // A thread that is gone follows nothing, and grants nothing.
        let _ = self.send(Task::FollowClock);
    }

    fn send(&self, task: Task) -> Result<(), Fault> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.proposals.as_ref().and_then(|proposals| proposals.send(task).ok()).ok_or(Fault::Closed)
    }

    pub fn is_closed(&self) -> bool {
        self.condition.is(Condition::CLOSED)
    }

    pub fn is_full(&self) -> bool {
        self.condition.is(Condition::FULL)
    }
}

/// Serves proposals until there are no more askers.
fn work(shared: &Shared, waiting: &Queue, condition: &Condition) {
    let mut fault = None;
    let mut pace = Pace::default();
    let mut next = next(shared, waiting, condition, &mut fault);
    while let Some(task) = next.take() {
        let (batch, outcome) = match (task, &fault) {
            (Task::Decide(proposal), Some(fault)) => (vec![proposal], Err(fault.clone())),
            (Task::Decide(proposal), None) => commit_together(shared, proposal, waiting, &mut next, &mut pace),
            (Task::FollowClock, Some(_)) => (Vec::new(), Ok(())),
            (Task::FollowClock, None) => (Vec::new(), clock::follow(shared)),
        };
        if let (Err(met), None) = (&outcome, &fault) {
            fault = Some(take_note(met, shared, condition));
        }
        pace.expected = batch.len() + waiting.len();
        for proposal in batch {
            proposal.release(outcome.clone(), shared);
        }
        if next.is_none() {
            next = self::next(shared, waiting, condition, &mut fault);
        }
    }
}

/// What later proposals are told after a fault.
fn take_note(met: &Fault, shared: &Shared, condition: &Condition) -> Fault {
    if let Fault::Full(_) = met {
        if !condition.is(Condition::FULL) {
            tracing::error!(fault = %met, "leases, boots and commands are refused until there is room");
            shared.notice(&mut shared.volatile(), Notice::StorageFull);
        }
        condition.become_as(Condition::FULL);
        return met.clone();
    }
    // After a failed write or sync nobody knows what is on disk: nothing more is acknowledged.
    condition.become_as(Condition::CLOSED);
    Fault::Closed
}

/// The next task; while the disk is full it is looked at meanwhile. `None`: nobody is left to ask.
fn next(shared: &Shared, waiting: &Queue, condition: &Condition, fault: &mut Option<Fault>) -> Option<Task> {
    let mut retry = Instant::now() + RETRY_PACE;
    while condition.is(Condition::FULL) {
        if Instant::now() >= retry {
            *fault = look_again(shared, condition);
            retry = Instant::now() + RETRY_PACE;
            continue;
        }
        match waiting.next(retry.saturating_duration_since(Instant::now())) {
            Ok(Task::Decide(proposal)) => proposal.release(Err(fault.clone().unwrap_or(Fault::Closed)), shared),
            Ok(Task::FollowClock) => {}
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    waiting.next(Duration::MAX).ok()
}

/// What proposals are told from now on.
fn look_again(shared: &Shared, condition: &Condition) -> Option<Fault> {
    match shared.storage.recover() {
        Ok(()) => {
            condition.become_as(Condition::SERVES);
            shared.notice(&mut shared.volatile(), Notice::StorageBack);
            None
        }
        Err(met) => Some(take_note(&met, shared, condition)),
    }
}

/// How askers come: whoever was just answered often asks for the next thing at once. A batch that waits for them a
/// little takes one sync for all; without, they would part into two crowds that wait for each other's syncs.
#[derive(Default)]
struct Pace {
    /// How long the last commit took.
    commit: Duration,
    /// How many were answered by it, and how many waited by then.
    expected: usize,
}

impl Pace {
    /// Until when a batch that begins now waits for the crowd.
    fn deadline(&self) -> Instant {
        Instant::now() + (self.commit / 4).min(GATHERING)
    }
}

/// Runs `first` and whatever comes behind it in one batch; what comes after it and belongs into none is left in `next`.
fn commit_together(
    shared: &Shared,
    first: Box<dyn Pending>,
    waiting: &Queue,
    next: &mut Option<Task>,
    pace: &mut Pace,
) -> (Vec<Box<dyn Pending>>, Result<(), Fault>) {
    let mut proposals = vec![first];
    let mut undo = Undo::default();
    let deadline = pace.deadline();
    let (mut gathered, mut has_changed) = (Instant::now(), false);
    let outcome = shared.storage.write(&mut |batch| {
        let mut changed = proposals[0].run(batch, shared, &mut undo)?;
        while proposals.len() < BATCH {
            // Who is missing is waited for only where there is something to commit for.
            let patience = match changed && proposals.len() < pace.expected {
                true => deadline.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            let mut proposal = match waiting.next(patience) {
                Ok(Task::Decide(proposal)) => proposal,
                Ok(other) => {
                    *next = Some(other);
                    break;
                }
                Err(_) => break,
            };
            let outcome = proposal.run(batch, shared, &mut undo);
            proposals.push(proposal);
            changed |= outcome?;
        }
        (gathered, has_changed) = (Instant::now(), changed);
        Ok(changed)
    });
    pace.commit = gathered.elapsed();
    if outcome.is_ok() && has_changed {
        shared.meters.commit(pace.commit, proposals.len());
    }
    if outcome.is_ok() {
        // What cannot be read now is read with the next commit.
        let _ = shared.settings.refresh(&*shared.storage);
    } else {
        undo.perform(shared);
    }
    (proposals, outcome)
}
