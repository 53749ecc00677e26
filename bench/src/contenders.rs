//! The servers that are compared: ours, and the peers as Debian packages them, each with an ordinary configuration
//! that answers what is asked here. No server checks by ping or ARP whether an address is free.

use anyhow::{Context, Result, ensure};
use bennu_tests::{command, workshop};
use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    lab::{INTERFACE, LARGE_POOL, Lab, MACHINES, NETMASK, POOL, Pool, SERVER, WIRE},
    load::{Exchanges, Load, colons, mac},
    servers::{Serves, Spec, exchanges},
};

/// Our name in the report.
pub const OURS: &str = "bennu";
/// Kea's, with its two packet threads.
pub const KEA: &str = "kea, 2 threads";
/// dnsmasq's.
pub const DNSMASQ: &str = "dnsmasq";
/// tftpd-hpa's.
pub const TFTPD_HPA: &str = "tftpd-hpa";
/// atftpd's.
pub const ATFTPD: &str = "atftpd";
/// nginx's.
pub const NGINX: &str = "nginx";

/// Debian packages of the peers, and the program that is measured of each.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("dnsmasq-base", "dnsmasq"),
    ("kea-dhcp4-server", "kea-dhcp4"),
    ("tftpd-hpa", "in.tftpd"),
    ("atftpd", "atftpd"),
    ("nginx", "nginx"),
];

/// How ours is configured.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// Name of its directory: starts with the same one share their state.
    pub home: &'a str,
    /// Addresses it gives.
    pub pool: Pool,
    /// Directory of loaders among the files to serve.
    pub loaders: Option<&'a str>,
    /// What an unassigned machine gets.
    pub unknown: &'a str,
    /// What it must serve to be ready.
    pub serves: &'a [Serves],
}

impl Ours<'_> {
    /// Ready to be started.
    pub fn spec(&self, lab: &Lab) -> Result<Spec> {
        let dir = lab.home().dir().join(self.home);
        fs::create_dir_all(dir.join("state"))?;
        let loaders = self
            .loaders
            .map_or(String::new(), |name| format!("loaders_dir = \"{}\"\n", lab.files().path(name).display()));
        let config = format!(
            "state_dir = \"{}/state\"\n\n[boot]\ninterface = \"{INTERFACE}\"\nunknown = \"{}\"\n{loaders}\n\
             [[boot.subnet]]\nnetwork = \"{WIRE}\"\nrange = \"10.77.0.100-10.77.0.199\"\n\n\
             [[boot.subnet]]\nnetwork = \"{MACHINES}\"\nrange = \"{}-{}\"\nlease_seconds = 43200\n\n\
             [api]\nsocket = \"{}\"\n",
            dir.display(),
            self.unknown,
            self.pool.first,
            self.pool.last,
            socket(lab).display(),
        );
        let file = dir.join("bennu.toml");
        fs::write(&file, config)?;
        let binary = workshop::bennu_binary()?;
        Ok(Spec {
            name: OURS.to_owned(),
            command: words([&path(&binary)?, "serve", "--config", &path(&file)?]),
            environment: Vec::new(),
            dir,
            serves: self.serves.to_vec(),
        })
    }
}

/// The management socket of ours.
pub fn socket(lab: &Lab) -> PathBuf {
    lab.home().socket("bennu.sock")
}

/// Runs a command of ours on the server that runs; what it printed.
pub fn bennu(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(workshop::bennu_binary()?);
    command.env("BENNU_SERVER", format!("unix://{}", socket(lab).display())).args(arguments);
    command::run(&mut command)
}

/// Lets machines take addresses from the server of ours that runs; the addresses.
pub fn leased(lab: &Lab, first: u32, machines: u32) -> Result<Vec<Ipv4Addr>> {
    let load = Exchanges { patience_ms: 5000, ..exchanges(first, machines as usize, 256) };
    let figures = lab.run(&Load::Exchanges(load))?;
    let listed: serde_json::Value = serde_json::from_str(&bennu(lab, &["lease", "list", "--json"])?)?;
    let leases = listed.as_array().or_else(|| listed["items"].as_array()).context("a listing without leases")?;
    let macs: BTreeSet<String> = (first..first + machines).map(|number| colons(mac(number))).collect();
    let ours = leases.iter().filter(|lease| lease["mac"].as_str().is_some_and(|mac| macs.contains(mac)));
    let addresses: Vec<Ipv4Addr> = ours.filter_map(|lease| lease["address"].as_str()?.parse().ok()).collect();
    ensure!(addresses.len() == macs.len(), "{} of {machines} machines have an address: {figures:?}", addresses.len());
    Ok(addresses)
}

/// dnsmasq with DHCP and TFTP. Its defaults of 1000 leases and 50 transfers are too few for what is measured.
pub fn dnsmasq(lab: &Lab, serves: &[Serves]) -> Result<Spec> {
    peer(lab, DNSMASQ, "dnsmasq", serves, |dir| {
        let root = path(&lab.files().path("tftp"))?;
        Ok(words([
            "-k",
            "--conf-file=/dev/null",
            "--port=0",
            "--user=root",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            "--dhcp-lease-max=65000",
            "--dhcp-boot=snponly.efi",
            "--enable-tftp",
            "--tftp-max=1000",
            "--quiet-dhcp",
            "--quiet-tftp",
            &format!("--pid-file={dir}/pid"),
            &format!("--log-facility={dir}/log"),
            &format!("--interface={INTERFACE}"),
            &format!("--dhcp-range={},{},{NETMASK},12h", POOL.first, POOL.last),
            &format!("--dhcp-leasefile={dir}/leases"),
            &format!("--tftp-root={root}"),
        ]))
    })
}

/// Kea with a memfile and two packet threads. Its default queue of 64 packets loses some of 256 that come at once.
pub fn kea(lab: &Lab, home: &str, large: bool) -> Result<Spec> {
    let pool = if large { LARGE_POOL } else { POOL };
    let mut spec = peer(lab, KEA, "kea-dhcp4", &[Serves::Dhcp], |_| Ok(Vec::new()))?;
    spec.dir = lab.home().dir().join(home);
    fs::create_dir_all(&spec.dir)?;
    let (dir, file) = (path(&spec.dir)?, spec.dir.join("kea.json"));
    // It takes the file of one that was killed for a running one: in a namespace of its own every Kea has the same pid.
    let _ = fs::remove_file(spec.dir.join("kea.kea-dhcp4.pid"));
    let config = format!(
        "{{ \"Dhcp4\": {{\n\
         \"interfaces-config\": {{ \"interfaces\": [ \"{INTERFACE}\" ] }},\n\
         \"lease-database\": {{ \"type\": \"memfile\", \"persist\": true, \"name\": \"{dir}/leases4.csv\", \
         \"lfc-interval\": 3600 }},\n\
         \"multi-threading\": {{ \"enable-multi-threading\": true, \"thread-pool-size\": 2, \"packet-queue-size\": 1024 }},\n\
         \"valid-lifetime\": 43200, \"next-server\": \"{SERVER}\", \"boot-file-name\": \"snponly.efi\",\n\
         \"subnet4\": [ {{ \"subnet\": \"{MACHINES}\", \"pools\": [ {{ \"pool\": \"{} - {}\" }} ] }} ],\n\
         \"loggers\": [ {{ \"name\": \"kea-dhcp4\", \"severity\": \"WARN\", \
         \"output_options\": [ {{ \"output\": \"stdout\" }} ] }} ] }} }}\n",
        pool.first, pool.last
    );
    fs::write(&file, config)?;
    spec.command.extend(words(["-c", &path(&file)?]));
    for variable in ["KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR"] {
        spec.environment.push((variable.to_owned(), dir.clone()));
    }
    Ok(spec)
}

/// tftpd-hpa.
pub fn tftpd_hpa(lab: &Lab) -> Result<Spec> {
    peer(lab, TFTPD_HPA, "in.tftpd", &[Serves::Tftp("ready")], |_| {
        let root = path(&lab.files().path("tftp"))?;
        Ok(words(["-L", "-a", &format!("{SERVER}:69"), "-u", "root", "-s", &root]))
    })
}

/// atftpd.
pub fn atftpd(lab: &Lab) -> Result<Spec> {
    peer(lab, ATFTPD, "atftpd", &[Serves::Tftp("ready")], |dir| {
        let (address, log) = (SERVER.to_string(), format!("{dir}/log"));
        let options = words(["--daemon", "--no-fork", "--user", "root.root", "--bind-address", &address]);
        let more = ["--maxthread", "1000", "--no-multicast", "--verbose=3", "--logfile", &log];
        let root = path(&lab.files().path("tftp"))?;
        Ok([options, words(more), words([root.as_str()])].concat())
    })
}

/// nginx with two workers and sendfile.
pub fn nginx(lab: &Lab) -> Result<Spec> {
    peer(lab, NGINX, "nginx", &[Serves::Http("ready")], |dir| {
        let root = path(&lab.files().path("http"))?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|part| format!("{part}_temp_path {dir}/{part};\n"))
            .concat();
        let config = format!(
            "daemon off; user root; worker_processes 2; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000;\n{temporary}\
             server {{ listen 80; root {root}; }} }}\n"
        );
        let file = format!("{dir}/nginx.conf");
        fs::write(&file, config)?;
        Ok(words(["-e", &format!("{dir}/error.log"), "-c", &file]))
    })
}

/// A peer with an empty directory.
fn peer(
    lab: &Lab,
    name: &str,
    program: &str,
    serves: &[Serves],
    arguments: impl FnOnce(&str) -> Result<Vec<String>>,
) -> Result<Spec> {
    let dir = lab.home().dir().join(program);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let (package, _) = PROGRAMS.iter().find(|(_, known)| *known == program).context("a peer without a package")?;
    let (binary, environment) = find(package, program)?;
    let command = [words([path(&binary)?.as_str()]), arguments(&path(&dir)?)?].concat();
    Ok(Spec { name: name.to_owned(), command, environment, dir, serves: serves.to_vec() })
}

/// A peer's program: unpacked by the set-up with its libraries beside it, or installed.
fn find(package: &str, program: &str) -> Result<(PathBuf, Vec<(String, String)>)> {
    let root = workshop::cache("peers")?.join(package);
    let unpacked = root.join("usr/sbin").join(program);
    if unpacked.exists() {
        let mut libraries = Vec::new();
        for place in fs::read_dir(root.join("usr/lib")).into_iter().flatten() {
            libraries.push(path(&place?.path())?);
        }
        return Ok((unpacked, vec![("LD_LIBRARY_PATH".to_owned(), libraries.join(":"))]));
    }
    let installed = Path::new("/usr/sbin").join(program);
    ensure!(installed.exists(), "{program} is missing: run 'scripts/setup bench'");
    Ok((installed, Vec::new()))
}

fn words<'a>(words: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>) -> Vec<String> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

fn path(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is no UTF-8", path.display()))
}
