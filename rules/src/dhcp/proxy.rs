//! Proxy mode: boot files beside the site's DHCP server (PXE 2.1 §2.2), on port 67 and as a boot server on 4011.

use super::{
    decide::{Asking, DhcpAnswer, Reason},
    reply::{Reply, SendTo, Verdict},
    request::Kind,
};
use crate::{Decision, journey::Seen};

/// Port 67: an OFFER without an address beside the site's own.
pub(super) fn decide(asking: &Asking<'_>) -> Decision<DhcpAnswer> {
    if !asking.client.network_boots() {
        return asking.silence(Reason::NotANetworkBoot);
    }
    match asking.request.kind {
        Kind::Discover => offer(asking),
        // Some clients send a boot server's request to port 67 of the server they mean.
        Kind::Request if asking.request.server_id == Some(asking.request.our_id()) => boot_server(asking),
        Kind::Inform => boot_server(asking),
        Kind::Bootp => asking.silence(Reason::Bootp),
        Kind::Request | Kind::Decline | Kind::Release => asking.silence(Reason::SiteServersMatter),
    }
}

/// Port 4011, in every mode: firmware that took a server for BINL asks here for its file, and so does iPXE after an
/// offer that named none. Strangers get no answer.
pub(super) fn boot_server(asking: &Asking<'_>) -> Decision<DhcpAnswer> {
    if !asking.client.network_boots() {
        return asking.silence(Reason::NotANetworkBoot);
    }
    if !matches!(asking.request.kind, Kind::Discover | Kind::Request | Kind::Inform) {
        return asking.silence(Reason::SiteServersMatter);
    }
    let reply = Reply::ack(asking.request);
    with_boot_file(asking, reply, |file| Seen::DhcpAck { address: None, file })
}

fn offer(asking: &Asking<'_>) -> Decision<DhcpAnswer> {
    let reply = Reply::new(asking.request, Verdict::Offer);
    with_boot_file(asking, reply, |file| Seen::DhcpOffer { address: None, file })
}

/// A proxy has nothing to say but the file: where there is none, it is silent.
fn with_boot_file(
    asking: &Asking<'_>,
    reply: Reply<'_>,
    seen: impl Fn(Option<String>) -> Seen,
) -> Decision<DhcpAnswer> {
    if let Some(reason) = asking.refusal() {
        return asking.silence(reason);
    }
    let is_known = asking.record.is_some();
    asking.admit(is_known, || name_the_file(asking, reply, seen, is_known))
}

fn name_the_file(
    asking: &Asking<'_>,
    reply: Reply<'_>,
    seen: impl Fn(Option<String>) -> Seen,
    is_known: bool,
) -> Decision<DhcpAnswer> {
    let step = asking.step(is_known);
    let Some(file) = step.next.file() else {
        let system = asking.client.system().map(|system| system.describe()).unwrap_or_default();
        return step.join(asking.silence(Reason::NoLoader(system)));
    };
    let reply = reply.boot(&asking.client, Some(file), true);
    let decision =
        asking.answer(reply, SendTo::answer(asking.request, None), [asking.asked(), seen(Some(file.name.clone()))]);
    step.join(decision)
}
