//! Where everything is measured: two network namespaces with one wire between them. The servers are in one, the load
//! in the other, which is the rack's router and relay: the machines' network lies behind it.

use anyhow::{Context, Result, bail};
use bennu_tests::{command, home::Home, wire::Namespace, workshop};
use std::{
    env, fs,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::load::{Figures, Load};

/// The server's interface.
pub const INTERFACE: &str = "prov0";
/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The router's address on the wire.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The wire between server and router.
pub const WIRE: &str = "10.77.0.0/24";
/// Behind the router: the machines' network, its relay, and its netmask.
pub const MACHINES: &str = "10.80.0.0/14";
/// The router's address there.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// Netmask of [`MACHINES`].
pub const NETMASK: &str = "255.252.0.0";
/// Addresses of the machines' network that no pool holds: clients without a lease.
const UNLEASED: Ipv4Addr = Ipv4Addr::new(10, 83, 0, 0);

/// So many addresses of clients without a lease.
pub fn unleased(count: u32) -> Vec<Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::from(u32::from(UNLEASED) + number)).collect()
}

/// Addresses that are leased.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// The lowest.
    pub first: Ipv4Addr,
    /// The highest.
    pub last: Ipv4Addr,
}

/// 20,479 addresses, a number for which dnsmasq's hash gives the first machines different first choices: with 16,384
/// more than half of them were refused once, since dnsmasq does not hold what it offered.
pub const POOL: Pool = Pool { first: Ipv4Addr::new(10, 80, 16, 0), last: Ipv4Addr::new(10, 80, 95, 254) };
/// 131,072 addresses.
pub const LARGE_POOL: Pool = Pool { first: Ipv4Addr::new(10, 81, 0, 0), last: Ipv4Addr::new(10, 82, 255, 255) };

/// The lab. Dropping it ends what it started and removes what it made.
#[derive(Debug)]
pub struct Lab {
    home: Home,
    server: Namespace,
    client: Namespace,
    group: Option<PathBuf>,
    files: Files,
}

impl Lab {
    /// Builds it, and makes the files to serve when they are not there yet.
    pub fn new() -> Result<Self> {
        workshop::require_root()?;
        let files = Files::made()?;
        let home = Home::new()?;
        let (server, client) = (Namespace::new(&home, "server")?, Namespace::new(&home, "client")?);
        server.ip(&format!("link add {INTERFACE} type veth peer name rack0 netns {}", client.name()))?;
        server.ip(&format!("address add {SERVER}/24 dev {INTERFACE}"))?;
        client.ip(&format!("address add {ROUTER}/24 dev rack0"))?;
        client.ip(&format!("address add {RELAY}/32 dev lo"))?;
        server.ip(&format!("link set {INTERFACE} up"))?;
        client.ip("link set rack0 up")?;
        server.ip(&format!("route add {MACHINES} via {ROUTER}"))?;
        // Every address of the machines' network is one of the client's own.
        client.ip(&format!("route add local {MACHINES} dev lo"))?;
        let group = cgroup2().and_then(|parent| home.control_group(&parent).ok());
        Ok(Self { home, server, client, group, files })
    }

    /// The files to serve.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The lab's own directory and records.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Where servers run.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The control group that servers run in, where the system lets us make one.
    pub fn group(&self) -> Option<&Path> {
        self.group.as_deref()
    }

    /// Runs a load to its end. What it could not do at all is among its errors.
    pub fn run(&self, load: &Load) -> Result<Figures> {
        let mut command = self.command(load)?;
        let output = command.output().context("cannot run a load")?;
        figures(output)
    }

    /// The process that a load is.
    pub fn command(&self, load: &Load) -> Result<Command> {
        let mut command = self.client.command(env::current_exe()?);
        // By a file, since it may be longer than an argument can be.
        let told = self.home.dir().join("load.json");
        fs::write(&told, serde_json::to_vec(load)?)?;
        command.arg("load").stdin(fs::File::open(told)?);
        Ok(command)
    }
}

/// What a load printed.
pub fn figures(output: std::process::Output) -> Result<Figures> {
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).context("a load printed no figures");
    }
    let mut figures = Figures::default();
    figures.set("failed", 1.0);
    figures.count_error(String::from_utf8_lossy(&output.stderr).trim());
    Ok(figures)
}

/// Where control groups of the second version are.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (place, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    found.filter(|place| place.join("cgroup.procs").exists())
}

/// The files to serve, random and made once.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
}

/// File, size.
const FILES: &[(&str, u64)] = &[
    ("tftp/ready", 100),
    ("tftp/1m.bin", 1 << 20),
    ("tftp/64m.bin", 64_000_000),
    ("tftp/snponly.efi", 300_000),
    ("http/ready", 100),
    ("http/1g.bin", 1 << 30),
    ("http/script", 1000),
    ("http/kernel", 8 << 20),
    ("http/initrd", 30 << 20),
];

impl Files {
    fn made() -> Result<Self> {
        let files = Self { dir: workshop::cache("bench")? };
        for (name, size) in FILES {
            let path = files.path(name);
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == *size) {
                // Reading it brings it into the page cache.
                std::io::copy(&mut fs::File::open(&path)?, &mut std::io::sink())?;
            } else {
                fs::create_dir_all(path.parent().unwrap_or(&files.dir))?;
                fill(&path, *size).with_context(|| format!("cannot make {}", path.display()))?;
            }
        }
        // The one loader by itself, for measurements of memory: ours keeps a directory's loaders in memory.
        let (shared, alone) = (files.path("tftp/snponly.efi"), files.path("loader/snponly.efi"));
        if !alone.exists() {
            fs::create_dir_all(files.path("loader"))?;
            fs::hard_link(shared, alone)?;
        }
        Ok(files)
    }

    /// A file of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Its size, if it is one of ours.
    pub fn size(&self, name: &str) -> Option<u64> {
        FILES.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
    }

    /// Its SHA-256, in hex.
    pub fn sha256(&self, name: &str) -> Result<String> {
        let said = command::run(Command::new("sha256sum").arg(self.path(name)))?;
        said.split_whitespace().next().map(str::to_owned).context("sha256sum said nothing")
    }
}

fn fill(path: &Path, size: u64) -> Result<()> {
    let mut file = fs::File::create(path)?;
    let mut random = fs::File::open("/dev/urandom").map(|source| std::io::Read::take(source, size))?;
    std::io::copy(&mut random, &mut file)?;
    if path.ends_with("http/kernel") {
        use std::os::unix::fs::FileExt;
        // What Bennu takes for a kernel of x86-64 (Documentation/arch/x86/boot.rst).
        for (at, bytes) in [(0x1fe, &[0x55, 0xaa][..]), (0x202, b"HdrS"), (0x206, &[0x0c, 0x02]), (0x236, &[1, 0])] {
            file.write_all_at(bytes, at)?;
        }
    }
    file.flush()?;
    if file.metadata()?.len() != size {
        bail!("the disk is full");
    }
    Ok(())
}
