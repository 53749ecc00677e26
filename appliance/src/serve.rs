//! Composition root: opens the state, binds every socket, runs the servers, joins them at the end.

mod certificate;
mod clock;
pub mod damaged;
mod first;
mod interface;
mod network;
mod notify;

use crate::{
    appliance::{Appliance, Counters, Remote},
    backup,
    config::Config,
    http,
    interfaces::{Interface, Interfaces},
    ledger::{Fault, Stored},
    loaders::{self, Loaders},
    logs::Logs,
    metrics::Metrics,
    privileges,
    secrets::{KeyFile, Keyring},
};
use anyhow::{Context, Result, bail};
use bennu_host::door::Running;
use bennu_images::store::Store;
use bennu_rules::{Records, image::Digest, notice::Notice, settings::DhcpMode};
use interface::Bound;
use network::Network;
use notify::Notify;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Clients of the management socket that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Runs the appliance until it is told to stop.
pub fn run(config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    // What cannot be served is said before anything is made.
    find_interfaces(&config)?;
    raise_descriptor_limit();
    // In a directory that may be root's alone, so while we are root.
    let socket = bind_socket(&config.socket)?;
    let network = Network::bind(&config.api)?;
    // Which may be root's alone, too.
    let key = KeyFile::read(config.secrets_key.as_deref(), &config.state_dir)?;
    let notify = Arc::new(Notify::connect());
    privileges::enter(&config)?;
    // As the user that the files are of, so that no link of theirs leads root elsewhere.
    let key = match backup::finish(&config.state_dir)? {
        Some(_) if config.secrets_key.is_none() => KeyFile::read(None, &config.state_dir)?,
        _ => key,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, socket, network, key, notify))
}

/// Every transfer and connection holds a descriptor, and a rack boots at once: the usual soft limit of 1024 exists for
/// programs that use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, current = ?limit.current, "the limit of open files stays as it is (LimitNOFILE)");
    }
}

async fn serve(config: Config, socket: Socket, mut network: Network, key: KeyFile, notify: Arc<Notify>) -> Result<()> {
    let appliance = Arc::new(open(config, &mut network, key)?);
    if backup::note(&appliance.config.state_dir, &appliance.ledger).await? {
        // Derived: the images work without it.
        if let Err(problem) = http::api::images::write_index(&appliance) {
            tracing::warn!(%problem, "cannot write the image index");
        }
    }
    let mut tasks = JoinSet::new();
    // Bound before others are looked for: whoever is on this host is found at once.
    let interfaces = appliance.interfaces.now();
    let bound = interfaces.iter().map(|interface| Bound::bind(interface, &appliance.config));
    let mut bound = bound.collect::<Result<Vec<_>>>()?;
    first::look(&appliance, &mut bound).await?;
    for bound in bound {
        tasks.spawn(interface::keep_serving(bound, appliance.clone()));
    }
    serve_api(&appliance, socket, network, &mut tasks)?;
    let flusher = appliance.ledger.clone();
    let stop_flusher = CancellationToken::new();
    let mut flushing = tokio::spawn({
        let stop = stop_flusher.clone();
        async move { flusher.keep_flushing(stop).await }
    });
    tasks.spawn(clock::watch(appliance.clone()));
    tasks.spawn(crate::registry::conversions::keep(appliance.clone()));
    tasks.spawn(crate::registry::uploads::expire(appliance.clone()));
    tasks.spawn(backup::keep(appliance.clone()));
    announce(&appliance);
    tell_of_upgrade(&appliance).await;
    notify.ready();
    let living = tokio::spawn(notify.clone().keep_alive(appliance.clone()));

    let outcome = until_stopped(&appliance, &mut tasks, &mut flushing).await;
    notify.stopping();
    appliance.shutdown.cancel();
    living.await?;
    while tasks.join_next().await.is_some() {}
    if !flushing.is_finished() {
        stop_flusher.cancel();
        flushing.await?.context("the last observations could not be stored")?;
    }
    outcome
}

/// Opens what the appliance owns.
fn open(config: Config, network: &mut Network, key: KeyFile) -> Result<Appliance> {
    let interfaces = find_interfaces(&config)?;
    let state = &config.state_dir;
    // The ledger first: its lock keeps a second bennu from emptying the store's work in progress.
    let ledger = damaged::open(state, config.settings.clone())?;
    let keyring = Keyring::open(key, &ledger.stored(|records| records.sealing_keys())?)?;
    let remote = network.identify(&config, &interfaces, ledger.now())?;
    let store = Store::open(state.join("images"))?;
    let loaders = Loaders::with_directory(config.loaders_dir.as_deref())?;
    let stage1 = store.put(loaders::STAGE1_INITRD)?;
    let logs = Logs::open(state.join("logs"), config.logs)?;
    let appliance = Appliance {
        ledger,
        store,
        loaders,
        stage1,
        interfaces: Interfaces::new(interfaces),
        registry: Default::default(),
        keyring,
        remote: remote.map(Mutex::new),
        counters: Counters::default(),
        metrics: Metrics::default(),
        logs,
        door: Default::default(),
        started: Instant::now(),
        shutdown: CancellationToken::new(),
        restart: CancellationToken::new(),
        config,
    };
    let removed = appliance.store.collect(&appliance.blobs_in_use()?)?;
    if !removed.is_empty() {
        tracing::info!(blobs = removed.len(), "removed what an interrupted import left");
    }
    Ok(appliance)
}

fn find_interfaces(config: &Config) -> Result<Vec<Interface>> {
    let interfaces = config.interfaces.iter().map(|name| Interface::find(name)).collect::<Result<Vec<_>, _>>()?;
    interfaces.iter().try_for_each(|interface| check_network(config, interface))?;
    Ok(interfaces)
}

/// A subnet that no interface is on is reached by relays; an interface that no subnet covers cannot lease.
fn check_network(config: &Config, interface: &Interface) -> Result<()> {
    if config.settings.dhcp == DhcpMode::Full && config.settings.subnet_of(interface.address).is_none() {
        bail!(
            "interface {} has {}, and no [[boot.subnet]] holds that address; add one with network = \"{}\"",
            interface.name,
            interface.address,
            interface.network.trunc()
        );
    }
    Ok(())
}

/// The last to begin: whoever can connect finds everything served.
fn serve_api(
    appliance: &Arc<Appliance>,
    socket: Socket,
    network: Network,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from_std(socket.into())?;
    let router = http::management_router(appliance.clone());
    network.serve(appliance, &router, tasks)?;
    let router = http::metered::management(http::access::local(router), appliance);
    let shutdown = appliance.shutdown.clone();
    tasks.spawn(async move { Ok(http::connection::serve_unix(listener, router, shutdown).await?) });
    Ok(())
}

/// The management socket: root's alone. One left by a killed service is replaced, one in use is not.
fn bind_socket(path: &Path) -> Result<Socket> {
    use std::os::unix::{fs::PermissionsExt, net::UnixStream};
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another bennu answers on {}; stop it first (systemctl stop bennu), or write another api.socket",
            path.display()
        );
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let _ = std::fs::remove_file(path);
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map(|()| socket)
    };
    bind().with_context(|| format!("cannot make the socket {}", path.display()))
}

/// Where the appliance runs from its disc and the last upgrade failed, whoever looks is told.
async fn tell_of_upgrade(appliance: &Appliance) {
    if let Ok(Running { version: runs, failed: Some(version), .. }) = appliance.door.describe().await {
        appliance.ledger.notice(Notice::UpgradeFailed { version, runs });
    }
}

fn announce(appliance: &Appliance) {
    for interface in appliance.interfaces.now().iter() {
        tracing::info!(
            interface = interface.name,
            address = %interface.address,
            dhcp = ?appliance.config.settings.dhcp,
            stands_by_for = appliance.stands_by(&interface.name).map(tracing::field::display),
            http = %appliance.origin_for(interface.address),
            "serving"
        );
    }
    if let Some(Remote { listen, certificate, fingerprint, .. }) = appliance.remote_now() {
        tracing::info!(?listen, certificate = %certificate.display(), sha256 = fingerprint, "the API listens");
    }
    tracing::info!(socket = %appliance.config.socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
}

async fn until_stopped(
    appliance: &Appliance,
    tasks: &mut JoinSet<Result<()>>,
    flushing: &mut JoinHandle<Result<(), Fault>>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // No success, so that whoever keeps the service running starts it again.
        () = appliance.restart.cancelled() => bail!("a new start was asked for: start bennu again"),
        // Only a fault ends it, and a ledger that takes no more writes can boot nothing: whoever started us
        // starts us again.
        ended = flushing => ended?.map_err(Into::into),
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(()))) | None => bail!("a server ended by itself"),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(panic.into()),
        },
    }
}

impl Appliance {
    /// Every blob that a record names, and stage 1.
    pub fn blobs_in_use(&self) -> Result<BTreeSet<Digest>> {
        self.blobs_in_use_without(&BTreeSet::new(), &BTreeSet::new())
    }

    /// The same, as it were without these images and artifacts.
    pub fn blobs_in_use_without(
        &self,
        images: &BTreeSet<Digest>,
        artifacts: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>> {
        Ok(self.ledger.stored(|records| self.blobs_named(records, images, artifacts))?)
    }

    /// The same by these records.
    pub fn blobs_named(
        &self,
        records: &Stored<'_>,
        images: &BTreeSet<Digest>,
        artifacts: &BTreeSet<Digest>,
    ) -> BTreeSet<Digest> {
        let mut used = BTreeSet::from([self.stage1.digest]);
        for image in records.images().iter().filter(|image| !images.contains(&image.digest)) {
            used.extend([image.digest, image.config_blob.digest]);
            used.extend(image.config.blobs().map(|blob| blob.digest));
        }
        for artifact in records.artifacts().iter().filter(|artifact| !artifacts.contains(&artifact.digest)) {
            used.insert(artifact.digest);
            used.extend(artifact.parts.iter().map(|part| part.digest));
        }
        // Boots that go on may still fetch the stage 1 of an earlier version.
        used.extend(
            records
                .machines()
                .iter()
                .flat_map(|machine| records.boots(Some(machine.id)))
                .filter_map(|boot| boot.is_open().then_some(boot.stage1).flatten()),
        );
        used
    }
}
