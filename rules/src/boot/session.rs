//! Who owns a boot. Its token stands in `/proc/cmdline` and went over the wire, so it opens no secret by itself: the first
//! public key that is posted under it owns the boot, and every other is refused.

use super::{Boot, BootId, State, Token};
use crate::{
    Change, Decision, MacAddress, Machine, Moment, Records, Timestamp, View, Volatile,
    image::Content,
    journey::{Observation, Seen},
    notice::Notice,
    secret,
    settings::DhcpMode,
};
use bennu_plan::SessionKey;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// From the latest script of a boot to its session. A kernel and its initrds come in minutes even over a lossy wire; a
/// script that nobody started leaves a token that is worth nothing.
pub const SESSION_WINDOW_MS: u64 = 60 * 60 * 1000;

/// Who owns a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The key that was first.
    pub key: SessionKey,
    /// When it came.
    pub opened: Timestamp,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The greatest sequence of a report that was believed.
    #[serde(default)]
    pub sequence: u64,
    /// The sequences that were believed of late, ascending: of two reports that crossed on their way the earlier one comes
    /// second, and only what came before is a replay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<u64>,
    /// No sequence up to this is believed.
    #[serde(default)]
    pub floor: u64,
}

/// Sequences that a session remembers.
const RECENT: usize = 32;

/// A report that others overtook by more than this did not just cross them. Sequences count nanoseconds.
const CROSSING: u64 = 30_000_000_000;

impl Session {
    /// A session that just opened.
    pub fn new(key: SessionKey, opened: Timestamp, address: IpAddr) -> Self {
        Self { key, opened, address: Some(address), sequence: 0, recent: Vec::new(), floor: 0 }
    }

    /// The session once a report of `sequence` is believed; `None`: it was before, or comes too late to tell.
    pub fn believing(&self, sequence: u64) -> Option<Self> {
        // A session of before these were remembered knows only the greatest.
        let floor = if self.recent.is_empty() { self.floor.max(self.sequence) } else { self.floor };
        if sequence <= floor || sequence.saturating_add(CROSSING) < self.sequence {
            return None;
        }
        let place = self.recent.binary_search(&sequence).err()?;
        let mut after = Self { floor, sequence: self.sequence.max(sequence), ..self.clone() };
        after.recent.insert(place, sequence);
        if after.recent.len() > RECENT {
            after.floor = after.recent.remove(0);
        }
        Some(after)
    }
}

/// A key is posted under a token.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// From the kernel's arguments.
    pub token: Token,
    /// Made for this boot.
    pub key: SessionKey,
    /// Where it came from.
    pub address: IpAddr,
    /// The card that has that address: by the neighbour table where it is on a wire of ours, else by its lease.
    pub card: Option<MacAddress>,
}

/// What somebody tried who does not own the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// Posted another key than the one that owns the boot.
    OtherKey,
    /// Posted a key from the address of a card that is not the machine's.
    OtherCard,
    /// Posted a first key when no stage 1 of this boot could.
    OutOfTime,
    /// Sent a report without the proof that its session asks for, with a wrong one, or with one that was used before.
    Report,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherKey => "another key asked for the secrets of this boot",
            Self::OtherCard => "another card asked for the secrets of this boot",
            Self::OutOfTime => "a key asked for the secrets of this boot when its stage 1 was not running",
            Self::Report => "somebody without the session of this boot reported in its name",
        })
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The key owns the boot.
    Granted {
        /// The boot.
        boot: BootId,
        /// The machine's id.
        machine: MacAddress,
        /// Whether an image with a root is pinned, so that there is something to lay files down in.
        installs: bool,
    },
    /// The token opens no boot.
    UnknownToken,
    /// The key owns the boot, whose stage 1 has done its work.
    Over,
    /// Refused; the alarm is raised.
    Refused(Attempt),
}

/// Decides whether a key owns the boot of its token; the first one does from then on.
pub fn decide(request: &SessionRequest, view: &View<'_>, at: &Moment) -> Decision<Opened> {
    let Some(boot) = view.live.boot_by_token(&request.token) else { return Decision::just(Opened::UnknownToken) };
    let is_own = match request.card {
        Some(card) => is_of(card, boot.machine, view.records),
        // Where all addresses are ours, a machine has a lease or is a neighbour: who is neither came from elsewhere.
        None => at.settings.dhcp != DhcpMode::Full,
    };
    if !is_own {
        return refuse(boot, Attempt::OtherCard, request.address, at);
    }
    match &boot.session {
        Some(session) if session.key != request.key => refuse(boot, Attempt::OtherKey, request.address, at),
        Some(_) if is_over(boot) => Decision::just(Opened::Over),
        Some(_) if boot.is_on_record(view.records) => Decision::just(granted(boot, request.card, view.records)),
        Some(_) => open(boot.clone(), request.card, view.records),
        None if !may_begin(boot, at.now) => refuse(boot, Attempt::OutOfTime, request.address, at),
        None => {
            let session = Session::new(request.key, at.now, request.address);
            let mut decision =
                open(Boot { session: Some(Box::new(session)), ..boot.clone() }, request.card, view.records);
            let seen = Seen::SessionOpened { address: request.address };
            decision.observed.push((boot.machine, Observation::new(at.now, seen)));
            decision
        }
    }
}

/// The boot and its owner are durable before the answer leaves.
fn open(boot: Boot, card: Option<MacAddress>, records: &dyn Records) -> Decision<Opened> {
    let answer = granted(&boot, card, records);
    let changes = vec![Change::PutBoot(boot.clone())];
    Decision { changes, volatile: vec![Volatile::PutBoot(boot)], ..Decision::just(answer) }
}

fn granted(boot: &Boot, card: Option<MacAddress>, records: &dyn Records) -> Opened {
    let is_vouched = card.is_none_or(|card| is_vouched(card, boot.machine, records));
    let image = boot.image.as_ref().and_then(|pinned| records.image(&pinned.digest));
    let installs = is_vouched && image.is_some_and(|image| matches!(image.config.content, Content::Root { .. }));
    Opened::Granted { boot: boot.id.clone(), machine: boot.machine, installs }
}

/// Refuses, and lets everybody know: in the boot's timeline and diagnosis, and among the notices.
fn refuse(boot: &Boot, attempt: Attempt, address: IpAddr, at: &Moment) -> Decision<Opened> {
    alarm(Opened::Refused(attempt), boot, attempt, address, at)
}

/// An answer that comes with the alarm.
pub(super) fn alarm<A>(answer: A, boot: &Boot, attempt: Attempt, address: IpAddr, at: &Moment) -> Decision<A> {
    let seen = Seen::Intrusion { attempt, address };
    Decision {
        observed: vec![(boot.machine, Observation::new(at.now, seen))],
        noticed: vec![Notice::Intrusion { machine: boot.machine, attempt, address }],
        ..Decision::just(answer)
    }
}

/// Whether a card is the machine's. One that joined it by itself boots, and where secrets are at stake it is no better than
/// any other that says the same UUID.
fn is_of(card: MacAddress, id: MacAddress, records: &dyn Records) -> bool {
    let of_machine = |machine: Machine| {
        machine.macs.contains(&card)
            && (!machine.unvouched.contains(&card) || secret::of_machine(&machine, records).is_empty())
    };
    card == id || records.machine(id).is_some_and(of_machine)
}

/// Whether a card is the machine's at all.
pub(super) fn is_machines(card: MacAddress, id: MacAddress, records: &dyn Records) -> bool {
    card == id || records.machine(id).is_some_and(|machine| machine.macs.contains(&card))
}

fn is_vouched(card: MacAddress, id: MacAddress, records: &dyn Records) -> bool {
    records.machine(id).is_none_or(|machine| !machine.unvouched.contains(&card))
}

/// Whether stage 1 has nothing more to ask: it handed over, or another boot took this one's place. After a failure it tries
/// again.
pub(super) fn is_over(boot: &Boot) -> bool {
    !boot.is_open() || matches!(boot.state, State::Init | State::Up | State::Local | State::Superseded)
}

/// Whether a stage 1 of ours may be running that has not asked yet.
fn may_begin(boot: &Boot, now: Timestamp) -> bool {
    let is_script = |seen: &&Observation| matches!(seen.seen, Seen::ScriptRead { .. });
    let script = boot.timeline.iter().rev().find(is_script);
    let since = script.map_or(boot.opened, |seen| seen.until.unwrap_or(seen.at));
    let is_due = now.since(since) < SESSION_WINDOW_MS;
    boot.stage1.is_some() && is_due && !is_over(boot) && boot.state != State::Failed
}
