//! The only owner of state.
//!
//! [`Ledger::decide`] runs a rule on a read snapshot and the volatile state. A decision without changes is
//! answered at once. One with changes goes to the writer thread, which runs the rule again inside the one open
//! batch, gathers every proposal that is waiting, commits once, and only then releases all their answers:
//! an acknowledgement never leaves before what it promises is on disk. [`Ledger::store`] goes there at once.

mod audit;
mod clock;
mod disk;
mod dump;
mod effective;
mod followers;
mod listing;
mod records;
mod redb_file;
mod storage;
mod writer;

#[cfg(test)]
mod tests;

pub use audit::Extent;
pub use dump::{DumpError, Loader};
pub use followers::{EventId, Following, Told, Worded};
pub use records::Stored;
pub use storage::Fault;

use crate::{
    audit::{Verified, Walk},
    metrics::{LedgerMeters, Tally},
};
use bennu_rules::{
    Change, Decision, Live, MacAddress, Moment, Records, Timestamp, View,
    audit::AuditRecord,
    boot::{Boot, BootId},
    image::{Digest, ImageName},
    journey::{Observation, Seen},
    notice::{Notice, Noticed},
    registry::Outcome,
    settings::Settings,
};
use followers::Followers;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use storage::Storage;
use tokio_util::sync::CancellationToken;
use writer::Writer;

/// A rule, as the ledger runs it: once on a snapshot, and again inside the batch when it changes anything.
pub type Rule<R, A> = fn(&R, &View<'_>, &Moment) -> Decision<A>;

/// Something that happened, for those who follow.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub enum Event {
    /// In a boot.
    Boot(BootEvent),
    /// On the wire or the host.
    Notice(Noticed),
    /// To what was pushed through the registry.
    Push(PushEvent),
    /// By people.
    Audit(Box<AuditRecord>),
}

/// How far a push is, or what became of it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct PushEvent {
    /// When.
    pub at: Timestamp,
    /// Its tag.
    pub name: ImageName,
    /// What was pushed.
    pub digest: Digest,
    /// What became of it so far.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What goes on: `read`, `modules`, `root` or `store`; empty where nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
}

/// Something that happened in a boot.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct BootEvent {
    /// The boot it belongs to.
    pub boot: BootId,
    /// The boot's machine.
    pub machine: MacAddress,
    /// How far the boot is now.
    pub state: bennu_rules::boot::State,
    /// What was seen.
    pub observation: Observation,
}

/// Observations become durable at this pace, many at once.
const FLUSH_PACE: Duration = Duration::from_millis(200);

/// What was seen once more, such as a script that is fetched again or the next bytes of a download, says little that is
/// not on disk yet: it is written with one flush in so many.
const FLUSHES_A_REPETITION: u32 = 25;

/// Format of the ledger as this Bennu writes it.
const FORMAT: u32 = 1;

/// The handle; clones share one ledger.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
}

pub(crate) struct Shared {
    storage: Box<dyn Storage>,
    volatile: Mutex<VolatileState>,
    settings: effective::Effective,
    clock: clock::Clock,
    events: Followers,
    meters: LedgerMeters,
}

/// What a restart forgets.
struct VolatileState {
    live: Live,
    /// Which boots were counted.
    tally: Tally,
    /// Machines whose open boot has news that is not on disk yet.
    dirty: BTreeSet<MacAddress>,
    /// Machines whose open boot did once more what it did last, since it was written.
    repeated: BTreeSet<MacAddress>,
}

impl Ledger {
    /// Opens the ledger in `directory`, or makes an empty one, and takes up the boots that were going on.
    pub fn open(directory: &Path, settings: Arc<Settings>) -> Result<Self, Fault> {
        let path = directory.join("ledger.redb");
        Self::on(Box::new(redb_file::RedbFile::open(&path)?), settings)
    }

    fn on(storage: Box<dyn Storage>, settings: Arc<Settings>) -> Result<Self, Fault> {
        Self::by(Box::new(clock::system), storage, settings)
    }

    fn by(time: clock::Source, storage: Box<dyn Storage>, settings: Arc<Settings>) -> Result<Self, Fault> {
        check_format(&*storage)?;
        let clock = clock::Clock::open(time, &*storage)?;
        let mut live = Live::default();
        let mut tally = Tally::default();
        for boot in latest_boots(&*storage)? {
            // It was counted when it came to what it came to.
            tally.take(&boot);
            live.apply(bennu_rules::Volatile::PutBoot(boot));
        }
        let settings = effective::Effective::new(settings, &*storage)?;
        let shared = Arc::new(Shared {
            storage,
            volatile: Mutex::new(VolatileState { live, tally, dirty: BTreeSet::new(), repeated: BTreeSet::new() }),
            settings,
            clock,
            events: Followers::default(),
            meters: LedgerMeters::default(),
        });
        let writer = Arc::new(Writer::start(shared.clone()));
        Ok(Self { shared, writer })
    }

    /// Asks a rule. The answer comes after every change of the decision is durable.
    pub async fn decide<R, A>(&self, request: R, rule: Rule<R, A>) -> Result<A, Fault>
    where
        R: Send + Sync + 'static,
        A: Send + 'static,
    {
        let mut looked = self.look(&request, rule);
        // A disk that ran full just now is read through another picture.
        if matches!(looked, Err(Fault::Disk(_) | Fault::Full(_))) {
            looked = self.look(&request, rule);
        }
        match looked? {
            Some(answer) => Ok(answer),
            None => self.writer.propose(request, rule).await,
        }
    }

    /// As [`Ledger::decide`], for what is known to change something: without the look that would show it.
    pub async fn store<R, A>(&self, request: R, rule: Rule<R, A>) -> Result<A, Fault>
    where
        R: Send + Sync + 'static,
        A: Send + 'static,
    {
        self.writer.propose(request, rule).await
    }

    /// Looks at what a restart forgets. Everybody waits meanwhile.
    pub fn live<T>(&self, look: impl FnOnce(&Live, Timestamp) -> T) -> T {
        look(&self.shared.volatile().live, self.now())
    }

    /// The answer of a decision that changes nothing.
    fn look<R, A>(&self, request: &R, rule: Rule<R, A>) -> Result<Option<A>, Fault> {
        let entropy = rand::random();
        let mut volatile = self.shared.volatile();
        // Inside the lock, so that time and picture are no older than the volatile state beside them.
        let moment = self.shared.moment(entropy);
        let snapshot = self.shared.storage.snapshot()?;
        let stored = Stored::new(&*snapshot);
        let decision = rule(request, &View { records: &stored, live: &volatile.live }, &moment);
        stored.check()?;
        if !decision.changes.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.shared.settle(&mut volatile, decision)))
    }

    /// Notes something seen of a machine, if a boot of it is open. Delays nobody.
    pub fn observe(&self, mac: MacAddress, seen: Seen) {
        let observation = Observation::new(self.shared.now(), seen);
        let machine = self.read(|records, _| records.machine(mac).map_or(mac, |machine| machine.id)).unwrap_or(mac);
        self.shared.note(&mut self.shared.volatile(), machine, observation);
    }

    /// Notes something that a person should know. Delays nobody.
    pub fn notice(&self, notice: Notice) {
        self.shared.notice(&mut self.shared.volatile(), notice);
    }

    /// Tells those who follow of a push.
    pub fn announce(&self, name: &ImageName, digest: Digest, outcome: Outcome, step: &str) {
        let (at, name, step) = (self.now(), name.clone(), step.to_owned());
        self.shared.events.send(Event::Push(PushEvent { at, name, digest, outcome, step }));
    }

    /// Looks at the state as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&Stored<'_>, &Live) -> T) -> Result<T, Fault> {
        let snapshot = self.shared.storage.snapshot()?;
        let stored = Stored::new(&*snapshot);
        let seen = look(&stored, &self.shared.volatile().live);
        stored.check().map(|()| seen)
    }

    /// What a rule would decide now, with nothing stored, held or observed. For `explain` and HEAD.
    pub fn ponder<R, A>(&self, request: &R, rule: Rule<R, A>) -> Result<Decision<A>, Fault> {
        let moment = self.shared.moment(rand::random());
        self.read(|records, live| rule(request, &View { records, live }, &moment))
    }

    /// The same for a rule that takes its time: over a copy of what a restart forgets, so that no packet waits for it.
    pub fn ponder_aside<R, A>(&self, request: &R, rule: Rule<R, A>) -> Result<Decision<A>, Fault> {
        let moment = self.shared.moment(rand::random());
        let live = self.shared.volatile().live.clone();
        self.stored(|records| rule(request, &View { records, live: &live }, &moment))
    }

    /// Now, as decisions see it.
    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// The configuration as decisions see it, with what people keep of it here.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.now()
    }

    /// A boot: as it goes on now, else as it was stored.
    pub fn boot(&self, id: &BootId) -> Result<Option<Boot>, Fault> {
        self.read(|records, live| live.boots().find(|boot| boot.id == *id).cloned().or_else(|| records.boot(id)))
    }

    /// Boots of one machine or of all, newest first, with what is known of them now.
    pub fn boots(&self, machine: Option<MacAddress>) -> Result<Vec<Boot>, Fault> {
        let wanted = |boot: &&Boot| machine.is_none_or(|machine| boot.machine == machine);
        let open: Vec<Boot> = self.shared.volatile().live.boots().filter(wanted).cloned().collect();
        // Without the lock: years of boots take their time, and packets do not wait for them.
        let snapshot = self.shared.storage.snapshot()?;
        let stored = Stored::new(&*snapshot);
        let known: BTreeSet<BootId> = open.iter().map(|boot| boot.id.clone()).collect();
        let mut boots = stored.boots(machine);
        stored.check()?;
        boots.retain(|boot| !known.contains(&boot.id));
        boots.extend(open);
        boots.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(boots)
    }

    /// What it measures of itself, and of boots.
    pub fn meters(&self) -> &LedgerMeters {
        &self.shared.meters
    }

    /// What happens from now on, and after the event `last` if that is given.
    pub fn follow(&self, last: Option<EventId>) -> Following {
        self.shared.events.follow(last)
    }

    /// The latest events that are in memory, oldest first.
    pub fn recent(&self, most: usize) -> Vec<Arc<Told>> {
        self.shared.events.recent(most)
    }

    /// Where the audit log begins and ends.
    pub fn audit_extent(&self) -> Result<Extent, Fault> {
        audit::extent(&*self.shared.storage.snapshot()?)
    }

    /// Shows records of the audit log to `look`, newest or oldest first as `numbers` has them, until it has enough.
    pub fn audit_records(
        &self,
        numbers: impl Iterator<Item = u64>,
        mut look: impl FnMut(AuditRecord) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let snapshot = self.shared.storage.snapshot()?;
        for seq in numbers {
            if let Some(record) = audit::record(&*snapshot, seq)?
                && look(record).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The same as they are stored, with the number of each; `None`: it is not there.
    pub fn audit_texts(
        &self,
        numbers: impl Iterator<Item = u64>,
        mut look: impl FnMut(u64, Option<String>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let snapshot = self.shared.storage.snapshot()?;
        for seq in numbers {
            if look(seq, audit::text(&*snapshot, seq)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Walks over the whole audit log. It takes its time: for a thread that may block.
    pub fn verify_audit(&self, head: Option<Digest>) -> Result<Verified, Fault> {
        let snapshot = self.shared.storage.snapshot()?;
        let extent = audit::extent(&*snapshot)?;
        let mut walk = Walk::expecting(head);
        for seq in extent.first..=extent.last {
            match audit::text(&*snapshot, seq)? {
                Some(text) if walk.see(&text, Some(seq)) => {}
                Some(_) => break,
                None => {
                    walk.miss(seq);
                    break;
                }
            }
        }
        Ok(walk.end(Some((extent.last, extent.head))))
    }

    /// Whether a disk fault closed it.
    pub fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    /// Whether the disk is full. Nothing can be stored until there is room again; then it heals by itself.
    pub fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Writes observations until `stop`, and once more then.
    pub async fn keep_flushing(&self, stop: CancellationToken) -> Result<(), Fault> {
        for flushes in 1_u32.. {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(FLUSH_PACE) => false,
            };
            if !self.is_full() && self.shared.clock.is_to_be_followed() {
                self.writer.follow_clock();
            }
            match self.flush(stopped || flushes.is_multiple_of(FLUSHES_A_REPETITION)).await {
                // They are kept, and tried again.
                Ok(()) | Err(Fault::Full(_)) => {}
                Err(fault) => return Err(fault),
            }
            if stopped {
                break;
            }
        }
        Ok(())
    }

    /// Writes what is new, and `all` that was seen.
    async fn flush(&self, all: bool) -> Result<(), Fault> {
        let boots: Arc<[Boot]> = {
            let mut volatile = self.shared.volatile();
            let mut dirty = std::mem::take(&mut volatile.dirty);
            if all {
                dirty.append(&mut volatile.repeated);
            } else {
                volatile.repeated.retain(|machine| !dirty.contains(machine));
            }
            let mut boots = volatile.live.take_ended();
            let VolatileState { live, tally, .. } = &mut *volatile;
            let news = dirty.iter().filter_map(|machine| live.boot(*machine));
            boots.iter().chain(news).for_each(|boot| self.shared.meters.boot(boot, tally.take(boot)));
            tally.prune(live);
            boots.extend(dirty.iter().filter_map(|machine| volatile.live.boot(*machine)).cloned());
            boots.into()
        };
        if boots.is_empty() {
            return Ok(());
        }
        let outcome = self.decide(boots.clone(), store_boots).await;
        if outcome.is_err() {
            self.shared.keep_for_later(&boots);
        }
        outcome
    }
}

/// Boots worth keeping: those that were given a script or have failed at something, and those of machines on record. A
/// flood of invented addresses writes nothing: without a transfer there is nothing to fail at.
fn store_boots(boots: &Arc<[Boot]>, view: &View<'_>, _at: &Moment) -> Decision<()> {
    // Between the flush and this batch more may have been seen, or the token minted: the newest is written.
    let newest = |boot: &Boot| view.live.boot(boot.machine).filter(|live| live.id == boot.id).unwrap_or(boot).clone();
    let worth =
        |boot: &Boot| boot.token.is_some() || boot.diagnosis.is_some() || view.records.machine(boot.machine).is_some();
    let changes = boots.iter().map(newest).filter(worth).map(Change::PutBoot).collect();
    Decision { changes, ..Decision::just(()) }
}

fn check_format(storage: &dyn Storage) -> Result<(), Fault> {
    let key = b"format";
    let found = storage.snapshot()?.get(storage::Table::Meta, key)?;
    match found.as_deref().map(|bytes| records::decode::<u32>(storage::Table::Meta, bytes)).transpose()? {
        Some(found) if found > FORMAT => Err(Fault::TooNew { found, known: FORMAT }),
        Some(_) => Ok(()),
        None => {
            let format = records::encode(storage::Table::Meta, &FORMAT)?;
            storage.write(&mut |batch| batch.put(storage::Table::Meta, key, &format).map(|()| true))
        }
    }
}

/// The latest boot of each machine, whose token must still open its plan after a restart.
fn latest_boots(storage: &dyn Storage) -> Result<Vec<Boot>, Fault> {
    let snapshot = storage.snapshot()?;
    let stored = Stored::new(&*snapshot);
    let mut latest = BTreeMap::new();
    for (key, _) in snapshot.scan(storage::Table::BootsOfMachine, &[])? {
        latest.insert(key[..6].to_vec(), BootId(String::from_utf8_lossy(&key[6..]).into_owned()));
    }
    // A card that joined a machine brought its boots along: the machine's latest is the one that counts.
    let mut boots: BTreeMap<MacAddress, Boot> = BTreeMap::new();
    for boot in latest.values().filter_map(|id| stored.boot(id)) {
        if boots.get(&boot.machine).is_none_or(|other| other.id < boot.id) {
            boots.insert(boot.machine, boot);
        }
    }
    stored.check().map(|()| boots.into_values().collect())
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn moment(&self, entropy: [u8; 32]) -> Moment {
        Moment { now: self.now(), entropy, settings: self.settings.now() }
    }

    fn volatile(&self) -> MutexGuard<'_, VolatileState> {
        self.volatile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs the volatile part of a decision; what is left is its answer.
    fn settle<A>(&self, volatile: &mut VolatileState, decision: Decision<A>) -> A {
        for change in decision.volatile {
            if let bennu_rules::Volatile::PutBoot(boot) = &change {
                volatile.dirty.insert(boot.machine);
            }
            volatile.live.apply(change);
        }
        for (machine, observation) in decision.observed {
            self.note(volatile, machine, observation);
        }
        for notice in decision.noticed {
            self.notice(volatile, notice);
        }
        decision.answer
    }

    fn notice(&self, volatile: &mut VolatileState, notice: Notice) {
        let Some(told) = volatile.live.notice(notice, self.now()) else { return };
        match told.notice.advice() {
            advice if advice.is_empty() => tracing::info!("{}", told.notice),
            advice => tracing::warn!(advice, "{}", told.notice),
        }
        self.events.send(Event::Notice(told.clone()));
    }

    /// Boots that could not be stored are stored at the next flush.
    fn keep_for_later(&self, boots: &[Boot]) {
        let mut volatile = self.volatile();
        for boot in boots {
            if volatile.live.boot(boot.machine).is_some_and(|live| live.id == boot.id) {
                volatile.dirty.insert(boot.machine);
            } else {
                volatile.live.keep_ended(boot.clone());
            }
        }
    }

    fn note(&self, volatile: &mut VolatileState, machine: MacAddress, observation: Observation) {
        let at = observation.at;
        let Some(boot) = volatile.live.observe(machine, observation) else { return };
        // As the boot keeps it: it knows which part of the image a blob is.
        let mut repeats = false;
        if let Some(last) = boot.timeline.last() {
            repeats = last.repeated > 0;
            let observation = Observation::new(at, last.seen.clone());
            let event = BootEvent { boot: boot.id.clone(), machine, state: boot.state, observation };
            self.events.send(Event::Boot(event));
        }
        if repeats {
            volatile.repeated.insert(machine);
        } else {
            volatile.dirty.insert(machine);
        }
    }
}
