//! Random numbers for transaction ids and for spreading retries. Nothing secret is made of them.

use rustix::rand::{GetRandomFlags, getrandom};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A number that differs from machine to machine and from call to call. Early in a boot the kernel may have no entropy;
/// waiting for it would hang the machine.
pub fn number() -> u32 {
    let mut bytes = [0_u8; 4];
    for flags in [GetRandomFlags::INSECURE, GetRandomFlags::NONBLOCK] {
        if getrandom(&mut bytes[..], flags) == Ok(bytes.len()) {
            return u32::from_ne_bytes(bytes);
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos().rotate_left(7) ^ now.as_secs() as u32
}

/// A wait between three quarters and five quarters of `about`, so that a rack does not come back in step.
pub fn jittered(about: Duration) -> Duration {
    about * (75 + number() % 51) / 100
}

/// Doubling waits with a bound.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From `first` up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// How long to wait this time.
    pub fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (self.next * 2).min(self.most);
        jittered(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<f64> = (0..20).map(|_| backoff.step().as_secs_f64()).collect();
        assert!(waits[0] <= 1.25 && waits[0] >= 0.75);
        assert!(waits.iter().all(|wait| *wait <= 12.5) && waits[19] >= 7.5, "{waits:?}");
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]), "no spread: {waits:?}");
    }
}
