//! The one door: a request in, a decision out.

use super::{
    client::Client,
    full,
    loader::{self, Next},
    others, proxy,
    reply::{Reply, SendTo},
    request::{BOOT_SERVER_PORT, Kind, Request},
    standby::is_promised,
};
use crate::{
    Decision, MacAddress, Machine, Moment, View, Volatile,
    assignment::{Resolution, resolve},
    boot::{Boot, chain::Why},
    journey::{Observation, Seen},
    notice::Notice,
    profile::BootSettings,
    settings::{DhcpMode, UnknownPolicy},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, net::Ipv4Addr};

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpAnswer {
    /// This packet.
    Reply {
        /// As it goes over the wire.
        packet: Vec<u8>,
        /// To whom.
        send_to: SendTo,
        /// Send it only if nobody on the wire answers for this address; if somebody does, note that and ask again.
        probe: Option<Ipv4Addr>,
    },
    /// Nothing, and why.
    Silence(Reason),
}

/// Why a client gets no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The configuration says so.
    Off,
    /// A proxy answers network boots only.
    NotANetworkBoot,
    /// A proxy leaves addresses to the site's server.
    SiteServersMatter,
    /// No configured subnet holds this address.
    NoSubnet(Ipv4Addr),
    /// No address is free.
    PoolExhausted(ipnet::Ipv4Net),
    /// The client took the offer of another server.
    TookAnotherOffer(Ipv4Addr),
    /// The client asks for an address that we know nothing of (RFC 2131 §4.3.2: another server may).
    UnknownLease(Ipv4Addr),
    /// A REQUEST or INFORM that names no address.
    NamesNoAddress(Kind),
    /// The machine has no assignment, and nobody wants to know it.
    PolicyIgnores,
    /// Nothing here boots on it.
    NoLoader(String),
    /// BOOTP clients are not served: they would hold an address for ever (RFC 1534 §2 leaves it to us).
    Bootp,
    /// BOOTP clients are served the address reserved for them, and none is.
    BootpUnreserved,
    /// The client gave its address back. That takes no answer.
    Released(Ipv4Addr),
    /// The client found its address in use. That takes no answer.
    Declined(Ipv4Addr),
    /// A RELEASE or DECLINE of an address that the client does not have.
    NotItsAddress(Kind),
    /// It is no client but a Bennu that looks for other servers, elsewhere or not on this wire.
    LooksForServers,
    /// Another Bennu answers on this wire.
    StandsBy(Ipv4Addr),
    /// More cards that nobody knows ask than the limit allows.
    TooManyUnknown,
    /// The client, or many together, declined more addresses than anybody believes.
    TooManyDeclines(Ipv4Addr),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("DHCP is switched off (boot.dhcp)"),
            Self::NotANetworkBoot => {
                f.write_str("it does not boot from the network, and a proxy hands out no addresses")
            }
            Self::SiteServersMatter => f.write_str("addresses are the site's DHCP server's matter in proxy mode"),
            Self::NoSubnet(address) => write!(f, "no configured subnet (boot.subnet) holds {address}"),
            Self::PoolExhausted(subnet) => write!(f, "every address of {subnet} is taken: widen its range"),
            Self::TookAnotherOffer(server) => write!(f, "it took the offer of another DHCP server, {server}"),
            Self::UnknownLease(address) => write!(f, "it asks for {address}, of which nothing is known here"),
            Self::NamesNoAddress(kind) => write!(f, "its {kind} names no address"),
            Self::PolicyIgnores => f.write_str("no image is assigned to it, and boot.unknown is \"ignore\""),
            Self::NoLoader(system) => write!(f, "there is no loader for {system}"),
            Self::Bootp => f.write_str("it speaks BOOTP, which is not served (boot.bootp)"),
            Self::BootpUnreserved => {
                f.write_str("it speaks BOOTP, and no address of this wire is reserved for it (bennu machine reserve)")
            }
            Self::Released(address) => write!(f, "it gave {address} back"),
            Self::Declined(address) => {
                write!(f, "it declined {address}, which somebody else uses: look for that machine on this wire")
            }
            Self::NotItsAddress(kind) => write!(f, "its {kind} is about an address that it does not have"),
            Self::LooksForServers => f.write_str("it is no client but looks for DHCP servers"),
            Self::StandsBy(server) => write!(f, "another Bennu, {server}, answers on this wire"),
            Self::TooManyUnknown => f.write_str("nobody knows it, and more such cards ask than the limit allows"),
            Self::TooManyDeclines(address) => {
                write!(f, "it declined {address}, after more of such than a wire with stray hosts has: not believed")
            }
        }
    }
}

impl Reason {
    /// Every [`Reason::name`].
    pub const NAMES: [&'static str; 19] = [
        "off",
        "not_a_network_boot",
        "site_servers_matter",
        "no_subnet",
        "pool_exhausted",
        "took_another_offer",
        "unknown_lease",
        "names_no_address",
        "policy_ignores",
        "no_loader",
        "bootp",
        "bootp_unreserved",
        "released",
        "declined",
        "not_its_address",
        "looks_for_servers",
        "too_many_unknown",
        "too_many_declines",
        "stands_by",
    ];

    /// One word for it, for programs.
    pub fn name(&self) -> &'static str {
        Self::NAMES[match self {
            Self::Off => 0,
            Self::NotANetworkBoot => 1,
            Self::SiteServersMatter => 2,
            Self::NoSubnet(_) => 3,
            Self::PoolExhausted(_) => 4,
            Self::TookAnotherOffer(_) => 5,
            Self::UnknownLease(_) => 6,
            Self::NamesNoAddress(_) => 7,
            Self::PolicyIgnores => 8,
            Self::NoLoader(_) => 9,
            Self::Bootp => 10,
            Self::BootpUnreserved => 11,
            Self::Released(_) => 12,
            Self::Declined(_) => 13,
            Self::NotItsAddress(_) => 14,
            Self::LooksForServers => 15,
            Self::TooManyUnknown => 16,
            Self::TooManyDeclines(_) => 17,
            Self::StandsBy(_) => 18,
        }]
    }

    /// Whether it belongs into a machine's timeline: what a proxy overhears at every boot does not.
    fn is_worth_noting(&self) -> bool {
        let is_overheard = matches!(self, Self::NotANetworkBoot | Self::SiteServersMatter | Self::StandsBy(_));
        !is_overheard && !matches!(self, Self::Off | Self::TooManyUnknown)
    }
}

/// Decides what a DHCP request gets.
pub fn decide(request: &Request, view: &View<'_>, at: &Moment) -> Decision<DhcpAnswer> {
    let stands_by = view.live.stands_by(&request.received.interface);
    if let Some(decision) = others::answer(request, at.settings.dhcp, stands_by.is_some()) {
        return decision;
    }
    if let Some(peer) = stands_by.filter(|_| !is_promised(request, view, at.now)) {
        return Decision::just(DhcpAnswer::Silence(Reason::StandsBy(peer.server)));
    }
    if at.settings.dhcp == DhcpMode::Off {
        return Decision::just(DhcpAnswer::Silence(Reason::Off));
    }
    let asking = Asking::new(request, view, at);
    match at.settings.dhcp {
        _ if request.received.port == BOOT_SERVER_PORT => proxy::boot_server(&asking),
        DhcpMode::Proxy | DhcpMode::Off => proxy::decide(&asking),
        DhcpMode::Full => full::decide(&asking),
    }
}

/// A request with everything that is looked up for it.
pub(super) struct Asking<'a> {
    pub request: &'a Request,
    pub view: &'a View<'a>,
    pub at: &'a Moment,
    pub client: Client,
    pub record: Option<Machine>,
    pub machine: MacAddress,
}

/// What a request means to its machine's boot, and where the client goes next.
pub(super) struct Step {
    pub next: Next,
    volatile: Option<Volatile>,
    /// What to note of the loaders that a firmware is given, once in a boot.
    chosen: Option<(MacAddress, Observation)>,
}

impl<'a> Asking<'a> {
    fn new(request: &'a Request, view: &'a View<'a>, at: &'a Moment) -> Self {
        let record = view.records.machine(request.mac);
        let machine = record.as_ref().map_or(request.mac, |machine| machine.id);
        Self { request, view, at, client: Client::of(request), record, machine }
    }

    /// Why this client boots nothing here, if that is so.
    pub fn refusal(&self) -> Option<Reason> {
        let settings = &self.at.settings;
        // Rules are only looked at where it matters.
        let may_be_ignored = settings.unknown == UnknownPolicy::Ignore && self.client.network_boots();
        let is_ignored = || resolve(self.record.as_ref(), self.view.records, settings) == Resolution::Ignore;
        (may_be_ignored && is_ignored()).then_some(Reason::PolicyIgnores)
    }

    /// Decides for a client that something is known of as it is, and for a stranger as far as the limit allows: invented
    /// addresses must not push out what is held for machines.
    pub fn admit(&self, is_known: bool, decide: impl FnOnce() -> Decision<DhcpAnswer>) -> Decision<DhcpAnswer> {
        if is_known || self.view.live.boot(self.machine).is_some() {
            return decide();
        }
        let now = self.at.now;
        if !self.view.live.admits_strangers(now) {
            let mut decision = self.silence(Reason::TooManyUnknown);
            decision.noticed.push(Notice::TooManyUnknown { interface: self.request.received.interface.clone() });
            return decision;
        }
        let mut decision = decide();
        decision.volatile.push(Volatile::Admit(now));
        decision
    }

    /// Opens or joins the machine's boot and chooses where the client goes.
    pub fn step(&self, is_known: bool) -> Step {
        let boot = Boot::at_dhcp(self.machine, self.record.as_ref(), self.client.asker(), self.view, self.at);
        let settings = &self.at.settings;
        let next = loader::choose(self.request, &self.client, boot.as_deref(), self.profile(), settings.http_port);
        let chosen = match &boot {
            Some(Cow::Owned(opened)) => self.chosen(opened),
            _ => None,
        };
        let volatile = boot.and_then(|boot| self.changed(boot, &next, is_known)).map(Volatile::PutBoot);
        Step { next, volatile, chosen }
    }

    /// What to note of the loaders of a boot that this packet opens.
    fn chosen(&self, boot: &Boot) -> Option<(MacAddress, Observation)> {
        let by_pxe = matches!(&self.client, Client::Firmware(system) if loader::has_signed_loader(system));
        let is_news = by_pxe && boot.chain.why != Why::Plain;
        is_news.then(|| self.note(Seen::ChainChosen { given: boot.chain.describe() }))
    }

    /// The boot as it is after this packet, where that is news.
    fn changed(&self, boot: Cow<'_, Boot>, next: &Next, is_known: bool) -> Option<Boot> {
        let said = self.client.system().and_then(|system| system.known);
        let system = match self.client {
            // A loader names what it was built for: snponly.efi says 7 (PXE) even where HTTP boot fetched it.
            Client::Ipxe { .. } => boot.system.or(said),
            _ => said.or(boot.system),
        };
        let is_chained = matches!((&self.client, next), (Client::Ipxe { .. }, Next::Loader(_)));
        let chains_anew = is_chained && boot.chained_xid != Some(self.request.xid);
        let is_a_strangers = boot.is_a_strangers && !is_known;
        let is_news = matches!(boot, Cow::Owned(_))
            || boot.system != system
            || boot.is_a_strangers != is_a_strangers
            || chains_anew;
        if !is_news {
            return None;
        }
        let mut boot = boot.into_owned();
        (boot.system, boot.is_a_strangers) = (system, is_a_strangers);
        if chains_anew {
            boot.chained_xid = Some(self.request.xid);
            boot.loaders_chained += 1;
        }
        Some(boot)
    }

    fn profile(&self) -> Option<&BootSettings> {
        let facts = &self.record.as_ref().filter(|_| self.client.network_boots())?.facts;
        self.at.settings.profile(facts).map(|profile| &profile.settings)
    }

    /// Keeps silent.
    pub fn silence(&self, reason: Reason) -> Decision<DhcpAnswer> {
        let noted = reason.is_worth_noting().then(|| self.note(Seen::DhcpIgnored { reason: reason.to_string() }));
        let mut decision = Decision::just(DhcpAnswer::Silence(reason));
        decision.observed.extend(noted);
        decision
    }

    /// Answers.
    pub fn answer(
        &self,
        reply: Reply<'_>,
        send_to: SendTo,
        seen: impl IntoIterator<Item = Seen>,
    ) -> Decision<DhcpAnswer> {
        let mut decision = Decision::just(DhcpAnswer::Reply { packet: reply.encode(), send_to, probe: None });
        decision.observed.extend(seen.into_iter().map(|seen| self.note(seen)));
        decision
    }

    /// The client's question as an observation.
    pub fn asked(&self) -> Seen {
        let arch = self.client.system().and_then(|system| system.code);
        Seen::DhcpDiscover { asker: self.client.name().to_owned(), arch }
    }

    fn note(&self, seen: Seen) -> (MacAddress, Observation) {
        (self.machine, Observation::new(self.at.now, seen))
    }
}

impl Step {
    /// The name of the file, for the timeline.
    pub fn file(&self) -> Option<String> {
        self.next.file().map(|file| file.name.clone())
    }

    /// What to note of a client that asks for a loader we do not have.
    pub fn missing_loader(&self) -> Option<Seen> {
        match &self.next {
            Next::NoLoader(system) => Some(Seen::NoLoader { system: system.describe() }),
            _ => None,
        }
    }

    /// Adds what the step changes to a decision.
    pub fn join(self, mut decision: Decision<DhcpAnswer>) -> Decision<DhcpAnswer> {
        decision.volatile.splice(0..0, self.volatile);
        // After the question, before the answer.
        let place = decision.observed.len().min(1);
        decision.observed.splice(place..place, self.chosen);
        decision
    }
}
