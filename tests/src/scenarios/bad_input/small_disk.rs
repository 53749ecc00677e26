//! A disk that is too small for what is imported to it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Kept,
    probe::Probe,
    refused,
    source::{Chance, RELEASE, Tree},
};
use crate::{appliance::tail_of, command, harness::Life, rack::Rack, workshop};

/// A tmpfs as state directory, and images that do not fit on it.
pub const SMALL_DISK: Life = Life {
    name: "small disk",
    shows: &["bad_disk_full"],
    live: |story| {
        let rack = story.rack()?;
        story.show("bad_disk_full", || full_disk(&rack))
    },
};

/// An appliance at 10.77.0.1 whose state lies on a tmpfs that only it sees, and that goes when it does.
struct SmallDisk {
    rack: Rc<Rack>,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    /// The state directory, as seen from here.
    state: PathBuf,
}

const SIZE: &str = "48m";

impl SmallDisk {
    fn start(rack: &Rc<Rack>) -> Result<Self> {
        let namespace = rack.host("small", "10.77.0.1/24")?;
        let dir = rack.home().dir().join("small");
        let (state, config, socket, log) =
            (dir.join("state"), dir.join("bennu.toml"), rack.home().socket("small.sock"), dir.join("bennu.log"));
        fs::create_dir_all(&state)?;
        let text = format!(
            "state_dir = \"{}\"\n[boot]\ninterface = \"net0\"\n[[boot.subnet]]\nnetwork = \"10.77.0.0/24\"\n\
             range = \"10.77.0.50-10.77.0.199\"\n[api]\nsocket = \"{}\"\n[import]\ncompression_level = 1\n",
            state.display(),
            socket.display()
        );
        fs::write(&config, text)?;
        let out = File::create(&log)?;
        // A namespace of ours has mounts of its own, so nobody has to unmount this one.
        let mut serve = namespace.command("sh");
        serve.args(["-c", "mount -t tmpfs -o size=$3 small \"$0\" && exec \"$1\" serve --config \"$2\""]);
        serve.arg(&state).arg(workshop::bennu_binary()?).arg(&config).arg(SIZE);
        let child = serve.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        rack.home().note_process(child.id())?;
        let inside = PathBuf::from(format!("/proc/{}/root{}", child.id(), state.display()));
        let mut disk = Self { rack: Rc::clone(rack), child, socket, log, state: inside };
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(&disk.socket).is_err() {
            if disk.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the appliance on a small disk does not start:\n{}", tail_of(&disk.log, 20));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(disk)
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(workshop::bennu_binary()?);
        command.env("BENNU_SERVER", format!("unix://{}", self.socket.display())).args(words);
        Ok(command)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let said = command::run(self.command(words)?.arg("--json"))?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    fn kept(&self) -> Result<Kept> {
        Kept::of(&self.state, |words| self.json(words))
    }

    fn free(&self) -> Result<u64> {
        self.json(&["status"])?["disk_free"].as_u64().context("the status tells no free disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.rack.home().forget_process(self.child.id());
    }
}

fn full_disk(rack: &Rc<Rack>) -> Result<String> {
    let disk = SmallDisk::start(rack)?;
    let probe = Probe::new(&rack.host("client", "10.77.0.9/24")?)?;
    let tree = Tree::new(rack.home(), "tree")?;
    command::run(&mut disk.command(&["image", "import", &tree.source(), "good:v1"])?)?;
    let (before, free) = (disk.kept()?, disk.free()?);
    let unchanged = |what: &str| -> Result<()> {
        before.unchanged(&disk.kept()?).with_context(|| format!("after: {what}"))?;
        let now = disk.free()?;
        ensure!(free.abs_diff(now) < 1 << 20, "after: {what}: {free} bytes were free, and {now} are");
        Ok(())
    };
    // Noise, which nothing makes smaller. The second fits once, and not twice: beside it mksquashfs has no room.
    let noise = Chance::new(5).bytes(60 << 20);
    let (kernel, initrd) = (tree.path().join(format!("boot/vmlinuz-{RELEASE}")), rack.home().dir().join("initrd"));
    fs::write(&initrd, &noise)?;
    let pair = [format!("kernel={}", kernel.display()), format!("initrd={}", initrd.display())];
    let says = ["is full", "are kept for the ledger", "bennu image remove"];
    for (what, size) in [("full while the source is read", noise.len()), ("full in mksquashfs", 25 << 20)] {
        tree.file("srv/noise", &noise[..size])?;
        refused(&mut disk.command(&["image", "import", &tree.source(), "bad:v1"])?, &says).context(what)?;
        unchanged(what)?;
    }
    refused(&mut disk.command(&["image", "import", &pair[0], &pair[1], "bad:v1"])?, &says)?;
    unchanged("full while a foreign pair is read")?;
    // What an import leaves is enough for leases, and without one the service serves on.
    let ballast = disk.state.join("ballast");
    fs::write(&ballast, &noise[..usize::try_from(free)? - (2 << 20)])?;
    let tree = tree.without("srv")?;
    tree.file("srv/little", &noise[..1 << 20])?;
    refused(&mut disk.command(&["image", "import", &tree.source(), "bad:v1"])?, &says)?;
    probe.serves(1).context("with a full disk")?;
    fs::remove_file(&ballast)?;
    probe.serves(2).context("with room again")?;
    command::run(&mut disk.command(&["image", "import", &tree.source(), "good:v2"])?)?;
    ensure!(disk.json(&["status"])?["ledger_closed"] == false, "the ledger is closed");
    Ok(format!("{} MiB of disk", SIZE.trim_end_matches('m')))
}
