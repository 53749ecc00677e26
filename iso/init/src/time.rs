//! A clock that stands at its beginning: certificates and leases need one that does not.

use rustix::time::{ClockId, Timespec, clock_settime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Sets a clock that stands before the appliance was made to that time.
pub fn correct() {
    let built = UNIX_EPOCH + Duration::from_secs(crate::release::of_this_disc().built);
    if SystemTime::now() >= built {
        return;
    }
    let seconds = built.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 };
    let said = match clock_settime(ClockId::Realtime, time) {
        Ok(()) => {
            "the clock stood before this appliance was built, and was set to that time; mend it in the firmware's set-up"
        }
        Err(_) => "the clock stands before this appliance was built, and cannot be set",
    };
    crate::logs::say(said);
}
