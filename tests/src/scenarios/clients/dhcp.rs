//! DHCP clients of the field, each in a namespace of its own, with a script that tells what it was told.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    command::{self, call},
    rack::Rack,
    wire::Namespace,
};

/// A client may take so long for any one step.
const PATIENCE: Duration = Duration::from_secs(25);

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Program {
    Dhclient,
    Udhcpc,
    Dhcpcd,
}

/// What a client told its script.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Event {
    pub reason: String,
    pub address: String,
    pub router: String,
    pub dns: String,
    pub domain: String,
}

/// dhclient renews after three seconds: it has no word for "now".
const DHCLIENT: &str = "request subnet-mask, routers, domain-name, domain-name-servers;\n\
                        supersede dhcp-renewal-time 3;\ninitial-delay 0;\n";
/// Its own probes of a new address would take five seconds.
const DHCPCD: &str = "duid\nnoarp\nnoipv4ll\nnoipv6\noption routers, domain_name_servers, domain_name\n";

impl Program {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhclient => "dhclient",
            Self::Udhcpc => "udhcpc",
            Self::Dhcpcd => "dhcpcd",
        }
    }

    /// What its script does: the first two leave the interface to it, dhcpcd sets it up itself.
    fn script(self, events: &Path) -> String {
        let say = |reason: &str, address: &str, router: &str, dns: &str, domain: &str| {
            let fields = [reason, address, router, dns, domain].map(|name| format!("${{{name}}}")).join("|");
            format!("echo \"{fields}\" >>'{}'\n", events.display())
        };
        let set = |address: &str, mask: &str, router: &str| {
            format!(
                "ip address replace \"${address}/${mask}\" dev net0\n\
                 [ -z \"${router}\" ] || ip route replace default via \"${router}\" ;;\n"
            )
        };
        let long = say("reason", "new_ip_address", "new_routers", "new_domain_name_servers", "new_domain_name");
        match self {
            Self::Udhcpc => format!(
                "#!/bin/sh\ncase $1 in\nbound | renew) {}deconfig) ip address flush dev net0 ;;\nesac\n{}",
                set("ip", "mask", "router"),
                say("1", "ip", "router", "dns", "domain"),
            ),
            Self::Dhclient => format!(
                "#!/bin/sh\ncase $reason in\nBOUND | RENEW | REBIND | REBOOT) {}\
                 RELEASE | EXPIRE) ip address flush dev net0 ;;\nesac\n{long}",
                set("new_ip_address", "new_subnet_mask", "new_routers"),
            ),
            Self::Dhcpcd => format!("#!/bin/sh\n{long}"),
        }
    }

    /// Words for "I have an address" and "I have renewed it".
    fn reasons(self) -> (&'static str, &'static str) {
        match self {
            Self::Udhcpc => ("bound", "renew"),
            Self::Dhclient | Self::Dhcpcd => ("BOUND", "RENEW"),
        }
    }
}

/// A client in its namespace.
#[derive(Debug)]
pub struct Client<'a> {
    rack: &'a Rack,
    program: Program,
    host: Namespace,
    dir: PathBuf,
    child: Option<Child>,
    read: usize,
}

impl<'a> Client<'a> {
    /// Plugs one into a bridge.
    pub fn new(rack: &'a Rack, program: Program, label: &str, bridge: &str) -> Result<Self> {
        let host = rack.wire().plug_bare(label, bridge, "net0")?;
        let dir = rack.home().dir().join(label);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("script"), program.script(&dir.join("events")))?;
        fs::set_permissions(dir.join("script"), Permissions::from_mode(0o755))?;
        fs::write(dir.join("dhclient.conf"), DHCLIENT)?;
        fs::write(dir.join("dhcpcd.conf"), DHCPCD)?;
        fs::write(dir.join("events"), "")?;
        fs::write(dir.join("resolv.conf"), "")?;
        Ok(Self { rack, program, host, dir, child: None, read: 0 })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn dhclient(&self, first: &str) -> Command {
        let mut command = self.host.command("dhclient");
        command.args(["-4", first, "-sf", &self.path("script"), "-cf", &self.path("dhclient.conf")]);
        command.args(["-lf", &self.path("leases"), "-pf", &self.path("pid"), "net0"]);
        command
    }

    /// Starts it, and waits for its address.
    pub fn start(&mut self) -> Result<Event> {
        let mut command = match self.program {
            Program::Dhclient => self.dhclient("-d"),
            Program::Udhcpc => {
                let mut command = self.host.command("udhcpc");
                command.args(["-f", "-i", "net0", "-t", "10", "-T", "1", "-s", &self.path("script")]);
                command
            }
            Program::Dhcpcd => {
                // Its state is the machine's, not the namespace's: here it gets some of its own, with a resolv.conf that
                // does no harm. Its helpers outlive it unless they are in a process namespace that ends with it.
                let mut command = self.host.command("unshare");
                let own = "mount -t tmpfs tmpfs /var/lib/dhcpcd && mount --bind \"$0\" /etc/resolv.conf \
                           && mount -t tmpfs tmpfs /run && exec \"$@\"";
                command.args(["--pid", "--fork", "sh", "-c", own, &self.path("resolv.conf")]);
                command.args(["dhcpcd", "-4", "-B", "-d", "-f", &self.path("dhcpcd.conf")]);
                command.args(["-c", &self.path("script"), "net0"]);
                command
            }
        };
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("client.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot start {}", self.program.name()))?;
        self.rack.home().note_process(child.id())?;
        self.child = Some(child);
        if self.program == Program::Dhcpcd {
            // It becomes another user, and so loses the order to die with who started it.
            self.rack.home().note_process(self.pid()?)?;
        }
        self.wait_for(self.program.reasons().0)
    }

    /// Has it renew its lease.
    pub fn renew(&mut self) -> Result<Event> {
        let pid = self.pid()?.to_string();
        match self.program {
            Program::Dhclient => {}
            Program::Udhcpc => drop(call("kill", ["-USR1", &pid])?),
            Program::Dhcpcd => drop(call("kill", ["-USR1", &pid])?),
        }
        self.wait_for(self.program.reasons().1)
    }

    /// Has it give its address back, and ends it.
    pub fn release(&mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        match self.program {
            Program::Dhclient => drop(command::run(&mut self.dhclient("-r"))?),
            Program::Udhcpc => {
                call("kill", ["-USR2", &pid])?;
                self.wait_for("deconfig")?;
                call("kill", ["-TERM", &pid])?;
            }
            Program::Dhcpcd => drop(call("kill", ["-ALRM", &pid])?),
        }
        self.ended()
    }

    /// The process of the program: dhcpcd is the first one in a process namespace, below unshare.
    fn pid(&self) -> Result<u32> {
        let started = self.child.as_ref().context("it does not run")?.id();
        if self.program != Program::Dhcpcd {
            return Ok(started);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = fs::read_to_string(format!("/proc/{started}/task/{started}/children"))?;
            match children.split_whitespace().next() {
                Some(pid) => return Ok(pid.parse()?),
                None => ensure!(Instant::now() < deadline, "dhcpcd was not started"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ended(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{} goes on after its release", self.program.name());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.rack.home().forget_process(child.id());
        Ok(())
    }

    /// The next event for this reason.
    fn wait_for(&mut self, reason: &str) -> Result<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(self.dir.join("events"))?;
            let events: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            for (at, line) in events.iter().enumerate().skip(self.read) {
                let fields: Vec<String> = line.trim_end().split('|').map(str::to_owned).collect();
                let [found, address, router, dns, domain] = fields.try_into().unwrap_or_default();
                if found == reason {
                    self.read = at + 1;
                    return Ok(Event { reason: found, address, router, dns, domain });
                }
            }
            let log = || fs::read_to_string(self.dir.join("client.log")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "no {reason} within {PATIENCE:?}, but:\n{text}{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Ok(pid) = self.pid()
        {
            let _ = call("kill", ["-KILL", &pid.to_string()]);
            self.rack.home().forget_process(pid);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.rack.home().forget_process(child.id());
        }
    }
}
