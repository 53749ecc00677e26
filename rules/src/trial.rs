//! A trial: one machine that does not exist boots one image, and nobody else hears of it.
//!
//! It has records of its own in memory, with the image and one machine that is assigned to it. The rules that boot real
//! machines decide over them, so that a trial fails for the same reasons, in the same words, as a server would; and nothing
//! of it can get among the machines and boots of the appliance.

pub mod console;
pub mod lease;

use crate::{
    Change, Decision, Live, MacAddress, Machine, Moment, Timestamp, View, Volatile,
    assignment::Assignment,
    boot::{
        Boot, State, Token,
        plan::{self, PlanRequest},
        report::{self, ReportRequest, Taken},
        script::{self, BootScript, Script, ScriptRequest},
    },
    facts::{Architecture, Facts},
    image::{BlobRef, Content, Digest, Image, ImageReference, Tag},
    journey::{Diagnosis, Observation, Seen, diagnose},
    memory::Memory,
};
use bennu_plan::{ARG_BOOTIF, ARG_IP, Plan, Report, Step};
use std::net::Ipv4Addr;

/// The machine's network card. Locally administered: no real card has it.
pub const GUEST_CARD: MacAddress = MacAddress([0x52, 0x54, 0x00, 0x74, 0x72, 0x79]);
/// The appliance's card on the trial's own wire.
pub const APPLIANCE_CARD: MacAddress = MacAddress([0x52, 0x54, 0x00, 0x74, 0x72, 0x01]);
/// The appliance on the trial's own wire, which no other network is behind (TEST-NET-1, RFC 5737).
pub const APPLIANCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The machine on that wire.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The wire's netmask.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// The machine has a serial port and no screen, and starts again at once when its kernel panics: its end is what tells.
const ARGUMENTS: &str = "console=ttyS0,115200 panic=1";

/// What the host must have beside the machine's memory, in MiB: QEMU's own, and some for whoever else is there.
const BESIDE_MIB: u64 = 512;

/// What is to be tried.
#[derive(Debug, Clone)]
pub struct TrialRequest {
    /// The image.
    pub image: Image,
    /// As a person named it.
    pub reference: ImageReference,
    /// The initrd with our stage 1.
    pub stage1: BlobRef,
    /// A text that the console must show.
    pub expect: Option<String>,
}

/// Why a trial cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TrialRefusal {
    /// Nothing of it reports.
    #[error("{0} is a foreign image: it never says that it is up, so that nothing tells how its boot went")]
    Foreign(ImageReference),
    /// The test's machine starts kernels, as a loader does.
    #[error("{0} is started whole by a machine's firmware, and the machine of a test is given a kernel")]
    Whole(ImageReference),
    /// QEMU for another processor is another program.
    #[error("{reference} is for {architecture:?} processors, and tests run on x86-64")]
    Architecture { reference: ImageReference, architecture: Architecture },
    /// No machine would get it either.
    #[error("no machine would be given {reference}: {reason}")]
    NotGiven { reference: ImageReference, reason: String, advice: String },
    /// The host has not got that much.
    #[error("a machine with {wanted} MiB needs {needed} MiB, and the appliance's host has {available} MiB left")]
    Memory { wanted: u64, needed: u64, available: u64 },
}

impl TrialRefusal {
    /// What to do next.
    pub fn advice(&self) -> String {
        match self {
            Self::Foreign(_) => "say what its console shows when it is there: --expect TEXT".into(),
            Self::Architecture { .. } | Self::Whole(_) => {
                "assign it to a machine that nobody needs, and look at its boot".into()
            }
            Self::NotGiven { advice, .. } => advice.clone(),
            Self::Memory { .. } => "give it less (--memory), or end something else on that host".into(),
        }
    }
}

/// Whether the host has memory for such a machine; all in MiB.
pub fn check_memory(wanted: u64, available: u64) -> Result<(), TrialRefusal> {
    let needed = wanted.saturating_add(BESIDE_MIB);
    if needed > available { Err(TrialRefusal::Memory { wanted, needed, available }) } else { Ok(()) }
}

/// What the machine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The kernel.
    pub kernel: BlobRef,
    /// Initrds in their order.
    pub initrds: Vec<BlobRef>,
    /// The kernel's arguments.
    pub arguments: String,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The image does what it should.
    Passed,
    /// It does not.
    Failed(Diagnosis),
}

/// What ended a trial that had come to no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// So many seconds had passed.
    TimeOver(u64),
    /// The machine was off: it started again, or switched itself off.
    MachineOff,
}

/// What an image of this kind comes to when it boots well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The booted system says that it is up.
    Up,
    /// Stage 1 waits for an assignment.
    Waiting,
    /// Nobody can say.
    Unseen,
}

/// A trial as it goes on.
#[derive(Debug)]
pub struct Trial {
    records: Memory,
    live: Live,
    served: Vec<Digest>,
    goal: Goal,
    expect: Option<String>,
    has_shown: bool,
    panic: Option<String>,
}

impl Trial {
    /// Gives the machine its script, or says why it would get none.
    pub fn begin(request: &TrialRequest, at: &Moment) -> Result<(Self, Start), TrialRefusal> {
        let TrialRequest { image, reference, stage1, expect } = request;
        if image.config.architecture != Architecture::X86_64 {
            let architecture = image.config.architecture;
            return Err(TrialRefusal::Architecture { reference: reference.clone(), architecture });
        }
        let goal = match &image.config.content {
            Content::Root { .. } => Goal::Up,
            Content::Kernel { .. } => Goal::Waiting,
            Content::Foreign { .. } if expect.is_none() => return Err(TrialRefusal::Foreign(reference.clone())),
            Content::Foreign { .. } => Goal::Unseen,
            Content::Program { .. } | Content::Disc { .. } => return Err(TrialRefusal::Whole(reference.clone())),
        };
        let mut records = Memory::default();
        records.apply(Change::PutImage(image.clone()));
        if let ImageReference::Name(name) = reference {
            // Wherever the real tag goes meanwhile.
            let tag = Tag { name: name.clone(), digest: image.digest, others: Default::default(), history: Vec::new() };
            records.apply(Change::PutTag(tag));
        }
        let mut machine = Machine::new(GUEST_CARD, at.now);
        machine.assignment = Some(Assignment::Image(reference.clone()));
        machine.arguments = ARGUMENTS.to_owned();
        records.apply(Change::PutMachine(machine));
        let served = image.config.blobs().map(|blob| blob.digest).chain([stage1.digest]).collect();
        let (expect, live) = (expect.clone(), Live::default());
        let mut trial = Self { records, live, served, goal, expect, has_shown: false, panic: None };
        let script = trial.run(&asking(stage1), script::decide, at);
        let script = match script {
            Script::Boot(script) => script,
            Script::Refused { reason, advice, .. } => {
                return Err(TrialRefusal::NotGiven { reference: reference.clone(), reason, advice });
            }
            other => {
                let (reason, advice) = (format!("it would be told {other:?}"), String::new());
                return Err(TrialRefusal::NotGiven { reference: reference.clone(), reason, advice });
            }
        };
        let start = trial.start(image, stage1, &script);
        Ok((trial, start))
    }

    fn start(&self, image: &Image, stage1: &BlobRef, script: &BootScript) -> Start {
        let initrds = match &image.config.content {
            Content::Root { modules, .. } | Content::Kernel { modules, .. } => vec![modules.clone(), stage1.clone()],
            Content::Foreign { initrds, .. } => initrds.clone(),
            Content::Program { .. } | Content::Disc { .. } => Vec::new(),
        };
        // What the loader itself would add.
        let address = if script.stage1 { format!(" {ARG_IP}={GUEST}/{NETMASK}/{APPLIANCE}/") } else { String::new() };
        let arguments = format!("{}{address} {ARG_BOOTIF}=01-{}", script.arguments, GUEST_CARD.hyphened());
        Start { kernel: image.config.content.kernel().clone(), initrds, arguments }
    }

    fn run<R, A>(&mut self, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>, at: &Moment) -> A {
        let decision = rule(request, &View { records: &self.records, live: &self.live }, at);
        decision.volatile.into_iter().for_each(|change: Volatile| self.live.apply(change));
        decision.changes.into_iter().for_each(|change| self.records.apply(change));
        for (machine, observation) in decision.observed {
            self.live.observe(machine, observation);
        }
        decision.answer
    }

    /// Stage 1 asks for its plan.
    pub fn plan(&mut self, token: Token, at: &Moment) -> Option<Plan> {
        self.run(&PlanRequest { token, origin: origin() }, plan::decide, at)
    }

    /// The machine reports; whether it has the trial's token.
    pub fn report(&mut self, token: Token, report: Report, at: &Moment) -> bool {
        // The one host of its wire, which is told no secrets, and so has no session.
        let address = std::net::Ipv4Addr::UNSPECIFIED.into();
        self.run(&ReportRequest { token, report, proof: None, address, card: None }, report::decide, at) == Taken::Noted
    }

    /// Whether the machine may read a blob: it reaches nothing that its image has not.
    pub fn serves(&self, digest: &Digest) -> bool {
        self.served.contains(digest)
    }

    /// Looks at a line of the console, whole or so far.
    pub fn read_console(&mut self, line: &str) {
        const PANIC: &str = "Kernel panic - not syncing: ";
        if let Some((_, why)) = line.split_once(PANIC) {
            self.panic = Some(why.trim().to_owned());
        }
        self.has_shown |= self.expect.as_ref().is_some_and(|text| line.contains(text));
    }

    /// What was seen of the machine, oldest first.
    pub fn timeline(&self) -> &[Observation] {
        self.boot().map_or(&[], |boot| &boot.timeline)
    }

    fn boot(&self) -> Option<&Boot> {
        self.live.boot(GUEST_CARD)
    }

    fn has_come(&self) -> bool {
        match (self.goal, self.boot().map(|boot| boot.state)) {
            (Goal::Up, state) => state == Some(State::Up),
            (Goal::Waiting, state) => state == Some(State::Waiting),
            (Goal::Unseen, _) => true,
        }
    }

    /// What the trial came to; `None`: it goes on.
    pub fn verdict(&self) -> Option<Verdict> {
        let boot = self.boot()?;
        if boot.state == State::Failed
            && let Some(Diagnosis { reason, .. }) = &boot.diagnosis
        {
            return Some(failed(reason, ADVICE));
        }
        if let Some(Seen::Reported { step: Step::Restarting, message, .. }) =
            boot.timeline.last().map(|last| &last.seen)
        {
            return Some(failed(&format!("the machine is to start again: {message}"), ADVICE));
        }
        let is_there = self.has_come() && (self.expect.is_none() || self.has_shown);
        is_there.then_some(Verdict::Passed)
    }

    /// What a trial that passed came to.
    pub fn came_to(&self) -> String {
        let shown = self.expect.as_ref().map(|text| format!("its console showed '{text}'"));
        let seen = || self.timeline().last().map(|last| last.seen.to_string());
        let said = if self.goal == Goal::Unseen { None } else { seen() };
        said.into_iter().chain(shown).collect::<Vec<_>>().join("; ")
    }

    /// What to make of a trial that has come to nothing.
    pub fn end(&self, how: Ending) -> Verdict {
        let last = self.timeline().last().map_or(String::new(), |last| format!("; last it was seen: {}", last.seen));
        let reason = match how {
            Ending::MachineOff => match &self.panic {
                Some(why) => format!("the kernel panicked: {why}"),
                None => format!("the machine started again or switched itself off before it was up{last}"),
            },
            Ending::TimeOver(seconds) => match (&self.panic, &self.expect) {
                (Some(why), _) => format!("the kernel panicked: {why}"),
                (None, Some(text)) if self.has_come() => {
                    format!("the console did not show '{text}' within {seconds} s")
                }
                // Silent for as long as a silence may last.
                (None, _) => match self.boot().and_then(|boot| diagnose(boot, Timestamp(u64::MAX))) {
                    Some(Diagnosis { reason, .. }) => format!("not up within {seconds} s: {reason}"),
                    None => format!("not up within {seconds} s{last}"),
                },
            },
        };
        let advice = match how {
            Ending::TimeOver(_) => "Look at the console; a host without KVM is slow: give it more time (--timeout).",
            Ending::MachineOff => ADVICE,
        };
        failed(&reason, advice)
    }
}

const ADVICE: &str =
    "Look at the console: a server that boots this image would fail so too, unless it has more memory (--memory).";

fn failed(reason: &str, advice: &str) -> Verdict {
    Verdict::Failed(Diagnosis { reason: reason.to_owned(), advice: advice.to_owned() })
}

/// Where the machine reaches the appliance.
pub fn origin() -> String {
    format!("http://{APPLIANCE}")
}

fn asking(stage1: &BlobRef) -> ScriptRequest {
    ScriptRequest {
        mac: GUEST_CARD,
        facts: Facts::default(),
        origin: origin(),
        stage1: stage1.clone(),
        starts: true,
        vouched: true,
        tftp: None,
    }
}

#[cfg(test)]
mod tests;
