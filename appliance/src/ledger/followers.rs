//! Who follows what happens, and what those who were away have missed.

use super::{BootEvent, Event};
use bennu_rules::Timestamp;
use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::broadcast;

/// Events kept for those who come back, and as many as a slow follower may be behind.
const KEPT: usize = 4096;

/// What an event is known by. Two events of one millisecond differ, and so do those of before and after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// When it was told.
    pub at: Timestamp,
    /// Which run of the service told it; 0 for what was looked up.
    pub run: u32,
    /// Its number in that run.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}-{}", self.at.0, self.run, self.sequence)
    }
}

/// A text that is no event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnEventId;

impl FromStr for EventId {
    type Err = NotAnEventId;

    /// A point in time alone is taken as well.
    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let mut parts = text.splitn(3, '-');
        let at = parts.next().and_then(|at| at.parse().ok()).map(Timestamp).ok_or(NotAnEventId)?;
        match (parts.next(), parts.next()) {
            (None, _) => Ok(Self { at, run: 0, sequence: 0 }),
            (Some(run), Some(sequence)) => {
                let run = u32::from_str_radix(run, 16).map_err(|_| NotAnEventId)?;
                Ok(Self { at, run, sequence: sequence.parse().map_err(|_| NotAnEventId)? })
            }
            (Some(_), None) => Err(NotAnEventId),
        }
    }
}

/// An event as it was told.
#[derive(Debug)]
pub struct Told {
    /// What it is known by.
    pub id: EventId,
    /// What happened.
    pub event: Event,
    json: OnceLock<String>,
}

impl Told {
    /// The event in JSON, made once for all followers.
    pub fn json(&self) -> &str {
        let make = || match &self.event {
            Event::Boot(event) => serde_json::to_string(&Worded::of(event)),
            event => serde_json::to_string(event),
        };
        self.json.get_or_init(|| make().unwrap_or_default())
    }
}

/// What happened in a boot, with what was seen as a sentence.
#[derive(serde::Serialize)]
pub struct Worded<'a> {
    #[serde(flatten)]
    event: &'a BootEvent,
    text: String,
}

impl<'a> Worded<'a> {
    /// The event in words.
    pub fn of(event: &'a BootEvent) -> Self {
        Self { event, text: event.observation.seen.to_string() }
    }
}

/// What a follower starts with.
pub struct Following {
    /// What was told since the event that it names; `None`: that cannot be known, since it is too long ago or another
    /// run of the service told it.
    pub missed: Option<Vec<Arc<Told>>>,
    /// What is told from now on: nothing of what was missed comes again.
    pub live: broadcast::Receiver<Arc<Told>>,
}

/// Everybody who follows.
pub struct Followers {
    run: u32,
    kept: Mutex<Kept>,
    channel: broadcast::Sender<Arc<Told>>,
}

#[derive(Default)]
struct Kept {
    next: u64,
    events: VecDeque<Arc<Told>>,
}

impl Default for Followers {
    fn default() -> Self {
        // 0 stands for what was looked up.
        Self { run: rand::random::<u32>().max(1), kept: Mutex::default(), channel: broadcast::Sender::new(KEPT) }
    }
}

impl Followers {
    /// Tells everybody. How many heard it is nobody's concern: who was away is told later.
    pub fn send(&self, event: Event) -> usize {
        let mut kept = self.kept();
        let id = EventId { at: now(), run: self.run, sequence: kept.next };
        kept.next += 1;
        let told = Arc::new(Told { id, event, json: OnceLock::new() });
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(told.clone());
        // Within the lock, so that everybody hears in the order of the numbers.
        self.channel.send(told).unwrap_or(0)
    }

    /// From now on, and from after `last` if that is given.
    pub fn follow(&self, last: Option<EventId>) -> Following {
        let kept = self.kept();
        let live = self.channel.subscribe();
        let Some(last) = last else { return Following { missed: Some(Vec::new()), live } };
        let oldest = kept.events.front().map_or(kept.next, |told| told.id.sequence);
        // The one after it must still be here.
        let is_known = last.run == self.run && last.sequence < kept.next && last.sequence + 1 >= oldest;
        let after = |told: &&Arc<Told>| told.id.sequence > last.sequence;
        let missed = is_known.then(|| kept.events.iter().filter(after).cloned().collect());
        Following { missed, live }
    }

    /// The latest events that are in memory, oldest first.
    pub fn recent(&self, most: usize) -> Vec<Arc<Told>> {
        let kept = self.kept();
        kept.events.iter().skip(kept.events.len().saturating_sub(most)).cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since_epoch.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::notice::{Notice, Noticed};

    fn event(count: u64) -> Event {
        Event::Notice(Noticed { at: Timestamp(7), until: Timestamp(7), count, notice: Notice::StorageFull })
    }

    #[test]
    fn who_comes_back_misses_nothing_and_hears_nothing_twice() {
        let followers = Followers::default();
        (0..5).for_each(|count| {
            followers.send(event(count));
        });
        let all = followers.follow(Some(EventId { at: Timestamp(0), run: followers.run, sequence: 0 }));
        let missed = all.missed.unwrap();
        assert_eq!(
            missed.iter().map(|told| told.id.sequence).collect::<Vec<_>>(),
            [1, 2, 3, 4],
            "one moment, all four"
        );
        let last = missed.last().unwrap().id;
        assert_eq!(last.to_string().parse(), Ok(last));
        let mut again = followers.follow(Some(last));
        assert!(again.missed.unwrap().is_empty());
        assert!(again.live.try_recv().is_err());
        followers.send(event(5));
        assert_eq!(again.live.try_recv().unwrap().id.sequence, 5);
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let (before, followers) = (Followers::default(), Followers::default());
        let last = EventId { at: Timestamp(1), run: before.run, sequence: 0 };
        assert!(followers.follow(Some(last)).missed.is_none(), "another run");
        let future = EventId { run: followers.run, sequence: 9, ..last };
        assert!(followers.follow(Some(future)).missed.is_none(), "an id that nobody gave");
        (0..KEPT as u64 + 10).for_each(|count| {
            followers.send(event(count));
        });
        let of = |sequence| followers.follow(Some(EventId { run: followers.run, sequence, ..last })).missed;
        assert!(of(8).is_none(), "too long ago");
        assert_eq!(of(9).map(|missed| missed.len()), Some(KEPT));
        assert!(
            "".parse::<EventId>().is_err() && "x-1-2".parse::<EventId>().is_err() && "1-2".parse::<EventId>().is_err()
        );
        assert_eq!("1".parse(), Ok(EventId { at: Timestamp(1), run: 0, sequence: 0 }));
    }
}
