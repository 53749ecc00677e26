//! Boots: one attempt of one machine each, from its first DHCP packet to `up` or `failed`.
//!
//! ```text
//!   firmware ──▶ loader ──▶ script ──▶ stage1 ──▶ up
//!       │           │         │  ▲        │
//!       │           │         ▼  │        ▼
//!       │           │       waiting     failed ──▶ (stage 1 tries again)
//!       └───────────┴─────────┴──────────┴──▶ superseded, by the next start of the firmware
//! ```

pub mod arguments;
pub mod chain;
pub mod explain;
pub mod metadata;
pub mod plan;
pub mod report;
pub mod script;
pub mod session;

use crate::{
    MacAddress, Machine, Moment, Records, Timestamp, View,
    assignment::{Resolution, resolve},
    facts::ClientSystem,
    image::{Content, Digest, Image, ImageReference},
    journey::{Diagnosis, Observation, ScriptKind, Seen},
    metadata::MetadataName,
    signature::Judgement,
};
use bennu_plan::Step;
use chain::Chain;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// A boot's name: sorts by time, unique by chance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct BootId(pub String);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 128 random bits in hex that open `/boot/<token>/…` for one boot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    /// Tokens stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How far a boot came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = BootState)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The firmware asked DHCP.
    Firmware,
    /// A loader was fetched, or asked DHCP itself.
    Loader,
    /// Waits for an assignment, in the loader or in discovery.
    Waiting,
    /// The boot script was handed out.
    Script,
    /// Stage 1 reports.
    Stage1,
    /// The image's init has taken over.
    Init,
    /// The booted system said so.
    Up,
    /// Was sent to its own disk; what follows cannot be seen.
    Local,
    /// Failed; the diagnosis says why. Stage 1 may still try again.
    Failed,
    /// The firmware started again before anything came of it.
    Superseded,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "firmware",
            Self::Loader => "loader",
            Self::Waiting => "waiting",
            Self::Script => "script",
            Self::Stage1 => "stage1",
            Self::Init => "init",
            Self::Up => "up",
            Self::Local => "local",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        })
    }
}

/// The image of a boot, resolved once and held for the whole boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Pinned {
    /// As written in the assignment or the policy.
    pub reference: ImageReference,
    /// As resolved when it was pinned.
    pub digest: Digest,
}

/// One attempt of one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// Its name.
    pub id: BootId,
    /// The machine's id.
    pub machine: MacAddress,
    /// First packet.
    pub opened: Timestamp,
    /// When it came to `up`, `local` or its end; `None` while it goes on.
    pub closed: Option<Timestamp>,
    /// How far it came.
    pub state: State,
    /// What kind of firmware asks, when that is known.
    pub system: Option<ClientSystem>,
    /// What the machine boots, once that is settled.
    pub image: Option<Pinned>,
    /// Opens the boot's plan and reports; minted with its first script.
    pub token: Option<Token>,
    /// Digest of the stage 1 that the script named.
    #[serde(default)]
    pub stage1: Option<Digest>,
    /// The kernel that the script named: the one that runs while the machine discovers.
    #[serde(default)]
    pub kernel: Option<Digest>,
    /// What the blobs are that the script or the plan named, so that a read of one says which part it was.
    #[serde(default)]
    pub parts: BTreeMap<Digest, String>,
    /// Our loaders handed to a loader: more than one is a loop.
    #[serde(default)]
    pub loaders_chained: u32,
    /// The DHCP transaction of the loader that was last given one: whoever asks in another may be that one.
    #[serde(default)]
    pub chained_xid: Option<u32>,
    /// Boot scripts handed out since the machine last reported: too many are a loop.
    #[serde(default)]
    pub scripts: u32,
    /// Bytes sent to the machine.
    #[serde(default)]
    pub bytes: u64,
    /// What was seen, oldest first.
    pub timeline: Vec<Observation>,
    /// Why it failed and what to do.
    #[serde(default)]
    pub diagnosis: Option<Diagnosis>,
    /// Which loaders its firmware is given.
    #[serde(default)]
    pub chain: Chain,
    /// Who owns it, once stage 1 has asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Box<session::Session>>,
    /// How often somebody asked for its secrets, or reported in its name, who does not own it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub intrusions: u32,
    /// The metadata documents that its machine was given; `None` until that is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<MetadataName>>,
    /// Whether it was opened by a card that nobody knows: until it is given a script, it gives way to others.
    #[serde(skip)]
    pub is_a_strangers: bool,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A timeline longer than this loses its middle.
pub const MAX_TIMELINE: usize = 240;

/// A firmware that asks again within this time, and was given nothing yet, joins its open boot.
const RETRY_WINDOW_MS: u64 = 5 * 60 * 1000;

/// Who asks DHCP, as far as opening a boot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A network card's or UEFI's own client: the machine has just started.
    Firmware,
    /// iPXE, ours or one in ROM.
    Loader,
    /// Stage 1, or the system that was booted.
    System,
}

impl Boot {
    /// A boot that begins now, its image pinned if it has one already.
    pub fn open(machine: MacAddress, record: Option<&Machine>, view: &View<'_>, at: &Moment) -> Self {
        let chance = u32::from_le_bytes([at.entropy[0], at.entropy[1], at.entropy[2], at.entropy[3]]);
        Self {
            id: BootId(format!("{:011x}-{chance:08x}", at.now.0)),
            machine,
            opened: at.now,
            closed: None,
            state: State::Firmware,
            system: None,
            image: pin(&resolve(record, view.records, &at.settings)),
            token: None,
            stage1: None,
            kernel: None,
            parts: BTreeMap::new(),
            loaders_chained: 0,
            chained_xid: None,
            scripts: 0,
            bytes: 0,
            timeline: Vec::new(),
            diagnosis: None,
            chain: Chain::default(),
            session: None,
            intrusions: 0,
            metadata: None,
            is_a_strangers: record.is_none(),
        }
    }

    /// The boot that a DHCP packet belongs to: owned where the packet opened it. `None`: a system's DHCP opens nothing.
    pub fn at_dhcp<'a>(
        machine: MacAddress,
        record: Option<&Machine>,
        asker: Asker,
        view: &View<'a>,
        at: &Moment,
    ) -> Option<Cow<'a, Self>> {
        let current = view.live.boot(machine);
        match (current, asker) {
            (Some(boot), _) if boot.is_joined_by(asker, at.now) => Some(Cow::Borrowed(boot)),
            (_, Asker::System) => None,
            (_, Asker::Loader) => Some(Cow::Owned(Self::open(machine, record, view, at))),
            (last, Asker::Firmware) => {
                let mut boot = Self::open(machine, record, view, at);
                boot.chain = Chain::choose(record, last, &at.settings);
                boot.chain.image = boot.chain.signed.then(|| signing_image(&boot, record, view, at)).flatten();
                Some(Cow::Owned(boot))
            }
        }
    }

    fn is_joined_by(&self, asker: Asker, now: Timestamp) -> bool {
        let fresh = now.since(self.opened) < RETRY_WINDOW_MS;
        match asker {
            Asker::System => self.closed.is_none(),
            Asker::Loader => fresh && self.state <= State::Loader,
            Asker::Firmware => fresh && self.state == State::Firmware,
        }
    }

    /// Takes note of an observation: moves the state, counts bytes, keeps the timeline short.
    pub fn observe(&mut self, mut observation: Observation) {
        if let Seen::BlobRead { digest, part, .. } = &mut observation.seen
            && let Some(known) = self.parts.get(digest)
        {
            part.clone_from(known);
        }
        self.advance(&observation);
        self.intrusions = self.intrusions.saturating_add(matches!(observation.seen, Seen::Intrusion { .. }).into());
        self.bytes += observation.seen.bytes_moved();
        match self.timeline.last_mut() {
            Some(last) if last.seen.continues_as(&observation.seen) => {
                last.seen = observation.seen;
                last.repeated += 1;
                last.until = Some(observation.at);
            }
            _ => {
                // Thousands of boots never come beyond their first packets; a vector's first step is four.
                if self.timeline.len() < 3 {
                    self.timeline.reserve_exact(1);
                }
                self.timeline.push(observation);
            }
        }
        if self.timeline.len() > MAX_TIMELINE {
            self.timeline.remove(MAX_TIMELINE / 2);
        }
    }

    /// Remembers what an image's blobs are.
    pub fn name_parts(&mut self, content: &Content) {
        for (part, blob) in content.parts() {
            self.parts.insert(blob.digest, part.to_owned());
        }
    }

    fn advance(&mut self, observation: &Observation) {
        let Some(next) = next_state(&observation.seen) else { return };
        if next == State::Superseded {
            self.end(observation.at);
            return;
        }
        let is_damage = |seen: &Seen| matches!(seen, Seen::Reported { step: Step::Damaged, .. });
        // Services that start on a root whose damage was told do not mend it; only another script does.
        let is_script = |seen: &Seen| matches!(seen, Seen::ScriptRead { .. });
        let mut since_script = self.timeline.iter().rev().take_while(|earlier| !is_script(&earlier.seen));
        if !is_script(&observation.seen) && since_script.any(|earlier| is_damage(&earlier.seen)) {
            return;
        }
        // A late report of stage 1 says nothing new of a machine that is up already.
        if self.state == State::Up && !is_damage(&observation.seen) || next <= State::Loader && next < self.state {
            return;
        }
        match &observation.seen {
            Seen::ScriptRead { script: ScriptKind::Refused, detail } => {
                self.diagnosis = Some(Diagnosis::refused(detail));
            }
            Seen::ScriptRead { script, .. } => {
                self.diagnosis = None;
                self.scripts += u32::from(script.state() == State::Script);
            }
            Seen::Reported { step, message, .. } => {
                self.scripts = 0;
                self.diagnosis = match step {
                    Step::Failed => Some(Diagnosis::from_report(message)),
                    Step::Damaged => Some(Diagnosis::damaged(message)),
                    _ => None,
                };
            }
            _ => {}
        }
        self.state = next;
        if matches!(next, State::Up | State::Local) {
            self.closed = Some(observation.at);
        }
    }

    /// A newer boot of the machine takes its place.
    pub fn give_way(&mut self, newer: &Self) {
        if newer.chain.unheard != chain::Unheard::default()
            && let Some(stuck) = chain::stuck_at(self)
        {
            let next = newer.chain.describe();
            self.observe(Observation::new(newer.opened, Seen::LoaderNotRun { reason: stuck.reason(), next }));
            self.diagnosis = Some(stuck.diagnose(&self.chain));
        }
        self.observe(Observation::new(newer.opened, Seen::Superseded));
    }

    /// The firmware started again. What the boot came to stays in its record.
    fn end(&mut self, at: Timestamp) {
        if !matches!(self.state, State::Up | State::Local | State::Failed) {
            self.state = State::Superseded;
        }
        self.closed.get_or_insert(at);
    }

    /// Whether its record says of it all that a restart must not forget. What is only in the volatile state may be on its
    /// way to the disk, or have failed on it: nothing that rests on it may leave.
    fn is_on_record(&self, records: &dyn Records) -> bool {
        records.boot(&self.id).is_some_and(|stored| {
            (stored.machine, &stored.token, &stored.image) == (self.machine, &self.token, &self.image)
                && (stored.kernel, stored.stage1) == (self.kernel, self.stage1)
                && owner(&stored) == owner(self)
                && stored.metadata == self.metadata
        })
    }

    /// Whether anything more is expected of it.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}

fn owner(boot: &Boot) -> Option<bennu_plan::SessionKey> {
    boot.session.as_ref().map(|session| session.key)
}

/// Whether what was seen would take a boot back to where it was before, or to a failure that it got over.
fn moves_back(boot: &Boot, seen: &Seen) -> bool {
    let is_damage = matches!(seen, Seen::Reported { step: Step::Damaged, .. });
    !is_damage && next_state(seen).is_some_and(|next| next < boot.state || next == State::Failed)
}

/// Where an observation moves a boot, if it moves it at all.
fn next_state(seen: &Seen) -> Option<State> {
    match seen {
        Seen::DhcpDiscover { asker, .. } if asker == "ipxe" => Some(State::Loader),
        Seen::LoaderRead { complete: true, .. } => Some(State::Loader),
        Seen::ScriptRead { script, .. } => Some(script.state()),
        Seen::Reported { step, .. } => Some(match step {
            Step::Started | Step::Network | Step::Inventory | Step::Restarting => State::Stage1,
            Step::Downloading | Step::Verified | Step::Mounted => State::Stage1,
            Step::Waiting => State::Waiting,
            Step::HandedOver => State::Init,
            Step::Up => State::Up,
            Step::Failed | Step::Damaged => State::Failed,
        }),
        Seen::Superseded => Some(State::Superseded),
        _ => None,
    }
}

/// The image whose own shim and GRUB a boot's firmware is given: the one that it will boot, if it brings them.
fn signing_image(boot: &Boot, record: Option<&Machine>, view: &View<'_>, at: &Moment) -> Option<Digest> {
    let pinned = boot.image.as_ref().map(|pinned| pinned.digest);
    let digest = pinned.or_else(|| match resolve(record, view.records, &at.settings) {
        Resolution::Discover { digest } => Some(digest),
        _ => None,
    })?;
    // Its loaders run before its script could refuse it.
    let boots = |image: &Image| !matches!(image.judged(at.settings.signatures), Judgement::Refused(_));
    view.records.image(&digest).filter(boots)?.config.signed.map(|_| digest)
}

/// The image that a resolution pins; `None` while the machine has none.
pub fn pin(resolution: &Resolution) -> Option<Pinned> {
    match resolution {
        Resolution::Image { reference, digest, .. } => Some(Pinned { reference: reference.clone(), digest: *digest }),
        _ => None,
    }
}

/// A token from the moment's chance.
pub fn mint_token(at: &Moment) -> Token {
    Token(at.entropy[16..].iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
