//! Packets and requests as no client sends them: chance, and captures that chance has been at.

use super::source::Chance;

/// Cards that the flood's packets come from: few enough that their offers leave addresses to others.
const CARDS: u8 = 32;

/// A DHCP packet, more or less.
pub fn dhcp(chance: &mut Chance, captures: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = captures[chance.below(captures.len())].clone();
    match chance.below(8) {
        0 => {
            let size = chance.below(1400);
            packet = chance.bytes(size);
        }
        1 => packet.truncate(chance.below(packet.len())),
        2 => {
            let size = chance.below(2500);
            packet.extend(chance.bytes(size));
        }
        3 => splice(chance, &mut packet, captures),
        4 => {
            // Options of any code and length, in the place of those that were there.
            packet.truncate(240);
            let size = chance.below(300);
            packet.extend(chance.bytes(size));
        }
        5 => overload(chance, &mut packet),
        _ => flip(chance, &mut packet, 8),
    }
    if let Some(card) = packet.get_mut(28..34) {
        card.copy_from_slice(&[0x52, 0x54, 0, 0xba, 0xd0, chance.below(CARDS.into()) as u8]);
    }
    packet
}

/// Changes up to `most` bytes.
fn flip(chance: &mut Chance, packet: &mut [u8], most: usize) {
    for _ in 0..=chance.below(most) {
        let at = chance.below(packet.len());
        packet[at] = chance.word() as u8;
    }
}

/// The start of one packet and the end of another.
fn splice(chance: &mut Chance, packet: &mut Vec<u8>, captures: &[Vec<u8>]) {
    let other = &captures[chance.below(captures.len())];
    let from = chance.below(other.len());
    packet.truncate(chance.below(packet.len()));
    packet.extend_from_slice(&other[from..]);
}

/// Options in `sname` and `file` (RFC 2132 §9.3) that are none, and the same option again and again (RFC 3396).
fn overload(chance: &mut Chance, packet: &mut Vec<u8>) {
    let noise = chance.bytes(192);
    packet[44..236].copy_from_slice(&noise);
    packet.truncate(240);
    packet.extend([52, 1, 1 + chance.below(3) as u8, 53, 1, 1 + chance.below(9) as u8]);
    let code = [43, 60, 61, 77, 82, 93, 97, 175][chance.below(8)];
    for _ in 0..chance.below(40) {
        let size = chance.below(40);
        packet.extend([code, size as u8]);
        packet.extend(chance.bytes(size));
    }
    if chance.below(2) == 0 {
        packet.push(255);
    }
}

/// A TFTP packet, more or less.
pub fn tftp(chance: &mut Chance) -> Vec<u8> {
    let name = ["snponly.efi", "undionly.kpxe", "autoexec.ipxe", "../../etc/passwd", "a\0b", "", "//x/./y", "%00"]
        [chance.below(8)];
    let mode = ["octet", "netascii", "OCTET", "mail", ""][chance.below(5)];
    let value = ["512", "0", "8", "65464", "65465", "-1", "99999999999999999999", "x", ""][chance.below(9)];
    let key = ["blksize", "tsize", "windowsize", "timeout", "BLKSIZE", "nothing"][chance.below(6)];
    let request = |code: u8| [&[0, code], name.as_bytes(), b"\0", mode.as_bytes(), b"\0"].concat();
    let mut packet = match chance.below(9) {
        0 => {
            let size = chance.below(1400);
            return chance.bytes(size);
        }
        1 => request(2),
        2 => vec![0, 3, 0, 1, 7, 7],
        3 => vec![0, 4, 0, chance.word() as u8],
        4 => b"\0\x05\0\x01no\0".to_vec(),
        5 => vec![0, chance.word() as u8],
        6 => [&request(1), key.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat(),
        7 => [&request(1), key.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat().repeat(1 + chance.below(8)),
        _ => request(1),
    };
    match chance.below(4) {
        0 => packet.truncate(chance.below(packet.len())),
        1 => flip(chance, &mut packet, 4),
        _ => {}
    }
    packet
}

/// One HTTP request, more or less; and whether it is certain that it cannot be read.
pub fn http(chance: &mut Chance) -> (Vec<u8>, bool) {
    let target = [
        "/boot.ipxe",
        "/boot/52-54-00-ba-d0-01.ipxe",
        "/boot/nonsense/plan.json",
        "/loader/../../../etc/passwd",
        "/loader/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/blobs/sha256/xyz",
        "/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000",
        "//////",
        "/v1/machines",
        "/%",
        "/\u{e9}",
        "*",
    ][chance.below(12)];
    let method = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "get", "BREW"][chance.below(8)];
    let head = format!("{method} {target} HTTP/1.1\r\nHost: 10.77.0.1\r\n");
    let with = |rest: &str| (format!("{head}{rest}\r\n").into_bytes(), false);
    match chance.below(16) {
        0 => {
            // No method begins with this byte.
            let size = 1 + chance.below(1000);
            ([b"\x01".to_vec(), chance.bytes(size), b"\r\n\r\n".to_vec()].concat(), true)
        }
        1 => (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), true),
        2 => (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), true),
        3 => (format!("{head}X-Long: {}\r\n\r\n", "x".repeat(40_000)).into_bytes(), true),
        4 => (format!("{head}{}\r\n", "X-Many: 1\r\n".repeat(200)).into_bytes(), true),
        5 => (format!("{head}Content-Length: -5\r\n\r\n").into_bytes(), true),
        6 => (format!("{head}Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello").into_bytes(), true),
        // A head that never ends.
        7 => (head.clone().into_bytes(), true),
        8 => with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        9 => with("Transfer-Encoding: chunked\r\n"),
        10 => with("Range: bytes=9-1,-,,x-99999999999999999999\r\n"),
        11 => with("Content-Length: 99999999\r\n"),
        12 => {
            let junk = chance.bytes(200);
            let head = "POST /boot/0123456789abcdef/report HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
            ([format!("{head}Content-Length: 200\r\n\r\n").into_bytes(), junk].concat(), false)
        }
        13 => (format!("{method} {target}\r\n\r\n").into_bytes(), false),
        14 => with(""),
        _ => {
            let mut request = with("Accept: */*\r\n").0;
            flip(chance, &mut request, 6);
            (request, false)
        }
    }
}
