//! Requests that came before (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header-07): whoever repeats one under
//! its key gets its answer, and it is not carried out again.
//!
//! Keys are each caller's own. What a request was is known by a digest, and an answer is whatever the appliance keeps of it.

use crate::{Timestamp, image::Digest};
use std::collections::BTreeMap;

/// An answer is kept this long.
pub const KEPT_MS: u64 = 24 * 3_600_000;

/// Keys of one caller that are kept; beyond that the oldest that was answered gives way.
pub const MAX_OF_A_CALLER: usize = 1000;

/// Keys of all callers that are kept.
pub const MAX_KEYS: usize = 10_000;

/// Bytes of all answers that are kept.
pub const MAX_BYTES: usize = 16 << 20;

/// What to do with a request that has a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<A> {
    /// It is the first under its key: it is carried out, and ends in [`Kept::answered`] or [`Kept::forget`].
    First,
    /// It came before, and this is what was answered.
    Again(A),
    /// It came before, and is being carried out.
    Running,
    /// Another request came under this key.
    Other,
    /// So many of this caller's are being carried out that no key has room.
    Busy,
}

#[derive(Debug)]
struct Request<A> {
    what: Digest,
    came: Timestamp,
    answer: Option<(A, usize)>,
}

/// Whose a key is, and which: the caller as the audit log names them, and the key's digest.
type Key = (String, Digest);

/// The requests that came with a key.
#[derive(Debug)]
pub struct Kept<A>(BTreeMap<Key, Request<A>>);

impl<A> Default for Kept<A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Clone> Kept<A> {
    /// A request has come; `what` is a digest of all that makes it this request. Time is any steady count.
    pub fn came(&mut self, caller: &str, key: Digest, what: Digest, now: Timestamp) -> Turn<A> {
        self.0.retain(|_, request| request.answer.is_none() || now.since(request.came) < KEPT_MS);
        let key = (caller.to_owned(), key);
        match self.0.get(&key) {
            Some(request) if request.what != what => return Turn::Other,
            Some(Request { answer: Some((answer, _)), .. }) => return Turn::Again(answer.clone()),
            Some(_) => return Turn::Running,
            None => {}
        }
        let of_caller = self.0.keys().filter(|(whose, _)| whose == caller).count();
        let has_room = (of_caller < MAX_OF_A_CALLER || self.drop_oldest(Some(caller)))
            && (self.0.len() < MAX_KEYS || self.drop_oldest(None));
        if !has_room {
            return Turn::Busy;
        }
        self.0.insert(key, Request { what, came: now, answer: None });
        Turn::First
    }

    /// A request was carried out, and this is its answer of so many bytes.
    pub fn answered(&mut self, caller: &str, key: Digest, answer: A, bytes: usize) {
        if let Some(request) = self.0.get_mut(&(caller.to_owned(), key)) {
            request.answer = Some((answer, bytes));
        }
        while self.bytes() > MAX_BYTES && self.drop_oldest(None) {}
    }

    /// A request came to nothing that could be told again: its key is free.
    pub fn forget(&mut self, caller: &str, key: Digest) {
        self.0.remove(&(caller.to_owned(), key));
    }

    fn bytes(&self) -> usize {
        self.0.values().filter_map(|request| request.answer.as_ref()).map(|(_, bytes)| bytes).sum()
    }

    /// What is being carried out stays: it would be carried out twice.
    fn drop_oldest(&mut self, caller: Option<&str>) -> bool {
        let answered = self
            .0
            .iter()
            .filter(|((whose, _), request)| request.answer.is_some() && caller.is_none_or(|caller| whose == caller));
        let oldest = answered.min_by_key(|(_, request)| request.came).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.0.remove(&key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn digest(n: usize) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        Digest(bytes)
    }

    #[test]
    fn a_request_is_carried_out_once_and_its_answer_told_again() {
        let mut kept = Kept::default();
        assert_eq!(kept.came("ci", digest(1), digest(7), NOW), Turn::First);
        assert_eq!(kept.came("ci", digest(1), digest(7), NOW), Turn::Running);
        assert_eq!(kept.came("ci", digest(1), digest(8), NOW), Turn::Other, "while it runs");
        kept.answered("ci", digest(1), "made", 4);
        assert_eq!(kept.came("ci", digest(1), digest(7), NOW), Turn::Again("made"));
        assert_eq!(kept.came("ci", digest(1), digest(8), NOW), Turn::Other, "and afterwards");
        assert_eq!(kept.came("cd", digest(1), digest(8), NOW), Turn::First, "keys are each caller's own");
        assert_eq!(kept.came("ci", digest(2), digest(7), NOW), Turn::First);
        kept.forget("ci", digest(2));
        assert_eq!(kept.came("ci", digest(2), digest(7), NOW), Turn::First, "it failed, and may be tried again");
    }

    #[test]
    fn answers_are_kept_for_a_day_and_what_runs_until_it_ends() {
        let mut kept = Kept::default();
        kept.came("ci", digest(1), digest(7), NOW);
        let day = Timestamp(NOW.0 + KEPT_MS);
        assert_eq!(kept.came("ci", digest(1), digest(7), day), Turn::Running);
        kept.answered("ci", digest(1), (), 0);
        assert_eq!(kept.came("ci", digest(1), digest(7), Timestamp(day.0 - 1)), Turn::Again(()));
        assert_eq!(kept.came("ci", digest(1), digest(7), day), Turn::First);
    }

    #[test]
    fn a_callers_keys_take_only_the_place_of_their_own() {
        let mut kept = Kept::default();
        kept.came("other", digest(0), digest(0), NOW);
        kept.answered("other", digest(0), (), 0);
        for n in 0..MAX_OF_A_CALLER {
            assert_eq!(kept.came("ci", digest(n), digest(n), NOW.plus_seconds(1)), Turn::First);
        }
        assert_eq!(kept.came("ci", digest(MAX_OF_A_CALLER), digest(0), NOW), Turn::Busy, "all of them run");
        kept.answered("ci", digest(5), (), 0);
        assert_eq!(kept.came("ci", digest(MAX_OF_A_CALLER), digest(0), NOW), Turn::First);
        assert_eq!(kept.came("ci", digest(5), digest(5), NOW), Turn::Busy, "its answer is gone");
        assert_eq!(kept.came("other", digest(0), digest(0), NOW), Turn::Again(()));
    }

    proptest! {
        /// Whatever comes: the numbers hold, and nobody gets what was answered to another or to another request.
        #[test]
        fn bounds_hold(requests in prop::collection::vec((0usize..3, 0usize..5, 0usize..3, 0u64..KEPT_MS / 4, 0usize..MAX_BYTES), 1..60)) {
            let (mut kept, mut now) = (Kept::default(), NOW);
            for (caller, key, what, later, bytes) in requests {
                now = Timestamp(now.0 + later);
                let whose = caller.to_string();
                match kept.came(&whose, digest(key), digest(what), now) {
                    Turn::First => kept.answered(&whose, digest(key), (caller, key, what), bytes),
                    Turn::Again(answer) => prop_assert_eq!(answer, (caller, key, what)),
                    Turn::Other => {}
                    turn => prop_assert!(false, "{:?}", turn),
                }
                prop_assert!(kept.bytes() <= MAX_BYTES && kept.0.len() <= MAX_KEYS);
            }
        }
    }
}
