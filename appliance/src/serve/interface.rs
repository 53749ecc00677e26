//! One provisioning interface: binds its servers and runs them, and does so again whenever the interface or its address
//! is another. A service outlives its cables.

use crate::{
    appliance::{Appliance, Counters},
    config::Config,
    dhcp, http,
    interfaces::Interface,
    logs, ndp, tftp,
    wire::{Hints, Prober, Watch},
};
use anyhow::{Result, bail};
use bennu_rules::{
    dhcp::standby::{Post, Posted, posted},
    notice::Notice,
    settings::{DhcpMode, Settings},
};
use futures_util::FutureExt;
use std::{future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// The interface is looked at this often.
const PACE: Duration = Duration::from_secs(1);
/// What a server's last words may take before its ports are bound anew. Open downloads end by themselves.
const PARTING: Duration = Duration::from_secs(1);

/// The servers of an interface, bound and not yet serving.
pub struct Bound {
    interface: Interface,
    dhcp: Vec<dhcp::Listener>,
    ndp: Option<ndp::Listener>,
    tftp: tftp::Listener,
    http: TcpListener,
    logs: Option<logs::Listener>,
    wire: OnWire,
}

/// What watches and asks an interface's wire, where DHCP is answered.
#[derive(Default)]
struct OnWire {
    prober: Option<Arc<Prober>>,
    watch: Option<(Watch, Hints)>,
}

impl OnWire {
    fn open(interface: &Interface, settings: &Settings) -> Self {
        let probes = settings.probe_addresses && settings.dhcp == DhcpMode::Full;
        let prober = if probes { Prober::open(interface) } else { Ok(None) };
        Self {
            prober: opened(interface, "addresses are offered without being looked for", prober).map(Arc::new),
            watch: opened(interface, "other DHCP servers are not noticed", Watch::open(interface, settings)),
        }
    }
}

/// Says what is missing where the wire cannot be had.
fn opened<T>(interface: &Interface, otherwise: &str, outcome: io::Result<Option<T>>) -> Option<T> {
    outcome.unwrap_or_else(|error| {
        tracing::warn!(interface = interface.name, %error, "{otherwise}; run bennu as root, or give it CAP_NET_RAW");
        None
    })
}

/// Syslog's ports. A host's own syslog may have them, and machines boot without.
fn listen(interface: &Interface, port: Option<u16>) -> Option<logs::Listener> {
    logs::Listener::bind(interface, port).unwrap_or_else(|error| {
        tracing::warn!(
            interface = interface.name,
            "what machines say is not kept: {error}; another syslog on this host may have the port, and [logs] port names \
             another"
        );
        None
    })
}

impl Bound {
    /// Binds every port that is served on an interface.
    pub fn bind(interface: &Interface, config: &Config) -> Result<Self> {
        let mode = config.settings.dhcp;
        let http = SocketAddr::from((interface.address, config.settings.http_port));
        Ok(Self {
            interface: interface.clone(),
            dhcp: dhcp::bind(interface, mode)?,
            ndp: ndp::bind(interface, mode),
            tftp: tftp::bind(interface)?,
            http: http::connection::bind_tcp(http, &interface.name)?,
            logs: listen(interface, config.logs.port),
            wire: OnWire::open(interface, &config.settings),
        })
    }

    /// Of which interface they are.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The watch over its wire.
    pub fn watch(&mut self) -> Option<&mut Watch> {
        self.wire.watch.as_mut().map(|(watch, _)| watch)
    }

    /// Stands by where another Bennu serves.
    pub async fn look_for_bennus(&mut self, appliance: &Appliance) {
        let name = self.interface.name.clone();
        let Some(watch) = self.watch() else { return };
        if let Err(error) = watch.look_for_bennus(appliance).await {
            tracing::warn!(interface = name, %error, "other Bennus could not be looked for");
        }
    }

    fn serve(self, appliance: &Arc<Appliance>) -> Running {
        let stop = appliance.shutdown.child_token();
        let is_watched = self.wire.watch.is_some();
        let mut servers = JoinSet::new();
        let beside = dhcp::Beside {
            prober: self.wire.prober.clone(),
            hints: self.wire.watch.as_ref().map(|(_, hints)| hints.clone()),
        };
        for listener in self.dhcp {
            let (beside, shared, stop) = (beside.clone(), appliance.clone(), stop.clone());
            servers.spawn(async move { Ok(dhcp::serve(listener, beside, shared, stop).await?) });
        }
        if let Some(prober) = self.wire.prober {
            servers.spawn(prober.keep(appliance.clone(), stop.clone()).map(Ok));
        }
        if let Some((watch, _)) = self.wire.watch {
            servers.spawn(watch.keep(appliance.clone(), stop.clone()).map(Ok));
        }
        if let Some(listener) = self.ndp {
            servers.spawn(ndp::serve(listener, appliance.clone(), stop.clone()).map(Ok));
        }
        if let Some(listener) = self.logs {
            servers.spawn(logs::serve(listener, appliance.clone(), stop.clone()).map(Ok));
        }
        let (shared, until) = (appliance.clone(), stop.clone());
        servers.spawn(async move { Ok(tftp::serve(self.tftp, shared, until).await?) });
        let router = http::provisioning_router(appliance.clone());
        let (shared, until) = (appliance.clone(), stop.clone());
        let malformed = Arc::new(move || Counters::count(&shared.counters.http_malformed));
        servers.spawn(async move { Ok(http::connection::serve_tcp(self.http, router, until, malformed).await?) });
        Running { interface: self.interface, is_watched, stop, servers }
    }
}

/// The servers of an interface.
struct Running {
    interface: Interface,
    is_watched: bool,
    stop: CancellationToken,
    servers: JoinSet<Result<()>>,
}

impl Running {
    /// Without a watch nobody else takes back that an earlier one stood by, and DHCP would stay silent for ever.
    async fn serve_unwatched(&self, appliance: &Appliance) {
        let interface = &self.interface.name;
        if self.is_watched || appliance.stands_by(interface).is_none() {
            return;
        }
        let post = Posted { interface: interface.clone(), post: Post::Serves };
        if let Err(fault) = appliance.ledger.decide(post, posted).await {
            tracing::error!(%fault, interface, "a post could not be taken");
        }
    }

    /// Stops them; what is left of them after a moment ends by itself.
    async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(PARTING, all).await.is_err() {
            self.servers.detach_all();
        }
    }
}

/// Serves an interface until the appliance shuts down. Ends by itself only with a fault that is not the interface's.
pub async fn keep_serving(bound: Bound, appliance: Arc<Appliance>) -> Result<()> {
    let name = bound.interface.name.clone();
    let mut running = Some(bound.serve(&appliance));
    let mut complaint = String::new();
    loop {
        tokio::select! {
            () = appliance.shutdown.cancelled() => break,
            // All end by themselves when they are told to.
            outcome = ended(&mut running) => if appliance.shutdown.is_cancelled() { break } else { return outcome },
            () = tokio::time::sleep(PACE) => {}
        }
        let found = Interface::find(&name).ok();
        if found.as_ref() == running.as_ref().map(|running| &running.interface) {
            if let Some(running) = &running {
                running.serve_unwatched(&appliance).await;
            }
            continue;
        }
        if let Some(lost) = running.take() {
            appliance.interfaces.remove(&name);
            lost.stop().await;
            appliance.ledger.notice(Notice::InterfaceLost { interface: name.clone() });
        }
        let Some(interface) = found else { continue };
        match Bound::bind(&interface, &appliance.config) {
            Ok(mut bound) => {
                bound.look_for_bennus(&appliance).await;
                running = Some(bound.serve(&appliance));
                complaint.clear();
                back(&interface, &appliance);
            }
            Err(error) => complain(&mut complaint, format!("{error:#}")),
        }
    }
    if let Some(mut running) = running {
        while running.servers.join_next().await.is_some() {}
    }
    Ok(())
}

/// A server that ends before it is told to.
async fn ended(running: &mut Option<Running>) -> Result<()> {
    let Some(running) = running else { return future::pending().await };
    match running.servers.join_next().await {
        Some(Ok(Ok(()))) | None => bail!("a server of {} ended by itself", running.interface.name),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panic)) => Err(panic.into()),
    }
}

fn back(interface: &Interface, appliance: &Appliance) {
    appliance.interfaces.put(interface.clone(), &appliance.config.interfaces);
    let notice = Notice::InterfaceBack { interface: interface.name.clone(), address: interface.address };
    appliance.ledger.notice(notice);
    if let Err(error) = super::check_network(&appliance.config, interface) {
        tracing::warn!("{error}");
    }
}

/// Says once why an interface cannot be served again.
fn complain(complaint: &mut String, error: String) {
    if *complaint != error {
        tracing::warn!("{error}");
        *complaint = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::tests::Bench;
    use bennu_rules::{
        MacAddress,
        dhcp::{others, standby::Peer},
    };
    use std::net::Ipv4Addr;

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_watch_nobody_stands_by_any_more() {
        const NAME: &str = "boot0";
        let bench = Bench::new();
        let address = Ipv4Addr::new(10, 77, 0, 1);
        let interface = Interface { name: NAME.into(), index: 1, address, network: "10.77.0.0/24".parse().unwrap() };
        let server = Ipv4Addr::new(10, 77, 0, 9);
        let peer = Peer { gives: others::Appliance::Full, server, card: MacAddress([2, 0, 0, 0, 0, 9]) };
        let post = Posted { interface: NAME.into(), post: Post::StandsBy(peer) };
        bench.appliance.ledger.decide(post, posted).await.unwrap();
        for (is_watched, left) in [(true, Some(server)), (false, None)] {
            let (interface, stop) = (interface.clone(), CancellationToken::new());
            let running = Running { interface, is_watched, stop, servers: JoinSet::new() };
            running.serve_unwatched(&bench.appliance).await;
            assert_eq!(bench.appliance.stands_by(NAME), left);
        }
    }
}
