//! Packets of real clients, and what they are answered.

use crate::kit::*;
use bennu_rules::dhcp::{Request, SendTo, client::Client};
use std::{fmt::Write, path::PathBuf};

/// In `tests/packets/dhcp`, captured beside dnsmasq as the server at 10.77.0.1.
pub const PACKETS: &[&str] = &[
    "dhclient-4.4.3-discover",
    "dhclient-4.4.3-init-reboot",
    "dhclient-4.4.3-request",
    "ipxe-2019-snponly-discover",
    "ipxe-2019-snponly-request",
    "ipxe-2019-undionly-discover",
    "ipxe-2019-undionly-request",
    "ovmf-2022.11-http-discover",
    "ovmf-2022.11-http-request",
    "ovmf-2022.11-pxe-discover",
    "ovmf-2022.11-pxe-request",
    "qemu-7.2-bios-rom-ipxe-discover",
    "qemu-7.2-bios-rom-ipxe-request",
    "udhcpc-1.35-discover",
    "udhcpc-1.35-request",
];

/// A captured packet's bytes.
#[allow(clippy::disallowed_methods)] // Tests may read files: the ban is for rules.
pub fn read(name: &str) -> Vec<u8> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "tests", "packets", "dhcp"].iter().collect();
    let text = std::fs::read_to_string(folder.join(format!("{name}.hex"))).unwrap();
    let digits: Vec<char> = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::chars).collect();
    let nibble = |digit: char| digit.to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}

fn request(name: &str) -> Request {
    Request::parse(&read(name), &received()).unwrap()
}

/// An answer as a person would write it down.
fn describe(got: &Got) -> String {
    let kind = match got.kind {
        2 => "OFFER",
        5 => "ACK",
        6 => "NAK",
        other => panic!("message type {other}"),
    };
    let to = match got.send_to {
        SendTo::Hardware { mac, address } => format!("{mac} as {address}"),
        other => other.address().to_string(),
    };
    let mut text = format!("{kind} to {to}, {} bytes\n", got.packet.len());
    let _ =
        writeln!(text, "  flags {:#06x}, yiaddr {}, siaddr {}, file {:?}", got.flags, got.yiaddr, got.siaddr, got.file);
    for code in got.order.iter().filter(|code| **code != 53) {
        let value = &got.options[code];
        let printable = !value.is_empty() && value.iter().all(|byte| (32..127).contains(byte));
        let shown = match (code, <[u8; 4]>::try_from(value.as_slice())) {
            (51 | 58 | 59, Ok(bytes)) => format!("{} s", u32::from_be_bytes(bytes)),
            (1 | 3 | 6 | 7 | 28 | 54, Ok(bytes)) => std::net::Ipv4Addr::from(bytes).to_string(),
            _ if printable => format!("{:?}", String::from_utf8_lossy(value)),
            _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let _ = writeln!(text, "  {code}: {shown}");
    }
    text
}

/// What a client is answered, in full and in proxy mode.
fn answers(names: &[&str]) -> String {
    let mut text = String::new();
    for (mode, mut wire) in [("full", Wire::full()), ("proxy", Wire::proxy())] {
        for name in names {
            let mut request = request(name);
            // The capture's server gave another address than we would.
            if let (Some(offer), Some(_)) = (wire.address_of(request.mac), request.requested) {
                request.requested = Some(offer);
            }
            let answer = wire.ask_parsed(&request);
            let shown = answer.as_ref().map_or_else(|reason| format!("silence: {reason}\n"), describe);
            let _ = writeln!(text, "{mode}, {name}: {shown}");
        }
    }
    text
}

#[test]
fn every_capture_is_known_for_what_it_is() {
    for name in PACKETS {
        let request = request(name);
        let client = Client::of(&request);
        let expected = match *name {
            name if name.starts_with("ovmf") && name.contains("-pxe-") => "pxe 7",
            name if name.contains("-http-") => "http 16",
            name if name.contains("snponly") => "ipxe 7",
            name if name.contains("ipxe") => "ipxe 0",
            _ => "system -",
        };
        let arch = client.system().and_then(|system| system.code).map_or("-".into(), |code| code.to_string());
        assert_eq!(format!("{} {arch}", client.name()), expected, "{name}");
        if let Client::Ipxe { has_http, .. } = client {
            assert!(has_http, "{name}: all of them have HTTP");
        }
    }
}

#[test]
fn ovmf_pxe_is_answered() {
    insta::assert_snapshot!(answers(&["ovmf-2022.11-pxe-discover", "ovmf-2022.11-pxe-request"]));
}

#[test]
fn ovmf_http_boot_is_answered() {
    insta::assert_snapshot!(answers(&["ovmf-2022.11-http-discover", "ovmf-2022.11-http-request"]));
}

#[test]
fn ipxe_in_qemus_rom_is_answered() {
    insta::assert_snapshot!(answers(&["qemu-7.2-bios-rom-ipxe-discover", "qemu-7.2-bios-rom-ipxe-request"]));
}

#[test]
fn snponly_is_answered() {
    insta::assert_snapshot!(answers(&["ipxe-2019-snponly-discover", "ipxe-2019-snponly-request"]));
}

#[test]
fn systems_are_answered() {
    let udhcpc = ["udhcpc-1.35-discover", "udhcpc-1.35-request"];
    let dhclient = ["dhclient-4.4.3-discover", "dhclient-4.4.3-request", "dhclient-4.4.3-init-reboot"];
    insta::assert_snapshot!(answers(&[&udhcpc[..], &dhclient].concat()));
}
