//! How far a boot has come, as a share of its way.

use super::{Observation, Seen};
use bennu_plan::Step;
use serde::{Deserialize, Serialize};

/// What a boot passes through, and how much of its way lies behind it then, of 100. The shares are of a machine with a root
/// of a few hundred MiB on a gigabit; the firmware's own time before its first packet is nobody's to see.
pub const MARKS: [(&str, u8); 14] = [
    ("dhcp_discover", 3),
    ("dhcp_offer", 4),
    ("dhcp_ack", 5),
    ("loader_read", 12),
    ("script_read", 18),
    ("blob_read", 28),
    ("started", 40),
    ("network", 43),
    ("inventory", 45),
    ("downloading", 46),
    ("verified", 82),
    ("mounted", 85),
    ("handed_over", 90),
    ("up", 100),
];

/// The furthest thing seen of a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Furthest {
    /// One of [`MARKS`]; empty when nothing was seen.
    pub step: String,
    /// Of `downloading`: bytes of the root that the machine has.
    #[serde(default)]
    pub bytes: u64,
}

fn mark(name: &str) -> u8 {
    MARKS.iter().find(|(known, _)| *known == name).map_or(0, |(_, percent)| *percent)
}

fn step(seen: &Seen) -> (&'static str, u64) {
    match seen {
        Seen::DhcpDiscover { .. } => ("dhcp_discover", 0),
        Seen::DhcpOffer { .. } => ("dhcp_offer", 0),
        Seen::DhcpAck { .. } => ("dhcp_ack", 0),
        Seen::LoaderRead { .. } => ("loader_read", 0),
        Seen::ScriptRead { .. } => ("script_read", 0),
        Seen::BlobRead { .. } => ("blob_read", 0),
        Seen::Reported { step, progress, .. } => match step {
            Step::Started => ("started", 0),
            Step::Network => ("network", 0),
            Step::Inventory => ("inventory", 0),
            Step::Downloading => ("downloading", *progress),
            Step::Verified => ("verified", 0),
            Step::Mounted => ("mounted", 0),
            Step::HandedOver => ("handed_over", 0),
            Step::Up => ("up", 0),
            Step::Waiting | Step::Restarting | Step::Failed | Step::Damaged => ("", 0),
        },
        _ => ("", 0),
    }
}

impl Furthest {
    /// Of what was seen.
    pub fn of(timeline: &[Observation]) -> Self {
        let all = timeline.iter().map(|observation| step(&observation.seen));
        let (step, bytes) = all.max_by_key(|(step, bytes)| (mark(step), *bytes)).unwrap_or_default();
        Self { step: step.to_owned(), bytes }
    }

    /// Of 100, how far that is. `root` is the size of what stage 1 fetches, where it is known.
    pub fn percent(&self, root: Option<u64>) -> u8 {
        let reached = mark(&self.step);
        match root {
            Some(root) if root > 0 && self.step == "downloading" => {
                let room = u128::from(mark("verified") - reached);
                reached + (u128::from(self.bytes.min(root)) * room / u128::from(root)) as u8
            }
            _ => reached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn seen(seen: Seen) -> Observation {
        Observation::new(Timestamp(0), seen)
    }

    fn reported(step: Step, progress: u64) -> Observation {
        seen(Seen::Reported { step, message: String::new(), progress })
    }

    #[test]
    fn a_boots_progress_grows_to_its_end() {
        let mut timeline = vec![];
        let mut last = 0;
        for next in [
            seen(Seen::DhcpDiscover { asker: "pxe".into(), arch: None }),
            reported(Step::Started, 0),
            reported(Step::Downloading, 100),
            reported(Step::Downloading, 900),
            reported(Step::Verified, 0),
            reported(Step::Up, 0),
        ] {
            timeline.push(next);
            let now = Furthest::of(&timeline).percent(Some(1000));
            assert!(now > last, "{now} after {last}");
            last = now;
        }
        assert_eq!(last, 100);
    }

    #[test]
    fn what_a_machine_says_of_its_bytes_is_not_believed_beyond_the_whole() {
        let timeline = [reported(Step::Downloading, u64::MAX)];
        assert_eq!(Furthest::of(&timeline).percent(Some(u64::MAX)), mark("verified"));
        assert_eq!(Furthest::of(&timeline).percent(Some(7)), mark("verified"));
        assert_eq!(Furthest::of(&timeline).percent(Some(0)), mark("downloading"));
        assert_eq!(Furthest::of(&[]).percent(None), 0);
    }

    #[test]
    fn dhcp_that_comes_late_is_no_step_back() {
        let late = seen(Seen::DhcpAck { address: None, file: None });
        let timeline = [reported(Step::Started, 0), late];
        assert_eq!(Furthest::of(&timeline).step, "started");
    }
}
