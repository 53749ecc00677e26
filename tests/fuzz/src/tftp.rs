//! TFTP: a first packet to port 69, and what its sender says on, packet by packet.

use crate::parts;
use bennu_rules::tftp::{Answer, Emit, Packet, Path, Request, Step, Terms, Then, Transfer, answer, negotiate};
use std::time::Duration;

/// The length of the file of this name.
fn find(name: &str) -> Option<u64> {
    let climbs = name.split('/').any(|part| matches!(part, "" | "." | ".."));
    assert!(!climbs && !name.contains('\\') && !name.contains('\0'), "'{name}' is no name");
    match name {
        "undionly.kpxe" => Some(70_000),
        "empty" => Some(0),
        "snponly.efi" => Some(65_536 * 512 * 2),
        _ => None,
    }
}

/// The first part goes to port 69, every further one to the transfer; an empty one lets its timer run out.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let Ok(first) = Packet::parse(parts.next().unwrap_or_default()) else { return };
    let again = Packet::parse(&first.to_bytes()).expect("what we write can be read");
    assert_eq!(first, again, "a packet comes back as it was");
    let (Answer::Read { name, .. }, Packet::Read(request)) = (answer(&first), &first) else { return };
    let Some(file) = find(&name) else { return };
    let terms = negotiate(request, file, Path { mtu: 1500, ip_header: 20 });
    agreed(request, &terms);
    let mut transfer = Transfer::new(file, &terms);
    let mut now = Duration::ZERO;
    let mut step = transfer.start(now);
    let mut unanswered = 0;
    for part in parts.take(400) {
        let Some(wake) = check(&transfer, &step, &terms, file) else { return };
        step = if part.is_empty() {
            now = now.max(wake);
            unanswered += 1;
            transfer.on_timeout(now)
        } else {
            now += Duration::from_millis(u64::from(part[0]));
            let Ok(packet) = Packet::parse(part) else { continue };
            transfer.on_packet(&packet, now)
        };
        assert!(!transfer.is_half_open() || unanswered <= 8, "a silent peer is left alone");
    }
}

/// Options are answered only where asked, and never beyond what was asked (RFC 2347, 2348, 2349, 7440).
fn agreed(request: &Request, terms: &Terms) {
    for (name, value) in &terms.answer {
        let asked = request.option(name).expect("only what was asked is answered");
        if name == "blksize" || name == "windowsize" {
            let number = |text: &str| text.trim().parse::<u64>().expect("a number");
            assert!(number(value) <= number(asked), "{name} {value} is more than {asked}");
        }
    }
    assert!((8..=1468).contains(&terms.blksize) && terms.windowsize >= 1);
}

/// What holds of every step; gives back when the transfer wants to be woken, `None` when it is over.
fn check(transfer: &Transfer, step: &Step, terms: &Terms, length: u64) -> Option<Duration> {
    if let Emit::Blocks(blocks) = &step.emit {
        assert!(blocks.clone().count() <= usize::from(terms.windowsize), "{blocks:?} is more than a window");
        assert!(!transfer.is_half_open() || blocks.clone().count() <= 1, "nobody answered yet");
        for block in [*blocks.start(), *blocks.end()] {
            let (offset, size) = transfer.extent(block);
            assert!(offset + size as u64 <= length, "block {block} is beyond the file");
        }
    }
    match step.then {
        Then::WakeAt(at) => Some(at),
        Then::Over(_) => None,
    }
}
