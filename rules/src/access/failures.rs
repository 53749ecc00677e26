//! How often an address may show a token that is none.

use crate::Timestamp;
use std::{collections::BTreeMap, net::IpAddr};

/// Wrong tokens of one address at once: a person with an old token, or a build farm that has one.
pub const FAILURES_AT_ONCE: u64 = 10;

/// One more is heard this often.
pub const RETRY_MS: u64 = 1000;

/// Addresses that are counted at once. Beyond that the one that failed least of late is forgotten.
pub const MAX_FAILING: usize = 4096;

/// Wrong tokens of late, by address: for each, until when what it owes is paid.
#[derive(Debug, Clone, Default)]
pub struct Failures(BTreeMap<IpAddr, Timestamp>);

impl Failures {
    /// Whether this address is heard now; else after how many milliseconds. Time is any steady count.
    pub fn admits(&self, address: IpAddr, now: Timestamp) -> Result<(), u64> {
        let owed = self.0.get(&counted(address)).map_or(0, |paid| paid.since(now));
        match (owed + RETRY_MS).checked_sub(FAILURES_AT_ONCE * RETRY_MS) {
            None | Some(0) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    /// Counts a wrong token.
    pub fn count(&mut self, address: IpAddr, now: Timestamp) {
        let address = counted(address);
        if self.0.len() >= MAX_FAILING && !self.0.contains_key(&address) {
            self.0.retain(|_, paid| *paid > now);
            if self.0.len() >= MAX_FAILING
                && let Some(least) = self.0.iter().min_by_key(|(_, paid)| **paid).map(|(address, _)| *address)
            {
                self.0.remove(&least);
            }
        }
        let paid = self.0.entry(address).or_insert(now);
        *paid = Timestamp((*paid).max(now).0 + RETRY_MS);
    }

    /// How many addresses are counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody failed of late.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whoever has one IPv6 address has its whole /64 (RFC 6177).
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn ten_at_once_and_then_one_a_second() {
        let mut failures = Failures::default();
        for n in 0..FAILURES_AT_ONCE {
            assert_eq!(failures.admits(v4(1), START), Ok(()), "{n}");
            failures.count(v4(1), START);
        }
        assert_eq!(failures.admits(v4(1), START), Err(1000));
        assert_eq!(failures.admits(v4(2), START), Ok(()), "others are heard");
        assert_eq!(failures.admits(v4(1), Timestamp(START.0 + 400)), Err(600));
        let later = START.plus_seconds(1);
        assert_eq!(failures.admits(v4(1), later), Ok(()));
        failures.count(v4(1), later);
        assert_eq!(failures.admits(v4(1), later), Err(1000));
        let rested = START.plus_seconds(60);
        (0..FAILURES_AT_ONCE).for_each(|_| failures.count(v4(1), rested));
        assert_eq!(failures.admits(v4(1), rested), Err(1000), "rest is not saved up");
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let mut failures = Failures::default();
        (0..FAILURES_AT_ONCE).for_each(|_| failures.count(v4(7), START));
        for n in 100..100 + 3 * MAX_FAILING as u32 {
            failures.count(v4(n), START);
        }
        assert!(failures.len() <= MAX_FAILING);
        assert!(failures.admits(v4(7), START).is_err(), "a flood of addresses hides nobody");
        failures.count(v4(1), START.plus_seconds(3600));
        assert_eq!(failures.len(), 1, "what is paid is forgotten when room is short");
    }

    #[test]
    fn a_v6_network_is_one_and_mapped_addresses_are_v4() {
        let mut failures = Failures::default();
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        (0..FAILURES_AT_ONCE).for_each(|n| failures.count(v6(&format!("2001:db8::{n:x}")), START));
        assert!(failures.admits(v6("2001:db8::ffff:1"), START).is_err());
        assert!(failures.admits(v6("2001:db8:0:1::1"), START).is_ok());
        (0..FAILURES_AT_ONCE).for_each(|_| failures.count(v6("::ffff:10.0.0.1"), START));
        assert!(failures.admits(v6("10.0.0.1"), START).is_err());
    }
}
