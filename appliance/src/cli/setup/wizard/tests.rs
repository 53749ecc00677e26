//! The set-up from its first question to its configuration, key by key.

use super::*;
use crate::cli::{
    setup::draw::draw,
    terminal::{Look, shown},
};

const POOR: Look = Look { color: false, unicode: false };

fn card(name: &str, link: bool, heard: Option<Vec<Heard>>) -> Card {
    Card { name: name.into(), mac: "52:54:00:00:00:01".into(), driver: "virtio_net".into(), link, heard }
}

fn disk(name: &str, serial: &str, blank: bool) -> Disk {
    Disk { device: format!("/dev/{name}").into(), serial: serial.into(), size: 4 << 30, blank }
}

fn server(last: u8) -> Heard {
    Heard { server: Ipv4Addr::new(192, 168, 7, last), is_bennu: false, gives_addresses: true }
}

fn wizard(cards: Vec<Card>, disk: Vec<Disk>) -> Wizard {
    // What only the whole configuration's check finds.
    let check = |text: &str| if text.contains("a b") { Err("host.hostname: write a host name".into()) } else { Ok(()) };
    Wizard::new(cards, Some(Disks { disk, ..Disks::default() }), check)
}

fn type_in(wizard: &mut Wizard, text: &str) {
    wizard.key(Key::Control('u'));
    for c in text.chars() {
        wizard.key(Key::Text(c));
    }
}

fn enter(wizard: &mut Wizard, step: Step) {
    assert_eq!(wizard.step, step);
    let outcome = wizard.key(Key::Enter);
    assert_ne!(outcome, Outcome::None, "{step:?}: {:?}", wizard.wrong);
}

#[test]
fn enter_alone_makes_a_configuration() {
    let cards = vec![card("eth0", false, None), card("eth1", true, Some(Vec::new()))];
    let mut wizard = wizard(cards, vec![disk("sda", "DATA", false), disk("sdb", "EMPTY", true)]);
    assert_eq!(wizard.number(), (1, 11));
    use Step::*;
    for step in [Interface, Address, Dhcp, Range, Router, Dns, Name, Zone, State, Encryption] {
        enter(&mut wizard, step);
    }
    assert_eq!(wizard.number(), (11, 11));
    let Outcome::Done(done) = wizard.key(Key::Enter) else { panic!("{:?}", wizard.wrong) };
    assert_eq!(done.erase, None);
    let whole: toml::Table = done.text.parse().unwrap();
    assert_eq!(whole["boot"]["interface"].as_str(), Some("eth1"));
    assert_eq!(whole["boot"]["dhcp"].as_str(), Some("full"));
    assert_eq!(whole["boot"]["subnet"][0]["range"].as_str(), Some("10.77.0.50-10.77.0.199"));
    assert_eq!(whole["host"]["state_disk"].as_str(), Some("EMPTY"));
    assert_eq!(whole["host"].get("state_encryption"), None);
    assert_eq!(whole["host"]["interface"][0]["address"].as_str(), Some("10.77.0.1/24"));
    assert_eq!(whole["api"]["listen"].as_str(), Some("10.77.0.1:8443"));
}

#[test]
fn beside_another_server_proxy_is_proposed_and_no_range_asked_for() {
    let mut wizard = wizard(vec![card("eth0", true, Some(vec![server(1)]))], Vec::new());
    enter(&mut wizard, Step::Interface);
    assert_eq!(wizard.text(), "192.168.7.250/24");
    enter(&mut wizard, Step::Address);
    assert_eq!(wizard.choice(), Mode::Proxy as usize);
    assert_eq!(wizard.number().1, 9);
    assert!(shown(80, 24, |buffer| draw(&wizard, buffer, POOR)).contains("On this wire: DHCP: 192.168.7.1."));
    enter(&mut wizard, Step::Dhcp);
    assert_eq!(wizard.step, Step::Router);
    let whole: toml::Table = wizard.answers().text().parse().unwrap();
    assert_eq!(whole["boot"].get("subnet"), None);
}

#[test]
fn bad_answers_say_what_is_wrong_and_stay() {
    let mut wizard = wizard(vec![card("eth0", true, Some(Vec::new()))], Vec::new());
    enter(&mut wizard, Step::Interface);
    for (bad, says) in [
        ("10.77.0", "is no address with a prefix"),
        ("10.77.0.0/24", "is no host's address"),
        ("10.77.0.1/31", "too wide or too narrow"),
    ] {
        type_in(&mut wizard, bad);
        assert_eq!(wizard.key(Key::Enter), Outcome::None);
        assert!(wizard.wrong.as_ref().unwrap().contains(says), "{bad}: {:?}", wizard.wrong);
        assert_eq!(wizard.text(), bad);
        assert!(shown(80, 24, |buffer| draw(&wizard, buffer, POOR)).contains(says));
    }
    type_in(&mut wizard, "10.1.0.9/24");
    assert_eq!(wizard.wrong, None);
    enter(&mut wizard, Step::Address);
    enter(&mut wizard, Step::Dhcp);
    for (bad, says) in [("10.1.0.5-10.1.0.50", "own address"), ("10.1.0.5", "is no range")] {
        type_in(&mut wizard, bad);
        assert_eq!(wizard.key(Key::Enter), Outcome::None);
        assert!(wizard.wrong.as_ref().unwrap().contains(says), "{bad}: {:?}", wizard.wrong);
    }
    type_in(&mut wizard, "10.1.0.20 - 10.1.0.50");
    enter(&mut wizard, Step::Range);
    for (bad, says) in [("10.2.0.1", "is not in 10.1.0.0/24"), ("10.1.0.9", "own address"), ("x", "is no address")] {
        type_in(&mut wizard, bad);
        assert_eq!(wizard.key(Key::Enter), Outcome::None);
        assert!(wizard.wrong.as_ref().unwrap().contains(says), "{bad}: {:?}", wizard.wrong);
    }
    type_in(&mut wizard, "10.1.0.1");
    enter(&mut wizard, Step::Router);
    type_in(&mut wizard, "10.1.0.1, 10.1.0.2");
    enter(&mut wizard, Step::Dns);
    type_in(&mut wizard, "a b");
    assert_eq!(wizard.key(Key::Enter), Outcome::None);
    type_in(&mut wizard, "rack7");
    enter(&mut wizard, Step::Name);
    let whole: toml::Table = wizard.answers().text().parse().unwrap();
    assert_eq!(whole["boot"]["subnet"][0]["dns"][1].as_str(), Some("10.1.0.2"));
    assert_eq!(whole["host"]["router"].as_str(), Some("10.1.0.1"));
    // Back to the beginning, and nothing typed is lost.
    while wizard.key(Key::Escape) == Outcome::Step {}
    assert_eq!(wizard.step, Step::Interface);
    enter(&mut wizard, Step::Interface);
    assert_eq!(wizard.text(), "10.1.0.9/24");
}

#[test]
fn a_disk_with_data_is_taken_only_for_its_serial_in_full() {
    let cards = vec![card("eth0", true, Some(Vec::new()))];
    let mut wizard = wizard(cards, vec![disk("sda", "DATA-1", false), disk("sdb", "", false)]);
    while wizard.step != Step::State {
        wizard.key(Key::Enter);
    }
    // Memory is proposed: no disk is empty. One without a serial is not offered at all.
    assert_eq!(wizard.choices().len(), 2);
    assert!(wizard.choices()[wizard.choice()].contains("LOST"));
    assert_eq!(wizard.number(), (9, 10));
    wizard.key(Key::Down);
    enter(&mut wizard, Step::State);
    assert_eq!((wizard.step, wizard.number()), (Step::Erase, (9, 11)));
    for wrong in ["", "DATA", "data-1"] {
        type_in(&mut wizard, wrong);
        assert_eq!(wizard.key(Key::Enter), Outcome::None, "{wrong}");
    }
    type_in(&mut wizard, "DATA-1");
    enter(&mut wizard, Step::Erase);
    enter(&mut wizard, Step::Encryption);
    let Outcome::Done(done) = wizard.key(Key::Enter) else { panic!("{:?}", wizard.wrong) };
    assert_eq!(done.erase.as_deref(), Some("DATA-1"));
}

#[test]
fn a_tpm_opens_the_state_only_where_there_is_one() {
    let asked = |tpm: bool| {
        let disks = Disks { tpm, disk: vec![disk("sdb", "EMPTY", true)], ..Disks::default() };
        let mut wizard = Wizard::new(vec![card("eth0", true, Some(Vec::new()))], Some(disks), |_| Ok(()));
        while wizard.step != Step::Encryption {
            wizard.key(Key::Enter);
        }
        assert!(wizard.choices()[wizard.choice()].contains("not encrypted"));
        for _ in 0..3 {
            wizard.key(Key::Down);
        }
        enter(&mut wizard, Step::Encryption);
        assert!(shown(80, 24, |buffer| draw(&wizard, buffer, POOR)).contains("encrypted, "));
        let Outcome::Done(done) = wizard.key(Key::Enter) else { panic!("{:?}", wizard.wrong) };
        let whole: toml::Table = done.text.parse().unwrap();
        whole["host"]["state_encryption"].as_str().unwrap().to_owned()
    };
    assert_eq!((asked(false).as_str(), asked(true).as_str()), ("passphrase", "tpm"));
}

#[test]
fn the_free_space_of_the_medium_is_proposed_before_memory_and_memory_is_never_encrypted() {
    let stick = Some(disk("sdc", "stick", true));
    let disks = Disks { stick, disk: vec![disk("sda", "DATA", false)], ..Disks::default() };
    let mut wizard = Wizard::new(vec![card("eth0", true, Some(Vec::new()))], Some(disks), |_| Ok(()));
    while wizard.step != Step::State {
        wizard.key(Key::Enter);
    }
    assert!(wizard.choices()[0].contains("/dev/sdc") && wizard.choices()[1].contains("LOST"));
    assert!(wizard.answers().text().contains("state_disk = \"stick\""));
    enter(&mut wizard, Step::State);
    wizard.key(Key::Down);
    enter(&mut wizard, Step::Encryption);
    assert!(wizard.answers().text().contains("state_encryption = \"passphrase\""));
    while wizard.step != Step::State {
        wizard.key(Key::Escape);
    }
    wizard.key(Key::Down);
    enter(&mut wizard, Step::State);
    assert_eq!(wizard.step, Step::Summary);
    assert!(!wizard.answers().text().contains("state_"));
}

#[test]
fn a_state_disk_that_is_there_is_not_asked_for() {
    let disks = Disks { state: Some("/dev/sda".into()), disk: vec![disk("sdb", "EMPTY", true)], ..Disks::default() };
    let mut wizard = Wizard::new(vec![card("eth0", true, Some(Vec::new()))], Some(disks), |_| Ok(()));
    while wizard.step != Step::Summary {
        assert_ne!(wizard.step, Step::State);
        wizard.key(Key::Enter);
    }
    assert_eq!(wizard.answers().place, Place::Kept);
    assert!(!wizard.answers().text().contains("state_disk"));
}

#[test]
fn without_a_card_it_says_so_and_goes_nowhere() {
    let mut wizard = wizard(Vec::new(), Vec::new());
    assert_eq!(wizard.key(Key::Enter), Outcome::None);
    assert!(wizard.wrong.as_ref().unwrap().contains("no network card"));
    assert_eq!(wizard.key(Key::Control('c')), Outcome::None);
    assert_eq!(wizard.key(Key::Escape), Outcome::Leave);
}

#[test]
fn what_is_typed_stays_text() {
    let mut wizard = wizard(vec![card("eth0", true, Some(Vec::new()))], Vec::new());
    enter(&mut wizard, Step::Interface);
    type_in(&mut wizard, "10.0.0.1/8\"\n[x]\ny=\"");
    let whole: toml::Table = wizard.answers().text().parse().unwrap();
    assert_eq!(whole.get("x"), None);
    for _ in 0..1000 {
        wizard.key(Key::Text('9'));
    }
    assert!(wizard.text().len() <= LONGEST);
    // A small screen shows the end of it.
    assert!(shown(40, 12, |buffer| draw(&wizard, buffer, POOR)).contains("999"));
}

#[test]
fn every_question_fits_a_screen_of_80_by_24() {
    let mut cards: Vec<Card> = (0..30).map(|number| card(&format!("enp{number}s0"), false, None)).collect();
    cards[25].link = true;
    let mut wizard = wizard(cards, vec![disk("sdb", "EMPTY", true)]);
    loop {
        let screen = shown(80, 24, |buffer| draw(&wizard, buffer, POOR));
        let (at, of) = wizard.number();
        assert!(screen.lines().next().unwrap().ends_with(&format!("{at}/{of}")), "{screen}");
        assert!(screen.lines().last().unwrap().contains("Enter"), "{screen}");
        if wizard.step == Step::Interface {
            assert!(screen.contains("> enp25s0"), "{screen}");
        }
        if wizard.step == Step::Summary {
            break;
        }
        wizard.key(Key::Enter);
    }
}

#[test]
fn the_time_zone_is_utc_unless_another_is_typed_that_there_is() {
    let check = |text: &str| crate::config::Config::parse(text).map(drop).map_err(|error| error.to_string());
    let mut wizard = Wizard::new(vec![card("eth0", true, Some(Vec::new()))], None, check);
    use Step::*;
    for step in [Interface, Address, Dhcp, Range, Router, Dns, Name] {
        enter(&mut wizard, step);
    }
    assert_eq!(wizard.text(), "UTC");
    assert!(!wizard.answers().text().contains("time_zone"));
    type_in(&mut wizard, "Europe/Zurch");
    assert_eq!(wizard.key(Key::Enter), Outcome::None);
    assert!(wizard.wrong.as_ref().unwrap().contains("Europe/Zurich"), "{:?}", wizard.wrong);
    type_in(&mut wizard, "Europe/Zurich");
    enter(&mut wizard, Zone);
    let whole: toml::Table = wizard.answers().text().parse().unwrap();
    assert_eq!(whole["host"]["time_zone"].as_str(), Some("Europe/Zurich"));
}
