//! The clock of a machine whose battery is dead.

use rustix::time::{ClockId, Timespec, clock_settime};
use std::time::{SystemTime, UNIX_EPOCH};

/// 2020-01-01: no machine of ours is older than that.
const EARLIEST_MS: u64 = 1_577_836_800_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Sets the clock to the appliance's time when it is clearly wrong. Answers what was done, for the console.
pub fn correct(appliance_ms: u64) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    if !is_wrong(now_ms, appliance_ms) {
        return None;
    }
    let time = Timespec {
        tv_sec: i64::try_from(appliance_ms / 1000).ok()?,
        tv_nsec: i64::try_from(appliance_ms % 1000 * 1_000_000).ok()?,
    };
    let off = now_ms.abs_diff(appliance_ms) / 1000;
    Some(match clock_settime(ClockId::Realtime, time) {
        Ok(()) => format!("the clock was {off} s off and is set to the appliance's (is the machine's battery dead?)"),
        Err(error) => format!("the clock is {off} s off and cannot be set: {error}"),
    })
}

/// Off by more than a day, or before 2020. An appliance that does not know the time itself is not believed.
fn is_wrong(now_ms: u64, appliance_ms: u64) -> bool {
    appliance_ms >= EARLIEST_MS && (now_ms < EARLIEST_MS || now_ms.abs_diff(appliance_ms) > DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_left_to_ntp() {
        let now = 1_760_000_000_000;
        assert!(!is_wrong(now, now + DAY_MS));
        assert!(is_wrong(now, now + DAY_MS + 1) && is_wrong(now + DAY_MS + 1, now));
        assert!(is_wrong(EARLIEST_MS - 1, EARLIEST_MS));
        assert!(!is_wrong(now, 0) && !is_wrong(0, 5));
    }
}
