//! Connections that hold a place and do nothing with it, while a machine boots; and names that lead out of the store.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::watch,
};

use super::{
    bad_input::{
        probe::SERVER,
        source::{Chance, Tree},
    },
    half_open::half_open,
};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    rack::Rack,
    wire::Namespace,
};

/// An appliance that is held up.
pub const HELD_UP: Life = Life {
    name: "slow HTTP",
    shows: &[
        "slow_http_from_many",
        "slow_http_from_one",
        "half_open_tftp",
        "scripts_are_for_their_card",
        "http_traversal",
    ],
    live: |story| {
        let rack = story.rack()?;
        let (bennu, machine) = (rack.appliance(Config::full())?, Machine::new(&rack)?);
        let mut tree = Tree::new(rack.home(), "tree")?;
        // Noise, so that the root is as large.
        tree.file("srv/noise", &Chance::new(9).bytes(ROOT))?;
        bennu.bennu(["image", "import", &tree.source(), "held:v1"])?;
        bennu.assign(&machine.mac, "held:v1")?;
        let foe = rack.host("foe", "10.77.0.8/24")?;
        let many: Vec<Ipv4Addr> = (200..250).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect();
        many.iter().try_for_each(|address| foe.ip(&format!("address add {address}/24 dev net0")).map(drop))?;
        story.show("slow_http_from_many", || held_up(&bennu, &machine, &foe, &many, SLOW))?;
        story.show("slow_http_from_one", || {
            held_up(&bennu, &machine, &foe, &[Ipv4Addr::new(10, 77, 0, 8)], PER_ADDRESS)
        })?;
        story.show("half_open_tftp", || half_open(&bennu, &machine, &foe, &many))?;
        story.show("scripts_are_for_their_card", || other_cards(&machine, &foe))?;
        tree = tree.without("srv")?;
        story.show("http_traversal", || traversal(&bennu, &machine, &tree))
    },
};

const ROOT: usize = 30 << 20;
/// Connections at once.
const SLOW: usize = 5000;
/// What the appliance lets one address have.
const PER_ADDRESS: usize = 512;
/// The deadline of a request's head, and what a busy host may add.
const HEAD: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(4);
const BOOTS: usize = 11;

/// What a slow connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    DrippingHead,
    StalledReader,
    StalledBody,
}

/// A host that boots as iPXE and stage 1 do.
pub struct Machine {
    namespace: Namespace,
    mac: String,
}

impl Machine {
    fn new(rack: &Rack) -> Result<Self> {
        let namespace = rack.host("machine", "10.77.0.9/24")?;
        let link = namespace.ip("-o link show dev net0")?;
        let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(Self { mac: mac.context("net0 has no hardware address")?.to_owned(), namespace })
    }

    fn connect(&self) -> Result<TcpStream> {
        connect(&self.namespace)
    }

    /// Does something as this host.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.inside(work)
    }

    /// Script, plan and root; how long all of it took, and a path whose body it would send.
    pub fn boots(&self) -> Result<(Duration, String, String)> {
        let begun = Instant::now();
        let script = String::from_utf8(self.get(&format!("/boot/{}.ipxe", self.mac.replace(':', "-")))?)?;
        let base = script.split("bennu.boot=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let base = base.with_context(|| format!("no boot in the script:\n{script}"))?;
        let path = |url: &str| url.split_once(&SERVER.to_string()).map(|(_, path)| path.to_owned()).unwrap_or_default();
        let plan: Value = serde_json::from_slice(&self.get(&path(&format!("{base}plan.json")))?)?;
        let root = plan.to_string();
        let root = root.split('"').find(|text| text.contains("/blobs/")).context("no root in the plan")?.to_owned();
        ensure!(self.get(&path(&root))?.len() > ROOT, "the root is too small");
        let took = begun.elapsed();
        let report = path(&format!("{base}report"));
        Ok((took, path(&root), report))
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut stream = self.connect()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no head")? + 4;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{path}: {}", String::from_utf8_lossy(&answer[..end]));
        Ok(answer.split_off(end))
    }
}

fn connect(namespace: &Namespace) -> Result<TcpStream> {
    namespace.inside(|| {
        let stream = TcpStream::connect((SERVER, 80))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    })
}

/// The median of some boots, and what they fetched.
fn boot_time(machine: &Machine) -> Result<(Duration, String, String)> {
    let mut boots = (0..BOOTS).map(|_| machine.boots()).collect::<Result<Vec<_>>>()?;
    boots.sort();
    Ok(boots.swap_remove(BOOTS / 2))
}

/// Boots are as quick as before, what holds places is ended in time, and holds little.
fn held_up(bennu: &Appliance, machine: &Machine, foe: &Namespace, from: &[Ipv4Addr], most: usize) -> Result<String> {
    allow_descriptors()?;
    let (quiet, blob, report) = boot_time(machine)?;
    // Stage 1 says that it runs, or the next boots would look like a loop.
    post_report(machine, &report)?;
    let (memory, descriptors) = (bennu.memory()?, open_files(bennu)?);
    let (stop, stopped) = watch::channel(false);
    let (ready, connected) = mpsc::channel();
    thread::scope(|scope| {
        let siege = scope.spawn(|| foe.inside(|| besiege(from, &blob, &report, ready, stopped)));
        let held = (|| {
            connected.recv_timeout(Duration::from_secs(60)).context("the slow connections do not come about")?;
            accepted(bennu, descriptors, most * 9 / 10)?;
            let open = settled(bennu, descriptors + most)?.saturating_sub(descriptors);
            let (loaded, ..) = boot_time(machine)?;
            let grown = bennu.memory()?.saturating_sub(memory);
            ensure!(loaded <= quiet.mul_f64(1.5), "a boot takes {loaded:?} beside them, and {quiet:?} without");
            ensure!(grown <= 128 << 20, "{} MiB more are held", grown >> 20);
            thread::sleep(HEAD);
            post_report(machine, &report)?;
            Ok((loaded, open, grown))
        })();
        let _ = stop.send(true);
        let ended = siege.join().unwrap_or_else(|_| bail!("the siege panicked"))?;
        let (loaded, open, grown) = held?;
        for kind in [Kind::Silent, Kind::DrippingHead] {
            let late =
                ended.iter().filter(|(of, after)| *of == kind && after.is_none_or(|after| after > HEAD + LATE)).count();
            ensure!(late == 0, "{late} connections of kind {kind:?} were not ended in time");
        }
        settled(bennu, descriptors).context("after all clients left")?;
        Ok(format!("{open} held, boot {loaded:.0?} (quiet {quiet:.0?}), {} MiB", grown >> 20))
    })
}

/// Waits until enough of the connections are held: a client is connected before its server has accepted it.
fn accepted(bennu: &Appliance, before: usize, enough: usize) -> Result<()> {
    let deadline = Instant::now() + HEAD / 2;
    loop {
        let open = open_files(bennu)?.saturating_sub(before);
        if open >= enough {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {open} slow connections are held: too few to show anything");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until no more files are open than may be, but for a few of its own; how many.
fn settled(bennu: &Appliance, most: usize) -> Result<usize> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let open = open_files(bennu)?;
        if open <= most + 20 {
            return Ok(open);
        }
        ensure!(Instant::now() < deadline, "{open} files are open, and {most} may be");
        thread::sleep(Duration::from_millis(50));
    }
}

fn allow_descriptors() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

fn open_files(bennu: &Appliance) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", bennu.pid().context("it does not run")?))?.count())
}

pub fn post_report(machine: &Machine, path: &str) -> Result<()> {
    let body = "{\"step\":\"started\"}";
    let mut stream = machine.connect()?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {SERVER}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    Ok(())
}

/// Opens the slow connections and keeps them; when each was ended by the appliance, if it was.
fn besiege(
    from: &[Ipv4Addr],
    blob: &str,
    report: &str,
    ready: mpsc::Sender<()>,
    stopped: watch::Receiver<bool>,
) -> Result<Vec<(Kind, Option<Duration>)>> {
    let reader = format!("GET {blob} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let body =
        format!("POST {report} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{{");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..SLOW {
            let kind =
                [Kind::Silent, Kind::DrippingHead, Kind::StalledReader, Kind::StalledBody, Kind::Silent][number % 5];
            let first = match kind {
                Kind::Silent | Kind::DrippingHead => Vec::new(),
                Kind::StalledReader => reader.clone(),
                Kind::StalledBody => body.clone().into_bytes(),
            };
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            socket.bind(SocketAddrV4::new(from[number % from.len()], 0).into())?;
            let stream = socket.connect(SocketAddrV4::new(SERVER, 80).into()).await?;
            all.spawn(slow(stream, kind, first, stopped.clone()));
        }
        let _ = ready.send(());
        Ok(all.join_all().await)
    })
}

async fn slow(
    mut stream: tokio::net::TcpStream,
    kind: Kind,
    first: Vec<u8>,
    mut stopped: watch::Receiver<bool>,
) -> (Kind, Option<Duration>) {
    let begun = Instant::now();
    let _ = stream.write_all(&first).await;
    if kind == Kind::StalledReader {
        over(&mut stopped).await;
        return (kind, None);
    }
    let mut drip = b"GET /boot.ipxe HTTP/1.1\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle();
    let mut buffer = [0; 256];
    loop {
        tokio::select! {
            () = over(&mut stopped) => return (kind, None),
            read = stream.read(&mut buffer) => if matches!(read, Ok(0) | Err(_)) { return (kind, Some(begun.elapsed())) },
            () = tokio::time::sleep(Duration::from_millis(500)), if kind == Kind::DrippingHead => {
                let _ = stream.write_all(&[*drip.next().unwrap_or(&b'a')]).await;
            }
        }
    }
}

async fn over(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A card that asks for another's script learns nothing of it.
fn other_cards(machine: &Machine, foe: &Namespace) -> Result<String> {
    let stranger = Machine { namespace: foe.clone(), mac: machine.mac.clone() };
    let script = String::from_utf8(stranger.get(&format!("/boot/{}.ipxe", machine.mac.replace(':', "-")))?)?;
    ensure!(script.contains("asked for by the card"), "another card got:\n{script}");
    ensure!(!script.contains("bennu.boot="), "another card got the token:\n{script}");
    Ok(String::new())
}

const NAMES: usize = 10_000;

/// No name leads to a file that is not served by it.
fn traversal(bennu: &Appliance, machine: &Machine, tree: &Tree) -> Result<String> {
    const CANARY: &str = "canary-8f1c2e";
    for place in [bennu.state().join("canary"), bennu.state().join("images/canary"), tree.path().join("canary")] {
        fs::write(place, CANARY)?;
    }
    let mut chance = Chance::new(14);
    let mut reader = BufReader::new(machine.connect()?);
    let (mut asked, mut refused) = (0, 0);
    while asked < NAMES {
        let name = name(&mut chance, bennu);
        asked += 1;
        let request = format!("GET {name} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n");
        reader.get_mut().write_all(request.as_bytes()).with_context(|| format!("asking for {name}"))?;
        let (status, head, body) = answer(&mut reader).with_context(|| format!("the answer for {name}"))?;
        ensure!((400..500).contains(&status), "{name} was answered with {status}: {body}");
        ensure!(!body.contains(CANARY) && !body.contains("root:"), "{name} gave a file: {body}");
        if head.contains("connection: close") {
            refused += 1;
            reader = BufReader::new(machine.connect()?);
        }
    }
    Ok(format!("{asked} names, {refused} of them no targets at all"))
}

fn name(chance: &mut Chance, bennu: &Appliance) -> String {
    const ROOMS: [&str; 6] = ["/loader/", "/blobs/sha256/", "/blobs/", "/boot/", "/", "//"];
    const UP: [&str; 14] = [
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..\\",
        "..%5c",
        "....//",
        "..;/",
        "%c0%ae%c0%ae/",
        "..%252f",
        ".%00./",
        "./.././",
        "..%c0%af",
        "%uff0e%uff0e/",
    ];
    const ENDS: [&str; 6] = ["", "%00.efi", ".efi", "?x", "/", "%20"];
    let state = bennu.state();
    let files = [
        "canary",
        "etc/passwd",
        "etc/shadow",
        "ledger.redb",
        "bennu.toml",
        "images/index.json",
        "images/oci-layout",
        "tmp/x",
        "proc/self/environ",
        "proc/self/root/etc/passwd",
    ];
    let pick = |chance: &mut Chance, all: &[&str]| all[chance.below(all.len())].to_owned();
    let up: String = (0..chance.below(9)).map(|_| pick(chance, &UP)).collect();
    let absolute = if chance.below(4) == 0 { format!("{}/", state.display()) } else { String::new() };
    format!("{}{up}{absolute}{}{}", pick(chance, &ROOMS), pick(chance, &files), pick(chance, &ENDS))
}

fn answer(reader: &mut BufReader<TcpStream>) -> Result<(u16, String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "the connection ended: {head}");
    }
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).context("no status")?;
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok((status, head, String::from_utf8_lossy(&body).into_owned()))
}
