//! How long a boot took for each part of its way.

use super::{ScriptKind, Seen};
use crate::boot::Boot;
use bennu_plan::Step;

/// A part of a boot's way, named after what it ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From the first packet to our ACK.
    Dhcp,
    /// To the first loader, fetched whole.
    Loader,
    /// To the script that boots something.
    Script,
    /// To the first word of stage 1: kernel and initrd were fetched and started.
    Kernel,
    /// To the root, fetched, verified and mounted.
    Root,
    /// To the system's word that it is up.
    Up,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] = [Self::Dhcp, Self::Loader, Self::Script, Self::Kernel, Self::Root, Self::Up];

    /// One word for it, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Loader => "loader",
            Self::Script => "script",
            Self::Kernel => "kernel",
            Self::Root => "root",
            Self::Up => "up",
        }
    }

    fn ended_by(seen: &Seen) -> Option<Self> {
        match seen {
            Seen::DhcpAck { .. } => Some(Self::Dhcp),
            Seen::LoaderRead { complete: true, .. } => Some(Self::Loader),
            Seen::ScriptRead { script: ScriptKind::Boot | ScriptKind::Discover | ScriptKind::Foreign, .. } => {
                Some(Self::Script)
            }
            Seen::Reported { step: Step::Started, .. } => Some(Self::Kernel),
            Seen::Reported { step: Step::Mounted, .. } => Some(Self::Root),
            Seen::Reported { step: Step::Up, .. } => Some(Self::Up),
            _ => None,
        }
    }
}

/// The stages that a boot has behind it, with their milliseconds. What went wrong and was tried again counts in the stage
/// that it delayed; the time that a machine waited for its assignment is nobody's.
pub fn stages(boot: &Boot) -> Vec<(Stage, u64)> {
    let mut stages: Vec<(Stage, u64)> = Vec::new();
    let mut since = boot.opened;
    for line in &boot.timeline {
        if matches!(line.seen, Seen::Assigned { .. }) {
            since = line.at;
        }
        let Some(stage) = Stage::ended_by(&line.seen) else { continue };
        if stages.last().is_none_or(|(last, _)| *last < stage) {
            stages.push((stage, line.at.since(since)));
            since = line.at;
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MacAddress, Moment, Timestamp, View,
        decision::Live,
        journey::{Observation, Trouble, trouble},
        memory::Memory,
    };

    fn boot(seen: impl IntoIterator<Item = (u64, Seen)>) -> Boot {
        let (records, live) = (Memory::default(), Live::default());
        let at = Moment { now: Timestamp(1000), entropy: [7; 32], settings: Default::default() };
        let mut boot = Boot::open(MacAddress([2; 6]), None, &View { records: &records, live: &live }, &at);
        for (at, seen) in seen {
            boot.observe(Observation::new(Timestamp(at), seen));
        }
        boot
    }

    fn reported(step: Step) -> Seen {
        Seen::Reported { step, message: String::new(), progress: 0 }
    }

    fn script(script: ScriptKind) -> Seen {
        Seen::ScriptRead { script, detail: String::new() }
    }

    fn loader() -> Seen {
        let (by, file) = ("tftp".to_owned(), "ipxe.efi".to_owned());
        Seen::LoaderRead { by, file, bytes: 1, complete: true, detail: String::new(), took_ms: 9 }
    }

    #[test]
    fn each_part_of_the_way_is_timed_from_the_end_of_the_one_before() {
        let ack = || Seen::DhcpAck { address: None, file: None };
        let boot = boot([
            (1100, ack()),
            (1500, loader()),
            (1600, ack()),
            (2500, script(ScriptKind::Boot)),
            (6500, reported(Step::Started)),
            (7000, reported(Step::Failed)),
            (7500, script(ScriptKind::Boot)),
            (9500, reported(Step::Started)),
            (16_500, reported(Step::Mounted)),
            (20_500, reported(Step::Up)),
        ]);
        let names: Vec<_> = stages(&boot).iter().map(|(stage, took)| (stage.name(), *took)).collect();
        let expected =
            [("dhcp", 100), ("loader", 400), ("script", 1000), ("kernel", 4000), ("root", 10_000), ("up", 4000)];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_wait_for_a_person_is_no_stage() {
        let digest = crate::image::Digest([1; 32]);
        let boot = boot([
            (1500, loader()),
            (2000, script(ScriptKind::Wait)),
            (900_000, Seen::Assigned { image: "web:v1".into(), digest }),
            (901_000, script(ScriptKind::Boot)),
        ]);
        assert_eq!(stages(&boot), [(Stage::Loader, 500), (Stage::Script, 1000)]);
    }

    #[test]
    fn trouble_has_a_kind_where_there_is_a_diagnosis() {
        let late = Timestamp(1_000_000);
        let discover = || Seen::DhcpDiscover { asker: "pxe".into(), arch: Some(7) };
        let cases = [
            (vec![discover()], Trouble::NoLoaderFetched),
            (vec![script(ScriptKind::Refused)], Trouble::Refused),
            (vec![reported(Step::Failed)], Trouble::Reported),
            (vec![reported(Step::Up), reported(Step::Damaged)], Trouble::Damaged),
            (vec![reported(Step::Started)], Trouble::Stage1Silent),
            (vec![reported(Step::HandedOver)], Trouble::InitSilent),
        ];
        for (seen, expected) in cases {
            let boot = boot(seen.into_iter().map(|seen| (2000, seen)));
            assert_eq!(trouble(&boot, late), Some(expected));
            assert!(super::super::diagnose(&boot, late).is_some());
            assert!(Trouble::ALL.contains(&expected));
        }
        assert_eq!(trouble(&boot([(2000, reported(Step::Up))]), late), None);
    }
}
