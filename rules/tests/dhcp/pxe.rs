//! Who boots what: firmware, HTTP boot, iPXE; full and proxy.

use crate::kit::*;
use bennu_rules::{
    Machine,
    boot::State,
    dhcp::Reason,
    facts::{CLIENT_SYSTEMS, ClientSystem, Facts},
    journey::{Observation, Seen},
    profile::{BootSettings, Fingerprint, Match, Profile},
    settings::UnknownPolicy,
};

const SCRIPT: &str = "http://10.77.0.1/boot.ipxe";

#[test]
fn line_36_pxe_options_come_back() {
    let mut wire = Wire::full();
    let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap();
    assert_eq!(got.options[&97], [&[0][..], &[7; 16]].concat());
    assert_eq!((&got.options[&93][..], &got.options[&94][..]), (&[0, 7][..], &[1, 3, 0][..]));
    let bare = wire.ask(&Ask::new(DISCOVER, 2).with(60, "PXEClient:Arch:00007:UNDI:003000")).unwrap();
    assert_eq!(bare.file, "snponly.efi", "the class tells the architecture where option 93 is missing");
    assert!([93, 94, 97].iter().all(|code| !bare.options.contains_key(code)));
}

#[test]
fn line_38_an_empty_machine_id_is_no_identity() {
    let mut wire = Wire::full();
    let uuid = |number| Ask::new(DISCOVER, number).with(60, "PXEClient").with(93, [0, 7]).with(97, [0; 17]);
    assert_ne!(wire.boot(uuid(1)).yiaddr, wire.boot(uuid(2)).yiaddr);
}

#[test]
fn line_39_each_architecture_gets_its_loader() {
    for (code, system) in CLIENT_SYSTEMS {
        let mut wire = Wire::full();
        let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(*code)).unwrap();
        let expected = match code {
            0 | 20 => "undionly.kpxe",
            7 | 9 | 16 => "snponly.efi",
            _ => "",
        };
        assert_eq!(got.file, expected, "{code} {system:?}");
        assert_ne!(got.yiaddr, NONE, "an address it gets anyway");
        let noted = wire.seen.iter().any(|(_, seen)| matches!(seen, Seen::NoLoader { .. }));
        assert_eq!(noted, expected.is_empty(), "{code}");
    }
}

#[test]
fn line_39_an_unknown_architecture_gets_no_boot_file() {
    let mut wire = Wire::full();
    let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(0x1234)).unwrap();
    assert_eq!((got.file.as_str(), got.options.get(&60)), ("", None));
    let said = wire.seen.iter().map(|(_, seen)| seen.to_string()).collect::<Vec<_>>();
    assert!(said.contains(&"no loader for architecture 4660, which is not in the table".to_owned()), "{said:?}");
    let mut proxy = Wire::proxy();
    let reason = proxy.ask(&Ask::new(DISCOVER, 1).pxe(11)).unwrap_err();
    assert_eq!(reason.to_string(), "there is no loader for architecture 11 (Arm64 UEFI)");
}

#[test]
fn line_40_a_proxy_offers_no_address() {
    let mut wire = Wire::proxy();
    let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap();
    assert_eq!((got.kind, got.yiaddr, got.siaddr, got.address(54)), (2, NONE, OURS, OURS));
    assert_eq!(got.text(60).as_deref(), Some("PXEClient"));
    assert_eq!(got.file, "snponly.efi");
    assert!([1, 3, 6, 51, 58, 59].iter().all(|code| !got.options.contains_key(code)));
    assert_eq!(wire.writes, 0);
}

#[test]
fn line_40_a_proxy_needs_no_subnet() {
    let mut wire = Wire::proxy();
    wire.settings.subnets.clear();
    let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(0).relayed()).unwrap();
    assert_eq!((got.file.as_str(), got.to.to_string().as_str()), ("undionly.kpxe", "10.88.0.1:67"));
}

#[test]
fn line_41_a_proxy_answers_network_boots_only() {
    let mut wire = Wire::proxy();
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1)).unwrap_err(), Reason::NotANetworkBoot);
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).with(60, "udhcp 1.35")).unwrap_err(), Reason::NotANetworkBoot);
    let leasing = Ask::new(REQUEST, 1).pxe(7).address(50, ip("10.77.0.9")).address(54, ip("10.77.0.2"));
    assert_eq!(wire.ask(&leasing).unwrap_err(), Reason::SiteServersMatter);
    assert!(wire.seen.is_empty(), "what a proxy overhears is no news");
}

#[test]
fn line_43_firmware_is_told_to_boot_the_file_without_discovery() {
    for mut wire in [Wire::full(), Wire::proxy()] {
        let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(0)).unwrap();
        assert_eq!(got.options[&43], [6, 1, 8, 255]);
        assert_eq!(got.text(60).as_deref(), Some("PXEClient"), "43 means nothing to PXE without the class");
    }
}

#[test]
fn line_44_the_boot_server_port_names_the_file() {
    for mut wire in [Wire::full(), Wire::proxy()] {
        let mut ask = Ask::new(REQUEST, 1).pxe(7).ciaddr(ip("10.77.0.77")).unicast().at_port(4011);
        ask.received.source.set_port(4011);
        let got = wire.ask(&ask).unwrap();
        assert_eq!((got.kind, got.yiaddr, got.ciaddr), (5, NONE, ip("10.77.0.77")));
        assert_eq!((got.file.as_str(), got.siaddr), ("snponly.efi", OURS));
        assert_eq!(got.to.to_string(), "10.77.0.77:4011", "back to where it came from");
        assert!(!got.options.contains_key(&51));
    }
}

#[test]
fn line_45_the_class_never_goes_without_option_43() {
    for mut wire in [Wire::full(), Wire::proxy()] {
        for (code, _) in CLIENT_SYSTEMS {
            if let Ok(got) = wire.ask(&Ask::new(DISCOVER, *code).pxe(*code)) {
                assert_eq!(got.options.contains_key(&60), got.options.contains_key(&43), "architecture {code}");
            }
        }
    }
}

#[test]
fn line_46_the_boot_server_port_ignores_strangers_and_echoes_the_boot_item() {
    let mut wire = Wire::proxy();
    assert_eq!(wire.ask(&Ask::new(REQUEST, 1).at_port(4011)).unwrap_err(), Reason::NotANetworkBoot);
    assert_eq!(wire.ask(&Ask::new(RELEASE, 1).pxe(7).at_port(4011)).unwrap_err(), Reason::SiteServersMatter);
    let item = [71, 4, 0, 0, 0, 0, 255];
    let got = wire.ask(&Ask::new(REQUEST, 1).pxe(7).with(43, item).at_port(4011)).unwrap();
    assert_eq!(got.options[&43], [6, 1, 8, 71, 4, 0, 0, 0, 0, 255]);
}

#[test]
fn line_47_http_boot_gets_its_class_and_a_url() {
    for mut wire in [Wire::full(), Wire::proxy()] {
        let got = wire.ask(&Ask::new(DISCOVER, 1).http(16)).unwrap();
        assert_eq!(got.text(60).as_deref(), Some("HTTPClient"));
        assert_eq!(got.text(67).as_deref(), Some("http://10.77.0.1/loader/snponly.efi"));
        assert!(!got.options.contains_key(&43) && !got.options.contains_key(&66));
    }
}

#[test]
fn the_firmware_says_what_it_is_and_not_its_loader() {
    let mut wire = Wire::full();
    wire.ask(&Ask::new(DISCOVER, 1).http(16)).unwrap();
    wire.ask(&Ask::new(DISCOVER, 1).ipxe(7, HTTP_FEATURE)).unwrap();
    let system = wire.live.boot(mac(1)).unwrap().system.unwrap();
    assert_eq!(Some(system), ClientSystem::from_code(16));
    wire.ask(&Ask::new(DISCOVER, 2).ipxe(0, HTTP_FEATURE)).unwrap();
    assert_eq!(wire.live.boot(mac(2)).unwrap().system, ClientSystem::from_code(0), "a ROM speaks for itself");
}

#[test]
fn line_49_field_and_option_both_name_the_file() {
    let mut wire = Wire::full();
    let got = wire.ask(&Ask::new(DISCOVER, 1).pxe(0)).unwrap();
    assert_eq!((got.file.as_str(), got.siaddr), ("undionly.kpxe", OURS));
    assert_eq!(got.text(67).as_deref(), Some("undionly.kpxe"));
    assert_eq!(got.text(66).as_deref(), Some("10.77.0.1"));
}

#[test]
fn line_50_ipxe_gets_the_script() {
    let ask = |number| Ask::new(DISCOVER, number);
    let asks = [
        ask(1).ipxe(0, HTTP_FEATURE),
        ask(2).pxe(7).with(77, b"\x04iPXE").with(175, HTTP_FEATURE),
        ask(3).pxe(7).with(175, HTTP_FEATURE),
        ask(4).pxe(7).with(77, b"iPXE"),
    ];
    for ask in asks {
        let mut wire = Wire::full();
        wire.settings.http_port = 8080;
        let got = wire.ask(&ask).unwrap();
        assert_eq!(got.text(67).as_deref(), Some("http://10.77.0.1:8080/boot.ipxe"));
        assert_eq!(got.options[&175], [176, 1, 1], "no two seconds' wait for a proxy");
        assert!(!got.options.contains_key(&60));
        let got = Wire::proxy().ask(&ask).unwrap();
        assert_eq!((got.file.as_str(), got.siaddr), (SCRIPT, OURS), "iPXE wants both in a proxy's offer");
        assert_eq!(got.text(60).as_deref(), Some("PXEClient"));
    }
    let got = Wire::full().ask(&ask(5).pxe(7).with(77, b"anaconda")).unwrap();
    assert_eq!(got.file, "snponly.efi", "another user class changes nothing");
}

#[test]
fn an_ipxe_without_http_gets_our_loader_and_then_ours_the_script() {
    for mut wire in [Wire::full(), Wire::proxy()] {
        let rom = Ask::new(DISCOVER, 1).ipxe(0, NO_HTTP).xid(1);
        for _ in 0..5 {
            assert_eq!(wire.ask(&rom).unwrap().file, "undionly.kpxe", "repeats of one conversation get one answer");
        }
        assert_eq!(wire.live.boot(mac(1)).unwrap().loaders_chained, 1);
        let ours = Ask::new(DISCOVER, 1).ipxe(0, HTTP_FEATURE).xid(2);
        assert_eq!(wire.ask(&ours).unwrap().file, SCRIPT);
    }
    let mut uefi = Wire::full();
    assert_eq!(uefi.boot(Ask::new(DISCOVER, 1).ipxe(7, NO_HTTP)).file, "snponly.efi");
}

#[test]
fn a_loader_that_never_learns_http_is_no_endless_loop() {
    let mut wire = Wire::full();
    let files: Vec<String> =
        (1..=5).map(|xid| wire.ask(&Ask::new(DISCOVER, 1).ipxe(0, NO_HTTP).xid(xid)).unwrap().file).collect();
    assert_eq!(files, ["undionly.kpxe", "undionly.kpxe", "undionly.kpxe", SCRIPT, SCRIPT]);
}

fn with_profile(settings: BootSettings) -> Wire {
    let mut wire = Wire::full();
    let product = Some("Standard PC*".to_owned());
    wire.settings.profiles = vec![Profile {
        name: "qemu".parse().unwrap(),
        matches: Match { manufacturer: None, product },
        settings,
        example: Fingerprint::default(),
    }];
    let mut machine = Machine::new(mac(1), wire.now);
    machine.facts = Facts { product: Some("Standard PC (i440FX)".into()), ..Facts::default() };
    wire.add(machine);
    wire
}

#[test]
fn a_profile_replaces_a_rom_ipxe_once() {
    let mut wire = with_profile(BootSettings { replace_rom_ipxe: true, ..BootSettings::default() });
    let ipxe = |xid| Ask::new(DISCOVER, 1).ipxe(0, HTTP_FEATURE).xid(xid);
    assert_eq!(wire.boot(ipxe(1)).file, "undionly.kpxe");
    assert_eq!(wire.boot(ipxe(2)).file, SCRIPT, "the second one is ours");
    let other = Ask::new(DISCOVER, 2).ipxe(0, HTTP_FEATURE);
    assert_eq!(wire.boot(other).file, SCRIPT, "not that model");
}

#[test]
fn a_profile_does_not_replace_the_loader_that_firmware_was_given() {
    let mut wire = with_profile(BootSettings { replace_rom_ipxe: true, ..BootSettings::default() });
    assert_eq!(wire.boot(Ask::new(DISCOVER, 1).pxe(7)).file, "snponly.efi");
    assert_eq!(wire.boot(Ask::new(DISCOVER, 1).ipxe(7, HTTP_FEATURE)).file, SCRIPT);
}

#[test]
fn a_profile_names_the_loader() {
    let mut wire = with_profile(BootSettings { uefi_loader: Some("ipxe.efi".into()), ..BootSettings::default() });
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap().file, "ipxe.efi");
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).pxe(0)).unwrap().file, "undionly.kpxe");
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).http(16)).unwrap().file, "http://10.77.0.1/loader/ipxe.efi");
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).pxe(11)).unwrap().file, "", "that file is for another architecture");
}

#[test]
fn the_policy_ignore_is_silence_for_boots_and_addresses_for_systems() {
    let mut wire = Wire::full();
    wire.settings.unknown = UnknownPolicy::Ignore;
    for ask in [Ask::new(DISCOVER, 1).pxe(7), Ask::new(DISCOVER, 1).http(16), Ask::new(DISCOVER, 1).ipxe(0, NO_HTTP)] {
        assert_eq!(wire.ask(&ask).unwrap_err(), Reason::PolicyIgnores);
    }
    assert!(wire.live.boot(mac(1)).is_none());
    assert!(wire.ask(&Ask::new(DISCOVER, 1)).is_ok());
    let mut machine = Machine::new(mac(1), wire.now);
    machine.assignment = Some("local".parse().unwrap());
    wire.add(machine);
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap().file, "snponly.efi", "assigned machines are known");
}

#[test]
fn one_boot_from_firmware_to_system() {
    let mut wire = Wire::full();
    wire.boot(Ask::new(DISCOVER, 1).pxe(7).xid(1));
    let boot = wire.live.boot(mac(1)).unwrap().clone();
    assert_eq!(
        (boot.state, boot.system.map(|s| s.transport)),
        (State::Firmware, Some(bennu_rules::facts::Transport::Tftp))
    );
    wire.wait(5);
    wire.boot(Ask::new(DISCOVER, 1).ipxe(7, HTTP_FEATURE).xid(2));
    wire.wait(20);
    wire.boot(Ask::new(DISCOVER, 1).xid(3));
    let now = wire.live.boot(mac(1)).unwrap();
    assert_eq!((&now.id, now.state), (&boot.id, State::Loader));
    let said: Vec<String> = now.timeline.iter().map(|seen| seen.seen.to_string()).collect();
    let address = wire.records.leases().next().unwrap().address;
    assert_eq!(
        said,
        [
            "DHCP discover from pxe (architecture 7)".to_owned(),
            format!("DHCP offer: {address}, boot file snponly.efi"),
            format!("DHCP ack: {address}, boot file snponly.efi"),
            "DHCP discover from ipxe (architecture 7)".to_owned(),
            format!("DHCP offer: {address}, boot file {SCRIPT}"),
            format!("DHCP ack: {address}, boot file {SCRIPT}"),
            "DHCP discover from system".to_owned(),
            format!("DHCP offer: {address}"),
            format!("DHCP ack: {address}"),
        ]
    );
}

#[test]
fn firmware_that_starts_again_opens_another_boot() {
    let mut wire = Wire::full();
    wire.boot(Ask::new(DISCOVER, 1).pxe(7).xid(1));
    let first = wire.live.boot(mac(1)).unwrap().id.clone();
    wire.wait(2);
    wire.boot(Ask::new(DISCOVER, 1).pxe(7).xid(2));
    assert_eq!(wire.live.boot(mac(1)).unwrap().id, first, "a retry joins");
    let read = Seen::LoaderRead {
        by: "tftp".into(),
        file: "snponly.efi".into(),
        bytes: 1,
        complete: true,
        detail: String::new(),
        took_ms: 1,
    };
    wire.live.observe(mac(1), Observation::new(wire.now, read));
    wire.wait(2);
    wire.boot(Ask::new(DISCOVER, 1).pxe(7).xid(3));
    assert_ne!(wire.live.boot(mac(1)).unwrap().id, first);
    let ended = wire.live.take_ended();
    assert_eq!((ended.len(), ended[0].state), (1, State::Superseded));
}

#[test]
fn a_machines_boot_is_found_by_each_of_its_cards() {
    let mut wire = Wire::full();
    let mut machine = Machine::new(mac(1), wire.now);
    machine.macs.push(mac(2));
    wire.add(machine);
    let first = wire.boot(Ask::new(DISCOVER, 1).pxe(7));
    let second = wire.boot(Ask::new(DISCOVER, 2).pxe(7));
    assert_ne!(first.yiaddr, second.yiaddr, "each card has an address of its own");
    assert!(wire.live.boot(mac(2)).is_none());
    assert_eq!(wire.live.boots().count(), 1);
}
