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
}

impl RoundTrip {
    /// An agreed `timeout` (RFC 2349) is the longest wait; shorter ones are ours to choose.
    pub(super) fn new(agreed: Option<Duration>) -> Self {
        let longest = agreed.map_or(MAX_RTO, |agreed| agreed.min(MAX_RTO));
        let nothing = Duration::ZERO;
        Self { smoothed: None, variation: nothing, fastest: nothing, timeout: INITIAL_RTO, longest }
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
        self.forgive();
    }

    /// Ends the backing off: the wait follows the estimate again. Before anything was measured it goes on (RFC 6298 §5.7):
    /// a path slower than the first guess would else have every block sent twice, and never be measured (Karn).
    pub(super) fn forgive(&mut self) {
        let Some(smoothed) = self.smoothed else { return };
        let estimate = smoothed + (self.variation * 4).max(MIN_VARIATION);
        self.timeout = estimate.min(self.longest);
    }

    /// Silence: the next wait is longer.
    pub(super) fn back_off(&mut self) {
        self.timeout = (self.timeout * 2).min(self.longest);
    }
}
