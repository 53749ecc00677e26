//! Who owns a boot.

use super::*;
use crate::{
    boot::session::{self, Attempt, Opened, SESSION_WINDOW_MS, Session, SessionRequest},
    journey::diagnose,
    notice::Notice,
};
use bennu_plan::SessionKey;
use proptest::prelude::*;
use report::Proof;

const OURS: SessionKey = SessionKey([1; 32]);
const THEIRS: SessionKey = SessionKey([2; 32]);
const OTHER_CARD: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 9]);

impl World {
    /// A machine whose kernel is starting.
    fn in_stage1() -> Self {
        let mut world = Self::new();
        world.image("web:v1", root(1));
        world.assign("web:v1");
        boot_script(world.script());
        world
    }

    fn token(&self) -> Token {
        self.live.boot(MAC).unwrap().token.clone().unwrap()
    }

    fn asks(&mut self, key: SessionKey, card: Option<MacAddress>) -> (Opened, Vec<Change>) {
        let request = SessionRequest { token: self.token(), key, address: ADDRESS, card };
        self.run(&request, session::decide)
    }

    fn says(&mut self, step: Step, proof: Option<Proof>) -> Taken {
        self.says_from(None, step, proof)
    }

    fn says_from(&mut self, card: Option<MacAddress>, step: Step, proof: Option<Proof>) -> Taken {
        let report = Report { step, message: String::new(), bytes: 0, uptime_ms: 0, inventory: None };
        let request = ReportRequest { token: self.token(), report, proof, address: ADDRESS, card };
        self.run(&request, report::decide).0
    }

    fn boot(&self) -> Boot {
        self.live.boot(MAC).unwrap().clone()
    }
}

fn is_granted(opened: &Opened) -> bool {
    matches!(opened, Opened::Granted { machine: MAC, installs: true, .. })
}

#[test]
fn the_first_key_owns_the_boot_and_may_ask_again() {
    let mut world = World::in_stage1();
    let (opened, changes) = world.asks(OURS, Some(MAC));
    assert!(is_granted(&opened), "{opened:?}");
    assert!(matches!(&changes[..], [Change::PutBoot(boot)] if boot.session.as_ref().unwrap().key == OURS));
    let (again, changes) = world.asks(OURS, Some(MAC));
    assert!(is_granted(&again) && changes.is_empty(), "{again:?} {changes:?}");
    assert!(world.boot().timeline.iter().any(|seen| matches!(seen.seen, Seen::SessionOpened { .. })));
    assert_eq!((world.boot().intrusions, diagnose(&world.boot(), Timestamp(world.now))), (0, None));
}

#[test]
fn before_there_is_a_session_another_cards_reports_count_for_nothing() {
    let mut world = World::in_stage1();
    let before = world.boot().timeline.len();
    assert_eq!(world.says_from(Some(OTHER_CARD), Step::Up, None), Taken::Refused);
    assert!(!world.boot().timeline[before..].iter().any(|seen| matches!(seen.seen, Seen::Reported { .. })));
    assert_eq!(world.boot().intrusions, 1, "and everybody knows");
    assert_eq!(world.says_from(Some(MAC), Step::Up, None), Taken::Noted);
}

#[test]
fn another_key_is_refused_and_everybody_knows() {
    let mut world = World::in_stage1();
    world.asks(OURS, Some(MAC));
    let request = SessionRequest { token: world.token(), key: THEIRS, address: ADDRESS, card: Some(MAC) };
    let view = View { records: &world.memory, live: &world.live };
    let noticed = session::decide(&request, &view, &world.moment()).noticed;
    assert_eq!(noticed, [Notice::Intrusion { machine: MAC, attempt: Attempt::OtherKey, address: ADDRESS }]);
    assert!(noticed[0].to_string().contains("ALARM") && !noticed[0].advice().is_empty());
    for _ in 0..3 {
        let (opened, changes) = world.asks(THEIRS, Some(MAC));
        assert_eq!((opened, changes.len()), (Opened::Refused(Attempt::OtherKey), 0));
    }
    let boot = world.boot();
    assert_eq!((boot.intrusions, boot.session.clone().unwrap().key), (3, OURS));
    assert_eq!(boot.timeline.last().unwrap().repeated, 2, "one line of the timeline holds them all");
    let diagnosis = diagnose(&boot, Timestamp(world.now)).unwrap();
    assert!(diagnosis.reason.contains("ALARM") && diagnosis.reason.contains("3 times"), "{diagnosis:?}");
    assert!(is_granted(&world.asks(OURS, Some(MAC)).0), "the machine itself goes on");
    assert_eq!(world.says(Step::Up, Some(Proof { key: OURS, sequence: 1 })), Taken::Noted);
    assert!(diagnose(&world.boot(), Timestamp(world.now)).is_some(), "what comes later does not take the alarm back");
}

#[test]
fn a_key_from_another_machines_card_is_refused() {
    let mut world = World::in_stage1();
    assert_eq!(world.asks(THEIRS, Some(OTHER_CARD)).0, Opened::Refused(Attempt::OtherCard));
    assert!(world.boot().session.is_none());
    let mut machine = world.memory.machine(MAC).unwrap();
    machine.macs.push(OTHER_CARD);
    world.memory.apply(Change::PutMachine(machine));
    assert!(is_granted(&world.asks(OURS, Some(OTHER_CARD)).0), "another card of the same machine");
}

#[test]
fn keys_are_taken_only_while_stage_1_may_ask() {
    let late = Opened::Refused(Attempt::OutOfTime);
    for step in [Step::HandedOver, Step::Up, Step::Failed] {
        let mut world = World::in_stage1();
        world.report(step, "");
        assert_eq!(world.asks(OURS, Some(MAC)).0, late, "{step:?}");
    }
    let mut world = World::in_stage1();
    world.now += SESSION_WINDOW_MS;
    assert_eq!(world.asks(OURS, Some(MAC)).0, late);
    boot_script(world.script());
    assert!(is_granted(&world.asks(OURS, Some(MAC)).0), "another script is another chance");

    let proof = |sequence| Some(Proof { key: OURS, sequence });
    world.now += 100 * SESSION_WINDOW_MS;
    assert!(is_granted(&world.asks(OURS, Some(MAC)).0), "its owner waits as long as it must");
    assert_eq!(world.says(Step::Failed, proof(1)), Taken::Noted);
    assert!(is_granted(&world.asks(OURS, Some(MAC)).0), "and stage 1 tries again after a failure");
    assert_eq!(world.says(Step::HandedOver, proof(2)), Taken::Noted);
    let before = world.boot().intrusions;
    assert_eq!(
        (world.asks(OURS, Some(MAC)).0, world.boot().intrusions),
        (Opened::Over, before),
        "no alarm over its owner"
    );
    assert_eq!(world.asks(THEIRS, Some(MAC)).0, Opened::Refused(Attempt::OtherKey));
}

#[test]
fn a_boot_without_our_stage_1_has_no_session() {
    let mut world = World::in_stage1();
    let boot = Boot { stage1: None, ..world.boot() };
    world.live.apply(Volatile::PutBoot(boot));
    assert_eq!(world.asks(THEIRS, Some(MAC)).0, Opened::Refused(Attempt::OutOfTime));
}

#[test]
fn who_cannot_be_told_is_refused_where_the_addresses_are_ours() {
    let mut world = World::in_stage1();
    assert_eq!(world.asks(THEIRS, None).0, Opened::Refused(Attempt::OtherCard));
    assert!(is_granted(&world.asks(OURS, Some(MAC)).0));
}

#[test]
fn a_card_that_joined_by_itself_gets_no_files_and_no_session_where_secrets_are_at_stake() {
    let mut world = World::in_stage1();
    let mut machine = world.memory.machine(MAC).unwrap();
    machine.macs.push(OTHER_CARD);
    machine.unvouched.insert(OTHER_CARD);
    world.memory.apply(Change::PutMachine(machine.clone()));
    let installs = |opened: &Opened| matches!(opened, Opened::Granted { installs: true, .. });
    let (opened, _) = world.asks(THEIRS, Some(OTHER_CARD));
    assert!(matches!(opened, Opened::Granted { installs: false, .. }), "{opened:?}");

    let mut world = World::in_stage1();
    world.memory.apply(Change::PutMachine(machine.clone()));
    let target = crate::secret::Target::Machine(MAC);
    let value = crate::secret::Sealed { key: "k".into(), text: "t".into() };
    let (name, set) = ("password".parse().unwrap(), Timestamp(1));
    let secret = crate::secret::Secret { name, target, file: None, value, set, by: "a test".into() };
    world.memory.apply(Change::PutSecret(secret));
    assert_eq!(world.asks(THEIRS, Some(OTHER_CARD)).0, Opened::Refused(Attempt::OtherCard));
    machine.unvouched.clear();
    world.memory.apply(Change::PutMachine(machine));
    assert!(installs(&world.asks(OURS, Some(OTHER_CARD)).0), "somebody joined it");
}

#[test]
fn a_new_boot_begins_fresh_and_the_old_token_is_worth_nothing() {
    let mut world = World::in_stage1();
    world.asks(OURS, Some(MAC));
    let old = world.token();
    world.firmware_starts();
    boot_script(world.script());
    let request = SessionRequest { token: old, key: OURS, address: ADDRESS, card: Some(MAC) };
    assert_eq!(world.run(&request, session::decide).0, Opened::UnknownToken);
    assert!(is_granted(&world.asks(THEIRS, Some(MAC)).0));
}

#[test]
fn an_owner_that_is_not_on_record_is_written_before_it_is_answered() {
    let mut world = World::in_stage1();
    let request = SessionRequest { token: world.token(), key: OURS, address: ADDRESS, card: Some(MAC) };
    world.run_uncommitted(&request, session::decide);
    let (opened, changes) = world.asks(OURS, Some(MAC));
    assert!(is_granted(&opened) && matches!(&changes[..], [Change::PutBoot(_)]), "{opened:?} {changes:?}");
    assert!(world.asks(OURS, Some(MAC)).1.is_empty());
}

#[test]
fn nothing_is_given_to_lay_down_before_there_is_a_root() {
    let mut world = World::new();
    world.image(
        "discovery:latest",
        Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6.1.0".into(), layer: None },
    );
    boot_script(world.script());
    assert!(matches!(world.asks(OURS, Some(MAC)).0, Opened::Granted { installs: false, .. }));
}

#[test]
fn reports_need_the_proof_once_there_is_a_session() {
    let mut world = World::in_stage1();
    assert_eq!(world.says(Step::Started, None), Taken::Noted, "a stage 1 that opens none goes on");
    world.asks(OURS, Some(MAC));
    assert_eq!(world.says(Step::Up, None), Taken::Refused);
    assert_eq!(world.says(Step::Up, Some(Proof { key: THEIRS, sequence: 5 })), Taken::Refused);
    assert_eq!(world.says(Step::Network, Some(Proof { key: OURS, sequence: 5 })), Taken::Noted);
    assert_eq!(world.says(Step::Network, Some(Proof { key: OURS, sequence: 5 })), Taken::Refused, "a replay");
    let boot = world.boot();
    assert_eq!((boot.state, boot.intrusions, boot.session.unwrap().sequence), (State::Stage1, 3, 5));
    assert_eq!(world.says(Step::Up, Some(Proof { key: OURS, sequence: 6 })), Taken::Noted);
}

#[test]
fn two_reports_that_cross_on_their_way_are_no_intrusion() {
    let mut world = World::in_stage1();
    world.asks(OURS, Some(MAC));
    let mut says = |step, sequence| {
        let taken = world.says(step, Some(Proof { key: OURS, sequence }));
        (taken, world.boot().state, world.boot().intrusions)
    };
    assert_eq!(says(Step::HandedOver, 20), (Taken::Noted, State::Init, 0));
    assert_eq!(says(Step::Mounted, 19), (Taken::Noted, State::Init, 0), "it was overtaken, and takes nothing back");
    assert_eq!(says(Step::Failed, 18), (Taken::Noted, State::Init, 0), "it got over that");
    assert_eq!(says(Step::Mounted, 19), (Taken::Refused, State::Init, 1), "the same once more is a replay");
    assert_eq!(says(Step::Network, 21), (Taken::Noted, State::Stage1, 1));
    assert_eq!(says(Step::Up, 17), (Taken::Noted, State::Up, 1), "nothing says it again");
    assert_eq!(says(Step::Damaged, 16), (Taken::Noted, State::Failed, 1));
    let far = 40_000_000_000;
    assert_eq!(says(Step::Network, far).0, Taken::Noted);
    assert_eq!(says(Step::Network, 22).0, Taken::Refused, "so late nothing arrives that was not held back");
}

#[test]
fn what_a_session_forgot_it_does_not_believe() {
    let old = Session { sequence: 7, ..Session::new(OURS, Timestamp(0), ADDRESS) };
    let stored = serde_json::json!({"key": old.key, "opened": old.opened, "sequence": 7});
    assert_eq!(serde_json::from_value::<Session>(stored).unwrap(), Session { address: None, ..old.clone() });
    assert!(old.believing(6).is_none() && old.believing(7).is_none(), "a session of before knew only the greatest");
    let mut session = Session::new(OURS, Timestamp(0), ADDRESS);
    for sequence in (2..=200).step_by(2) {
        session = session.believing(sequence).unwrap();
    }
    assert!(session.believing(3).is_none() && session.believing(0).is_none() && session.believing(198).is_none());
    assert_eq!(session.believing(199).unwrap().sequence, 200);
}

#[derive(Debug, Clone)]
enum Deed {
    Asks(bool, Option<bool>),
    Says(Step, Option<(bool, u64)>),
    Script,
    Waits(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let step = prop::sample::select(vec![Step::Started, Step::Waiting, Step::Failed, Step::HandedOver, Step::Up]);
    let deed = prop_oneof![
        (any::<bool>(), any::<Option<bool>>()).prop_map(|(ours, card)| Deed::Asks(ours, card)),
        (step, proptest::option::of((any::<bool>(), 0_u64..20))).prop_map(|(step, proof)| Deed::Says(step, proof)),
        Just(Deed::Script),
        (0..2 * SESSION_WINDOW_MS).prop_map(Deed::Waits),
    ];
    proptest::collection::vec(deed, 1..40)
}

proptest! {
    /// Whatever comes in whatever order: one key at most is ever granted a boot, and only its proofs move the boot after.
    #[test]
    fn a_boot_has_one_owner(deeds in deeds()) {
        let mut world = World::in_stage1();
        let mut owner = None;
        let mut believed = std::collections::BTreeSet::from([0]);
        for deed in deeds {
            let before = world.boot();
            match deed {
                Deed::Asks(ours, card) => {
                    let key = if ours { OURS } else { THEIRS };
                    let card = card.map(|its_own| if its_own { MAC } else { OTHER_CARD });
                    let opened = world.asks(key, card).0;
                    if matches!(opened, Opened::Granted { .. }) {
                        prop_assert!(card == Some(MAC), "a card that cannot be told is nobody's where the addresses are ours");
                        prop_assert_eq!(*owner.get_or_insert(key), key);
                    } else if opened != Opened::Over {
                        prop_assert_eq!(world.boot().intrusions, before.intrusions + 1);
                    }
                }
                Deed::Says(step, proof) => {
                    let proof = proof.map(|(ours, sequence)| {
                        Proof { key: if ours { OURS } else { THEIRS }, sequence }
                    });
                    let taken = world.says(step, proof);
                    let is_owners = proof.is_some_and(|proof| {
                        Some(proof.key) == owner && !believed.contains(&proof.sequence)
                    });
                    prop_assert_eq!(taken == Taken::Noted, owner.is_none() || is_owners);
                    if taken == Taken::Refused {
                        prop_assert_eq!(world.boot().state, before.state);
                    } else if let Some(proof) = proof.filter(|_| owner.is_some()) {
                        believed.insert(proof.sequence);
                    }
                }
                Deed::Script => drop(world.script()),
                Deed::Waits(ms) => world.now += ms,
            }
            if world.boot().id != before.id {
                (owner, believed) = (None, [0].into());
            }
            prop_assert_eq!(world.boot().session.map(|session| session.key), owner);
        }
    }
}
