//! The network of a rack: one bridge, with the appliance and the site's own servers on veth pairs and the
//! machines on taps. All of it lives in namespaces of this rack, so that racks never see each other.

use anyhow::{Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{cell::Cell, fs::File, os::fd::AsFd, path::Path, process::Command, rc::Rc, thread};

use crate::{command::call, home::Home};

/// A network namespace of a rack.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, with its loopback up.
    pub fn new(home: &Home, label: &str) -> Result<Self> {
        let name = format!("{}-{label}", home.id());
        home.note_namespace(&name)?;
        call("ip", ["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside, and dies with the thread that started it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Runs something inside. Sockets that it makes stay there, whoever uses them later.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(Path::new("/run/netns").join(&self.name))?;
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            entered.join().unwrap_or_else(|_| bail!("panicked in a namespace"))
        })
    }

    /// Runs `ip` on it, the arguments split at blanks.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        call("ip", ["-n", &self.name].into_iter().chain(arguments.split_whitespace()))
    }
}

/// The bridge of a rack.
#[derive(Debug)]
pub struct Wire {
    home: Rc<Home>,
    inside: Namespace,
    taps: Cell<u32>,
}

impl Wire {
    /// A bridge that forwards from its first packet on.
    pub fn new(home: Rc<Home>) -> Result<Self> {
        let inside = Namespace::new(&home, "wire")?;
        // Snooping would drop multicast until a querier shows up, and there is none here.
        inside.ip("link add wire type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        inside.ip("link set wire up")?;
        Ok(Self { home, inside, taps: Cell::new(0) })
    }

    /// The namespace that the bridge and the machines' taps are in.
    pub fn namespace(&self) -> &Namespace {
        &self.inside
    }

    /// A namespace plugged into the bridge, with `interface` inside holding `address`.
    pub fn plug(&self, label: &str, interface: &str, address: &str) -> Result<Namespace> {
        let namespace = Namespace::new(&self.home, label)?;
        let port = format!("to-{label}");
        self.inside.ip(&format!("link add {port} type veth peer name {interface} netns {}", namespace.name()))?;
        self.inside.ip(&format!("link set {port} master wire up"))?;
        namespace.ip(&format!("address add {address} dev {interface}"))?;
        namespace.ip(&format!("link set {interface} up"))?;
        Ok(namespace)
    }

    /// A new tap on the bridge; its name.
    pub fn tap(&self) -> Result<String> {
        let number = self.taps.get() + 1;
        self.taps.set(number);
        let name = format!("tap{number}");
        self.inside.ip(&format!("tuntap add dev {name} mode tap"))?;
        self.inside.ip(&format!("link set {name} master wire up"))?;
        Ok(name)
    }
}
