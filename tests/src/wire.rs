//! The network of a rack: a bridge, with the appliance and the site's own servers on veth pairs and the
//! machines on taps. All of it lives in namespaces of this rack, so that racks never see each other.

use anyhow::{Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    cell::Cell,
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
    process::Command,
    rc::Rc,
    thread,
};

use crate::{
    command::{self, call},
    home::Home,
};

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

/// The bridge of every rack, which the appliance is on.
pub(crate) const MAIN: &str = "wire";

/// The bridges of a rack: one, and more for networks behind routers.
#[derive(Debug)]
pub struct Wire {
    home: Rc<Home>,
    inside: Namespace,
    taps: Cell<u32>,
    ports: Cell<u32>,
}

impl Wire {
    /// A bridge that forwards from its first packet on.
    pub fn new(home: Rc<Home>) -> Result<Self> {
        let inside = Namespace::new(&home, "wire")?;
        let wire = Self { home, inside, taps: Cell::new(0), ports: Cell::new(0) };
        wire.bridge(MAIN)?;
        Ok(wire)
    }

    /// One more bridge, with no way to the others.
    pub fn bridge(&self, name: &str) -> Result<()> {
        // Snooping would drop multicast until a querier shows up, and there is none here.
        self.inside.ip(&format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        self.inside.ip(&format!("link set {name} up"))?;
        Ok(())
    }

    /// The namespace that the bridges and the machines' taps are in.
    pub fn namespace(&self) -> &Namespace {
        &self.inside
    }

    /// From now on each frame that passes from port to port is lost with a chance of so many in a thousand. In the
    /// bridge, since a filter in a server's own namespace would tell it of each loss (EPERM).
    pub fn lose(&self, per_mille: u32) -> Result<()> {
        let mut rules = "table bridge loss\ndelete table bridge loss\n".to_owned();
        if per_mille > 0 {
            rules += &format!(
                "table bridge loss {{\n chain forward {{\n  type filter hook forward priority 0\n  \
                 numgen random mod 1000 < {per_mille} drop\n }}\n}}\n"
            );
        }
        let file = self.home.dir().join("loss.nft");
        fs::write(&file, rules)?;
        command::run(self.inside.command("nft").arg("-f").arg(&file)).map(drop)
    }

    /// A namespace plugged into the bridge, with `interface` inside holding `address`.
    pub fn plug(&self, label: &str, interface: &str, address: &str) -> Result<Namespace> {
        let namespace = Namespace::new(&self.home, label)?;
        self.connect(&namespace, MAIN, interface, Some(address))?;
        Ok(namespace)
    }

    /// A namespace plugged into any bridge by an interface without an address.
    pub fn plug_bare(&self, label: &str, bridge: &str, interface: &str) -> Result<Namespace> {
        let namespace = Namespace::new(&self.home, label)?;
        self.connect(&namespace, bridge, interface, None)?;
        Ok(namespace)
    }

    /// One more interface of a namespace, plugged into a bridge.
    pub fn connect(&self, to: &Namespace, bridge: &str, interface: &str, address: Option<&str>) -> Result<()> {
        let number = self.ports.get() + 1;
        self.ports.set(number);
        let port = format!("port{number}");
        self.inside.ip(&format!("link add {port} type veth peer name {interface} netns {}", to.name()))?;
        self.inside.ip(&format!("link set {port} master {bridge} up"))?;
        if let Some(address) = address {
            to.ip(&format!("address add {address} dev {interface}"))?;
        }
        to.ip(&format!("link set {interface} up"))?;
        Ok(())
    }

    /// A cable between two bridges: they are one wire from now on.
    pub fn join(&self, one: &str, other: &str) -> Result<()> {
        self.inside.ip("link add join0 type veth peer name join1")?;
        for (end, bridge) in [("join0", one), ("join1", other)] {
            self.inside.ip(&format!("link set {end} master {bridge} up"))?;
        }
        Ok(())
    }

    /// A new tap on a bridge; its name.
    pub fn tap(&self, bridge: &str) -> Result<String> {
        let number = self.taps.get() + 1;
        self.taps.set(number);
        let name = format!("tap{number}");
        self.inside.ip(&format!("tuntap add dev {name} mode tap"))?;
        self.inside.ip(&format!("link set {name} master {bridge} up"))?;
        Ok(name)
    }
}
