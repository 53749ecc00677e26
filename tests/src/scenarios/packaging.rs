//! What is installed: the systemd unit, and the Debian package with it.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{command, harness::Life, rack::Rack, workshop};

/// From the built binary to a host that had it, and no longer has.
pub const PACKAGE: Life = Life {
    name: "packaging",
    shows: &[
        "the_unit_is_sound_and_hardened",
        "the_package_is_clean",
        "the_package_installs",
        "the_installed_service_tells_systemd",
        "the_package_goes_and_its_purge_leaves_nothing",
    ],
    live: |story| {
        let rack = story.rack()?;
        let dir = rack.home().dir().join("package");
        fs::create_dir_all(&dir)?;
        story.show("the_unit_is_sound_and_hardened", || unit(&dir))?;
        let package = build(&dir)?;
        story.show("the_package_is_clean", || clean(&package))?;
        let root = dir.join("root");
        story.show("the_package_installs", || installs(&package, &root))?;
        story.show("the_installed_service_tells_systemd", || serves(&rack, &root))?;
        story.show("the_package_goes_and_its_purge_leaves_nothing", || goes(&root))
    },
};

/// Of 100; what is left is what a server of port 67 with raw frames needs, and the filter of system calls that it does
/// without (ARCHITECTURE.md says why).
const EXPOSURE: &str = "--threshold=55";

fn unit(dir: &Path) -> Result<String> {
    let text = fs::read_to_string(workshop::checkout().join("appliance/install/bennu.service"))?;
    let unit = dir.join("bennu.service");
    let binary = workshop::bennu_binary()?;
    fs::write(&unit, text.replace("/usr/local/bin/bennu", &binary.display().to_string()))?;
    let said = command::call("systemd-analyze", ["verify", "--man=no", &unit.display().to_string()])?;
    ensure!(said.trim().is_empty(), "systemd-analyze verify: {said}");
    let said = command::call("systemd-analyze", ["security", "--offline=true", EXPOSURE, &unit.display().to_string()])?;
    Ok(said.lines().last().unwrap_or_default().trim_start_matches(['→', ' ']).to_owned())
}

fn build(dir: &Path) -> Result<PathBuf> {
    let script = workshop::checkout().join("scripts/deb").display().to_string();
    let said = command::call(&script, [workshop::bennu_binary()?.display().to_string(), dir.display().to_string()])?;
    Ok(PathBuf::from(said.trim()))
}

fn clean(package: &Path) -> Result<String> {
    let package = package.display().to_string();
    let said = command::call("lintian", ["--allow-root", "--fail-on", "error", &package])?;
    Ok(format!("lintian: {} warnings", said.lines().filter(|line| line.starts_with("W:")).count()))
}

/// Runs dpkg on a system that is a directory; its scripts run here and work there.
fn dpkg(root: &Path, arguments: &[&str]) -> Result<String> {
    let root = format!("--root={}", root.display());
    let fixed = [root.as_str(), "--force-script-chrootless", "--force-depends", "--force-not-root"];
    command::call("dpkg", fixed.iter().chain(arguments).copied())
}

fn installs(package: &Path, root: &Path) -> Result<String> {
    fs::create_dir_all(root.join("var/lib/dpkg/updates"))?;
    fs::create_dir_all(root.join("var/lib/dpkg/info"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("var/lib/dpkg/status"), "")?;
    dpkg(root, &["--install", &package.display().to_string()])?;
    for (file, mode) in [
        ("usr/bin/bennu", 0o755),
        ("etc/bennu/bennu.toml", 0o644),
        ("lib/systemd/system/bennu.service", 0o644),
        ("usr/lib/sysusers.d/bennu.conf", 0o644),
        ("usr/share/man/man1/bennu-image-import.1.gz", 0o644),
        ("usr/share/man/man5/bennu.toml.5.gz", 0o644),
        ("usr/share/bash-completion/completions/bennu", 0o644),
        ("usr/share/zsh/vendor-completions/_bennu", 0o644),
        ("usr/share/fish/vendor_completions.d/bennu.fish", 0o644),
        ("usr/share/doc/bennu/copyright", 0o644),
    ] {
        let found = fs::metadata(root.join(file)).with_context(|| format!("{file} is missing"))?;
        ensure!(found.permissions().mode() & 0o7777 == mode, "{file} has mode {:o}", found.permissions().mode());
    }
    let users = fs::read_to_string(root.join("etc/passwd")).context("the installation made no user")?;
    ensure!(users.contains("bennu:"), "the installation made no user 'bennu':\n{users}");
    let unit = fs::read_to_string(root.join("lib/systemd/system/bennu.service"))?;
    ensure!(unit.contains("ExecStart=/usr/bin/bennu serve"), "the unit starts another binary:\n{unit}");
    ensure!(!root.join("etc/systemd/system/multi-user.target.wants/bennu.service").exists(), "it enabled itself");
    dpkg(root, &["--audit"])
}

fn serves(rack: &Rack, root: &Path) -> Result<String> {
    let binary = root.join("usr/bin/bennu");
    let version = command::call(&binary.display().to_string(), ["--version"])?;
    let namespace = rack.host("packaged", "10.77.0.8/24")?;
    let config = root.join("etc/bennu/bennu.toml");
    let shipped = fs::read_to_string(&config)?;
    let state = root.join("var/lib/bennu");
    let mine = shipped.replace("\"eno2\"", "\"net0\"").replace("dhcp = \"full\" ", "dhcp = \"off\" ");
    let mine = format!("state_dir = {:?}\n{mine}\n[api]\nsocket = {:?}\n", state, root.join("run/bennu/bennu.sock"));
    fs::write(&config, mine)?;
    let socket = root.join("notify");
    let ear = UnixDatagram::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
    ear.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut serve = namespace.command(&binary);
    serve.arg("serve").arg("--config").arg(&config).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
    let log = fs::File::create(root.join("serve.log"))?;
    let mut child = serve.stderr(log).spawn()?;
    let told = tell(&ear, child.id());
    let ended = child.wait()?;
    let log = fs::read_to_string(root.join("serve.log"))?;
    told.with_context(|| log.clone())?;
    ensure!(ended.success(), "the service ended with {ended}:\n{log}");
    fs::write(&config, shipped)?;
    Ok(version.trim().to_owned())
}

/// Hears that the service is ready and alive, ends it, and hears that.
fn tell(ear: &UnixDatagram, pid: u32) -> Result<()> {
    let mut heard = || -> Result<String> {
        let mut buffer = [0; 256];
        let length = ear.recv(&mut buffer).context("the service says nothing")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let first = heard();
    let second = first.is_ok().then(&mut heard);
    command::call("kill", ["-TERM", &pid.to_string()])?;
    ensure!(first?.starts_with("READY=1"), "the first word is not READY=1");
    ensure!(second.transpose()?.as_deref() == Some("WATCHDOG=1"), "it does not say that it is alive");
    while heard()? == "WATCHDOG=1" {}
    Ok(())
}

fn goes(root: &Path) -> Result<String> {
    fs::create_dir_all(root.join("var/lib/bennu/images"))?;
    dpkg(root, &["--remove", "bennu"])?;
    for (file, stays) in [("usr/bin/bennu", false), ("var/lib/bennu/images", true), ("etc/bennu/bennu.toml", true)] {
        ensure!(
            root.join(file).exists() == stays,
            "after its removal {file} {}",
            if stays { "is gone" } else { "is there" }
        );
    }
    dpkg(root, &["--purge", "bennu"])?;
    let left = Command::new("find").arg(root).args(["-path", "*bennu*"]).output()?.stdout;
    let left = String::from_utf8_lossy(&left).replace(&root.display().to_string(), "");
    let left: Vec<&str> =
        left.lines().filter(|line| line.contains("bennu") && !line.starts_with("/var/lib/dpkg")).collect();
    ensure!(left.is_empty(), "the purge left {left:?}");
    Ok("state and configuration stay until the purge".to_owned())
}
