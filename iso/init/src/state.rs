//! Where the appliance keeps its state: a disk that says it is for that, else memory, which is said loudly.

use crate::disks::{self, Content};
use bennu_stage1::console;
use rustix::mount::{MountFlags, mount, mount_bind};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The label of a state disk.
pub const LABEL: &str = "BENNU-STATE";
/// Where it is mounted. The service sees a directory of it alone, at [`SERVED`]: the rest is this program's.
pub const PLACE: &str = "/state";
/// The service's state directory.
pub const SERVED: &str = "/var/lib/bennu";

/// The state that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// On this disk.
    Disk(PathBuf),
    /// In memory: gone when the machine is switched off.
    Memory,
}

/// The state disk, if there is one.
pub fn find() -> Option<PathBuf> {
    let disks: Vec<PathBuf> = disks::all()
        .into_iter()
        .filter(|disk| disk.content == Content::Ext(LABEL.to_owned()))
        .map(|disk| disk.device)
        .collect();
    if let [first, others @ ..] = disks.as_slice()
        && !others.is_empty()
    {
        let others: Vec<String> = others.iter().map(|disk| disk.display().to_string()).collect();
        console::say(&format!(
            "several disks are labelled {LABEL}: {} is used, and {} left alone. Take the label from the wrong one",
            first.display(),
            others.join(", ")
        ));
    }
    disks.into_iter().next()
}

/// Checks a state disk and mounts it. One that cannot be used is never replaced by an empty state in silence: the machine says
/// so and waits for somebody.
pub fn open(disk: PathBuf) -> State {
    let place = Path::new(PLACE);
    loop {
        match check(&disk).and_then(|()| attach(&disk, place)).and_then(|()| serve()) {
            Ok(()) => {
                console::say(&format!("state: on {}", disk.display()));
                return State::Disk(disk);
            }
            Err(why) => {
                console::say(&format!(
                    "the state disk {} cannot be used: {why}. Nothing is served, so that no machine is answered without its state. \
                     Mend the disk on another host (e2fsck), restore a backup onto it, or take it out to run from memory; \
                     it is tried again every 30 s",
                    disk.display()
                ));
                std::thread::sleep(std::time::Duration::from_secs(30));
            }
        }
    }
}

/// The service's own limits keep its images below this.
const MEMORY: &std::ffi::CStr = c"mode=0755,size=60%";

/// Nothing of it is left when the machine is switched off, which is said loudly.
pub fn in_memory() -> State {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(error) = mount("tmpfs", PLACE, "tmpfs", flags, Some(MEMORY)) {
        console::say(&format!("cannot mount a tmpfs at {PLACE}: {error}"));
    }
    if let Err(error) = serve() {
        console::say(&error);
    }
    console::say(
        "NO STATE DISK. Everything is kept in memory and is LOST when this machine is switched off. \
         Give it an empty disk, and write state_disk = \"auto\" under [host] of its configuration",
    );
    State::Memory
}

/// Gives the service its directory.
fn serve() -> Result<(), String> {
    let own = Path::new(PLACE).join("bennu");
    std::fs::create_dir_all(&own).map_err(|error| format!("cannot make {}: {error}", own.display()))?;
    mount_bind(&own, SERVED).map_err(|error| format!("cannot bind {} to {SERVED}: {error}", own.display()))
}

/// Replays the journal and mends what needs nobody's judgement (e2fsck(8)).
fn check(disk: &Path) -> Result<(), String> {
    const MENDED: i32 = 1;
    let done =
        Command::new("/sbin/e2fsck").args(["-p"]).arg(disk).env("PATH", crate::PATH).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("e2fsck does not run: {error}"))?;
    match done.status.code() {
        Some(0) => Ok(()),
        Some(MENDED) => {
            console::say(&format!("e2fsck mended the state disk: {}", first_line(&done.stdout)));
            Ok(())
        }
        code => Err(format!("e2fsck ended with {code:?}: {}", first_line(&done.stdout))),
    }
}

fn first_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).lines().next().unwrap_or_default().to_owned()
}

fn attach(disk: &Path, place: &Path) -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    let options = CString::new("errors=remount-ro").unwrap_or_default();
    mount(disk, place, "ext4", flags, Some(options.as_c_str()))
        .map_err(|error| format!("it cannot be mounted: {error}"))
}
