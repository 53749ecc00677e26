//! `bennu serve` that cannot start.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{Kept, refused, source::Tree};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    home::Home,
    rack::Rack,
    wire::Namespace,
    workshop,
};

/// Configurations and hosts on which no appliance can start.
pub const STARTS: Life = Life {
    name: "bad starts",
    shows: &["bad_config", "bad_interface", "bad_subnet", "bad_port_in_use", "bad_second_bennu"],
    live: |story| {
        let rack = story.rack()?;
        let host = Host::new(&rack)?;
        story.show("bad_config", || configurations(&host))?;
        story.show("bad_interface", || interfaces(&host))?;
        story.show("bad_subnet", || subnets(&host))?;
        story.show("bad_port_in_use", || ports(&host))?;
        let bennu = rack.appliance(Config::full())?;
        story.show("bad_second_bennu", || second(&host, &bennu, rack.home()))
    },
};

/// A host on which `bennu serve` is tried.
struct Host {
    namespace: Namespace,
    dir: PathBuf,
}

/// A good configuration of this host.
const GOOD: &str = "[boot]\ninterface = \"net0\"\n\n[[boot.subnet]]\nnetwork = \"10.77.0.0/24\"\n\
                    range = \"10.77.0.50-10.77.0.199\"\n";

impl Host {
    fn new(rack: &Rack) -> Result<Self> {
        let dir = rack.home().dir().join("host");
        fs::create_dir_all(&dir)?;
        Ok(Self { namespace: rack.host("host", "10.77.0.7/24")?, dir })
    }

    /// Starts with a configuration, its state directory put first.
    fn serve(&self, state: &str, config: &str) -> Result<Command> {
        let file = self.dir.join("bennu.toml");
        let socket = format!("\n[api]\nsocket = \"{}\"\n", self.dir.join("bennu.sock").display());
        let socket = if config.contains("[api]") { "" } else { &socket };
        fs::write(&file, format!("state_dir = \"{state}\"\n{config}{socket}"))?;
        let mut serve = self.namespace.command(workshop::bennu_binary()?);
        serve.arg("serve").arg("--config").arg(file);
        Ok(serve)
    }

    /// Expects a refusal, and that nothing was made.
    fn refuses(&self, config: &str, parts: &[&str]) -> Result<()> {
        let state = self.dir.join("state");
        let refusal = refused(&mut self.serve(&state.to_string_lossy(), config)?, parts);
        refusal.with_context(|| format!("with the configuration\n{config}"))?;
        ensure!(!self.dir.join("bennu.sock").exists(), "it left its socket");
        ensure!(!state.exists(), "it made its state directory");
        Ok(())
    }

    /// Expects it of the good configuration with one part replaced.
    fn refuses_with(&self, part: &str, other: &str, parts: &[&str]) -> Result<()> {
        ensure!(GOOD.contains(part), "'{part}' is not in the good configuration");
        self.refuses(&GOOD.replacen(part, other, 1), parts)
    }
}

fn configurations(host: &Host) -> Result<String> {
    let missing = host.dir.join("none.toml");
    let mut serve = host.namespace.command(workshop::bennu_binary()?);
    refused(serve.arg("serve").arg("--config").arg(&missing), &["none.toml", "No such file", "--config"])?;
    // Lines count the state directory's.
    for (part, other, parts) in [
        ("[boot]", "stat_dir = \"/x\"\n[boot]", ["line 2: there is no key 'stat_dir'", "did you mean 'state_dir'?"]),
        ("[boot]", "[boots]", ["line 2: there is no key 'boots'", "did you mean 'boot'?"]),
        ("interface", "interfaces", ["line 3: there is no key 'interfaces'", "did you mean 'interface'?"]),
        ("[boot]", "[boot]\nhttp_prot = 80", ["line 3: there is no key 'http_prot'", "did you mean 'http_port'?"]),
        ("network =", "netwrok =", ["line 6: there is no key 'netwrok'", "did you mean 'network'?"]),
        ("[boot]", "[api]\nsokcet = \"/x\"\n[boot]", ["line 3: there is no key 'sokcet'", "did you mean 'socket'?"]),
        ("[boot]", "[import]\ncompression = 3\n[boot]", ["line 3:", "did you mean 'compression_level'?"]),
        ("interface = \"net0\"", "", ["boot.interface is missing", "interface = \"eno2\""]),
        ("network = \"10.77.0.0/24\"", "", ["network is missing", "network = \"10.77.0.0/24\""]),
        ("interface = \"net0\"", "interface = 7", ["line 3:", "expected a text, or a list of them"]),
        ("interface = \"net0\"", "interface = \"net0", ["line 3:", "mend this line"]),
        ("\"net0\"", "\"net0\"\nhttp_port = 70000", ["line 4:", "mend this line"]),
        ("\"net0\"", "\"net0\"\ndhcp = \"on\"", ["boot.dhcp: 'on'", "full, proxy or off"]),
        ("\"net0\"", "\"net0\"\nunknown = \"Web\"", ["boot.unknown: 'Web'", "name:tag"]),
        ("[boot]", "[import]\ncompression_level = 40\n[boot]", ["compression_level: 40", "1 to 22"]),
    ] {
        host.refuses_with(part, other, &parts)?;
    }
    Ok(String::new())
}

fn interfaces(host: &Host) -> Result<String> {
    host.namespace.ip("link add bare0 type veth peer name bare1")?;
    host.namespace.ip("link set bare0 up")?;
    for (interface, parts) in [
        ("\"net9\"", ["there is no network interface 'net9'", "this host has: bare0, bare1, net0"]),
        ("[\"net0\", \"net9\"]", ["there is no network interface 'net9'", "boot.interface"]),
        ("\"bare0\"", ["interface bare0 has no IPv4 address", "ip address add 10.77.0.1/24 dev bare0"]),
        ("[]", ["boot.interface", "name network interfaces"]),
        ("\"\"", ["boot.interface", "name network interfaces"]),
        ("[\"net0\", \"net0\"]", ["'net0' is there twice", "once"]),
    ] {
        host.refuses_with("\"net0\"", interface, &parts)?;
    }
    // On an interface without its subnet nobody would get an address.
    let elsewhere = GOOD.replace("10.77.0.", "10.78.0.");
    host.refuses(&elsewhere, &["interface net0 has 10.77.0.7", "network = \"10.77.0.0/24\""])?;
    Ok(String::new())
}

fn subnets(host: &Host) -> Result<String> {
    let range = "range = \"10.77.0.50-10.77.0.199\"";
    for (other, parts) in [
        ("range = \"10.77.0.50-10.77.1.9\"", ["10.77.1.9 is not a host of 10.77.0.0/24", "range"]),
        ("range = \"10.77.0.0-10.77.0.9\"", ["10.77.0.0 is not a host", "range"]),
        ("range = \"10.77.0.50-10.77.0.255\"", ["10.77.0.255 is not a host", "range"]),
        ("range = \"10.77.0.199-10.77.0.50\"", ["10.77.0.199 comes after 10.77.0.50", "range"]),
        ("range = \"fifty\"", ["'fifty' is not two addresses", "10.77.0.50-10.77.0.199"]),
        ("router = \"10.78.0.1\"", ["router: 10.78.0.1 is not in 10.77.0.0/24", "boot.subnet 1"]),
        ("domain = \"a b\"", ["domain: 'a b'", "boot.subnet 1"]),
        ("lease_seconds = 5", ["lease_seconds: 5", "60"]),
    ] {
        host.refuses_with(range, other, &parts)?;
    }
    let network = "network = \"10.77.0.0/24\"";
    host.refuses_with(network, "network = \"10.77.0.1/24\"", &["has host bits", "write 10.77.0.0/24"])?;
    host.refuses_with(network, "network = \"10.77.0.0/31\"", &["/31", "/8 to /30"])?;
    host.refuses_with(network, "network = \"rack\"", &["network: 'rack'", "10.77.0.0/24"])?;
    let within =
        format!("{GOOD}\n[[boot.subnet]]\nnetwork = \"10.77.0.128/25\"\nrange = \"10.77.0.150-10.77.0.220\"\n");
    host.refuses(&within, &["10.77.0.0/24 and 10.77.0.128/25 overlap"])?;
    let around = format!("{GOOD}\n[[boot.subnet]]\nnetwork = \"10.0.0.0/8\"\n");
    host.refuses(&around, &["10.77.0.0/24 and 10.0.0.0/8 overlap"])?;
    host.refuses_with("\"net0\"", "\"net0\"\ndhcp = \"proxy\"", &["in proxy mode", "remove the range"])?;
    host.refuses("[boot]\ninterface = \"net0\"\n", &["needs a subnet", "[[boot.subnet]]", "dhcp = \"proxy\""])?;
    Ok(String::new())
}

/// A process that holds a socket, and does nothing with it.
struct Holder(Child);

impl Holder {
    fn of(socket: impl Into<OwnedFd>) -> Result<Self> {
        let held = Stdio::from(socket.into());
        Ok(Self(Command::new("sleep").arg("600").stdin(held).spawn().context("cannot run sleep")?))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ports(host: &Host) -> Result<String> {
    let udp = |port| host.namespace.inside(move || Ok(OwnedFd::from(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?)));
    let tcp = || host.namespace.inside(|| Ok(OwnedFd::from(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?)));
    // As nginx and Apache listen: on all addresses of both families at once.
    let both = || host.namespace.inside(|| Ok(OwnedFd::from(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))?)));
    type Taken<'a> = (&'a str, &'a dyn Fn() -> Result<OwnedFd>, &'a str);
    let sockets: [Taken<'_>; 5] = [
        ("67", &|| udp(67), "boot.dhcp = \"off\""),
        ("4011", &|| udp(4011), "boot.dhcp = \"off\""),
        ("69", &|| udp(69), "Stop that server"),
        ("80", &tcp, "boot.http_port"),
        ("80", &both, "boot.http_port"),
    ];
    for (port, socket, advice) in sockets {
        let holder = Holder::of(socket()?)?;
        let names = format!("sleep (pid {})", holder.0.id());
        let state = host.dir.join("held");
        let mut serve = host.serve(&state.to_string_lossy(), GOOD)?;
        refused(&mut serve, &[port, "in use by", &names, advice])?;
        // Its user may not take the socket's name away again; nobody must be behind it.
        ensure!(UnixStream::connect(host.dir.join("bennu.sock")).is_err(), "somebody answers on its socket");
        let _ = fs::remove_file(host.dir.join("bennu.sock"));
    }
    Ok(String::new())
}

/// A second bennu on the state directory of one that is in the middle of an import.
fn second(host: &Host, bennu: &Appliance, home: &Home) -> Result<String> {
    let tree = Tree::new(home, "second")?;
    bennu.bennu(["image", "import", &tree.source(), "good:v1"])?;
    let tar = tree.tar()?;
    let before = Kept::now(bennu)?;
    let mut import = bennu.command(["image", "import", "tar:-", "good:v2"]);
    let mut importing = import.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut pipe = importing.stdin.take().context("no pipe")?;
    pipe.write_all(&tar[..tar.len() / 2])?;
    // Work in progress that the store's owner alone may clear away.
    let kept = bennu.state().join("images/tmp/work-in-progress");
    fs::write(&kept, "")?;
    let state = bennu.state();
    refused(
        &mut host.serve(&state.to_string_lossy(), GOOD)?,
        &["in use by another process", &state.to_string_lossy(), "state_dir"],
    )?;
    ensure!(kept.exists(), "the second bennu cleared the first one's work away");
    fs::remove_file(kept)?;
    pipe.write_all(&tar[tar.len() / 2..])?;
    drop(pipe);
    ensure!(importing.wait()?.success(), "the import of the first bennu failed");
    ensure!(bennu.digest("good:v2")? == bennu.digest("good:v1")?, "the import was disturbed");
    let now = Kept::now(bennu)?;
    ensure!(before.blobs == now.blobs && before.pid == now.pid, "the store is not as it was");
    Ok(String::new())
}
