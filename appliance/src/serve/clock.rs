//! Steps of the wall clock, by which leases are judged.

use crate::appliance::Appliance;
use anyhow::Result;
use bennu_rules::notice::Notice;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::{sync::Arc, time::Duration};

/// The clocks are compared this often.
const PACE: Duration = Duration::from_secs(1);
/// A time service slews by less than this.
const STEP_MS: i64 = 5000;

/// Notices when the clock is set, until the appliance shuts down.
pub async fn watch(appliance: Arc<Appliance>) -> Result<()> {
    let mut before = offset();
    loop {
        tokio::select! {
            () = appliance.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(PACE) => {}
        }
        let now = offset();
        if let Some(by_ms) = step(before, now) {
            appliance.ledger.notice(Notice::ClockStepped { by_ms });
        }
        before = now;
    }
}

/// Wall clock less time since the boot, which goes on while the host sleeps and is never set.
fn offset() -> i64 {
    milliseconds(clock_gettime(ClockId::Realtime)) - milliseconds(clock_gettime(ClockId::Boottime))
}

fn milliseconds(time: Timespec) -> i64 {
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

fn step(before: i64, now: i64) -> Option<i64> {
    let by = now - before;
    (by.abs() > STEP_MS).then_some(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_is_told() {
        assert_eq!(step(1000, 1100), None);
        assert_eq!(step(1000, 6000), None);
        assert_eq!(step(1000, 7000), Some(6000));
        assert_eq!(step(86_400_000, 0), Some(-86_400_000));
    }

    #[test]
    fn a_clock_that_nobody_sets_does_not_step() {
        let before = offset();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(step(before, offset()), None);
    }
}
