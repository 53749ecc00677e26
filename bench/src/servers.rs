//! Servers under measurement: started, watched, ended.

use anyhow::{Context, Result, bail, ensure};
use bennu_tests::appliance::tail_of;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    lab::{Lab, SERVER, unleased},
    load::{Exchanges, Load, Streams, TICKS, Transfers},
};

/// A server, ready to be started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// For the report.
    pub name: String,
    /// Program and arguments; it stays in the foreground.
    pub command: Vec<String>,
    /// Additions to its environment.
    pub environment: Vec<(String, String)>,
    /// Its directory.
    pub dir: PathBuf,
    /// What it serves, to know when it does.
    pub serves: Vec<Serves>,
}

/// A service, and a file of it that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Addresses.
    Dhcp,
    /// A file by TFTP.
    Tftp(&'static str),
    /// A file by HTTP, and its size when that is known.
    Http(&'static str),
}

/// Servers take no longer to start.
const START: Duration = Duration::from_secs(60);
/// A machine that no measurement knows asks whether a server is ready.
const STRANGER: u32 = 0xff_fff0;

/// Servers that run together. Dropping them ends them.
#[derive(Debug)]
pub struct Running<'a> {
    lab: &'a Lab,
    name: String,
    processes: Vec<Child>,
    /// When the last of them was about to start, in seconds since 1970.
    pub started_at: f64,
}

impl<'a> Running<'a> {
    /// Starts servers and waits until all of them serve.
    pub fn start(lab: &'a Lab, specs: &[Spec]) -> Result<Self> {
        let running = Self::launch(lab, specs)?;
        for spec in specs {
            for serves in &spec.serves {
                running.wait_for(spec, *serves)?;
            }
        }
        for (keeper, spec) in running.processes.iter().zip(specs) {
            ensure!(is_alive(keeper.id()), "{} has ended\n{}", spec.name, tail_of(&log(&spec.dir), 20));
        }
        Ok(running)
    }

    /// Starts servers and waits for nothing.
    pub fn launch(lab: &'a Lab, specs: &[Spec]) -> Result<Self> {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut running = Self { lab, name: names.join(" + "), processes: Vec::new(), started_at: 0.0 };
        for spec in specs {
            running.started_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
            let child = command(lab, spec)?.spawn().with_context(|| format!("cannot start {}", spec.name))?;
            lab.home().note_process(child.id())?;
            running.processes.push(child);
        }
        for (child, spec) in running.processes.iter_mut().zip(specs) {
            note(lab, child, spec)?;
        }
        Ok(running)
    }

    /// Their names.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn wait_for(&self, spec: &Spec, serves: Serves) -> Result<()> {
        let (load, wanted) = probe(self.lab, serves);
        let deadline = Instant::now() + START;
        loop {
            let figures = self.lab.run(&load)?;
            if figures.get(wanted).is_some_and(|value| value > 0.0) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} does not serve {serves:?}: {:?}\n{}",
                spec.name,
                figures.errors,
                tail_of(&log(&spec.dir), 20)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// CPU time of all of them, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let usage = |group: &Path| -> Option<f64> {
            let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
            let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            Some(micros.trim().parse::<f64>().ok()? / 1e6)
        };
        self.lab.group().and_then(usage).unwrap_or_else(|| self.pids().iter().map(|pid| ticks(*pid)).sum())
    }

    /// Memory they hold, in bytes: the sum of their resident sets.
    pub fn resident(&self) -> f64 {
        let resident = |pid: &u32| -> Option<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
        };
        self.pids().iter().filter_map(resident).sum()
    }

    /// UDP sockets open where the servers are.
    pub fn udp_sockets(&self) -> usize {
        let table = self.pids().first().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/net/udp")).ok());
        table.map_or(0, |table| table.lines().count().saturating_sub(1))
    }

    /// Their processes. Each server has a process namespace of its own, and what was started for it is not counted.
    fn pids(&self) -> Vec<u32> {
        let parents = parents();
        let keepers: Vec<u32> = self.processes.iter().map(Child::id).collect();
        let below = |pid: u32| {
            let mut at = pid;
            while let Some(&parent) = parents.get(&at) {
                if keepers.contains(&parent) {
                    return true;
                }
                at = parent;
            }
            false
        };
        parents.keys().copied().filter(|pid| below(*pid)).collect()
    }

    /// Ends them with SIGTERM, as a service manager does.
    pub fn stop(mut self) -> Result<()> {
        let pids = self.pids();
        pids.iter().for_each(|pid| signal(*pid, Signal::TERM));
        let deadline = Instant::now() + Duration::from_secs(30);
        for child in &mut self.processes {
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    bail!("{} did not end within 30 s of SIGTERM", self.name);
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        pids.iter().for_each(|pid| self.lab.home().forget_process(*pid));
        Ok(())
    }
}

impl Drop for Running<'_> {
    /// The death of a process namespace's first process is that of all in it. Their ports are free when they are gone.
    fn drop(&mut self) {
        let pids = self.pids();
        for pid in &pids {
            signal(*pid, Signal::KILL);
            self.lab.home().forget_process(*pid);
        }
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
            self.lab.home().forget_process(child.id());
        }
        // A process is gone from cgroup.procs as soon as it begins to die, and from here when it is dead.
        let populated = |group: &Path| {
            fs::read_to_string(group.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while (pids.iter().any(|pid| is_alive(*pid)) || self.lab.group().is_some_and(populated))
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Records a server itself, beside its keeper: one that changes its privileges, as dnsmasq does, no longer dies with the
/// keeper (prctl(2), PR_SET_PDEATHSIG).
fn note(lab: &Lab, keeper: &mut Child, spec: &Spec) -> Result<()> {
    loop {
        if let Some((server, _)) = parents().into_iter().find(|(_, parent)| *parent == keeper.id()) {
            return lab.home().note_process(server);
        }
        if let Some(status) = keeper.try_wait()? {
            bail!("{} ended with {status}\n{}", spec.name, tail_of(&log(&spec.dir), 20));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// In the lab's control group, its server namespace and a process namespace of its own.
fn command(lab: &Lab, spec: &Spec) -> Result<Command> {
    let log = fs::File::create(log(&spec.dir)).with_context(|| format!("cannot write a log for {}", spec.name))?;
    let inside = lab.server().command("unshare");
    let mut command = match lab.group() {
        Some(group) => {
            let mut joined = Command::new("sh");
            joined.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(group.join("cgroup.procs"));
            joined.arg(inside.get_program()).args(inside.get_args());
            joined
        }
        None => inside,
    };
    command.args(["--pid", "--mount-proc", "--fork", "--kill-child", "--"]).args(&spec.command);
    command.envs(spec.environment.iter().cloned()).current_dir(&spec.dir);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn log(dir: &Path) -> PathBuf {
    dir.join("out.log")
}

/// What tells that a service is there, and the figure that is then above zero.
fn probe(lab: &Lab, serves: Serves) -> (Load, &'static str) {
    match serves {
        Serves::Dhcp => (Load::Exchanges(exchanges(STRANGER, 1, 1)), "done"),
        Serves::Tftp(file) => {
            let load = Transfers {
                server: SERVER,
                addresses: unleased(1),
                file: file.to_owned(),
                copy: lab.files().path(&format!("tftp/{file}")),
                compare: true,
                reads: 1,
                window: 1,
                loss: 0.0,
                timeout_ms: 100,
                seed: 0,
            };
            (Load::Transfers(load), "bytes")
        }
        Serves::Http(path) => {
            let size = lab.files().size(&format!("http/{path}"));
            (Load::Streams(Streams { server: SERVER, path: format!("/{path}"), size, streams: 1, turns: 1 }), "bytes")
        }
    }
}

/// Exchanges of new machines from this number on, a message of which waits a second.
pub fn exchanges(first: u32, count: usize, in_flight: usize) -> Exchanges {
    Exchanges { server: SERVER, relay: crate::lab::RELAY, first, count, in_flight, patience_ms: 1000, most_s: 60.0 }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The fields of a process's line from its state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(line.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

fn parents() -> BTreeMap<u32, u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect()
}

/// CPU time of a process and of those of its children that have ended, in seconds.
fn ticks(pid: u32) -> f64 {
    let fields = stat(pid).unwrap_or_default();
    let ticks: f64 = fields.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}
