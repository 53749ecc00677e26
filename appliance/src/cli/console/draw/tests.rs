//! What the view shows on screens of several sizes.

use super::super::view::{Action, Counts, Facts};
use super::*;
use crate::cli::terminal::{Key, shown};
use bennu_rules::{MacAddress, boot::BootId};
use serde_json::json;

const RICH: Look = Look { color: true, unicode: true };
const POOR: Look = Look { color: false, unicode: false };
const NOW: Timestamp = Timestamp(1_795_000_000_000);

fn status() -> Status {
    let fingerprint = vec!["AB"; 32].join(":");
    let status = json!({
        "version": "0.1.0", "hostname": "bennu1", "uptime_ms": 7_300_000, "pid": 1, "dhcp": "full", "http_port": 80,
        "interfaces": [{"name": "eth0", "address": "10.77.0.1", "network": "10.77.0.0/24", "link": true}],
        "machines": 9, "machines_by_state": {"up": 4, "stage1": 1, "script": 1, "failed": 1, "waiting": 1, "local": 1},
        "images": 3, "disk_free": 5_000_000_000_u64, "memory": 1, "ledger_closed": false, "counters": {},
        "api": {"listen": ["10.77.0.1:8443"], "certificate": "/c", "fingerprint": fingerprint},
    });
    serde_json::from_value(status).unwrap()
}

fn row(number: u8, kind: Kind, name: &str) -> Row {
    Row {
        boot: BootId(format!("{number:03}")),
        machine: MacAddress([0x52, 0x54, 0, 0, 0, number]),
        name: name.into(),
        kind,
        image: "debian:v1".into(),
        stage: "stage 1",
        percent: 46,
        opened: Timestamp(NOW.0 - 12_000),
        last_seen: Timestamp(NOW.0 - 180_000),
        reason: "the root does not verify".into(),
        advice: "import the image again".into(),
    }
}

fn view(machines: Vec<Row>) -> View {
    let mut view = View::new(true);
    view.facts = Facts { status: Some(status()), machines, now: NOW, ..Facts::default() };
    view
}

fn screen(view: &View, width: u16, height: u16, look: Look) -> String {
    shown(width, height, |buffer| draw(view, buffer, look))
}

#[test]
fn a_serial_line_shows_all_that_matters() {
    let mut view = view(vec![row(1, Kind::Booting, "web-1"), row(2, Kind::Waiting, ""), row(3, Kind::Failed, "db-1")]);
    view.facts.tell(Event { at: NOW, of: "web-1".into(), text: "stage 1 fetches its root".into() });
    insta::assert_snapshot!(screen(&view, 80, 24, POOR));
}

#[test]
fn without_a_disk_and_with_a_first_token_both_are_loud() {
    let mut view = view(Vec::new());
    view.facts.status.as_mut().unwrap().state_in_memory = true;
    view.facts.token = Some("bennu_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into());
    insta::assert_snapshot!(screen(&view, 80, 24, RICH));
    assert_eq!(view.key(Key::Text('t')), Action::PutTokenAway);
}

#[test]
fn five_hundred_machines_leave_room_for_failures_and_events() {
    let mut rows: Vec<Row> = (0..200).map(|number| row(number, Kind::Booting, &"n".repeat(300))).collect();
    rows.extend((0..200).map(|number| row(number, Kind::Failed, "")));
    for (at, row) in rows.iter_mut().enumerate() {
        row.boot = BootId(format!("{at:04}"));
    }
    let mut view = view(rows);
    for (width, height) in [(80, 24), (80, 25), (160, 50), (40, 10), (20, 8), (500, 200)] {
        let screen = screen(&view, width, height, RICH);
        assert_eq!(screen.split('\n').count(), usize::from(height));
        if height >= 24 {
            assert!(screen.contains("FAILURES") && screen.contains("EVENTS"), "{screen}");
            assert!(screen.lines().last().unwrap().contains("? help"), "{screen}");
        }
    }
    // Whoever is selected is among those that are shown.
    for key in [Key::End, Key::Up, Key::Tab, Key::PageDown, Key::Home, Key::Tab] {
        view.key(key);
        let screen = screen(&view, 80, 24, POOR);
        assert_eq!(screen.lines().filter(|line| line.starts_with('>')).count(), 1, "{key:?}\n{screen}");
    }
}

#[test]
fn nothing_that_a_terminal_obeys_is_drawn() {
    let hostile = "x\x1b[2J\x1b]0;t\x07\u{202e}\u{9b}31m\r\n\u{200b}";
    let mut bad = row(1, Kind::Failed, hostile);
    (bad.reason, bad.advice, bad.image) = (hostile.into(), hostile.into(), hostile.into());
    let mut view = view(vec![Row { kind: Kind::Booting, boot: BootId("9".into()), ..bad.clone() }, bad]);
    view.facts.tell(Event { at: NOW, of: hostile.into(), text: hostile.into() });
    view.facts.trouble = Some(hostile.into());
    view.facts.token = Some(hostile.into());
    let status = view.facts.status.as_mut().unwrap();
    (status.hostname, status.version) = (hostile.into(), hostile.into());
    for look in [RICH, POOR] {
        let screen = screen(&view, 120, 40, look);
        let obeyed = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{200b}'));
        assert!(!screen.chars().any(obeyed), "{screen:?}");
    }
}

#[test]
fn times_are_those_of_the_appliances_zone() {
    let mut view = view(Vec::new());
    view.facts.tell(Event { at: NOW, of: "web-1".into(), text: "is up".into() });
    view.facts.status.as_mut().unwrap().time_zone = Some("Asia/Tokyo".into());
    let screen = screen(&view, 80, 24, POOR);
    assert!(screen.contains("20:06:40 JST") && screen.contains("20:06:40 web-1"), "{screen}");
}

#[test]
fn before_the_service_answers_it_says_that_it_waits() {
    let mut view = View::new(false);
    assert!(screen(&view, 80, 24, POOR).contains("waiting for the service"));
    view.facts.trouble = Some("there is no such socket".into());
    assert!(screen(&view, 80, 24, POOR).contains("waiting for the service: there is no such socket"));
}

#[test]
fn the_machine_ends_only_when_it_is_asked_for_twice() {
    let mut view = view(Vec::new());
    view.key(Key::Text('p'));
    assert!(screen(&view, 80, 24, POOR).contains("Switch this machine off?"));
    assert_eq!(view.key(Key::Text('n')), Action::None);
    assert_eq!(view.mode, Mode::Overview);
    view.key(Key::Text('r'));
    assert_eq!(view.key(Key::Text('y')), Action::None);
    assert!(screen(&view, 80, 24, POOR).contains("Really?"));
    assert_eq!(view.key(Key::Text('y')), Action::Power(Power::Restart));
    // In a terminal of somebody's, these keys mean nothing, and `q` leaves.
    view.on_disc = false;
    assert_eq!((view.key(Key::Text('p')), view.mode), (Action::None, Mode::Overview));
    assert_eq!(view.key(Key::Text('q')), Action::Leave);
    view.on_disc = true;
    assert_eq!(view.key(Key::Text('q')), Action::None);
    assert!(view.remark.is_some());
}

#[test]
fn everything_goes_only_when_its_name_is_typed_after_two_questions() {
    let mut view = view(Vec::new());
    view.facts.host_name = "rack-1".into();
    let asked = |view: &mut View, typed: &str| {
        view.key(Key::Text('F'));
        assert!(screen(view, 80, 24, POOR).contains("EVERYTHING"));
        assert_eq!(view.key(Key::Text('y')), Action::None);
        assert!(screen(view, 80, 24, POOR).contains("Really?"));
        assert_eq!(view.key(Key::Text('y')), Action::None);
        assert!(screen(view, 80, 24, POOR).contains("rack-1"));
        typed.chars().for_each(|c| assert_eq!(view.key(Key::Text(c)), Action::None));
    };
    asked(&mut view, "rack-2");
    assert_eq!((view.key(Key::Enter), view.mode), (Action::None, Mode::Overview));
    assert!(view.remark.is_some());
    asked(&mut view, "");
    assert_eq!(view.key(Key::Enter), Action::None, "nothing typed");
    asked(&mut view, "rack-1");
    assert_eq!((view.key(Key::Escape), view.mode), (Action::None, Mode::Overview));
    asked(&mut view, "rack-12");
    view.key(Key::Backspace);
    assert_eq!(view.key(Key::Enter), Action::Power(Power::Reset));
    view.on_disc = false;
    assert_eq!((view.key(Key::Text('F')), view.mode), (Action::None, Mode::Overview));
}

#[test]
fn enter_looks_at_the_selected_machines_boot() {
    let mut view = view(vec![row(1, Kind::Booting, ""), row(2, Kind::Failed, "")]);
    assert_eq!(view.key(Key::Enter), Action::None);
    assert_eq!(view.place(), Some(0));
    view.key(Key::Tab);
    assert_eq!(view.key(Key::Enter), Action::Look(BootId("002".into())));
    assert!(screen(&view, 80, 24, POOR).contains("looking it up"));
    view.key(Key::Escape);
    assert_eq!(view.mode, Mode::Overview);
    view.key(Key::Text('?'));
    assert!(screen(&view, 80, 24, POOR).contains("Keys"));
}

#[test]
fn every_state_of_a_machine_is_counted() {
    let counts = Counts::of(&status().machines_by_state);
    assert_eq!(counts, Counts { up: 4, booting: 2, waiting: 1, failed: 1, local: 1, never: 0 });
}
