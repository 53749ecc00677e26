//! Where the appliance keeps its state: a disk that says it is for that, else memory, which is said loudly.

use crate::area::Area;
use crate::ask::Ears;
use crate::disks::{self, Whole};
use crate::vault;
use bennu_stage1::console;
use rustix::mount::{MountFlags, mount, mount_bind};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The label of a state disk.
pub const LABEL: &str = "BENNU-STATE";
/// Where it is mounted. The service sees a directory of it alone, at [`SERVED`]: the rest is this program's.
pub const PLACE: &str = "/state";
/// The service's state directory.
pub const SERVED: &str = "/var/lib/bennu";

static AREA: OnceLock<Area> = OnceLock::new();

/// Where the state is; `None`: in memory, or not found yet.
pub fn area() -> Option<&'static Area> {
    AREA.get()
}

/// The state that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// On this disk.
    Disk(PathBuf),
    /// In memory: gone when the machine is switched off.
    Memory,
}

/// The state disk, if there is one. Which of several it is says a person: the wrong one would give out addresses that are
/// taken, and boot what was replaced.
pub fn find() -> Option<Area> {
    let labelled = Area::all();
    match labelled.as_slice() {
        [] => None,
        [area] => Some(area.clone()),
        _ => named(&labelled).or_else(which),
    }
}

/// The one that the kernel's arguments name by its serial.
fn named(labelled: &[Area]) -> Option<Area> {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let serial = line.split_whitespace().filter_map(|word| word.strip_prefix("bennu.state_disk=")).next_back()?;
    meant(serial, labelled, &disks::whole())
}

/// The labelled device with this serial, or that is called so.
fn meant(text: &str, labelled: &[Area], whole: &[Whole]) -> Option<Area> {
    let text = text.trim();
    let is_of = |disk: &&Whole, device: &PathBuf| disk.device == *device || disk.partitions.contains(device);
    let is_meant = |Area { device, .. }: &&Area| {
        let serial = whole.iter().find(|disk| is_of(disk, device)).map(|disk| disk.serial.as_str());
        !text.is_empty() && (serial == Some(text) || device.to_str() == Some(text))
    };
    match labelled.iter().filter(is_meant).collect::<Vec<_>>().as_slice() {
        [area] => Some((*area).clone()),
        _ => None,
    }
}

/// What its maker calls the disk that the state is on; empty when it does not say.
pub fn serial() -> String {
    let Some(Area { device, .. }) = area() else { return String::new() };
    let is_of = |whole: &Whole| whole.device == *device || whole.partitions.iter().any(|part| part == device);
    disks::whole().into_iter().find(is_of).map(|whole| whole.serial).unwrap_or_default()
}

/// Asks until it is clear: by an answer on a console, or since the others are gone.
fn which() -> Option<Area> {
    let ears = Ears::open();
    let mut told = Vec::new();
    loop {
        let labelled = Area::all();
        let whole = disks::whole();
        if labelled.len() < 2 {
            return labelled.into_iter().next();
        }
        if labelled != told {
            let one = |Area { device, .. }: &Area| {
                let disk = whole.iter().find(|disk| disk.device == *device || disk.partitions.contains(device));
                let serial = disk.map(|disk| disk.serial.as_str()).unwrap_or_default();
                format!("{} (serial '{serial}')", device.display())
            };
            let all: Vec<String> = labelled.iter().map(one).collect();
            console::say(&format!(
                "several disks are labelled {LABEL}: {}. Nothing is served until it is clear whose state counts: take the others \
                 out, or type the serial or the device of the right one and Enter (bennu.state_disk=SERIAL among the kernel's \
                 arguments says the same)",
                all.join(", ")
            ));
            told = labelled.clone();
        }
        if let Some(answer) = ears.line(Duration::from_secs(3)) {
            match meant(&answer, &labelled, &whole) {
                Some(area) => return Some(area),
                None => console::say(&format!("'{}' is none of them", answer.trim())),
            }
        }
    }
}

/// Says so when a state disk appears after the machine went on without one.
pub fn watch_for_late() {
    let watch = || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            if let Some(area) = Area::all().first() {
                return console::say(&format!(
                    "{} is labelled {LABEL} and came after this machine went on in memory: what is kept now is LOST at the \
                     next start. Restart it to use that disk, and name its serial as host.state_disk, which is waited for",
                    area.device.display()
                ));
            }
        }
    };
    drop(std::thread::Builder::new().name("late disks".into()).stack_size(128 * 1024).spawn(watch));
}

/// Opens, checks and mounts state. What cannot be used is never replaced by an empty state in silence: the machine says so and
/// waits for somebody.
pub fn open(area: Area) -> State {
    loop {
        match mounted(&area).and_then(|()| serve()) {
            Ok(()) => {
                console::say(&format!("state: on {}", area.told()));
                let device = area.device.clone();
                let _ = AREA.set(area);
                return State::Disk(device);
            }
            Err(why) => {
                console::say(&format!(
                    "the state disk {} cannot be used: {why}. Nothing is served, so that no machine is answered without its state. \
                     Mend the disk on another host (e2fsck), restore a backup onto it, or take it out to run from memory; \
                     it is tried again every 30 s",
                    area.told()
                ));
                std::thread::sleep(Duration::from_secs(30));
            }
        }
    }
}

fn mounted(area: &Area) -> Result<(), String> {
    let block = area.block()?;
    let file_system = if area.is_locked { vault::open(&block.path)? } else { block.path.clone() };
    check(&file_system).and_then(|()| attach(&file_system, Path::new(PLACE)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_state_disks_the_one_that_is_named_counts() {
        let whole = |name: &str, serial: &str, partitions: &[&str]| Whole {
            device: Path::new("/dev").join(name),
            serial: serial.into(),
            model: String::new(),
            size: 1 << 30,
            content: Err("in use".into()),
            partitions: partitions.iter().map(PathBuf::from).collect(),
        };
        let disks = [whole("sda", "A", &[]), whole("sdb", "B", &["/dev/sdb1", "/dev/sdb2"]), whole("sdc", "", &[])];
        let labelled = ["/dev/sda", "/dev/sdb1", "/dev/sdc"].map(|device| Area::whole(Path::new(device)));
        let meant = |text: &str| meant(text, &labelled, &disks).map(|area| area.device.display().to_string());
        assert_eq!(meant("A\n").as_deref(), Some("/dev/sda"));
        assert_eq!(meant("B").as_deref(), Some("/dev/sdb1"));
        assert_eq!(meant("/dev/sdc").as_deref(), Some("/dev/sdc"));
        for unclear in ["", "  ", "C", "/dev/sdb2", "sda"] {
            assert_eq!(meant(unclear), None, "{unclear}");
        }
    }
}
