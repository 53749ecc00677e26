//! Container images on bare metal: pushed, imported, with and without a kernel, with and without an init.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::{Appliance, Config, text},
    command, containers,
    containers::Layout,
    harness::Life,
    images,
    machine::Firmware,
    rack::Rack,
};

/// Where the appliance's management plane listens, in its namespace.
const REGISTRY: &str = "10.77.0.1:8443";

/// A client of the registry: a token, and the certificate it is to trust.
struct Client<'a> {
    bennu: &'a Appliance,
    token: String,
    certificates: PathBuf,
}

impl<'a> Client<'a> {
    fn new(bennu: &'a Appliance, rack: &Rack) -> Result<Self> {
        let made = bennu.json(["token", "create", "ci", "--scope", "read", "--scope", "images"])?;
        let certificates = rack.home().dir().join("certificates");
        fs::create_dir_all(&certificates)?;
        fs::copy(bennu.state().join("tls/cert.pem"), certificates.join("ca.crt"))?;
        Ok(Self { bennu, token: text(&made, "token")?, certificates })
    }

    fn skopeo(&self, arguments: &[&str]) -> Command {
        let mut skopeo = self.bennu.namespace().command("skopeo");
        skopeo.args(arguments);
        skopeo
    }

    /// `skopeo copy SOURCE docker://…`, over TLS with the token.
    fn push(&self, source: &str, name: &str) -> Result<()> {
        let mut skopeo = self.skopeo(&["--insecure-policy", "copy", "--quiet"]);
        skopeo.arg("--dest-cert-dir").arg(&self.certificates).args(["--dest-creds", &format!("ci:{}", self.token)]);
        command::run(skopeo.args([source, &format!("docker://{REGISTRY}/{name}")])).map(drop)
    }

    /// `buildah push IMAGE docker://…`, out of its own storage.
    fn push_built(&self, built: &containers::Built, name: &str) -> Result<()> {
        let creds = format!("ci:{}", self.token);
        let certificates = self.certificates.display().to_string();
        let to = format!("docker://{REGISTRY}/{name}");
        let push = ["push", "--quiet", "--cert-dir", &certificates, "--creds", &creds, &built.name, &to];
        command::run(&mut built.command(self.bennu.namespace().command("buildah"), &push)).map(drop)
    }

    fn inspect(&self, name: &str) -> Result<Value> {
        let mut skopeo = self.skopeo(&["inspect", "--cert-dir"]);
        skopeo.arg(&self.certificates).args(["--creds", &format!("ci:{}", self.token)]);
        let said = command::run(skopeo.arg(format!("docker://{REGISTRY}/{name}")))?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }
}

/// Waits until a push became something.
fn settled(bennu: &Appliance, name: &str, seconds: u64) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let shown = bennu.command(["image", "pushes", name, "--json"]).output()?.stdout;
        let push: Value = serde_json::from_slice(&shown).context("`image pushes --json` is not JSON")?;
        if push["outcome"]["outcome"] != "waiting" {
            return Ok(push);
        }
        ensure!(Instant::now() < deadline, "{name} still waits after {seconds} s: {push:#}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// What CI pushes boots.
pub const PUSHED: Life = Life {
    name: "containers pushed",
    shows: &[
        "push_over_tls_with_a_token",
        "pushed_container_boots",
        "buildah_pushes_from_its_storage",
        "entrypoint_runs",
        "push_without_a_token_is_refused",
    ],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images().api(&format!("listen = \"{REGISTRY}\"")))?;
        let client = Client::new(&bennu, &rack)?;
        let layout = Layout::new(rack.home(), "layout")?;
        story.show("push_without_a_token_is_refused", || {
            layout.image("bare", &[])?;
            let nobody = Client { token: "bnu_none".into(), certificates: client.certificates.clone(), bennu: &bennu };
            let error = nobody.push(&format!("oci:{}", layout.named("bare")), "web:bare");
            let said = error.err().map(|error| format!("{error:#}")).context("a push without a token was taken")?;
            ensure!(said.contains("unauthorized") || said.contains("authentication"), "it is refused so: {said}");
            Ok(String::new())
        })?;
        story.show("push_over_tls_with_a_token", || {
            layout.image("v1", &[&images::images()?.container()])?;
            let begun = Instant::now();
            client.push(&format!("oci:{}", layout.named("v1")), "team/web:v1")?;
            let pushed = begun.elapsed();
            let push = settled(&bennu, "team/web:v1", 120)?;
            ensure!(push["outcome"]["outcome"] == "image", "the push came to {push:#}");
            let inspected = client.inspect("team/web:v1")?;
            ensure!(inspected["Digest"] == push["digest"], "the registry returns {}", inspected["Digest"]);
            let shown = bennu.json(["image", "show", "team/web:v1"])?;
            ensure!(shown["config"]["derived"]["source"]["digest"] == push["digest"], "it was made of {shown:#}");
            Ok(format!(
                "pushed in {:.1} s, bootable {:.1} s later",
                pushed.as_secs_f64(),
                (begun.elapsed() - pushed).as_secs_f64()
            ))
        })?;
        let mut machine = rack.machine(Firmware::Bios).install()?;
        story.show("pushed_container_boots", || {
            bennu.assign(&machine.mac(), "team/web:v1")?;
            machine.power_on()?;
            bennu.wait_for_state(&machine.mac(), "up", 150)?;
            machine.login()?;
            let version = machine.run("cat /etc/bennu-demo-version; ls /lib/modules; grep -c . /proc/modules")?;
            ensure!(version.contains("bennu-demo v1"), "it runs {version}");
            machine
                .run("modprobe dummy && lsmod | grep -q ^dummy")
                .context("the modules of its kernel are not there")?;
            Ok(String::new())
        })?;
        machine.power_off()?;
        story.show("buildah_pushes_from_its_storage", || {
            let small = containers::busybox(rack.home(), "app")?;
            client.push_built(&small, "team/app:v1")?;
            // What is there already is only named again.
            client.push_built(&small, "team/app:again")?;
            let inspected = client.inspect("team/app:v1")?;
            ensure!(inspected["Labels"]["team"] == "web", "the registry has {inspected:#}");
            ensure!(
                client.inspect("team/app:again")?["Digest"] == inspected["Digest"],
                "a second push is another image"
            );
            Ok(String::new())
        })?;
        story.show("entrypoint_runs", || {
            let push = settled(&bennu, "team/app:v1", 120)?;
            ensure!(push["outcome"]["outcome"] == "image", "the push came to {push:#}");
            bennu.assign(&machine.mac(), "team/app:v1")?;
            machine.power_on()?;
            let is_up = |boot: &Value| boot["state"] == "up" && boot["image"]["reference"] == "team/app:v1";
            let boot = bennu.wait_for_boot(&machine.mac(), 150, "program that runs", is_up)?;
            let address = bennu.json(["lease", "list"])?;
            let address = address["items"].as_array().or(address.as_array()).into_iter().flatten();
            let address = address.into_iter().find(|lease| lease["mac"] == machine.mac().as_str());
            let address = text(address.context("the machine has no lease")?, "address")?;
            let page = command::run(bennu.namespace().command("curl").args([
                "-sS",
                "--max-time",
                "10",
                &format!("http://{address}:8080/index.html"),
            ]))?;
            ensure!(page == "a container serves this\n", "it serves {page:?}");
            ensure!(boot["timeline"].to_string().contains("runs team/app:v1"), "{boot:#}");
            Ok(String::new())
        })
    },
};

/// A container image that has its kernel where bootc has it.
pub const BOOTC: Life = Life {
    name: "containers bootc",
    shows: &["bootc_style_boots", "container_layout_is_imported", "container_without_a_kernel_says_so"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let made = images::images()?;
        let layout = Layout::new(rack.home(), "layout")?;
        story.show("container_without_a_kernel_says_so", || {
            layout.image("bare", &[&made.container()])?;
            let refused =
                bennu.command(["image", "import", &format!("oci:{}", layout.named("bare")), "web:bare"]).output()?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(refused.status.code() == Some(1), "it was taken: {said}");
            ensure!(said.contains("no kernel") && said.contains("--kernel"), "it is refused so: {said}");
            Ok(String::new())
        })?;
        story.show("container_layout_is_imported", || {
            layout.image("v1", &[&made.container(), &made.kernel_layer()])?;
            let source = format!("oci:{}", layout.named("v1"));
            let begun = Instant::now();
            bennu.bennu(["image", "import", &source, "bootc:v1"])?;
            let took = begun.elapsed();
            let digest = bennu.digest("bootc:v1")?;
            // The same as a file, from another tool.
            let archive = rack.home().dir().join("bootc.tar");
            command::call(
                "skopeo",
                ["--insecure-policy", "copy", "--quiet", &source, &format!("oci-archive:{}:v1", archive.display())],
            )?;
            bennu.bennu(["image", "import", &format!("oci-archive:{}", archive.display()), "bootc:again"])?;
            ensure!(bennu.digest("bootc:again")? == digest, "the same image as a file is another one");
            Ok(format!("imported in {:.1} s", took.as_secs_f64()))
        })?;
        let mut machine = rack.machine(Firmware::Bios).install()?;
        story.show("bootc_style_boots", || {
            bennu.assign(&machine.mac(), "bootc:v1")?;
            machine.power_on()?;
            bennu.wait_for_state(&machine.mac(), "up", 150)?;
            machine.login()?;
            let said = machine.run("cat /etc/bennu-demo-version; ls /usr/lib/modules/*/vmlinuz")?;
            ensure!(said.contains("bennu-demo v1") && said.contains("vmlinuz"), "it runs {said}");
            Ok(String::new())
        })
    },
};
