//! A state directory on a small disk of its own, which outlives the appliance's process.

use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use crate::{home::Home, wire::Namespace};

/// A tmpfs that only the processes of its holder's mount namespace see; it goes when the holder goes.
#[derive(Debug)]
pub struct SmallState {
    home: Rc<Home>,
    holder: Child,
    state: PathBuf,
}

impl SmallState {
    /// A disk of this size, in `mount`'s words, at `state`.
    pub fn mount(home: Rc<Home>, namespace: &Namespace, state: &Path, size: &str) -> Result<Self> {
        // As the kernel will name it.
        let state = state.canonicalize()?;
        // A namespace of ours has mounts of its own, so nobody has to unmount this one.
        let mut command = namespace.command("sh");
        command.args(["-c", "mount -t tmpfs -o size=$1 small \"$0\" && exec sleep infinity"]).arg(&state).arg(size);
        let holder = command.stdin(Stdio::null()).spawn().context("cannot make a small disk")?;
        home.note_process(holder.id())?;
        let disk = Self { home, holder, state };
        let mounts = format!("/proc/{}/mounts", disk.holder.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string(&mounts).unwrap_or_default().contains(&format!("small {}", disk.state.display())) {
            ensure!(Instant::now() < deadline, "no small disk appeared at {}", disk.state.display());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(disk)
    }

    /// A command that sees the disk.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--net", "--"]);
        command
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .arg(std::path::absolute(program).unwrap_or_else(|_| program.to_owned()));
        command
    }

    /// Fills it up to so many bytes.
    pub fn fill(&self, but: u64) -> Result<()> {
        let free = rustix::fs::statvfs(self.seen_from_here())?;
        let size = (free.f_bavail * free.f_frsize).saturating_sub(but);
        let mut ballast = File::create(self.ballast())?;
        let chunk = vec![0x5a; 1 << 16];
        let mut left = size;
        while left > 0 {
            let now = left.min(chunk.len() as u64) as usize;
            ballast.write_all(&chunk[..now]).context("cannot fill the small disk")?;
            left -= now as u64;
        }
        Ok(())
    }

    /// Makes room again.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("cannot make room")
    }

    fn seen_from_here(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.state.display()))
    }

    fn ballast(&self) -> PathBuf {
        self.seen_from_here().join("ballast")
    }
}

impl Drop for SmallState {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        self.home.forget_process(self.holder.id());
    }
}
