//! Sizes, durations and moments as people read them.

use bennu_rules::Timestamp;

/// Bytes with three digits at most: `314 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = bytes as f64;
    while scaled >= 1000.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if scaled < 10.0 => format!("{scaled:.1} {}", UNITS[unit]),
        _ => format!("{scaled:.0} {}", UNITS[unit]),
    }
}

/// A stretch of time: `420 ms`, `3.2 s`, `1 min 5 s`.
pub fn lasted(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ if ms < 3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => rough(ms),
    }
}

/// The same in one word and a half, for columns: `12 min`, `3 h`, `9 d`.
pub fn rough(ms: u64) -> String {
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match ms {
        0..MINUTE => format!("{} s", ms / 1000),
        MINUTE..HOUR => format!("{} min", ms / MINUTE),
        HOUR..172_800_000 => format!("{} h", ms / HOUR),
        _ => format!("{} d", ms / DAY),
    }
}

/// A moment, in a `<time>`: how it reads to people and to programs.
pub struct When {
    /// RFC 3339.
    pub exact: String,
    /// Date and time to the second, UTC.
    pub long: String,
    /// Milliseconds since 1970.
    pub ms: u64,
    /// How long ago, roughly.
    pub ago: String,
}

impl When {
    /// A moment, seen from `now`.
    pub fn of(at: Timestamp, now: Timestamp) -> Self {
        let exact = at.to_string();
        let long = exact.get(..19).unwrap_or_default().replace('T', " ");
        let ago = if at > now { format!("in {}", rough(at.since(now))) } else { rough(now.since(at)) };
        Self { exact, long, ms: at.0, ago }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1023, "1.0 KiB"),
            (123_456, "121 KiB"),
            (329_252_864, "314 MiB"),
            (10 << 30, "10 GiB"),
            (1 << 60, "1048576 TiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        for (ms, text) in [(420, "420 ms"), (3200, "3.2 s"), (65_000, "1 min 5 s"), (7_200_000, "2 h")] {
            assert_eq!(lasted(ms), text);
        }
        for (ms, text) in [(0, "0 s"), (720_000, "12 min"), (90 * 3_600_000, "3 d"), (47 * 3_600_000, "47 h")] {
            assert_eq!(rough(ms), text);
        }
    }

    #[test]
    fn moments_of_both_sides() {
        let now = Timestamp(1_795_132_800_000);
        let past = When::of(Timestamp(now.0 - 5000), now);
        assert_eq!((past.long.as_str(), past.ago.as_str()), ("2026-11-19 23:59:55", "5 s"));
        assert_eq!(When::of(now.plus_seconds(120), now).ago, "in 2 min");
    }
}
