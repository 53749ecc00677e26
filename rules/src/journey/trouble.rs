//! What keeps a boot from going on: its kind, for those who count, and in words.

use super::{Diagnosis, ScriptKind, Seen};
use crate::{
    Timestamp,
    boot::{Boot, State, chain},
};
use bennu_plan::Step;

/// Silence of this length, in a state where a machine works hard, is worth a diagnosis.
const SILENCE_MS: u64 = 90_000;

/// The kinds of trouble that a boot can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Its script was a refusal.
    Refused,
    /// Stage 1 said that something failed.
    Reported,
    /// The booted system found its root damaged.
    Damaged,
    /// The firmware fetched a loader and did not run it.
    LoaderNotRun,
    /// The firmware asked DHCP and fetched no loader.
    NoLoaderFetched,
    /// The transfer of a loader stalled.
    LoaderStalled,
    /// A loader was fetched, then silence.
    LoaderSilent,
    /// The loader asked DHCP and fetched no script.
    NoScriptFetched,
    /// The script was fetched, and stage 1 never reported.
    KernelSilent,
    /// Stage 1 stopped reporting.
    Stage1Silent,
    /// The image's init took over, and the system never came up.
    InitSilent,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Reported,
        Self::Damaged,
        Self::LoaderNotRun,
        Self::NoLoaderFetched,
        Self::LoaderStalled,
        Self::LoaderSilent,
        Self::NoScriptFetched,
        Self::KernelSilent,
        Self::Stage1Silent,
        Self::InitSilent,
    ];

    /// One word for it, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reported => "reported",
            Self::Damaged => "damaged",
            Self::LoaderNotRun => "loader_not_run",
            Self::NoLoaderFetched => "no_loader_fetched",
            Self::LoaderStalled => "loader_stalled",
            Self::LoaderSilent => "loader_silent",
            Self::NoScriptFetched => "no_script_fetched",
            Self::KernelSilent => "kernel_silent",
            Self::Stage1Silent => "stage1_silent",
            Self::InitSilent => "init_silent",
        }
    }

    /// A silence in words, with what to do; `None` for what the boot's record tells itself. `file` is the loader that was
    /// fetched last.
    fn describe(self, file: &str) -> Option<(String, &'static str)> {
        Some(match self {
            Self::Refused | Self::Reported | Self::Damaged | Self::LoaderNotRun => return None,
            Self::NoLoaderFetched => (
                "the firmware asked DHCP and fetched no loader".into(),
                "Look for a second DHCP server on this wire (bennu doctor), and at a switch port that blocks while spanning tree learns: enable PortFast on it.",
            ),
            Self::LoaderStalled => (
                format!("the transfer of {file} stalled"),
                "Look for packet loss, a wrong MTU or a firewall between this machine and the appliance.",
            ),
            Self::LoaderSilent => (
                format!("{file} was fetched, then silence"),
                "The loader cannot drive this network card, or the firmware refused it (Secure Boot). Set another loader in the machine's hardware profile.",
            ),
            Self::NoScriptFetched => (
                "the loader asked DHCP and fetched no script".into(),
                "The loader reaches DHCP but not HTTP: look for a firewall on the appliance's boot port.",
            ),
            Self::KernelSilent => (
                "the boot script was fetched, then stage 1 never reported".into(),
                "The kernel did not start, or found no driver for the network card. Look at the machine's console.",
            ),
            Self::Stage1Silent => {
                ("stage 1 stopped reporting".into(), "Look at the machine's console, and for a lost link or power.")
            }
            Self::InitSilent => (
                "the image's init took over, and the system never said that it is up".into(),
                "Look at the machine's console for the service that does not come up.",
            ),
        })
    }
}

/// What kind of trouble a boot is in at `now`; `None` while it is well or still has time.
pub fn trouble(boot: &Boot, now: Timestamp) -> Option<Trouble> {
    if boot.diagnosis.is_some() {
        return Some(told(boot));
    }
    let last = boot.timeline.last()?;
    if !boot.is_open() || now.since(last.until.unwrap_or(last.at)) < SILENCE_MS {
        return None;
    }
    if boot.state == State::Loader && chain::stuck_at(boot).is_some() {
        return Some(Trouble::LoaderNotRun);
    }
    let loader = last_loader(boot);
    match (boot.state, loader) {
        (State::Firmware, None) => Some(Trouble::NoLoaderFetched),
        (State::Firmware, Some((_, false))) => Some(Trouble::LoaderStalled),
        (State::Firmware | State::Loader, Some(_)) => Some(Trouble::LoaderSilent),
        (State::Loader, None) => Some(Trouble::NoScriptFetched),
        // A foreign image does not report: its silence says nothing.
        (State::Script, _) if boot.stage1.is_none() => None,
        (State::Script, _) => Some(Trouble::KernelSilent),
        (State::Stage1, _) => Some(Trouble::Stage1Silent),
        (State::Init, _) => Some(Trouble::InitSilent),
        _ => None,
    }
}

/// What to think of a boot that has been silent until `now`: `None` while it is well or still has time.
pub fn diagnose(boot: &Boot, now: Timestamp) -> Option<Diagnosis> {
    let diagnosis = progress(boot, now);
    if boot.intrusions == 0 {
        return diagnosis;
    }
    let times = if boot.intrusions == 1 { "once".to_owned() } else { format!("{} times", boot.intrusions) };
    let besides = diagnosis.map_or(String::new(), |other| format!(". Besides: {}. {}", other.reason, other.advice));
    Some(Diagnosis {
        reason: format!(
            "ALARM: somebody who does not own this boot asked for its secrets or reported in its name, {times}"
        ),
        advice: format!(
            "Nothing was given out. The timeline says from which address: look there for a program that reads the \
             machine's /proc/cmdline or this wire{besides}"
        ),
    })
}

/// What to think of how far it came.
fn progress(boot: &Boot, now: Timestamp) -> Option<Diagnosis> {
    if let Some(known) = &boot.diagnosis {
        return Some(known.clone());
    }
    let trouble = trouble(boot, now)?;
    if trouble == Trouble::LoaderNotRun
        && let Some(stuck) = chain::stuck_at(boot)
    {
        return Some(stuck.diagnose(&boot.chain));
    }
    let (reason, advice) = trouble.describe(last_loader(boot).map_or("", |(file, _)| file))?;
    Some(Diagnosis { reason, advice: advice.to_owned() })
}

/// The loader that was read last, and whether to its end.
fn last_loader(boot: &Boot) -> Option<(&str, bool)> {
    boot.timeline.iter().rev().find_map(|line| match &line.seen {
        Seen::LoaderRead { file, complete, .. } => Some((file.as_str(), *complete)),
        _ => None,
    })
}

/// Where the diagnosis that stands in the boot's record came from.
fn told(boot: &Boot) -> Trouble {
    let kind = |seen: &Seen| match seen {
        Seen::ScriptRead { script: ScriptKind::Refused, .. } => Some(Trouble::Refused),
        Seen::Reported { step: Step::Failed, .. } => Some(Trouble::Reported),
        Seen::Reported { step: Step::Damaged, .. } => Some(Trouble::Damaged),
        Seen::LoaderNotRun { .. } => Some(Trouble::LoaderNotRun),
        _ => None,
    };
    boot.timeline.iter().rev().find_map(|line| kind(&line.seen)).unwrap_or(Trouble::Reported)
}
