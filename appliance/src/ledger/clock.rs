//! Time that never jumps by itself.
//!
//! Leases end by the wall clock, since they outlive restarts; and wall clocks are set: by NTP after a start with a
//! flat battery, by a person, by a hypervisor. So the ledger's time is the kernel's steady count plus an offset, and
//! the offset follows the wall clock only together with every lease ([`bennu_rules::lease::Lease::after`]).

use super::{
    Fault, Shared, records,
    storage::{Storage, Table},
};
use bennu_rules::{Timestamp, lease::Lease, time::ClockStep};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What the system's clocks say, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Since 1970, as somebody set it.
    pub wall: i64,
    /// Since the kernel started, sleep included. Nobody sets it.
    pub steady: i64,
}

/// How the clocks are read.
pub type Source = Box<dyn Fn() -> Reading + Send + Sync>;

/// The ledger's clock.
pub struct Clock {
    source: Source,
    offset: AtomicI64,
    /// Whether the offset is on record.
    recorded: AtomicBool,
}

/// What a restart must know: leases on record end by this offset.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The kernel's run that the steady count belongs to.
    run: String,
    offset: i64,
}

const KEY: &[u8] = b"clock";

/// NTP turns smaller differences off bit by bit, and a lease has seconds.
const TOLERATED: i64 = 2000;

/// The system's clocks.
pub fn system() -> Reading {
    let read = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    };
    Reading { wall: read(ClockId::Realtime), steady: read(ClockId::Boottime) }
}

/// The kernel's name for its run, or nothing where there is no such name.
fn run() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Clock {
    /// Goes on from the offset on record if that is of this run of the kernel, and from the wall clock if not.
    pub fn open(source: Source, storage: &dyn Storage) -> Result<Self, Fault> {
        let bytes = storage.snapshot()?.get(Table::Meta, KEY)?;
        let kept: Option<Kept> = bytes.map(|bytes| records::decode(Table::Meta, &bytes)).transpose()?;
        let reading = source();
        let (offset, recorded) = match kept.filter(|kept| !kept.run.is_empty() && kept.run == run()) {
            Some(kept) => (kept.offset, true),
            None => (reading.wall - reading.steady, false),
        };
        let clock = Self { source, offset: AtomicI64::new(offset), recorded: AtomicBool::new(recorded) };
        if !recorded {
            let kept = records::encode(Table::Meta, &Kept { run: run(), offset })?;
            match storage.write(&mut |batch| batch.put(Table::Meta, KEY, &kept).map(|()| true)) {
                Ok(()) => clock.recorded.store(true, Ordering::Release),
                // A full disk keeps nobody from starting; it is written when there is room.
                Err(Fault::Full(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(clock)
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp(((self.source)().steady + self.offset.load(Ordering::Acquire)).max(0) as u64)
    }

    /// Whether the wall clock was set since the ledger last followed it, or the offset is not on record.
    pub fn is_to_be_followed(&self) -> bool {
        let reading = (self.source)();
        !self.recorded.load(Ordering::Acquire)
            || (reading.wall - reading.steady - self.offset.load(Ordering::Acquire)).abs() > TOLERATED
    }

    /// The step that follows the wall clock, and the offset after it.
    fn step(&self) -> (ClockStep, i64) {
        let reading = (self.source)();
        let by = |offset: i64| Timestamp((reading.steady + offset).max(0) as u64);
        let to = reading.wall - reading.steady;
        (ClockStep { from: by(self.offset.load(Ordering::Acquire)), to: by(to) }, to)
    }
}

/// Follows a wall clock that was set, with every lease. Nothing is decided meanwhile: half of it would be by one time and
/// half by the other.
pub(super) fn follow(shared: &Shared) -> Result<(), Fault> {
    let mut volatile = shared.volatile();
    if !shared.clock.is_to_be_followed() {
        return Ok(());
    }
    let (step, offset) = shared.clock.step();
    let kept = records::encode(Table::Meta, &Kept { run: run(), offset })?;
    shared.storage.write(&mut |batch| {
        for (key, bytes) in batch.scan(Table::Leases, &[])? {
            let lease: Lease = records::decode(Table::Leases, &bytes)?;
            if let Some(moved) = lease.after(step).filter(|moved| *moved != lease) {
                batch.put(Table::Leases, &key, &records::encode(Table::Leases, &moved)?)?;
            }
        }
        batch.put(Table::Meta, KEY, &kept).map(|()| true)
    })?;
    volatile.live.step_clock(step);
    shared.clock.offset.store(offset, Ordering::Release);
    shared.clock.recorded.store(true, Ordering::Release);
    tracing::warn!(from = %step.from, to = %step.to, "the clock was set; leases end when their clients think they do");
    Ok(())
}
