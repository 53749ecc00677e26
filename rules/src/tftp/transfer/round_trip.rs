//! How long to wait for an ACK.

use std::time::Duration;

/// Before a round trip was measured. TCP's second (RFC 6298) is for the Internet; a resent OACK costs nothing.
const INITIAL_RTO: Duration = Duration::from_millis(250);
/// Firmware polls its network card every 10 ms or so: an answer may come so much later than those before it.
pub(super) const MIN_VARIATION: Duration = Duration::from_millis(20);
pub(super) const MAX_RTO: Duration = Duration::from_secs(4);

/// RFC 6298's estimate of how long to wait for an ACK.
#[derive(Debug, Clone)]
pub(super) struct RoundTrip {
    pub(super) smoothed: Option<Duration>,
    variation: Duration,
    /// The quickest answer so far.
    pub(super) fastest: Duration,
    /// How long to wait now.
    pub(super) timeout: Duration,
    longest: Duration,
    /// The last resend was answered quicker than anything before.
    doubted: bool,
}

impl RoundTrip {
    /// An agreed `timeout` (RFC 2349) is the longest wait; shorter ones are ours to choose.
    pub(super) fn new(agreed: Option<Duration>) -> Self {
        let longest = agreed.map_or(MAX_RTO, |agreed| agreed.min(MAX_RTO));
        let nothing = Duration::ZERO;
        Self { smoothed: None, variation: nothing, fastest: nothing, timeout: INITIAL_RTO, longest, doubted: false }
    }

    /// An ACK came so long after what it acknowledges.
    pub(super) fn measured(&mut self, sample: Duration) {
        let smoothed = match self.smoothed {
            None => {
                self.variation = sample / 2;
                self.fastest = sample;
                sample
            }
            Some(smoothed) => {
                self.variation = self.variation * 3 / 4 + smoothed.abs_diff(sample) / 4;
                self.fastest = self.fastest.min(sample);
                smoothed * 7 / 8 + sample / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.doubted = false;
        self.forgive();
    }

    /// Ends the backing off: the wait follows the estimate again. Before anything was measured it goes on (RFC 6298 §5.7):
    /// a path slower than the first guess would else have every block sent twice, and never be measured (Karn).
    pub(super) fn forgive(&mut self) {
        if self.smoothed.is_some() {
            self.timeout = self.estimate();
        }
    }

    /// How long an ACK takes as far as was measured, whatever silence there was since.
    pub(super) fn estimate(&self) -> Duration {
        let Some(smoothed) = self.smoothed else { return self.timeout };
        (smoothed + (self.variation * 4).max(MIN_VARIATION)).min(self.longest)
    }

    /// Progress came so long after something that was sent twice. If it can be the answer to the second copy, that was
    /// needed: the path loses, it is not slow. If it came quicker than any answer before, it may be the first copy's; but
    /// when that happens again, what was measured before was a busy host, and not the path.
    pub(super) fn answered_a_resend(&mut self, waited: Duration) {
        if waited >= self.fastest || self.doubted {
            self.forgive();
        }
        self.doubted = waited < self.fastest;
    }

    /// Silence: the next wait is longer.
    pub(super) fn back_off(&mut self) {
        self.timeout = (self.timeout * 2).min(self.longest);
    }
}
