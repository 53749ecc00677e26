//! The appliance under test: the built `bennu`, served in the rack, spoken to through its own command line.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs::{self, OpenOptions},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use crate::{command, home::Home, small_state::SmallState, wire::Namespace, workshop};

/// How an appliance is configured.
#[derive(Debug, Clone)]
pub struct Config {
    dhcp: &'static str,
    unknown: String,
    boot: String,
    subnet: String,
    more: String,
    api: String,
    user: Option<&'static str>,
    disk: Option<&'static str>,
    /// Whether it starts with the images of [`crate::seed`] in its store.
    pub(crate) with_images: bool,
}

impl Config {
    /// It gives addresses and loaders; the store is empty.
    pub fn full() -> Self {
        let nothing = String::new;
        Self {
            dhcp: "full",
            unknown: "discover".into(),
            boot: nothing(),
            subnet: nothing(),
            more: nothing(),
            api: nothing(),
            user: None,
            disk: None,
            with_images: false,
        }
    }

    /// It stands beside the site's DHCP server.
    pub fn proxy() -> Self {
        Self { dhcp: "proxy", ..Self::full() }
    }

    /// It gives loaders and scripts to whom somebody else's DHCP server sends here.
    pub fn off() -> Self {
        Self { dhcp: "off", ..Self::full() }
    }

    /// One more line of the table `boot`.
    pub fn boot(mut self, line: &str) -> Self {
        self.boot += &format!("{line}\n");
        self
    }

    /// One more line for the subnet of the wire, 10.77.0.0/24.
    pub fn subnet(mut self, line: &str) -> Self {
        self.subnet += &format!("{line}\n");
        self
    }

    /// More tables, such as another `[[boot.subnet]]`.
    pub fn more(mut self, text: &str) -> Self {
        self.more += &format!("{text}\n");
        self
    }

    /// One more line of the table `api`.
    pub fn api(mut self, line: &str) -> Self {
        self.api += &format!("{line}\n");
        self
    }

    /// Its state lies on a disk of its own of this size, in `mount`'s words.
    pub fn state_on(mut self, size: &'static str) -> Self {
        self.disk = Some(size);
        self
    }

    /// What an unassigned machine gets.
    pub fn unknown(mut self, policy: &str) -> Self {
        self.unknown = policy.into();
        self
    }

    /// Who it runs as, when not its own user.
    pub fn user(mut self, user: &'static str) -> Self {
        self.user = Some(user);
        self
    }

    /// Starts with `debian:v1`, `debian:v2` and the discovery image already imported.
    pub fn with_images(mut self) -> Self {
        self.with_images = true;
        self
    }

    fn text(&self, state: &Path, socket: &Path, interface: &str) -> String {
        let Self { dhcp, unknown, boot, subnet, more, api, user, .. } = self;
        let range = match *dhcp {
            "full" if !subnet.contains("range") => "range = \"10.77.0.50-10.77.0.199\"\nrouter = \"10.77.0.1\"\n",
            _ => "",
        };
        let user = user.map_or(String::new(), |user| format!("user = \"{user}\"\n"));
        format!(
            "{user}state_dir = \"{}\"\n\n[boot]\ninterface = {interface}\ndhcp = \"{dhcp}\"\nunknown = \"{unknown}\"\n{boot}\n\
             [[boot.subnet]]\nnetwork = \"10.77.0.0/24\"\n{range}{subnet}\n{more}\n[api]\nsocket = \"{}\"\n{api}\n\
             [import]\n# Level 15, the default, takes four times as long for a tenth of the size.\ncompression_level = 3\n",
            state.display(),
            socket.display()
        )
    }
}

/// An appliance in the rack, at 10.77.0.1. Dropping it ends it.
#[derive(Debug)]
pub struct Appliance {
    home: Rc<Home>,
    namespace: Namespace,
    /// As the configuration names them.
    interfaces: String,
    binary: PathBuf,
    dir: PathBuf,
    socket: PathBuf,
    process: Option<Child>,
    disk: Option<SmallState>,
}

impl Appliance {
    pub(crate) fn new(home: Rc<Home>, namespace: Namespace, interfaces: &[&str], config: &Config) -> Result<Self> {
        Self::named("appliance", "bennu.sock", home, namespace, interfaces, config)
    }

    /// One with a directory and a socket of its own.
    pub(crate) fn named(
        name: &str,
        socket: &str,
        home: Rc<Home>,
        namespace: Namespace,
        interfaces: &[&str],
        config: &Config,
    ) -> Result<Self> {
        let (dir, socket) = (home.dir().join(name), home.socket(socket));
        fs::create_dir_all(dir.join("state"))?;
        let interfaces: Vec<String> = interfaces.iter().map(|name| format!("{name:?}")).collect();
        let interfaces = format!("[{}]", interfaces.join(", "));
        let binary = workshop::bennu_binary()?;
        let small = |size| SmallState::mount(Rc::clone(&home), &namespace, &dir.join("state"), size);
        let disk = config.disk.map(small).transpose()?;
        let appliance = Self { home, namespace, interfaces, binary, dir, socket, process: None, disk };
        appliance.configure(config)?;
        Ok(appliance)
    }

    /// The namespace that it serves in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The small disk that its state lies on, if it was given one.
    pub fn small_state(&self) -> Option<&SmallState> {
        self.disk.as_ref()
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its log, of all its starts.
    pub fn log(&self) -> PathBuf {
        self.dir.join("bennu.log")
    }

    /// Where its API is reached on this host.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Changes how it will start next.
    pub fn configure(&self, config: &Config) -> Result<()> {
        let text = config.text(&self.state(), &self.socket, &self.interfaces);
        fs::write(self.dir.join("bennu.toml"), text).context("cannot write the configuration")
    }

    /// Starts it, and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.answers()
    }

    /// Starts it.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the appliance runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut serve = match &self.disk {
            Some(disk) => disk.command(&self.binary),
            None => self.namespace.command(&self.binary),
        };
        serve.arg("serve").arg("--config").arg(self.dir.join("bennu.toml"));
        let child = serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.context("cannot start the appliance")?;
        self.home.note_process(child.id())?;
        self.process = Some(child);
        Ok(())
    }

    /// Waits until it answers after its start.
    pub fn answers(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the appliance does not run")?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("the appliance ended at its start with {status}:\n{}", self.log_tail(20));
            }
            ensure!(Instant::now() < deadline, "the appliance does not answer:\n{}", self.log_tail(20));
            thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(child);
        Ok(())
    }

    /// Ends it with SIGKILL: no time for a last word.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the appliance does not run")?;
        child.kill()?;
        child.wait()?;
        self.home.forget_process(child.id());
        Ok(())
    }

    /// Ends it with SIGTERM, as the service manager does; fails when it does not end well.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the appliance does not run")?;
        command::call("kill", ["-TERM", &child.id().to_string()])?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the appliance did not end within 20 s of SIGTERM:\n{}", self.log_tail(20));
            }
            thread::sleep(Duration::from_millis(20));
        };
        self.home.forget_process(child.id());
        ensure!(status.success(), "the appliance ended with {status}:\n{}", self.log_tail(20));
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn ends(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the appliance does not run")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.process = Some(child);
                bail!("the appliance goes on:\n{}", self.log_tail(20));
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.home.forget_process(child.id());
        Ok(())
    }

    /// Slows its network card down, in the words of `tc`, such as `100mbit`.
    pub fn limit_rate(&self, rate: &str) -> Result<()> {
        let mut tc = self.namespace.command("tc");
        tc.args(["qdisc", "replace", "dev", "prov0", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms"]);
        command::run(&mut tc).map(drop)
    }

    /// A line of what the kernel tells of its process (`proc_pid_status(5)`).
    pub fn process_status(&self, key: &str) -> Result<String> {
        let pid = self.pid().context("the appliance does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let value = |line: &str| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned());
        status.lines().find_map(value).with_context(|| format!("/proc/PID/status has no {key}"))
    }

    /// Memory it holds now, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let kilobytes: u64 = self.process_status("VmRSS")?.trim_end_matches(" kB").parse()?;
        Ok(kilobytes << 10)
    }

    /// Its command line, on its own socket.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("BENNU_SERVER", format!("unix://{}", self.socket.display())).args(arguments);
        command
    }

    /// Runs `bennu` with these arguments; what it printed.
    pub fn bennu<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        command::run(&mut self.command(arguments))
    }

    /// Runs `bennu … --json`.
    pub fn json<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let said = self.bennu(arguments.into_iter().chain(["--json"]))?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    /// Imports `kind:path` under a name.
    pub fn import(&self, kind: &str, path: &Path, name: &str) -> Result<String> {
        self.bennu(["image", "import", &format!("{kind}:{}", path.display()), name])
    }

    /// The digest that a name points to.
    pub fn digest(&self, name: &str) -> Result<String> {
        text(&self.json(["image", "show", name])?, "digest")
    }

    /// Assigns an image.
    pub fn assign(&self, mac: &str, image: &str) -> Result<()> {
        self.bennu(["machine", "assign", mac, image]).map(drop)
    }

    /// The boots of a machine, newest first.
    pub fn boots(&self, mac: &str) -> Result<Vec<Value>> {
        let all = list(self.json(["boot", "list"])?)?;
        let mut boots: Vec<Value> = all.into_iter().filter(|boot| boot["machine"] == mac).collect();
        // A boot's id begins with the time it opened.
        boots.sort_by(|a, b| b["id"].as_str().cmp(&a["id"].as_str()));
        Ok(boots)
    }

    /// The newest boot of a machine with its timeline.
    pub fn last_boot(&self, mac: &str) -> Result<Value> {
        let boots = self.boots(mac)?;
        let newest = boots.first().with_context(|| format!("no boot of {mac} is known"))?;
        self.json(["boot", "show", &text(newest, "id")?])
    }

    /// Waits until the newest boot of a machine is in a state.
    pub fn wait_for_state(&self, mac: &str, state: &str, seconds: u64) -> Result<Value> {
        self.wait_for_boot(mac, seconds, &format!("state {state}"), |boot| boot["state"] == state)
    }

    /// Waits until the newest boot of a machine is as `wanted` says.
    pub fn wait_for_boot(&self, mac: &str, seconds: u64, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let boot = self.last_boot(mac);
            match boot {
                Ok(boot) if wanted(&boot) => return Ok(boot),
                Ok(boot) if Instant::now() > deadline => bail!("{mac}: no {what} within {seconds} s, but {boot:#}"),
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The last lines it logged.
    pub fn log_tail(&self, lines: usize) -> String {
        tail_of(&self.log(), lines)
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if self.process.is_some()
            && let Err(error) = self.kill()
        {
            eprintln!("rack: {error:#}");
        }
    }
}

/// The items of a listing.
fn list(answer: Value) -> Result<Vec<Value>> {
    match answer {
        Value::Array(items) => Ok(items),
        Value::Object(mut page) => match page.remove("items") {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("a listing without items"),
        },
        other => bail!("not a listing: {other}"),
    }
}

/// A field that must be text.
pub fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("no text in '{field}' of {value}"))
}

/// The last lines of a file, set off for a report.
pub fn tail_of(file: &Path, lines: usize) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    | {line}\n")).collect()
}
