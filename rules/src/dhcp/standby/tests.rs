use super::*;
use crate::dhcp::others::Said;
use proptest::{collection::vec, prelude::*};

fn peer(last: u8) -> Peer {
    let card = MacAddress([2, 0, 0, 0, 0, last]);
    Peer { gives: Appliance::Full, server: Ipv4Addr::new(10, 77, 0, last), card }
}

fn says(peer: Peer, appliance: Appliance, xid: u32) -> Heard {
    Heard { server: peer.server, said: Said::Offer, appliance: Some(appliance), xid }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn alone(last: u8) -> Standby {
    Standby::new(peer(last), &[], &[], Duration::ZERO)
}

fn standing_by(last: u8, first: u8) -> Standby {
    let seen = [(says(peer(first), Appliance::Full, 0), peer(first).card)];
    Standby::new(peer(last), &[], &seen, Duration::ZERO)
}

/// One call a second from `from` to before `to`, which `other` answers; when the post changed, and to what.
fn answered(ours: &mut Standby, other: Peer, from: u64, to: u64) -> Option<(u64, Post)> {
    (from..to).find_map(|at| {
        ours.called(at as u32);
        ours.heard(&says(other, other.gives, at as u32), other.card, seconds(at));
        ours.judge(seconds(at)).map(|post| (at, post))
    })
}

/// The same with nobody there.
fn unanswered(ours: &mut Standby, from: u64, to: u64) -> Option<(u64, Post)> {
    (from..to).find_map(|at| {
        ours.called(at as u32);
        ours.judge(seconds(at)).map(|post| (at, post))
    })
}

#[test]
fn a_newcomer_leaves_the_wire_to_whoever_serves() {
    let mut low = standing_by(1, 9);
    assert_eq!(low.post(), Post::StandsBy(peer(9)));
    assert_eq!(low.appliance(), Appliance::StandsBy);
    assert_eq!(answered(&mut low, peer(9), 0, 100), None, "not even with the lower address does it push in");
    let seen = [(says(peer(1), Appliance::StandsBy, 0), peer(1).card)];
    let beside = Standby::new(peer(9), &[], &seen, Duration::ZERO);
    assert_eq!(beside.post(), Post::Serves, "one that stands by serves nobody");
}

#[test]
fn silence_counts_only_where_it_was_asked() {
    let mut asks = standing_by(2, 1);
    assert_eq!(unanswered(&mut asks, 1, 100), Some((12, Post::Serves)));
    let mut slept = standing_by(2, 1);
    assert_eq!(slept.judge(seconds(3600)), None, "it asked nobody");
    let mut is_told = standing_by(2, 1);
    is_told.called(1);
    is_told.heard(&says(peer(1), Appliance::StandsBy, 1), peer(1).card, seconds(1));
    assert_eq!(is_told.judge(seconds(1)), Some(Post::Serves), "nobody serves");
}

#[test]
fn of_two_that_began_together_the_first_in_order_goes_on_at_once() {
    assert_eq!(answered(&mut alone(1), peer(2), 0, 100), None);
    assert_eq!(answered(&mut alone(2), peer(1), 0, 100), Some((0, Post::StandsBy(peer(1)))));
    let copies = [alone(2), Standby::new(Peer { card: peer(3).card, ..peer(2) }, &[], &[], Duration::ZERO)];
    let posts = copies.map(|mut copy| answered(&mut copy, Peer { card: peer(7).card, ..peer(2) }, 0, 1).is_some());
    assert_eq!(posts, [false, false], "copies with one address go by their cards");
    let beside = Peer { gives: Appliance::Proxy, ..peer(1) };
    assert_eq!(answered(&mut alone(2), beside, 0, 100), None, "who gives addresses goes before who does not");
}

#[test]
fn who_serves_for_long_yields_only_to_one_that_answers_for_long() {
    let mut ours = alone(2);
    unanswered(&mut ours, 0, 100);
    assert_eq!(answered(&mut ours, peer(1), 100, 110), None);
    assert_eq!(answered(&mut ours, peer(1), 110, 111), Some((110, Post::StandsBy(peer(1)))));
    let mut hears_one_word = alone(2);
    unanswered(&mut hears_one_word, 0, 100);
    answered(&mut hears_one_word, peer(1), 100, 101);
    assert_eq!(unanswered(&mut hears_one_word, 101, 120), None);
    assert_eq!(answered(&mut hears_one_word, peer(1), 120, 130), None, "a gap begins it anew");
}

#[test]
fn what_was_not_asked_silences_nobody() {
    let mut ours = alone(2);
    for at in 0..100 {
        ours.called(at as u32);
        ours.heard(&says(peer(1), Appliance::Full, 1_000_000), peer(1).card, seconds(at));
        ours.heard(&Heard { appliance: None, ..says(peer(1), Appliance::Full, at as u32) }, peer(1).card, seconds(at));
        assert_eq!(ours.judge(seconds(at)), None);
    }
    let card = |at: u64| MacAddress([2, 0, 0, 0, 1, at as u8]);
    for at in 100..200 {
        ours.called(at as u32);
        ours.heard(&says(peer(1), Appliance::Full, at as u32), card(at), seconds(at));
        assert_eq!(ours.judge(seconds(at)), None, "cards that change prove nothing");
        assert!(ours.others.len() <= MOST);
    }
}

#[test]
fn an_allowed_bennu_may_answer_too() {
    let allowed = [peer(1).server];
    let seen = [(says(peer(1), Appliance::Full, 0), peer(1).card)];
    let mut ours = Standby::new(peer(2), &allowed, &seen, Duration::ZERO);
    assert_eq!((ours.post(), answered(&mut ours, peer(1), 0, 100)), (Post::Serves, None));
}

#[test]
fn it_calls_more_often_while_something_goes_on() {
    let mut ours = alone(1);
    assert_eq!(ours.pace(seconds(1)), BEGINNING);
    assert_eq!(ours.pace(seconds(60)), ALONE);
    answered(&mut ours, peer(2), 60, 61);
    assert_eq!(ours.pace(seconds(61)), WATCHFUL);
    assert_eq!(standing_by(2, 1).pace(seconds(1)), WATCHFUL);
}

#[test]
fn a_post_is_told_until_that_succeeds() {
    let mut ours = standing_by(2, 1);
    for at in 0..3 {
        assert!(ours.is_to_be_told(seconds(at)), "standing by, at {at} s");
    }
    ours.told(seconds(3));
    assert!(
        !ours.is_to_be_told(seconds(32)) && ours.is_to_be_told(seconds(33)),
        "and now and then, for the list of news"
    );
    ours.told(seconds(33));
    let (taken_over, _) = unanswered(&mut ours, 34, 100).unwrap();
    for at in taken_over..taken_over + 3 {
        assert_eq!(ours.judge(seconds(at)), None);
        assert!(ours.is_to_be_told(seconds(at)), "serving, at {at} s");
    }
    ours.told(seconds(60));
    assert!(!ours.is_to_be_told(seconds(3600)), "who serves says so once");
}

/// A Bennu in a hall, and when it calls next.
#[derive(Debug)]
struct Node {
    own: Peer,
    standby: Option<Standby>,
    due: Duration,
    side: bool,
}

#[derive(Debug, Clone)]
enum Event {
    Start(usize),
    Kill(usize),
    Move(usize),
}

/// Bennus on two wires, among which nothing is lost.
#[derive(Debug)]
struct Hall(Vec<Node>);

impl Hall {
    fn new(bennus: u8) -> Self {
        let node = |last| Node { own: peer(last), standby: None, due: Duration::ZERO, side: false };
        Self((1..=bennus).map(node).collect())
    }

    /// What others on its wire answer now.
    fn answers(&self, to: usize, xid: u32) -> Vec<(Heard, MacAddress)> {
        let reached = |(at, node): &(usize, &Node)| *at != to && node.side == self.0[to].side;
        let answer = |(_, node): (usize, &Node)| {
            node.standby.as_ref().map(|standby| (says(node.own, standby.appliance(), xid), node.own.card))
        };
        self.0.iter().enumerate().filter(reached).filter_map(answer).collect()
    }

    fn happens(&mut self, event: &Event, now: Duration) {
        let count = self.0.len();
        match *event {
            Event::Start(at) if self.0[at % count].standby.is_none() => {
                let seen = self.answers(at % count, 0);
                let node = &mut self.0[at % count];
                (node.standby, node.due) = (Some(Standby::new(node.own, &[], &seen, now)), now);
            }
            Event::Start(_) => {}
            Event::Kill(at) => self.0[at % count].standby = None,
            Event::Move(at) => self.0[at % count].side ^= true,
        }
    }

    fn tick(&mut self, now: Duration) {
        for at in 0..self.0.len() {
            let xid = now.as_millis() as u32;
            let answers = self.answers(at, xid);
            let node = &mut self.0[at];
            let Some(standby) = node.standby.as_mut().filter(|_| node.due <= now) else { continue };
            standby.called(xid);
            answers.iter().for_each(|(heard, card)| standby.heard(heard, *card, now));
            standby.judge(now);
            node.due = now + standby.pace(now);
        }
    }

    /// Who serves on a wire, and whether anybody is there.
    fn serving(&self, side: bool) -> (Vec<Peer>, bool) {
        let there = || self.0.iter().filter(|node| node.side == side && node.standby.is_some());
        let serves = |node: &&Node| node.standby.as_ref().is_some_and(|standby| standby.post() == Post::Serves);
        (there().filter(serves).map(|node| node.own).collect(), there().next().is_some())
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => any::<usize>().prop_map(Event::Start),
        1 => any::<usize>().prop_map(Event::Kill),
        1 => any::<usize>().prop_map(Event::Move),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever starts, dies and moves between wires: half a minute later one answers on each, and it stays the one.
    #[test]
    fn in_the_end_exactly_one_serves(bennus in 1..5_u8, events in vec((0..120_000_u64, event()), 1..12)) {
        let mut hall = Hall::new(bennus);
        let mut settled = None;
        for ms in (0..200_000_u64).step_by(100) {
            let now = Duration::from_millis(ms);
            events.iter().filter(|(at, _)| *at / 100 == ms / 100).for_each(|(_, event)| hall.happens(event, now));
            hall.tick(now);
            if ms < 150_000 {
                continue;
            }
            let now = [false, true].map(|side| hall.serving(side));
            for (serving, is_there) in &now {
                prop_assert_eq!(serving.len(), usize::from(*is_there), "{:?} at {} ms", serving, ms);
            }
            prop_assert_eq!(settled.get_or_insert_with(|| now.clone()), &now, "it changed at {} ms", ms);
        }
    }

    /// A newcomer never answers beside one that serves, and takes its place within 20 s of its death.
    #[test]
    fn a_newcomer_waits_for_its_turn(old in 1..200_u8, new in 1..200_u8, start in 0..60_000_u64, life in 0..60_000_u64) {
        prop_assume!(old != new);
        let mut hall = Hall::new(2);
        (hall.0[0].own, hall.0[1].own) = (peer(old), peer(new));
        hall.happens(&Event::Start(0), Duration::ZERO);
        for ms in (0..start + life + 20_000).step_by(100) {
            let now = Duration::from_millis(ms);
            if ms / 100 == start / 100 {
                hall.happens(&Event::Start(1), now);
            }
            if ms / 100 == (start + life) / 100 {
                hall.happens(&Event::Kill(0), now);
            }
            hall.tick(now);
            prop_assert!(hall.serving(false).0.len() <= 1);
        }
        prop_assert_eq!(hall.serving(false).0, [peer(new)]);
    }
}
