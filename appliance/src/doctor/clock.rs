//! The host's clock: machines with dead clock batteries are set to it.

use super::Finding;
use bennu_rules::Timestamp;

/// 2026-01-01: no clock that is right is before it.
const EARLIEST: Timestamp = Timestamp(1_767_225_600_000);

/// Looks at it.
pub fn look(tell: &mut dyn FnMut(Finding)) {
    tell(judged(crate::cli::now(), kernel::is_synchronised()));
}

fn judged(now: Timestamp, synchronised: Option<bool>) -> Finding {
    if now < EARLIEST {
        return Finding::fail(
            "clock",
            format!("it says {now}"),
            "set it: timedatectl set-time, or start a time service",
        );
    }
    match synchronised {
        Some(false) => Finding::warn(
            "clock",
            format!("it says {now}, and no time service keeps it right"),
            "start one, such as: apt-get install systemd-timesyncd",
        ),
        Some(true) | None => Finding::ok("clock", now.to_string()),
    }
}

#[allow(unsafe_code)]
mod kernel {
    /// Whether a time service disciplines the kernel's clock (`adjtimex(2)`); `None` when the kernel does not say.
    pub fn is_synchronised() -> Option<bool> {
        // SAFETY: timex is plain data for which all zero is valid, and asks for nothing to be changed.
        let mut request: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes within the timex it is given.
        match unsafe { libc::adjtimex(&mut request) } {
            -1 => None,
            state => Some(state != libc::TIME_ERROR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_dead_battery_fails_and_a_lone_clock_is_worth_a_look() {
        assert_eq!(judged(Timestamp(0), Some(true)).verdict, Verdict::Fail);
        assert_eq!(judged(EARLIEST, Some(false)).verdict, Verdict::Warn);
        assert_eq!(judged(EARLIEST, Some(true)).verdict, Verdict::Ok);
    }
}
