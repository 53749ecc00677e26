//! Full mode: addresses, leases and boot files.

use super::{
    address::{Pool, quarantine},
    decide::{Asking, DhcpAnswer, Reason},
    reply::{Reply, SendTo},
    request::{Kind, Request},
};
use crate::{
    Change, Decision, Timestamp, Volatile,
    decision::{Offer, lease_key},
    journey::Seen,
    lease::Lease,
    settings::Subnet,
};
use dhcproto::v4::MessageType;
use std::net::Ipv4Addr;

/// How long an offered address is held.
const OFFER_SECONDS: u64 = 60;
/// How long nobody gets an address that a client declined: long enough for a person to look, and no loss to a pool.
const DECLINED_SECONDS: u64 = 3600;

/// A request of a client on one of our subnets.
struct Asked<'a> {
    asking: &'a Asking<'a>,
    request: &'a Request,
    subnet: &'a Subnet,
    pool: Pool<'a>,
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
    if request.kind == Kind::Bootp {
        return asking.silence(Reason::Bootp);
    }
    let location = location(request);
    let Some(subnet) = asking.at.settings.subnet_of(location) else {
        return asking.silence(Reason::NoSubnet(location));
    };
    let pool = Pool {
        subnet,
        key: lease_key(subnet.network, request.mac),
        machine: asking.machine,
        reservation: asking.record.as_ref().and_then(|machine| machine.reservation),
        own: request.received.interface_address,
        view: asking.view,
        now: asking.at.now,
    };
    let asked = Asked { asking, request, subnet, pool };
    match request.kind {
        Kind::Discover => asked.discover(),
        Kind::Request => asked.request(),
        Kind::Inform => asked.inform(),
        Kind::Release => asked.release(),
        Kind::Decline => asked.decline(),
        Kind::Bootp => asking.silence(Reason::Bootp),
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

    fn discover(&self) -> Decision<DhcpAnswer> {
        if let Some(reason) = self.asking.refusal() {
            return self.asking.silence(reason);
        }
        let Some(address) = self.pool.choose(self.request.requested) else {
            return self.asking.silence(Reason::PoolExhausted(self.subnet.network));
        };
        let step = self.asking.step();
        let reply = Reply::new(self.request, MessageType::Offer)
            .lease(address, self.subnet.lease_seconds)
            .boot(&self.asking.client, step.next.file(), false)
            .network(self.subnet);
        let mut seen = vec![self.asking.asked(), Seen::DhcpOffer { address: Some(address), file: step.file() }];
        seen.extend(step.missing_loader());
        let mut decision = self.asking.answer(reply, SendTo::answer(self.request, Some(address)), seen);
        decision.volatile.push(self.hold(address));
        step.join(decision)
    }

    /// Keeps an address from others for a moment.
    fn hold(&self, address: Ipv4Addr) -> Volatile {
        let until = self.now().plus_seconds(OFFER_SECONDS);
        Volatile::PutOffer(Offer { key: self.pool.key, address, until })
    }

    /// RFC 2131 §4.3.2, by what the client filled in.
    fn request(&self) -> Decision<DhcpAnswer> {
        if let Some(reason) = self.asking.refusal() {
            return self.asking.silence(reason);
        }
        let request = self.request;
        match (request.server_id, request.requested, request.ciaddr) {
            (Some(server), _, _) if server != request.our_id() => self.took_another(server),
            (Some(_), Some(address), _) => self.select(address),
            (None, Some(address), Ipv4Addr::UNSPECIFIED) => self.reboot(address),
            (_, _, Ipv4Addr::UNSPECIFIED) => self.asking.silence(Reason::NamesNoAddress(request.kind)),
            (_, _, address) => self.extend(address),
        }
    }

    /// Another server's offer was better: ours is free again.
    fn took_another(&self, server: Ipv4Addr) -> Decision<DhcpAnswer> {
        let mut decision = self.asking.silence(Reason::TookAnotherOffer(server));
        decision.volatile.push(Volatile::DropOffer(self.pool.key));
        decision
    }

    /// SELECTING: the client takes our offer. It stands even where a restart has forgotten it, as long as the
    /// address is free.
    fn select(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        if self.pool.may_have(address) { self.acknowledge(address, Claim::Selecting) } else { self.refuse(address) }
    }

    /// INIT-REBOOT: the client remembers an address from before.
    fn reboot(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        if !self.subnet.network.contains(&address) {
            return self.refuse_with(format!("{address} is not an address of {}", self.subnet.network));
        }
        self.check_known(address, Claim::Rebooting)
    }

    /// RENEWING and REBINDING: the client holds the address now.
    fn extend(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        if !self.subnet.network.contains(&address) {
            return self.refuse_with(format!("{address} is not an address of {}", self.subnet.network));
        }
        self.check_known(address, Claim::Extending)
    }

    /// Grants what our record says. A client we have no record of gets no answer, since another server may know it;
    /// but an address that is certainly somebody else's is refused.
    fn check_known(&self, address: Ipv4Addr, claim: Claim) -> Decision<DhcpAnswer> {
        let known = self.asking.view.records.lease(&self.pool.key).map(|lease| lease.address);
        let is_reserved = self.pool.reservation == Some(address);
        if !self.pool.may_have(address) {
            let holder = self.asking.view.records.lease_at(address).filter(|lease| lease.is_active(self.now()));
            let is_ours_to_refuse = known.is_some() || holder.is_some();
            return if is_ours_to_refuse { self.refuse(address) } else { self.unknown(address) };
        }
        match known {
            Some(held) if held == address => self.acknowledge(address, claim),
            _ if is_reserved => self.acknowledge(address, claim),
            Some(_) => self.refuse(address),
            None => self.unknown(address),
        }
    }

    fn unknown(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        self.asking.silence(Reason::UnknownLease(address))
    }

    /// The ACK, and the lease that must be durable before it leaves.
    fn acknowledge(&self, address: Ipv4Addr, claim: Claim) -> Decision<DhcpAnswer> {
        let (seconds, change) = self.lease(address, claim);
        let step = self.asking.step();
        let reply = Reply::ack(self.request)
            .lease(address, seconds)
            .boot(&self.asking.client, step.next.file(), false)
            .network(self.subnet);
        let mut seen = Vec::new();
        if claim == Claim::Rebooting {
            seen.push(self.asking.asked());
        }
        seen.push(Seen::DhcpAck { address: Some(address), file: step.file() });
        let mut decision = self.asking.answer(reply, SendTo::answer(self.request, Some(address)), seen);
        if let Some(change) = change {
            // Until the lease is on disk others see neither it nor, were the offer dropped now, anything else.
            decision.changes.push(change);
            decision.volatile.push(self.hold(address));
        }
        step.join(decision)
    }

    /// The seconds to promise, and the record that holds them. Firmware, loader, stage 1 and system of one boot ask
    /// within minutes of each other: while more than half of a lease is left and nothing else is new, they are
    /// promised what is left of it, which is on disk already. A client that renews wants more time and gets it.
    fn lease(&self, address: Ipv4Addr, claim: Claim) -> (u32, Option<Change>) {
        let full = self.subnet.lease_seconds;
        let now = self.now();
        let held = self.asking.view.records.lease(&self.pool.key).filter(|held| held.address == address);
        let held_name = held.as_ref().and_then(|held| held.hostname.clone());
        let hostname = self.request.hostname.clone().or_else(|| held_name.clone());
        if let Some(held) = held.filter(|held| claim != Claim::Extending && held.granted <= now) {
            let left = (held.expires.since(now) / 1000).min(u64::from(full)) as u32;
            if hostname == held_name && left > full / 2 && full != u32::MAX {
                return (left, None);
            }
        }
        let expires = now.plus_seconds(u64::from(full));
        (
            full,
            Some(Change::PutLease(Lease {
                key: self.pool.key,
                address,
                granted: now,
                expires,
                hostname,
                declined: false,
            })),
        )
    }

    fn refuse(&self, address: Ipv4Addr) -> Decision<DhcpAnswer> {
        self.refuse_with(format!("{address} is not yours"))
    }

    fn refuse_with(&self, reason: String) -> Decision<DhcpAnswer> {
        let reply = Reply::nak(self.request, &reason);
        let mut decision = self.asking.answer(reply, SendTo::refusal(self.request), vec![Seen::DhcpNak { reason }]);
        decision.volatile.push(Volatile::DropOffer(self.pool.key));
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
        let step = self.asking.step();
        let reply = Reply::ack(self.request).boot(&self.asking.client, step.next.file(), false).network(self.subnet);
        let seen = vec![Seen::DhcpAck { address: None, file: step.file() }];
        let decision = self.asking.answer(reply, SendTo::answer(self.request, None), seen);
        step.join(decision)
    }

    /// RFC 2131 §4.3.4: the address is free, and the record stays, so that the client gets it again.
    fn release(&self) -> Decision<DhcpAnswer> {
        let address = self.request.ciaddr;
        let Some(held) = self.held(address) else { return self.asking.silence(Reason::NotItsAddress(Kind::Release)) };
        let mut decision = self.asking.silence(Reason::Released(address));
        decision.changes.push(Change::PutLease(Lease { expires: self.now(), ..held }));
        decision.volatile.push(Volatile::DropOffer(self.pool.key));
        decision
    }

    /// RFC 2131 §4.3.3: somebody else uses the address. Nobody gets it for a while.
    fn decline(&self) -> Decision<DhcpAnswer> {
        let named = self.request.requested.and_then(|address| self.held(address));
        let Some(held) = named.filter(|_| self.request.server_id.is_none_or(|id| id == self.request.our_id())) else {
            return self.asking.silence(Reason::NotItsAddress(Kind::Decline));
        };
        let mut decision = self.asking.silence(Reason::Declined(held.address));
        decision.changes.push(Change::PutLease(Lease {
            key: quarantine(self.subnet, held.address),
            expires: self.now().plus_seconds(DECLINED_SECONDS),
            hostname: Some(format!("declined-by-{}", self.request.mac.hyphened())),
            declined: true,
            ..held
        }));
        decision
    }

    fn held(&self, address: Ipv4Addr) -> Option<Lease> {
        let lease = self.asking.view.records.lease(&self.pool.key)?;
        (lease.address == address && lease.is_active(self.now())).then_some(lease)
    }
}
