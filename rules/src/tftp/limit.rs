//! So many of something a second, and no more.

use std::time::Duration;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One for each such time,
    pub every: Duration,
    /// and so many at once after a rest.
    pub burst: u32,
}

/// What was taken of a [`Rate`] (the generic cell rate algorithm, ITU-T I.371). Times are since any fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When all that was taken will have come back.
    full_at: Duration,
}

impl Bucket {
    /// Takes one, if there is one.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let from = self.full_at.max(now);
        if from - now > rate.every * (rate.burst - 1) {
            return false;
        }
        self.full_at = from + rate.every;
        true
    }

    /// Whether nothing is missing, so that it need not be kept.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_a_steady_rate() {
        let rate = Rate { every: Duration::from_millis(100), burst: 5 };
        let mut bucket = Bucket::default();
        let start = Duration::from_secs(7);
        let taken = |bucket: &mut Bucket, at: Duration| (0..20).filter(|_| bucket.take(rate, at)).count();
        assert_eq!(taken(&mut bucket, start), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(250)), 2);
        assert!(!bucket.is_full(start + Duration::from_millis(690)));
        assert!(bucket.is_full(start + Duration::from_millis(700)));
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 5);
    }
}
