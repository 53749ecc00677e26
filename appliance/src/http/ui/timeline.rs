//! A boot's timeline as a waterfall: what took how long, and when.

use super::format::lasted;
use crate::http::api::boots::{BootShown, TimelineEntry};
use bennu_plan::Step;
use bennu_rules::journey::Seen;

/// Units of the drawing's width.
const WIDTH: u64 = 1000;

/// One line: a bar from `x`, `width` wide, of 1000.
pub struct Line {
    pub text: String,
    pub at: String,
    pub took: String,
    pub kind: &'static str,
    pub times: u32,
    pub x: u64,
    pub width: u64,
}

/// A stretch of a boot's way.
pub struct Stretch {
    pub name: &'static str,
    pub took: String,
    pub class: &'static str,
    pub x: u64,
    pub width: u64,
}

/// All of it.
pub struct Waterfall {
    pub lines: Vec<Line>,
    pub stretches: Vec<Stretch>,
    pub total: String,
}

/// What ends each stretch, its name, and its class in the style sheet.
const STRETCHES: [(&str, &str, &str); 5] = [
    ("loader", "firmware", "s1"),
    ("script", "loader", "s2"),
    ("started", "kernel", "s3"),
    ("handed_over", "stage 1", "s4"),
    ("up", "services", "s5"),
];

impl Waterfall {
    /// Draws a boot.
    pub fn of(boot: &BootShown) -> Self {
        let total = boot.timeline.iter().map(|entry| span(entry).1).max().unwrap_or(0).max(1);
        Self {
            lines: boot.timeline.iter().map(|entry| Line::of(entry, total)).collect(),
            stretches: stretches(boot, total),
            total: lasted(total),
        }
    }
}

/// From when to when, in milliseconds since the boot's first packet. A transfer is noted at its end.
fn span(entry: &TimelineEntry) -> (u64, u64) {
    let at = entry.after_ms;
    match &entry.observation.seen {
        Seen::LoaderRead { took_ms, .. } | Seen::BlobRead { took_ms, .. } => (at.saturating_sub(*took_ms), at),
        _ => (at, at + entry.observation.until.map_or(0, |until| until.since(entry.observation.at))),
    }
}

fn kind(seen: &Seen) -> &'static str {
    match seen {
        Seen::DhcpNak { .. } | Seen::DhcpIgnored { .. } | Seen::NoLoader { .. } | Seen::LoaderNotRun { .. } => "bad",
        // Firmware asks for a file's size before it fetches it.
        Seen::LoaderRead { complete: false, bytes: 0, .. } => "loader",
        Seen::LoaderRead { complete: false, .. } | Seen::BlobRead { complete: false, .. } => "bad",
        Seen::Reported { step: Step::Failed | Step::Damaged, .. } => "bad",
        Seen::Reported { step: Step::Up, .. } => "good",
        Seen::DhcpDiscover { .. } | Seen::DhcpOffer { .. } | Seen::DhcpAck { .. } => "dhcp",
        Seen::LoaderRead { .. } | Seen::ScriptRead { .. } | Seen::ChainChosen { .. } => "loader",
        Seen::BlobRead { .. } => "blob",
        _ => "report",
    }
}

impl Line {
    fn of(entry: &TimelineEntry, total: u64) -> Self {
        let (from, to) = span(entry);
        let x = from * WIDTH / total;
        Self {
            text: entry.text.clone(),
            at: lasted(from),
            took: if to > from { lasted(to - from) } else { String::new() },
            kind: kind(&entry.observation.seen),
            times: entry.observation.repeated,
            x: x.min(WIDTH - 4),
            // What took no time can be seen nevertheless.
            width: (to * WIDTH / total).saturating_sub(x).max(4),
        }
    }
}

fn stretches(boot: &BootShown, total: u64) -> Vec<Stretch> {
    let ends = |name: &str| {
        let is_end = |entry: &&TimelineEntry| match &entry.observation.seen {
            Seen::LoaderRead { .. } => name == "loader",
            Seen::ScriptRead { .. } => name == "script",
            Seen::Reported { step, .. } => match step {
                Step::Started => name == "started",
                Step::HandedOver => name == "handed_over",
                Step::Up => name == "up",
                _ => false,
            },
            _ => false,
        };
        boot.timeline.iter().find(is_end).map(|entry| entry.after_ms)
    };
    let (mut drawn, mut from) = (Vec::new(), 0);
    for (end, name, class) in STRETCHES {
        let Some(to) = ends(end).filter(|to| *to >= from) else { continue };
        let (x, width) = (from * WIDTH / total, (to * WIDTH / total).saturating_sub(from * WIDTH / total));
        if to > from {
            drawn.push(Stretch { name, took: lasted(to - from), class, x, width });
        }
        from = to;
    }
    drawn
}
