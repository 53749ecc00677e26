//! A secret reaches its machine and nobody else, and host keys stay over reimages.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::checks::seen;
use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    images,
    machine::{Firmware, Machine},
    rack::Rack,
};

const IMAGE: &str = "keyed:v1";
const FILE: &str = "/etc/app/canary";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// Two boots, and somebody on the machine who asks with a key of his own.
pub const CANARY: Life = Life {
    name: "secrets",
    shows: &["secrets_reach_their_machine", "secrets_are_found_nowhere_else"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let image = with_ssh(&rack)?;
        bennu.bennu(["image", "import", &format!("tar:{}", image.display()), IMAGE, "--level", "1"])?;
        let mut machine = rack.machine(Firmware::Bios).install()?;
        let canary = format!("canary-{}-of-the-rack", std::process::id());
        let listening = Listening::start(&rack)?;
        let mut told = String::new();
        story.show("secrets_reach_their_machine", || {
            bennu.assign(&machine.mac(), IMAGE)?;
            set(&bennu, &machine.mac(), &canary)?;
            let first = boot(&bennu, &mut machine, &canary)?;
            told = machine.console()?.text();
            another_key_is_refused(&bennu, &mut machine)?;
            machine.power_cycle()?;
            let second = arrive(&bennu, &mut machine, &canary)?;
            told += &machine.console()?.text();
            ensure!(first == second, "the host key was {first} and is {second}");
            Ok(format!("host key {first}"))
        })?;
        story.show("secrets_are_found_nowhere_else", || {
            let heard = listening.stop()?;
            let key = machine.run(&format!("sed -n 3p {HOST_KEY}"))?;
            let needles = [canary.as_bytes(), key.trim().as_bytes()];
            ensure!(needles[1].len() > 40, "the host key's third line is '{key}'");
            is_nowhere(&bennu, &machine, &heard, &told, &needles)
        })
    },
};

/// The Debian of the rack with a directory for an SSH server's keys.
fn with_ssh(rack: &Rack) -> Result<std::path::PathBuf> {
    let (tar, tree) = (rack.home().dir().join("keyed.tar"), rack.home().dir().join("keyed"));
    fs::create_dir_all(tree.join("etc/ssh"))?;
    command::run(Command::new("cp").arg("--reflink=auto").arg(images::images()?.debian_v1()).arg(&tar))?;
    let mut append = Command::new("tar");
    append.args(["--append", "--owner=0", "--group=0", "--mode=755", "-f"]).arg(&tar).arg("-C").arg(&tree);
    command::run(append.arg("./etc/ssh"))?;
    Ok(tar)
}

fn set(bennu: &Appliance, mac: &str, canary: &str) -> Result<()> {
    let mut set = bennu.command(["secret", "set", "canary", "--machine", mac, "--path", FILE, "--mode", "0400"]);
    let mut child = set.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(canary.as_bytes())?;
    ensure!(child.wait()?.success(), "bennu secret set failed");
    Ok(())
}

fn boot(bennu: &Appliance, machine: &mut Machine, canary: &str) -> Result<String> {
    machine.power_on()?;
    arrive(bennu, machine, canary)
}

/// Logs in, and answers the digest of the host key. What the files hold stays off the console.
fn arrive(bennu: &Appliance, machine: &mut Machine, canary: &str) -> Result<String> {
    machine.login()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, canary.as_bytes());
    let expected: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let says = machine.run(&format!("sha256sum {FILE}; stat -c '%a %u %g' {FILE} {HOST_KEY} {HOST_KEY}.pub"))?;
    ensure!(says == format!("{expected}  {FILE}\n400 0 0\n600 0 0\n644 0 0"), "the machine's own files: {says}");
    let kept = machine.run("stat -c '%a %u' /run/bennu/boot.json; grep -c '\"proof\": \"' /run/bennu/boot.json")?;
    ensure!(kept == "600 0\n1", "the reporter's file: {kept}");
    let boot = bennu.wait_for_state(&machine.mac(), "up", 60)?;
    seen(&boot, "a session", |entry| entry["seen"] == "session_opened")?;
    ensure!(boot["diagnosis"].is_null(), "an honest boot has the diagnosis {}", boot["diagnosis"]);
    machine.run(&format!("sha256sum < {HOST_KEY}"))
}

/// Everybody on the machine reads its command line.
fn another_key_is_refused(bennu: &Appliance, machine: &mut Machine) -> Result<()> {
    let key = "42".repeat(32);
    let body = format!("{{\"key\":\"{key}\"}}");
    let ask = format!(
        "p=$(sed 's/.*bennu.boot=http:..[^/]*//; s/ .*//' /proc/cmdline); exec 3<>/dev/tcp/10.77.0.1/80; \
         printf 'POST %ssession HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: {}\\r\\n\\r\\n%s' \"$p\" '{body}' >&3; \
         head -n 1 <&3",
        body.len()
    );
    machine.put("/tmp/ask", &format!("{ask}\n"))?;
    let says = machine.run("setpriv --reuid 65534 --clear-groups bash /tmp/ask")?;
    ensure!(says.trim() == "HTTP/1.1 403 Forbidden", "another key is answered: {says}");
    let boot = bennu.last_boot(&machine.mac())?;
    seen(&boot, "the alarm", |entry| entry["seen"] == "intrusion" && entry["attempt"] == "other_key")?;
    let reason = boot["diagnosis"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("ALARM"), "the diagnosis says: {reason}");
    let status = bennu.bennu(["status"])?;
    ensure!(status.contains("ALARM") && status.contains(&machine.mac()), "bennu status says nothing:\n{status}");
    Ok(())
}

/// tcpdump on the bridge.
struct Listening {
    child: Child,
    file: std::path::PathBuf,
}

impl Listening {
    fn start(rack: &Rack) -> Result<Self> {
        let file = rack.home().dir().join("heard.pcap");
        let mut tcpdump = rack.wire().namespace().command("tcpdump");
        tcpdump.args(["-i", "any", "-s", "0", "-U", "-Z", "root", "-w"]).arg(&file);
        let child = tcpdump.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot run tcpdump")?;
        for _ in 0..100 {
            if fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
                return Ok(Self { child, file });
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("tcpdump hears nothing")
    }

    fn stop(mut self) -> Result<Vec<u8>> {
        thread::sleep(Duration::from_millis(500));
        self.child.kill()?;
        self.child.wait()?;
        Ok(fs::read(&self.file)?)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_nowhere(bennu: &Appliance, machine: &Machine, heard: &[u8], console: &str, needles: &[&[u8]]) -> Result<String> {
    let mac = machine.mac();
    let has = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
    ensure!(has(heard, b"/session HTTP/1.1"), "the capture did not hear the session");
    let mut places = vec![("the wire".to_owned(), heard.to_vec()), ("the console".into(), console.into())];
    for asked in [
        vec!["status", "--json"],
        vec!["secret", "list", "--json"],
        vec!["machine", "show", &mac, "--json"],
        vec!["machine", "explain", &mac, "--json"],
        vec!["boot", "show", &mac, "--json"],
        vec!["boot", "list", "--json"],
        vec!["audit", "list", "--json"],
        vec!["audit", "export"],
        vec!["boot", "logs", &mac, "--lines", "20000", "--json"],
        vec!["export", "--json"],
    ] {
        places.push((asked.join(" "), bennu.bennu(&asked)?.into_bytes()));
    }
    places.push(("the events".into(), events(bennu)?));
    places.push(("the log".into(), fs::read(bennu.log())?));
    files_under(&bennu.state(), &mut places)?;
    ensure!(
        places.iter().any(|(name, bytes)| name.ends_with("ledger.redb") && has(bytes, FILE.as_bytes())),
        "no ledger"
    );
    for (name, bytes) in &places {
        for (n, needle) in needles.iter().enumerate() {
            ensure!(!has(bytes, needle), "secret {n} is in {name}");
        }
    }
    let all: usize = places.iter().map(|(_, bytes)| bytes.len()).sum();
    Ok(format!("{} places, {} MB", places.len(), all >> 20))
}

/// All events of a moment long ago on, as `/v1/events` tells them.
fn events(bennu: &Appliance) -> Result<Vec<u8>> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "3", "-H", "Last-Event-ID: 1", "--unix-socket"]).arg(bennu.socket());
    let told = curl.arg("http://localhost/v1/events").output().context("cannot run curl")?.stdout;
    ensure!(told.windows(14).any(|part| part == b"session_opened"), "the events do not tell of the boot");
    Ok(told)
}

/// But images, whose bytes are everybody's.
fn files_under(directory: &Path, places: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("images") {
            files_under(&path, places)?;
        } else if path.is_file() {
            places.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(())
}
