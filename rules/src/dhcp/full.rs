//! Full mode: addresses, leases and boot files.

use super::{
    address::{Choice, Pool, Wire, quarantine},
    decide::{Asking, DhcpAnswer, Reason, Step},
    reply::{Reply, SendTo, Verdict},
    request::{Kind, Request},
};
use crate::{
    Change, Decision, Live, Timestamp, Volatile, decision::Offer, journey::Seen, lease::Lease, notice::Notice,
    settings::BootpPolicy,
};
use std::net::Ipv4Addr;

/// How long an offered address is held.
const OFFER_SECONDS: u64 = 60;
/// How long nobody gets an address that a client declined: long enough for a person to look, and no loss to a pool.
const DECLINED_SECONDS: u64 = 3600;

/// Whether a request takes up what a newcomer was offered (RFC 2131 §4.3.2, SELECTING), so that its decision stores a
/// lease, as good as certainly: who decides it learns nothing from trying first.
pub fn takes_up_an_offer(request: &Request, live: &Live, now: Timestamp) -> bool {
    let is_selecting = request.kind == Kind::Request && request.server_id == Some(request.our_id());
    let offer = request.requested.filter(|_| is_selecting).and_then(|address| live.offer_of(address, now));
    offer.is_some_and(|offer| offer.key.mac == request.mac && !offer.is_known)
}

/// A request of a client on one of our wires.
struct Asked<'a> {
    asking: &'a Asking<'a>,
    request: &'a Request,
    wire: Wire<'a>,
}

/// In which state a client asks for its address (RFC 2131 §4.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// SELECTING: it takes an offer.
    Selecting,
    /// INIT-REBOOT: it remembers one from before.
    Rebooting,
    /// RENEWING or REBINDING: it holds it.
    Extending,
}

pub(super) fn decide(asking: &Asking<'_>) -> Decision<DhcpAnswer> {
    let request = asking.request;
    let location = location(request);
    let own = request.received.interface_address;
    let wire = Wire::at(location, request.mac, asking.record.as_ref(), own, asking.view, asking.at);
    let Some(mut wire) = wire else { return asking.silence(Reason::NoSubnet(location)) };
    // Nothing answers ARP beyond a router.
    wire.is_probed &= !request.is_relayed();
    let asked = Asked { asking, request, wire };
    match request.kind {
        Kind::Discover => asked.discover(),
        Kind::Request => asked.request(),
        Kind::Inform => asked.inform(),
        Kind::Release => asked.release(),
        Kind::Decline => asked.decline(),
        Kind::Bootp => asked.bootp(),
    }
}

/// An address of the wire that the client is on: what the relay says, else our own there. A client that sends to us
/// alone is on the subnet of its address, which may be behind a router (RFC 2131 §4.3.2, RENEWING).
fn location(request: &Request) -> Ipv4Addr {
    if let Some(link) = request.link() {
        return link;
    }
    if request.is_relayed() {
        return request.giaddr;
    }
    let came_by_unicast = request.received.destination == request.received.interface_address;
    if came_by_unicast && !request.ciaddr.is_unspecified() {
        return request.ciaddr;
    }
    request.received.interface_address
}

impl Asked<'_> {
    fn now(&self) -> Timestamp {
        self.asking.at.now
    }

    /// Whether anything is known of the client, or held for it, so that the limit for strangers does not concern it.
    fn is_known(&self) -> bool {
        self.wire.is_known() || self.wire.holds_an_offer()
    }

    fn discover(&self) -> Decision<DhcpAnswer> {
        if let Some(reason) = self.asking.refusal() {
            return self.asking.silence(reason);
        }
        self.asking.admit(self.is_known(), || self.offer())
    }

    fn offer(&self) -> Decision<DhcpAnswer> {
        let Some(Choice { address, pool, must_probe }) = self.wire.choose(self.request.requested) else {
            let mut decision = self.asking.silence(Reason::PoolExhausted(self.wire.first().subnet.network));
            decision.volatile = self.wire.exhausted();
            return decision;
        };
        let step = self.asking.step(self.wire.is_known());
        let reply = Reply::new(self.request, Verdict::Offer).lease(address, pool.subnet.lease_seconds);
        let reply = self.configure(reply, &step, pool);
        let seen = [self.asking.asked(), Seen::DhcpOffer { address: Some(address), file: step.file() }];
        let seen = seen.into_iter().chain(step.missing_loader());
        let mut decision = self.asking.answer(reply, SendTo::answer(self.request, Some(address)), seen);
        if let DhcpAnswer::Reply { probe, .. } = &mut decision.answer {
            *probe = must_probe.then_some(address);
        }
        decision.volatile.push(self.hold(pool, address));
        step.join(decision)
    }

    /// What to boot, and what the configuration says of the subnet and the machine.
    fn configure<'r>(&self, reply: Reply<'r>, step: &Step, pool: &Pool<'_>) -> Reply<'r> {
        let own = self.asking.record.as_ref().map(|machine| &machine.options);
        reply.boot(&self.asking.client, step.next.file(), false).network(pool.subnet, own, self.log_server())
    }

    /// Option 7 (RFC 2132 §3.9): ourselves, where we listen at syslog's own port, since the option has no room for another.
    fn log_server(&self) -> Option<Ipv4Addr> {
        self.asking.at.settings.hears_logs.then_some(self.request.received.interface_address)
    }

    /// Keeps an address from others for a moment.
    fn hold(&self, pool: &Pool<'_>, address: Ipv4Addr) -> Volatile {
        let until = self.now().plus_seconds(OFFER_SECONDS);
        Volatile::PutOffer(Offer { key: pool.key, address, until, is_known: self.wire.is_known() })
    }

    fn drop_offers(&self) -> impl Iterator<Item = Volatile> {
        self.wire.pools().iter().map(|pool| Volatile::DropOffer(pool.key))
    }

    /// RFC 2131 §4.3.2, by what the client filled in.
    fn request(&self) -> Decision<DhcpAnswer> {
        if let Some(reason) = self.asking.refusal() {
            return self.asking.silence(reason);
        }
        let request = self.request;
        match (request.server_id, request.requested, request.ciaddr) {
            (Some(server), _, _) if server != request.our_id() => self.took_another(server),
            (Some(_), Some(address), _) => self.asking.admit(self.is_known(), || self.select(address)),
            (None, Some(address), Ipv4Addr::UNSPECIFIED) => self.remember(address, Claim::Rebooting),
            (_, _, Ipv4Addr::UNSPECIFIED) => self.asking.silence(Reason::NamesNoAddress(request.kind)),
            (_, _, address) => self.remember(address, Claim::Extending),
        }
    }

    /// Another server's offer was better: ours is free again.
    fn took_another(&self, server: Ipv4Addr) -> Decision<DhcpAnswer> {
        let mut decision = self.asking.silence(Reason::TookAnotherOffer(server));
        decision.volatile.extend(self.drop_offers());
        decision
    }

    /// SELECTING: the client takes our offer. It stands even where a restart has forgotten it, as long as the
    /// address is free.
    fn select(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        match self.wire.pool_of(address).filter(|_| self.wire.may_have(address)) {
            Some(pool) => self.acknowledge(pool, address, Claim::Selecting),
            None => self.refuse(address),
        }
    }

    /// INIT-REBOOT, RENEWING and REBINDING: the client remembers or holds an address. Grants what our record says. A
    /// client we have no record of gets no answer, since another server may know it; but an address that is of another
    /// wire, or certainly somebody else's, is refused.
    fn remember(&self, address: Ipv4Addr, claim: Claim) -> Decision<DhcpAnswer> {
        let Some(pool) = self.wire.pool_of(address) else {
            let networks: Vec<String> = self.wire.pools().iter().map(|pool| pool.subnet.network.to_string()).collect();
            return self.refuse_with(format!("{address} is not an address of {}", networks.join(" or ")));
        };
        let known = pool.lease.as_ref().map(|lease| lease.address);
        if !self.wire.may_have(address) {
            let holder = || self.asking.view.records.lease_at(address).filter(|lease| lease.is_active(self.now()));
            let is_ours_to_refuse = known.is_some() || holder().is_some();
            return if is_ours_to_refuse { self.refuse(address) } else { self.unknown(address) };
        }
        match known {
            Some(held) if held == address => self.acknowledge(pool, address, claim),
            _ if self.wire.reservation() == Some(address) => self.acknowledge(pool, address, claim),
            Some(_) => self.refuse(address),
            None => self.unknown(address),
        }
    }

    fn unknown(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        self.asking.silence(Reason::UnknownLease(address))
    }

    /// The ACK, and the lease that must be durable before it leaves.
    fn acknowledge(&self, pool: &Pool<'_>, address: Ipv4Addr, claim: Claim) -> Decision<DhcpAnswer> {
        let (seconds, change) = self.lease(pool, address, claim);
        let step = self.asking.step(true);
        let reply = self.configure(Reply::ack(self.request).lease(address, seconds), &step, pool);
        let asked = (claim == Claim::Rebooting).then(|| self.asking.asked());
        let seen = asked.into_iter().chain([Seen::DhcpAck { address: Some(address), file: step.file() }]);
        let mut decision = self.asking.answer(reply, SendTo::answer(self.request, Some(address)), seen);
        if let Some(change) = change {
            // Until the lease is on disk others see neither it nor, were the offer dropped now, anything else.
            decision.changes.push(change);
            decision.volatile.push(self.hold(pool, address));
        }
        step.join(decision)
    }

    /// The seconds to promise, and the record that holds them. Firmware, loader, stage 1 and system of one boot ask
    /// within minutes of each other: while more than half of a lease is left and nothing else is new, they are
    /// promised what is left of it, which is on disk already. A client that renews wants more time and gets it.
    fn lease(&self, pool: &Pool<'_>, address: Ipv4Addr, claim: Claim) -> (u32, Option<Change>) {
        let full = pool.subnet.lease_seconds;
        let now = self.now();
        let held = pool.lease.as_ref().filter(|held| held.address == address);
        let held_name = held.and_then(|held| held.hostname.as_ref());
        let hostname = self.request.hostname.as_ref().or(held_name);
        if let Some(held) = held.filter(|held| claim != Claim::Extending && held.granted <= now) {
            let left = (held.expires.since(now) / 1000).min(u64::from(full)) as u32;
            if hostname == held_name && left > full / 2 && full != u32::MAX {
                return (left, None);
            }
        }
        let lease = Lease {
            key: pool.key,
            address,
            granted: now,
            expires: now.plus_seconds(u64::from(full)),
            hostname: hostname.cloned(),
            declined: false,
        };
        (full, Some(Change::PutLease(lease)))
    }

    fn refuse(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        self.refuse_with(format!("{address} is not yours"))
    }

    fn refuse_with(&self, reason: String) -> Decision<DhcpAnswer> {
        let reply = Reply::nak(self.request, &reason);
        let mut decision = self.asking.answer(reply, SendTo::refusal(self.request), [Seen::DhcpNak { reason }]);
        decision.volatile.extend(self.drop_offers());
        decision
    }

    /// RFC 2131 §4.3.5: configuration without a lease, and without a look at one.
    fn inform(&self) -> Decision<DhcpAnswer> {
        if let Some(reason) = self.asking.refusal() {
            return self.asking.silence(reason);
        }
        if self.request.ciaddr.is_unspecified() {
            return self.asking.silence(Reason::NamesNoAddress(self.request.kind));
        }
        self.asking.admit(self.is_known(), || {
            let step = self.asking.step(self.wire.is_known());
            let pool = self.wire.pool_of(self.request.ciaddr).unwrap_or_else(|| self.wire.first());
            let reply = self.configure(Reply::ack(self.request), &step, pool);
            let seen = [Seen::DhcpAck { address: None, file: step.file() }];
            step.join(self.asking.answer(reply, SendTo::answer(self.request, None), seen))
        })
    }

    /// RFC 2131 §4.3.4: the address is free, and the record stays, so that the client gets it again.
    fn release(&self) -> Decision<DhcpAnswer> {
        let address = self.request.ciaddr;
        let Some(held) = self.held(address) else { return self.asking.silence(Reason::NotItsAddress(Kind::Release)) };
        let mut decision = self.asking.silence(Reason::Released(address));
        decision.changes.push(Change::PutLease(Lease { expires: self.now(), ..held.clone() }));
        decision.volatile.extend(self.drop_offers());
        decision
    }

    /// RFC 2131 §4.3.3: somebody else uses the address. Nobody gets it for a while, unless the client says so too often:
    /// then it only loses the address itself.
    fn decline(&self) -> Decision<DhcpAnswer> {
        let named = self.request.requested.and_then(|address| self.held(address));
        let Some(held) = named.filter(|_| self.request.server_id.is_none_or(|id| id == self.request.our_id())) else {
            return self.asking.silence(Reason::NotItsAddress(Kind::Decline));
        };
        let (subnet, client, at) = (held.key.subnet, self.request.mac, self.now());
        let address = held.address;
        if !self.asking.view.live.admits_decline(subnet, client, at) {
            let mut decision = self.asking.silence(Reason::TooManyDeclines(address));
            decision.changes.push(Change::PutLease(Lease { expires: at, ..held.clone() }));
            return decision;
        }
        let mut decision = self.asking.silence(Reason::Declined(address));
        decision.changes.push(Change::PutLease(Lease {
            key: quarantine(subnet, address),
            expires: at.plus_seconds(DECLINED_SECONDS),
            hostname: Some(format!("declined-by-{}", client.hyphened())),
            declined: true,
            ..held.clone()
        }));
        decision.volatile.push(Volatile::CountDecline { subnet, client, at });
        decision.volatile.extend(self.drop_offers());
        decision.noticed.push(Notice::AddressTaken { address, by: None, found_by: Some(client) });
        decision
    }

    /// RFC 1534 §2: a BOOTP client keeps its address for ever, so it gets one only where people reserved it.
    fn bootp(&self) -> Decision<DhcpAnswer> {
        if self.asking.at.settings.bootp == BootpPolicy::Refuse {
            return self.asking.silence(Reason::Bootp);
        }
        let reserved = self.wire.reservation().filter(|address| self.wire.may_have(*address));
        let Some((address, pool)) = reserved.and_then(|address| Some((address, self.wire.pool_of(address)?))) else {
            return self.asking.silence(Reason::BootpUnreserved);
        };
        let own = self.asking.record.as_ref().map(|machine| &machine.options);
        let reply = Reply::bootp(self.request, address).network(pool.subnet, own, self.log_server());
        let seen = [Seen::DhcpAck { address: Some(address), file: None }];
        self.asking.answer(reply, SendTo::answer(self.request, Some(address)), seen)
    }

    fn held(&self, address: Ipv4Addr) -> Option<&Lease> {
        let lease = self.wire.pool_of(address)?.lease.as_ref()?;
        (lease.address == address && lease.is_active(self.now())).then_some(lease)
    }
}
