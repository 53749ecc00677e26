//! The appliance's own disc, made once a build of the binary, and a machine that runs from it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    command,
    console::Console,
    images::short_digest,
    machine::{Machine, Medium, Spec},
    rack::Rack,
    wire::Namespace,
    workshop,
};

/// What the console says once DHCP is answered.
const READY: &str = "ready to answer DHCP ";
/// How long a machine may take from power-on to that, its firmware and loader included, on a slow host with another machine
/// beside it.
const READY_SECONDS: u64 = 240;
/// The questions of the set-up where a state disk is there.
const SET_UP_STEPS: u32 = 9;
const ADDRESS_STEP: u32 = 2;
/// Its configuration, on a stick.
const CONFIGURATION: &str = r#"[boot]
interface = "eth0"
dhcp = "full"
[[boot.subnet]]
network = "10.77.0.0/24"
range = "10.77.0.50-10.77.0.199"
[api]
listen = "10.77.0.1:8443"
[host]
state_disk = "auto"
[[host.interface]]
name = "eth0"
address = "10.77.0.1/24"
"#;

/// Runs `scripts/iso` into a directory; the disc. Compressed quickly: a boot reads the same either way.
pub fn make(into: &Path) -> Result<PathBuf> {
    make_with(into, "test", &workshop::bennu_binary()?, &[])
}

/// The same, of this version and with this program as the service; with more in the script's environment.
pub fn make_with(into: &Path, version: &str, program: &Path, environment: &[(&str, &OsStr)]) -> Result<PathBuf> {
    let mut script = Command::new(workshop::checkout().join("scripts/iso"));
    script.arg(program).arg(into).env("ISO_LEVEL", "1").env("ISO_VERSION", version);
    command::run(script.envs(environment.iter().copied()))?;
    Ok(into.join(format!("bennu-{version}-x86_64.iso")))
}

/// The disc of this build.
pub fn disc() -> Result<PathBuf> {
    let _held = workshop::hold("discs")?;
    let mut recipe = fs::read(workshop::bennu_binary()?).context("cannot read the appliance's binary")?;
    recipe.extend(fs::read(workshop::checkout().join("scripts/iso"))?);
    for room in ["iso/src", "iso/init/src", "stage1/src", "rules/host/src"] {
        recipe.extend(sources(&workshop::checkout().join(room))?);
    }
    let discs = workshop::cache("discs")?;
    let made = discs.join(short_digest(&recipe));
    if !made.exists() {
        // Discs of earlier builds are of no use to anyone.
        fs::remove_dir_all(&discs)?;
        fs::create_dir_all(&discs)?;
        let new = discs.join("new");
        make(&new)?;
        fs::rename(new, &made)?;
    }
    Ok(made.join("bennu-test-x86_64.iso"))
}

/// Every source file under a directory, by name.
fn sources(directory: &Path) -> Result<Vec<u8>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend(if path.is_dir() { sources(&path)? } else { fs::read(&path)? });
    }
    Ok(all)
}

/// A machine that is an appliance, and a host on its wire that people sit at.
#[derive(Debug)]
pub struct Host {
    /// The machine.
    pub machine: Machine,
    desk: Namespace,
    home: PathBuf,
    token: String,
}

impl Host {
    /// Starts a machine from the disc with nothing but its state disk, and answers its set-up over the serial line.
    pub fn set_up(rack: &Rack, spec: Spec, medium: Medium) -> Result<(Self, String)> {
        let mut host = Self::unanswered(rack, spec, medium)?;
        host.answer()?;
        let remark = host.ready()?;
        Ok((host, remark))
    }

    /// Starts a machine from the disc with nothing else; its set-up waits at its first question.
    pub fn unanswered(rack: &Rack, spec: Spec, medium: Medium) -> Result<Self> {
        let home = rack.home().dir().join("desk");
        fs::create_dir_all(&home)?;
        let machine = spec.memory(512).graphics().starts_from(medium, &disc()?).start()?;
        let desk = rack.host("desk", "10.77.0.9/24")?;
        let host = Self { machine, desk, home, token: String::new() };
        host.console()?.wait_for("set-up: answer", READY_SECONDS)?;
        Ok(host)
    }

    /// Takes what the set-up proposes, with an answer that it does not take among them.
    fn answer(&self) -> Result<()> {
        let console = self.console()?;
        for step in 1..=SET_UP_STEPS {
            console.wait_for(&format!("{step}/{SET_UP_STEPS}"), 60)?;
            if step == ADDRESS_STEP {
                // The screen has a set-up of its own, which is there by now.
                self.screenshot("set-up")?;
                console.send("9\r")?;
                console.wait_for("/249'", 30)?;
                console.send("\x7f")?;
            }
            console.send("\r")?;
        }
        console.wait_for("configuration: the set-up", 60).map(drop)
    }

    /// Takes what its set-up proposes at each of its questions.
    pub fn accept(&self, questions: u32) -> Result<()> {
        let console = self.console()?;
        for question in 1..=questions {
            console.wait_for(&format!("{question}/{questions}"), 60)?;
            console.send("\r")?;
        }
        console.wait_for("configuration: the set-up", 60).map(drop)
    }

    /// A picture of its screen in `.cache/screenshots`, for people.
    pub fn screenshot(&self, name: &str) -> Result<()> {
        self.machine.screenshot(&workshop::cache("screenshots")?.join(format!("disc-{name}.png")))
    }

    /// Starts a machine from the disc, with its configuration on a stick and 512 MiB of memory; how it is started else is
    /// the caller's. It is there when it answers DHCP.
    pub fn start(rack: &Rack, spec: Spec, medium: Medium) -> Result<(Self, String)> {
        Self::start_from(rack, spec, medium, &disc()?)
    }

    /// The same from this disc.
    pub fn start_from(rack: &Rack, spec: Spec, medium: Medium, disc: &Path) -> Result<(Self, String)> {
        let mut host = Self::switch_on(rack, spec, medium, disc, CONFIGURATION)?;
        let remark = host.ready()?;
        Ok((host, remark))
    }

    /// The same from the disc of this build with more under `[host]`; it is only switched on.
    pub fn start_with(rack: &Rack, spec: Spec, medium: Medium, more: &str) -> Result<Self> {
        let text = CONFIGURATION.replace("state_disk = \"auto\"", more);
        Self::switch_on(rack, spec, medium, &disc()?, &text)
    }

    fn switch_on(rack: &Rack, spec: Spec, medium: Medium, disc: &Path, configuration: &str) -> Result<Self> {
        let home = rack.home().dir().join("desk");
        let machine = configured(spec, medium, disc, &home, configuration)?.start()?;
        let desk = rack.host("desk", "10.77.0.9/24")?;
        Ok(Self { machine, desk, home, token: String::new() })
    }

    /// Another machine in its place, which knows nothing of it: its token and certificate are new.
    pub fn replace(&mut self, spec: Spec, medium: Medium) -> Result<String> {
        self.replace_with(spec, medium, "")
    }

    /// The same with these lines more under `[host]`.
    pub fn replace_with(&mut self, spec: Spec, medium: Medium, host: &str) -> Result<String> {
        self.machine.power_off()?;
        let configuration = CONFIGURATION.replace("[host]\n", &format!("[host]\n{host}\n"));
        self.machine = configured(spec, medium, &disc()?, &self.home, &configuration)?.start()?;
        let remark = self.ready()?;
        self.introduce()?;
        Ok(remark)
    }

    /// What is shown to it, and believed of it: a token, and a certificate.
    pub fn credentials(&self) -> Result<(String, Vec<u8>)> {
        Ok((self.token.clone(), fs::read(self.certificate())?))
    }

    /// Uses these from now on.
    pub fn use_credentials(&mut self, (token, certificate): &(String, Vec<u8>)) -> Result<()> {
        token.clone_into(&mut self.token);
        fs::write(self.certificate(), certificate).context("cannot write the certificate")
    }

    fn console(&self) -> Result<Rc<Console>> {
        self.machine.console()
    }

    /// Waits until it answers DHCP; how long that took.
    pub fn ready(&mut self) -> Result<String> {
        let console = self.console()?;
        let whole = console.wait_for(READY, READY_SECONDS)?;
        console.wait_for("started", 10)?;
        let kernel = after(&console, READY)?;
        Ok(format!("DHCP {kernel} s after the kernel, {:.0} s after power-on", whole.as_secs_f64()))
    }

    /// Takes the first token from the console, and the certificate from the wire when its fingerprint is the console's.
    pub fn introduce(&mut self) -> Result<()> {
        let console = self.console()?;
        console.wait_for("shown this once: ", 60)?;
        console.wait_for("\n", 10)?;
        self.token = after(&console, "shown this once: ")?;
        let shown = after(&console, "SHA-256 ")?.trim_end_matches(')').to_owned();
        let mut openssl = self.desk.command("sh");
        openssl.args(["-c", "openssl s_client -connect 10.77.0.1:8443 </dev/null 2>/dev/null | openssl x509"]);
        let pem = command::run(&mut openssl)?;
        fs::write(self.certificate(), pem)?;
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(self.certificate());
        let found = command::run(&mut openssl)?;
        let plain = |text: &str| text.rsplit('=').next().unwrap_or_default().replace(':', "").trim().to_lowercase();
        ensure!(
            plain(&found) == plain(&shown),
            "the console says {shown}, and the certificate on the wire has {found}"
        );
        Ok(())
    }

    fn certificate(&self) -> PathBuf {
        self.home.join("cert.pem")
    }

    /// `bennu` over TLS, with the token.
    pub fn bennu<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        command::run(&mut self.command(arguments)?)
    }

    /// The same, not yet run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = self.desk.command(workshop::bennu_binary()?);
        command.env("BENNU_SERVER", "https://10.77.0.1:8443").env("BENNU_TOKEN", &self.token);
        command.env("BENNU_CACERT", self.certificate()).args(arguments);
        Ok(command)
    }

    /// Waits until it answers over its API.
    pub fn answers(&self, seconds: u64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(seconds);
        while let Err(error) = self.bennu(["status"]) {
            ensure!(Instant::now() < until, "no answer within {seconds} s: {error:#}");
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Waits for an image to be in its store.
    pub fn wait_for_image(&self, image: &str, seconds: u64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(seconds);
        while let Err(error) = self.bennu(["image", "show", image]) {
            ensure!(Instant::now() < until, "{image} is not there within {seconds} s: {error:#}");
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// The newest boot of a machine, once it is in a state.
    pub fn wait_for_state(&self, mac: &str, state: &str, seconds: u64) -> Result<Value> {
        let until = Instant::now() + Duration::from_secs(seconds);
        loop {
            let newest = self.bennu(["boot", "show", mac, "--json"]).and_then(|said| Ok(serde_json::from_str(&said)?));
            match newest {
                Ok(Value::Object(boot)) if boot["state"] == state => return Ok(boot.into()),
                other if Instant::now() > until => anyhow::bail!("not {state} within {seconds} s: {other:?}"),
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }
}

/// A machine that starts from the disc, with 512 MiB of memory and its configuration on a stick.
fn configured(spec: Spec, medium: Medium, disc: &Path, home: &Path, configuration: &str) -> Result<Spec> {
    let stick = home.join("stick");
    fs::create_dir_all(&stick)?;
    fs::write(stick.join("bennu.toml"), configuration)?;
    Ok(spec.memory(512).starts_from(medium, disc).stick(&stick))
}

/// The word after `text`, where it was shown first: later the view draws over it.
fn after(console: &Console, text: &str) -> Result<String> {
    let shown = console.text();
    let rest = shown.split_once(text).map(|(_, rest)| rest).with_context(|| format!("'{text}' was not shown"))?;
    rest.split_whitespace().next().map(str::to_owned).with_context(|| format!("nothing follows '{text}'"))
}
