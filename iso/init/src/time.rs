//! A clock that stands at its beginning: certificates and leases need one that does not.

use crate::state;
use rustix::time::{ClockId, Timespec, clock_settime};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What was written on the state disk in use, so that the newest of it tells when that was: below its top directory.
const WRITTEN: [&str; 3] = ["log", "bennu", "bennu/logs"];
/// What says to be of later than this after the disc was made was written by a clock that was wrong itself.
const BELIEVABLE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Whether the clock knew nothing when the machine started.
static LOST: AtomicBool = AtomicBool::new(false);

fn built() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(crate::release::of_this_disc().built)
}

/// Sets a clock that stands before the appliance was made to that time.
pub fn correct() {
    if SystemTime::now() >= built() {
        return;
    }
    LOST.store(true, Ordering::SeqCst);
    crate::logs::say(match set(built()) {
        true => {
            "the clock stood before this appliance was built, and was set to that time; mend it in the firmware's set-up"
        }
        false => "the clock stands before this appliance was built, and cannot be set",
    });
}

/// Once the state is there: a clock that knew nothing is set on to when that was last written, lest the certificate of before
/// begins in the future.
pub fn correct_by_state() {
    if !LOST.load(Ordering::SeqCst) {
        return;
    }
    let written = newest(Path::new(state::PLACE), &WRITTEN);
    if let Some(time) = later(SystemTime::now(), built(), written).filter(|time| set(*time)) {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        crate::logs::say(&format!(
            "the clock was set on to when the state was last written ({seconds} s after 1970 began): it may be behind by as long \
             as this machine was off"
        ));
    }
}

/// What a clock is set on to that knows nothing.
fn later(now: SystemTime, built: SystemTime, written: Option<SystemTime>) -> Option<SystemTime> {
    written.filter(|written| *written > now && *written <= built + BELIEVABLE)
}

/// When the newest file in these directories was written.
fn newest(place: &Path, directories: &[&str]) -> Option<SystemTime> {
    let entries = |directory: &&str| fs::read_dir(place.join(directory)).into_iter().flatten().flatten();
    let files = directories.iter().flat_map(entries).filter_map(|entry| entry.metadata().ok());
    files.filter(fs::Metadata::is_file).filter_map(|file| file.modified().ok()).max()
}

fn set(time: SystemTime) -> bool {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time =
        Timespec { tv_sec: i64::try_from(since.as_secs()).unwrap_or_default(), tv_nsec: since.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, time).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    #[test]
    fn a_clock_that_knew_nothing_is_set_on_to_what_was_last_written() {
        let built = at(20_000);
        assert_eq!(later(built, built, Some(at(20_100))), Some(at(20_100)));
        for (written, why) in [
            (None, "there is no state"),
            (Some(at(19_000)), "it is of before this disc"),
            (Some(built), "the clock says so already"),
            (Some(at(20_000 + 3651)), "nobody believes that"),
        ] {
            assert_eq!(later(built, built, written), None, "{why}");
        }
    }

    #[test]
    fn the_newest_file_of_the_state_tells() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(newest(place.path(), &WRITTEN), None);
        for (name, days) in
            [("log/appliance.log", 5), ("bennu/ledger.redb", 7), ("bennu/logs/boot", 6), ("other/file", 9)]
        {
            let path = place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap().set_modified(at(days)).unwrap();
        }
        assert_eq!(newest(place.path(), &WRITTEN), Some(at(7)), "directories do not count, nor what is elsewhere");
    }
}
