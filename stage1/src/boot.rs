//! One boot, from the kernel's hand to the image's: what PID 1 does, in order. Nothing here returns; a failure is said, reported and tried again.

use crate::cmdline::{self, Arguments};
use crate::console::{self, mib};
use crate::download::DownloadError;
use crate::entropy::Backoff;
use crate::fetch::{self, Fetch};
use crate::handover::{self, HandoverError};
use crate::http::Url;
use crate::laydown::{self, LaydownError};
use crate::memory::{Memory, TooLittle};
use crate::modules::{Devices, Modules};
use crate::net::{self, Kept};
use crate::persistent::{self, PersistentError};
use crate::plan::{self, NoPlan};
use crate::report::{Reports, To};
use crate::reporter::{self, BootFile};
use crate::root::{self, RootError};
use crate::session::{NoSession, Proof, Session};
use crate::verity::{self, Device};
use crate::{clock, early, inventory, logs, restart, supervise};
use bennu_plan::{Action, LogsWanted, Plan, RootPlan, SessionGranted, Step};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a person gets to read why the machine starts again.
pub const READING_TIME: Duration = Duration::from_secs(60);
/// An appliance that refuses this boot for so long will not change its mind: the firmware shall ask it anew.
const REFUSED_FOR: Duration = Duration::from_secs(5 * 60);
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long the handover waits for lines that are on their way: they come in milliseconds, or not at all.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Why a boot did not go through.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "the image's modules are for kernel {image}, and {running} runs: its kernel and its root do not belong together. The machine starts again"
    )]
    Kernel { image: String, running: String },
    #[error("{0}")]
    Memory(#[from] TooLittle),
    #[error("fetching the root: {0}")]
    Download(#[from] DownloadError),
    #[error("{0}")]
    Root(#[from] RootError),
    #[error("{0}")]
    Laydown(#[from] LaydownError),
    #[error("what is for this machine alone did not come: {0}")]
    Session(#[from] NoSession),
    #[error("{0}")]
    Persistent(#[from] PersistentError),
    #[error("{0}")]
    Handover(#[from] HandoverError),
    #[error(
        "the root changed in this machine's memory after it was fetched; it is fetched again. Because of that: {0}"
    )]
    Damaged(Box<Failure>),
    #[error("cannot prepare {what}: {source}")]
    File { what: &'static str, source: std::io::Error },
}

/// What lasts over the tries of one boot.
struct Machine {
    arguments: Arguments,
    base: String,
    release: String,
    modules: Modules,
    connection: Kept,
    /// Our key, and what proves our reports; `None`: the appliance knows no sessions.
    session: Option<(Session, Proof)>,
    reports: Reports,
    /// What becomes of our log; `None`: it stays here.
    logs: Option<Logs>,
    /// What has come of the root so far.
    fetch: Option<Fetch>,
    discovered: bool,
}

/// A log that is forwarded.
struct Logs {
    forwarder: logs::Forwarder,
    wanted: LogsWanted,
}

/// PID 1.
pub fn run() -> ! {
    early::mount_kernel_filesystems();
    early::open_standard_files();
    console::open();
    console::watch();
    logs::unlimit_own_lines();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    console::say(&format!("Bennu stage 1 {}, kernel {release}", env!("CARGO_PKG_VERSION")));
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    early::restart_after_panic(&cmdline);
    let arguments = cmdline::parse(&cmdline);
    for complaint in &arguments.complaints {
        console::say(&format!("kernel argument not understood: {complaint}"));
    }
    let (base, server) = appliance(&arguments);
    restart::report_panics_to(To::new(&base, None));
    let mut machine = start(arguments, base, server, release);
    let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(120));
    loop {
        let plan = machine.await_plan();
        match &plan.action {
            Action::Boot(wanted) => {
                let failure = match machine.boot(&plan, wanted) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                machine.fail(&failure, &mut backoff);
            }
            Action::Discover { poll_seconds } => machine.discover(*poll_seconds),
            Action::Restart { reason } => {
                machine.reports.step(Step::Restarting, reason.clone());
                machine.reports.flush(LAST_WORDS);
                restart::after(Duration::from_secs(1), &format!("the appliance wants a restart: {reason}"));
            }
        }
    }
}

/// Where the appliance is, from the command line; without it there is nothing to do but start again.
fn appliance(arguments: &Arguments) -> (String, SocketAddr) {
    let Some(base) = &arguments.base else {
        restart::after(
            READING_TIME,
            "the kernel argument bennu.boot is missing. This initrd only works when a Bennu appliance boots the machine over the network: \
             its boot script adds bennu.boot=http://<appliance>/boot/<token>/",
        );
    };
    match Url::parse(base) {
        Ok(url) => (base.clone(), url.server),
        Err(error) => restart::after(READING_TIME, &format!("the kernel argument bennu.boot is wrong: {error}")),
    }
}

/// Modules and network; returns with a connection.
fn start(arguments: Arguments, base: String, server: SocketAddr, release: String) -> Machine {
    let mut modules = Modules::of(&release, &arguments);
    if modules.known() == 0 {
        console::say(&format!(
            "no modules for kernel {release} in this initrd: only what is built into the kernel will work. \
             Is the image's modules initrd loaded, and of the same kernel?"
        ));
    }
    modules.coldplug(Devices::Network);
    for module in ["af_packet", "loop", "overlay", "squashfs"] {
        modules.load(module);
    }
    // Drivers may have brought another console.
    console::open();
    let connection = net::bring_up(&mut modules, &arguments, server);
    console::say(&format!("network: {}", connection.describe()));
    let (session, granted) = open_session(&base).unzip();
    let logs = logs(&base, &arguments, granted.as_ref(), session.as_ref());
    let to = To::new(&base, session.as_ref().map(|(_, proof)| proof.clone()));
    restart::report_panics_to(to.clone());
    let reports = Reports::start(to);
    let loaded = modules.loaded();
    reports.step(
        Step::Started,
        format!("stage 1 {}, kernel {release}, {loaded} modules loaded", env!("CARGO_PKG_VERSION")),
    );
    reports.step(Step::Network, connection.describe());
    let connection = net::keep(connection);
    Machine { arguments, base, release, modules, connection, session, reports, logs, fetch: None, discovered: false }
}

/// Before the first report, so that each can be proved. `None`: the appliance knows no sessions.
fn open_session(base: &str) -> Option<((Session, Proof), SessionGranted)> {
    let session = Session::new(base);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
    loop {
        let why = match session.ask() {
            Ok((proof, granted)) => return Some(((session, proof), granted)),
            Err(NoSession::Unknown) => return None,
            Err(refused @ NoSession::Refused(_)) => restart::after(
                READING_TIME,
                &format!("{refused}. Somebody else on this wire may have taken this boot; bennu status tells of it"),
            ),
            Err(why) => why,
        };
        let wait = backoff.step();
        console::say(&format!("no session with {base}: {why}; again in {:.0} s", wait.as_secs_f64().max(1.0)));
        std::thread::sleep(wait);
    }
}

/// Starts forwarding, where the appliance wants it and nobody keeps the log here.
fn logs(
    base: &str,
    arguments: &Arguments,
    granted: Option<&SessionGranted>,
    session: Option<&(Session, Proof)>,
) -> Option<Logs> {
    let wanted = arguments.logs_kept.leave(granted?.logs?)?;
    let (_, proof) = session?;
    let to = logs::To::new(base, wanted, proof.clone())?;
    Some(Logs { forwarder: logs::Forwarder::start(to), wanted })
}

enum Never {}

impl Machine {
    /// Asks for the plan until there is one.
    fn await_plan(&self) -> Plan {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        let mut refused: Option<Instant> = None;
        let mut tries = 0_u32;
        loop {
            let error = match plan::fetch(&self.base) {
                Ok(plan) => {
                    if tries > 0 {
                        console::say(&format!("the appliance answers again, after {tries} tries"));
                    }
                    return plan;
                }
                Err(error) => error,
            };
            tries += 1;
            if error.needs_restart() {
                let since = *refused.get_or_insert_with(Instant::now);
                if matches!(error, NoPlan::Newer(_)) || since.elapsed() > REFUSED_FOR {
                    self.reports.step(Step::Failed, error.to_string());
                    self.reports.flush(LAST_WORDS);
                    restart::after(
                        READING_TIME,
                        &format!("no boot plan: {error}. The machine asks its firmware again"),
                    );
                }
            } else {
                refused = None;
            }
            let wait = backoff.step();
            console::say(&format!(
                "no boot plan from {}: {error}; try {} in {:.0} s",
                self.base,
                tries + 1,
                wait.as_secs_f64().max(1.0)
            ));
            std::thread::sleep(wait);
        }
    }

    fn fail(&mut self, failure: &Failure, backoff: &mut Backoff) {
        let text = failure.to_string();
        self.reports.step(Step::Failed, text.clone());
        let spoilt = matches!(failure, Failure::Download(error) if error.spoils())
            || matches!(failure, Failure::Memory(_) | Failure::Root(_) | Failure::Damaged(_));
        if spoilt && self.fetch.take().is_some() {
            root::drop_store();
        }
        if matches!(failure, Failure::Kernel { .. } | Failure::Session(NoSession::Refused(_))) {
            self.reports.flush(LAST_WORDS);
            restart::after(READING_TIME, &format!("FAILED: {text}"));
        }
        let wait = backoff.step();
        console::say(&format!("FAILED: {text}"));
        console::say(&format!("trying again in {} s", wait.as_secs()));
        std::thread::sleep(wait);
    }

    /// Says once what this machine is, then waits a little for somebody to assign it an image.
    fn discover(&mut self, poll_seconds: u32) {
        if !self.discovered {
            self.discovered = true;
            console::say("discovery: looking at the hardware");
            self.modules.coldplug(Devices::All);
            // Disks answer a moment after their controllers.
            std::thread::sleep(Duration::from_secs(2));
            self.modules.coldplug(Devices::All);
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let found = inventory::take(Path::new("/sys"), &cpuinfo, Memory::now());
            let line = inventory::describe(&found);
            console::say(&format!("this machine: {line}"));
            self.reports.inventory(line, found);
            self.reports.step(Step::Waiting, "");
            console::say(&format!(
                "waiting until this machine is assigned an image: bennu machine assign {} IMAGE",
                self.connection.now().interface.mac
            ));
        }
        std::thread::sleep(Duration::from_secs(u64::from(poll_seconds.clamp(1, 60))));
    }

    /// Boots what the plan says; comes back only with the reason why not.
    fn boot(&mut self, plan: &Plan, wanted: &RootPlan) -> Result<Never, Failure> {
        if wanted.kernel_release != self.release {
            return Err(Failure::Kernel { image: wanted.kernel_release.clone(), running: self.release.clone() });
        }
        console::say(&format!(
            "boot {}: {} ({}, root {})",
            plan.boot,
            wanted.image,
            wanted.digest,
            mib(wanted.root.size)
        ));
        if let Some(done) = clock::correct(wanted.time_ms) {
            console::say(&done);
        }
        self.fetch(wanted)?;
        self.reports.step(Step::Verified, wanted.root.digest.clone());
        console::say(&format!("root verified: {}", wanted.root.digest));
        if wanted.verity.is_some() {
            verity::MODULES.iter().for_each(|module| self.modules.load(module));
        }
        self.modules.load(&wanted.filesystem);
        let checked = root::mount_root(wanted).inspect_err(|_| root::unmount_root())?;
        let text = match (&checked, &wanted.verity) {
            (Some(_), _) => "dm-verity checks each block when it is read",
            (None, Some(_)) => "this kernel has no dm-verity: its blocks are not checked again when they are read",
            (None, None) => "an image from before dm-verity: its blocks are not checked again when they are read",
        };
        console::say(&format!("root mounted: {text}"));
        self.reports.step(Step::Mounted, text);
        match self.settle_in(plan, wanted, checked.as_ref()) {
            Ok(ready) => self.hand_over(wanted, &ready),
            Err(failure) => {
                let is_damaged = checked.is_some_and(|device| device.is_corrupted());
                root::unmount_root();
                Err(if is_damaged { Failure::Damaged(Box::new(failure)) } else { failure })
            }
        }
    }

    /// Fetches the root and its hash tree into memory.
    fn fetch(&mut self, wanted: &RootPlan) -> Result<(), Failure> {
        if self.fetch.as_ref().is_some_and(|fetch| !fetch.is_of(wanted)) {
            self.fetch = None;
            root::drop_store();
        }
        let have = self.fetch.as_ref().map_or(0, Fetch::have);
        if let Some(memory) = Memory::now() {
            memory.check(fetch::size(wanted), have)?;
        }
        let fetch = match &mut self.fetch {
            Some(fetch) => fetch,
            empty => {
                root::make_store(fetch::size(wanted))?;
                empty.insert(Fetch::start(wanted)?)
            }
        };
        Ok(fetch.finish(wanted, &self.reports)?)
    }

    /// Lays down what is this machine's own, in the new root and in `/run`.
    fn settle_in(&mut self, plan: &Plan, wanted: &RootPlan, checked: Option<&Device>) -> Result<Ready, Failure> {
        let new_root = Path::new(root::NEW_ROOT);
        let run = Path::new("/run");
        let init = match &wanted.entry {
            Some(entry) => entry.args.join(" "),
            None => handover::find_init(new_root, self.arguments.init.as_deref())?,
        };
        // First, so that what is laid down below a mount point is on what is mounted there.
        persistent::settle(&wanted.metadata.persistent, &mut self.modules, &self.reports)?;
        let uuid = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
        let connection = self.connection.now();
        let mac = self.arguments.boot_mac.unwrap_or(connection.interface.mac);
        laydown::lay_down(
            new_root,
            &laydown::Identity {
                hostname: wanted.hostname.as_deref(),
                machine_id: laydown::machine_id(mac, uuid.trim()),
                dns: &connection.dns,
                own_fstab: wanted.own_fstab,
                image: &wanted.image,
            },
        )?;
        for said in laydown::lay_down_metadata(new_root, run, &wanted.metadata)? {
            console::say(&format!("metadata: {said}"));
        }
        self.lay_down_what_is_ours(new_root, run)?;
        if let Some(hostname) = &wanted.hostname {
            let _ = rustix::system::sethostname(hostname.as_bytes());
        }
        let systemd = wanted.entry.is_none() && handover::is_systemd(new_root, &init);
        let kind = match (systemd, &self.arguments.init, &wanted.entry) {
            (true, ..) => laydown::Init::Systemd,
            // It starts no service that would see to the network.
            (false, Some(_), _) | (false, _, Some(_)) => laydown::Init::Custom,
            (false, None, None) => laydown::Init::Other,
        };
        let network = laydown::decide(new_root, kind);
        laydown::lay_down_network(new_root, run, network, &connection.interface)?;
        console::say(&format!("network of the booted system: {}", network.describe()));
        early::copy_self(reporter::BINARY).map_err(|source| Failure::File { what: reporter::BINARY, source })?;
        let file = BootFile {
            base: self.base.clone(),
            boot: plan.boot.clone(),
            image: wanted.image.clone(),
            digest: wanted.digest.clone(),
            root: wanted.root.digest.clone(),
            checked: checked.cloned(),
            proof: self.session.as_ref().map(|(_, proof)| proof.clone()),
            logs: self.logs.as_ref().map(|logs| logs.wanted),
        };
        let text = serde_json::to_string_pretty(&file).unwrap_or_default();
        laydown::write(run, "bennu/boot.json", text, 0o600)?;
        if systemd {
            reporter::lay_down_units(run)?;
            if self.logs.as_ref().is_some_and(|logs| logs.wanted.system) {
                logs::lay_down_unit(run)?;
            }
        }
        Ok(Ready { init, systemd, keeps_link: network.keeps_link() })
    }

    /// Asks again under the session's key, now that there is a root: for secrets, and the host keys of this machine.
    fn lay_down_what_is_ours(&self, new_root: &Path, run: &Path) -> Result<(), Failure> {
        let Some((session, _)) = &self.session else { return Ok(()) };
        let (_, granted) = session.ask()?;
        let remarks = laydown::lay_down_sealed(new_root, run, &granted.files, laydown::outlasts_a_restart)?;
        remarks.iter().for_each(|remark| console::say(remark));
        if !granted.files.is_empty() {
            console::say(&format!("laid down {} files for this machine alone", granted.files.len()));
        }
        Ok(())
    }

    /// The last steps. What fails after the new root was entered ends in a restart, because the initramfs is gone.
    fn hand_over(&self, wanted: &RootPlan, ready: &Ready) -> Result<Never, Failure> {
        console::say(&format!("handing over to {} of {}", ready.init, wanted.image));
        self.reports.step(Step::HandedOver, ready.init.clone());
        self.reports.flush(LAST_WORDS);
        // A program that needs no init runs beside us, and what we say then is forwarded as before.
        if wanted.entry.is_none() {
            self.hand_logs_over();
        }
        if !ready.keeps_link {
            self.connection.now().release();
        }
        let entered = handover::enter();
        if entered.is_ok()
            && let Some(entry) = &wanted.entry
        {
            supervise::run(entry, &wanted.image, &self.reports);
        }
        if entered.is_ok()
            && !ready.systemd
            && let Err(error) = reporter::start_watching()
        {
            console::say(&format!("the health reporter does not start: {error}"));
        }
        let error = match entered {
            Ok(()) => handover::become_init(&ready.init),
            Err(error) => error,
        };
        restart::report_and_restart(Step::Failed, &format!("the handover failed: {error}"), READING_TIME);
    }
}

impl Machine {
    /// Ends our forwarding, and tells that of the booted system where to go on.
    fn hand_logs_over(&self) {
        if let Some(logs) = &self.logs {
            let sent = logs.forwarder.finish(LAST_LINES);
            let _ = std::fs::write(logs::SENT, serde_json::to_vec(&sent).unwrap_or_default());
        }
        logs::limit_own_lines();
    }
}

/// What the handover needs to know.
struct Ready {
    init: String,
    systemd: bool,
    keeps_link: bool,
}
