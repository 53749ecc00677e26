//! How much strangers may ask for.

use crate::{MacAddress, Timestamp};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;

/// Cards nobody knows that may ask at once: several racks that are switched on together (10,000 machines is what this
/// Bennu is measured with), and no more offers than are held.
pub const STRANGERS_AT_ONCE: u64 = 16_384;

/// Cards nobody knows that may ask each second beyond that: a hall of 10,000 comes on within 20 s even where a flood
/// goes before it, and what a flood costs stays under a tenth of a processor.
pub const STRANGERS_A_SECOND: u64 = 500;

/// Addresses that one client may have put into quarantine within an hour: more is no wire with a few stray hosts but a
/// client that takes the range from the others.
pub const DECLINES_OF_ONE: u32 = 4;

/// Addresses of one subnet in quarantine within an hour by the word of clients.
pub const DECLINES_OF_A_SUBNET: u32 = 64;

/// Clients whose declines are counted at once.
const MAX_DECLINERS: usize = 4096;

const HOUR_MS: u64 = 3_600_000;

/// A range in which a search found nothing is not searched again for this long: a search of a full range is dear, and
/// addresses come free in minutes.
const EXHAUSTED_MS: u64 = 1000;

/// A token bucket for strangers, kept as what is owed, so that a new one is full.
#[derive(Debug, Clone, Default)]
pub(super) struct Strangers {
    /// In thousandths of a card.
    owed: u64,
    at: Timestamp,
}

impl Strangers {
    pub fn admits(&self, now: Timestamp) -> bool {
        self.owed_at(now) + 1000 <= STRANGERS_AT_ONCE * 1000
    }

    pub fn admit(&mut self, now: Timestamp) {
        self.owed = self.owed_at(now) + 1000;
        self.at = now;
    }

    /// A clock that was set back counts like one that went on: the limit must not wait for it to catch up.
    fn owed_at(&self, now: Timestamp) -> u64 {
        self.owed.saturating_sub(now.0.abs_diff(self.at.0).saturating_mul(STRANGERS_A_SECOND))
    }
}

/// Something counted, an hour at a time.
#[derive(Debug, Clone, Copy)]
struct Hour {
    since: Timestamp,
    count: u32,
}

impl Hour {
    fn is_over(&self, now: Timestamp) -> bool {
        now.0.abs_diff(self.since.0) >= HOUR_MS
    }
}

/// The declines of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Declines {
    by_client: BTreeMap<MacAddress, Hour>,
    by_subnet: BTreeMap<Ipv4Net, Hour>,
}

impl Declines {
    /// Whether one more of this client is believed.
    pub fn admits(&self, subnet: Ipv4Net, client: MacAddress, now: Timestamp) -> bool {
        let under = |hour: Option<&Hour>, most| hour.is_none_or(|hour| hour.is_over(now) || hour.count < most);
        let has_room = self.by_client.len() < MAX_DECLINERS
            || self.by_client.contains_key(&client)
            || self.by_client.values().any(|hour| hour.is_over(now));
        has_room
            && under(self.by_client.get(&client), DECLINES_OF_ONE)
            && under(self.by_subnet.get(&subnet), DECLINES_OF_A_SUBNET)
    }

    pub fn count(&mut self, subnet: Ipv4Net, client: MacAddress, now: Timestamp) {
        if self.by_client.len() >= MAX_DECLINERS {
            self.by_client.retain(|_, hour| !hour.is_over(now));
        }
        let start = Hour { since: now, count: 0 };
        for hour in [self.by_client.entry(client).or_insert(start), self.by_subnet.entry(subnet).or_insert(start)] {
            if hour.is_over(now) {
                *hour = start;
            }
            hour.count += 1;
        }
    }
}

/// Ranges in which a search found nothing, for clients on record and for strangers.
#[derive(Debug, Clone, Default)]
pub(super) struct Exhausted(BTreeMap<(Ipv4Net, bool), Timestamp>);

impl Exhausted {
    pub fn is(&self, subnet: Ipv4Net, is_known: bool, now: Timestamp) -> bool {
        self.0.get(&(subnet, is_known)).is_some_and(|found| now.0.abs_diff(found.0) < EXHAUSTED_MS)
    }

    pub fn note(&mut self, subnet: Ipv4Net, is_known: bool, now: Timestamp) {
        self.0.insert((subnet, is_known), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_admitted_in_a_burst_and_then_at_a_pace() {
        let mut strangers = Strangers::default();
        let start = Timestamp(1_790_000_000_000);
        let mut admitted = |from: u64, to: u64| {
            let mut count = 0;
            for ms in from..to {
                for _ in 0..5 {
                    let now = Timestamp(start.0 + ms);
                    if strangers.admits(now) {
                        strangers.admit(now);
                        count += 1;
                    }
                }
            }
            count
        };
        let first = admitted(0, 3000);
        assert!((15_000..=15_000).contains(&first), "5,000/s for 3 s fit: {first}");
        let flooded = admitted(3000, 10_000);
        assert_eq!(flooded + first, STRANGERS_AT_ONCE + 9_999 * STRANGERS_A_SECOND / 1000, "and no more than the pace");
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let mut strangers = Strangers::default();
        let late = Timestamp(1_790_000_000_000);
        (0..STRANGERS_AT_ONCE).for_each(|_| strangers.admit(late));
        assert!(!strangers.admits(late));
        let back = Timestamp(late.0 - 86_400_000);
        assert!(strangers.admits(back));
        strangers.admit(back);
        assert!(strangers.admits(back));
    }

    #[test]
    fn declines_are_believed_a_few_times_an_hour() {
        let mut declines = Declines::default();
        let subnet: Ipv4Net = "10.77.0.0/24".parse().unwrap();
        let client = |n: u8| MacAddress([2, 0, 0, 0, 0, n]);
        let start = Timestamp(1_790_000_000_000);
        for n in 0..DECLINES_OF_ONE {
            assert!(declines.admits(subnet, client(1), start), "decline {n}");
            declines.count(subnet, client(1), start);
        }
        assert!(!declines.admits(subnet, client(1), start.plus_seconds(3599)));
        assert!(declines.admits(subnet, client(1), start.plus_seconds(3600)));
        for n in 2.. {
            if !declines.admits(subnet, client(n), start) {
                assert_eq!(u32::from(n), 2 + DECLINES_OF_A_SUBNET - DECLINES_OF_ONE, "many clients share a limit");
                break;
            }
            declines.count(subnet, client(n), start);
        }
    }
}
