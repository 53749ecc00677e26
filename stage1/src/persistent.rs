//! File systems that outlive boots: found by the disk that was named, made where it is blank, mounted in the new root.
//! Whatever else is on any disk stays as it is.

pub mod blank;
mod disks;

use crate::console::{self, mib};
use crate::laydown;
use crate::modules::{Devices, Modules};
use crate::report::Reports;
use crate::root::NEW_ROOT;
use crate::scoped;
use bennu_plan::{DiskWanted, PersistentMount, Step};
use blank::Found;
use disks::{Device, disks};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Controllers and the disks behind them take their time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until all disks of controllers that answer at once are there.
const SETTLING: Duration = Duration::from_secs(3);
/// Whose programs run in the new root: ours, after a change of root.
pub const VERB: &str = "run-in-root";

/// Why a file system that outlives boots is not there. The boot fails with these words: a machine that runs without its data
/// would write them where they are lost.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PersistentError {
    /// No such disk.
    #[error(
        "persistent data for {mount}: no disk of this machine is {wanted}; it has {there}. Mend `disk` in the metadata document, or the disk"
    )]
    NoDisk { mount: String, wanted: String, there: String },
    /// Nobody knows which.
    #[error(
        "persistent data for {mount}: {which} are both {wanted}. Name one of them by its serial number in the metadata document"
    )]
    Ambiguous { mount: String, wanted: String, which: String },
    /// Somebody's data.
    #[error(
        "persistent data for {mount}: {disk} is not blank: it holds {found}, and no {filesystem} file system labelled {label}. \
         Bennu never formats such a disk. If nobody needs what is on it, wipe it (wipefs -a, and its first and last MiB); else name another disk"
    )]
    NotBlank { mount: String, disk: String, found: String, filesystem: String, label: String },
    /// The image cannot make it.
    #[error(
        "persistent data for {mount}: the image has no {program}, which would make the file system. Install {package} in the image, or make the file system by hand"
    )]
    NoProgram { mount: String, program: String, package: &'static str },
    /// A program or the kernel refused.
    #[error("persistent data for {mount}: {what}: {reason}")]
    Failed { mount: String, what: String, reason: String },
}

/// Finds, makes and mounts all of them.
pub fn settle(wanted: &[PersistentMount], modules: &mut Modules, reports: &Reports) -> Result<(), PersistentError> {
    if wanted.is_empty() {
        return Ok(());
    }
    for one in wanted {
        modules.load(&one.filesystem);
        let said = Settling { wanted: one }.settle(modules)?;
        console::say(&said);
        // Its step is the one that was told last; what matters is the text.
        reports.step(Step::Mounted, said);
    }
    Ok(())
}

struct Settling<'a> {
    wanted: &'a PersistentMount,
}

impl Settling<'_> {
    fn failed(&self, what: impl Into<String>, reason: impl ToString) -> PersistentError {
        PersistentError::Failed { mount: self.wanted.mount.clone(), what: what.into(), reason: reason.to_string() }
    }

    fn settle(&self, modules: &mut Modules) -> Result<String, PersistentError> {
        let disk = self.find(modules)?;
        let (device, made) = match self.known_on(&disk)? {
            Some(device) => (device, false),
            None => {
                self.format(&disk)?;
                (disk.clone(), true)
            }
        };
        if !made {
            self.check(&device)?;
        }
        self.mount(&device)?;
        let PersistentMount { label, filesystem, mount, .. } = self.wanted;
        let how = if made { ", which was blank and was formatted" } else { "" };
        Ok(format!("persistent data: {filesystem} {label} at {mount}, on {}{how}", device.describe()))
    }

    /// The one disk that is meant. Disks come late, so that one that is not there is waited for.
    fn find(&self, modules: &mut Modules) -> Result<Device, PersistentError> {
        let DiskWanted { by_id, serial, wwn, .. } = &self.wanted.disk;
        modules.coldplug(Devices::All);
        if by_id.is_none() && serial.is_none() && wwn.is_none() {
            // Another disk that is like it may come a moment later, and then nobody knows which is meant.
            std::thread::sleep(SETTLING);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            modules.coldplug(Devices::All);
            let all = disks(Path::new("/sys/block"));
            let fits: Vec<&Device> = all.iter().filter(|disk| self.fits(disk)).collect();
            let (mount, wanted) = (self.wanted.mount.clone(), disks::described(&self.wanted.disk));
            match fits.as_slice() {
                [one] => return Ok((*one).clone()),
                [] if Instant::now() < until => std::thread::sleep(Duration::from_millis(250)),
                [] => {
                    let there = all.iter().map(Device::describe).collect::<Vec<_>>().join("; ");
                    let there = if there.is_empty() { "no disk at all".to_owned() } else { there };
                    return Err(PersistentError::NoDisk { mount, wanted, there });
                }
                many => {
                    let which = many.iter().map(|disk| disk.describe()).collect::<Vec<_>>().join("; ");
                    return Err(PersistentError::Ambiguous { mount, wanted, which });
                }
            }
        }
    }

    fn fits(&self, disk: &Device) -> bool {
        let DiskWanted { label, .. } = &self.wanted.disk;
        disks::is(disk, &self.wanted.disk)
            && label.as_ref().is_none_or(|label| {
                [disk]
                    .into_iter()
                    .chain(&disk.partitions)
                    .any(|device| matches!(look(device), Ok(Found::FileSystem { label: found, .. }) if found == *label))
            })
    }

    /// The disk, or its one partition, that holds the file system already; `None` where the disk is blank.
    fn known_on(&self, disk: &Device) -> Result<Option<Device>, PersistentError> {
        let mut found = Vec::new();
        let mut ours = Vec::new();
        for device in [disk].into_iter().chain(&disk.partitions) {
            let there =
                look(device).map_err(|error| self.failed(format!("cannot read {}", device.describe()), error))?;
            match there {
                Found::FileSystem { kind, label } if kind == self.wanted.filesystem && label == self.wanted.label => {
                    ours.push(device);
                }
                other => found.push(other),
            }
        }
        match (ours.as_slice(), found.as_slice()) {
            ([one], _) => Ok(Some((*one).clone())),
            // A disk with a table of partitions that are blank is not.
            ([], [Found::Blank]) => Ok(None),
            ([], _) => Err(PersistentError::NotBlank {
                mount: self.wanted.mount.clone(),
                disk: disk.describe(),
                found: found.iter().filter(|found| **found != Found::Blank).map(told).collect::<Vec<_>>().join(", "),
                filesystem: self.wanted.filesystem.clone(),
                label: self.wanted.label.clone(),
            }),
            (many, _) => Err(PersistentError::Ambiguous {
                mount: self.wanted.mount.clone(),
                wanted: format!("{} {}", self.wanted.filesystem, self.wanted.label),
                which: many.iter().map(|device| device.describe()).collect::<Vec<_>>().join("; "),
            }),
        }
    }

    /// Makes the file system, with the image's own program.
    fn format(&self, disk: &Device) -> Result<(), PersistentError> {
        let PersistentMount { filesystem, label, mount, .. } = self.wanted;
        let (name, package) = match filesystem.as_str() {
            "xfs" => ("mkfs.xfs", "xfsprogs"),
            _ => ("mkfs.ext4", "e2fsprogs"),
        };
        let program = program(name).ok_or_else(|| PersistentError::NoProgram {
            mount: mount.clone(),
            program: name.into(),
            package,
        })?;
        self.is_nobodys(disk)?;
        console::say(&format!("persistent data: {} is blank; it gets {filesystem} {label}", disk.describe()));
        let path = disk.path();
        let arguments: &[&str] = match filesystem.as_str() {
            "xfs" => &["-q", "-L", label, &path],
            // -F: a whole disk is no reason to ask back.
            _ => &["-q", "-F", "-L", label, &path],
        };
        match run_in_root(&program, arguments) {
            Ok((Some(0), _)) => Ok(()),
            Ok((code, said)) => Err(self.failed(format!("{name} on {} ended with {code:?}", disk.describe()), said)),
            Err(error) => Err(self.failed(format!("cannot run {name} of the image"), error)),
        }
    }

    /// Looks once more, as its only user: what is mounted, or part of another device, is not to be written over. The programs
    /// ask for that themselves too, so it is given back before.
    fn is_nobodys(&self, disk: &Device) -> Result<(), PersistentError> {
        let alone = OFlags::EXCL.bits().cast_signed();
        let open = File::options().read(true).custom_flags(alone).open(disk.path());
        let found = open.and_then(|file| blank::look(&file, disk.size));
        match found {
            Ok(Found::Blank) => Ok(()),
            Ok(other) => Err(self.failed(format!("{} is not blank any more", disk.describe()), told(&other))),
            Err(error) => Err(self.failed(format!("cannot have {} alone", disk.describe()), error)),
        }
    }

    /// Lets the image's checker mend what a power cut left. An image without one mounts as it is: the journal is read then.
    fn check(&self, device: &Device) -> Result<(), PersistentError> {
        let Some(program) = (self.wanted.filesystem == "ext4").then(|| program("fsck.ext4")).flatten() else {
            return Ok(());
        };
        let path = device.path();
        match run_in_root(&program, &["-p", &path]) {
            // e2fsck(8): 0 clean, 1 mended, 2 mended and only a mounted one needs a restart.
            Ok((Some(0..=2), _)) => Ok(()),
            Ok((code, said)) => Err(self.failed(
                format!(
                    "fsck.ext4 -p found what it does not mend by itself on {} ({code:?}); nothing was changed",
                    device.describe()
                ),
                said,
            )),
            Err(error) => Err(self.failed("cannot run fsck.ext4 of the image", error)),
        }
    }

    fn mount(&self, device: &Device) -> Result<(), PersistentError> {
        let path = self.wanted.mount.trim_start_matches('/');
        let root = Path::new(NEW_ROOT);
        let refuse = |error: io::Error| self.failed(format!("cannot mount {}", device.describe()), error);
        let place = match scoped::resolve(root, path) {
            Some(place) if place.is_dir() => place,
            Some(_) => return Err(self.failed("its mount point is there, and is no directory", &self.wanted.mount)),
            None => {
                let place = laydown::place(root, path).map_err(refuse)?;
                std::fs::create_dir(&place).map_err(refuse)?;
                place
            }
        };
        let (flags, options) = parted(&self.wanted.options);
        let options = CString::new(options).unwrap_or_default();
        let options = (!options.is_empty()).then_some(options.as_c_str());
        mount(device.path(), &place, self.wanted.filesystem.as_str(), flags, options)
            .map_err(|error| refuse(error.into()))
    }
}

fn look(device: &Device) -> io::Result<Found> {
    blank::look(&File::open(device.path())?, device.size)
}

fn told(found: &Found) -> String {
    match found {
        Found::Blank => "nothing".into(),
        Found::FileSystem { kind, label } if label.is_empty() => format!("a file system ({kind}, without a label)"),
        Found::FileSystem { kind, label } => format!("a file system ({kind}, labelled {label:?})"),
        Found::Other(what) => (*what).into(),
    }
}

/// Mount options that are flags of mount(2), and the rest, which is the file system's.
fn parted(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "nosuid" => flags |= MountFlags::NOSUID,
            "ro" => flags |= MountFlags::RDONLY,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "rw" | "defaults" | "auto" | "exec" | "suid" | "dev" | "async" | "nofail" => {}
            other => rest.push(other),
        }
    }
    (flags, rest.join(","))
}

/// A program of the image, as a path inside it.
fn program(name: &str) -> Option<String> {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
    let mut paths = places.iter().map(|place| format!("{place}/{name}"));
    paths.find(|path| scoped::exists(Path::new(NEW_ROOT), path))
}

/// Runs a program of the image in the new root, with our devices; answers its exit status and what it said.
fn run_in_root(program: &str, arguments: &[&str]) -> io::Result<(Option<i32>, String)> {
    // Lent for as long as it runs: the handover moves our own there.
    let _lent = [Lent::new("/dev")?, Lent::new("/proc")?, Lent::new("/sys")?];
    let ran = console::while_doing(&format!("running {program}"), || {
        let mut command = Command::new("/proc/self/exe");
        command.args([VERB, program]).args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).output()
    });
    let ran = ran?;
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
    Ok((ran.status.code(), said.chars().take(400).collect()))
}

/// A file system of the kernel's, in the new root too.
struct Lent(PathBuf);

impl Lent {
    fn new(place: &str) -> io::Result<Self> {
        let there = PathBuf::from(format!("{NEW_ROOT}{place}"));
        std::fs::create_dir_all(&there)?;
        mount_bind_recursive(place, &there)?;
        Ok(Self(there))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// `stage1 run-in-root PROGRAM …`: becomes a program of the new root. Returns only when it cannot.
pub fn become_program(words: &[String]) -> u8 {
    use std::os::unix::process::CommandExt;
    let Some((program, arguments)) = words.split_first() else { return 2 };
    let entered = rustix::process::chroot(NEW_ROOT).and_then(|()| rustix::process::chdir("/"));
    let error = match entered {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error.into(),
    };
    eprintln!("{program}: {error}");
    127
}

/// For messages.
fn size(bytes: u64) -> String {
    mib(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parted_as_mount_takes_them() {
        assert_eq!(parted(""), (MountFlags::empty(), String::new()));
        let (flags, rest) = parted("defaults,noatime,nodev,data=journal,errors=remount-ro");
        assert_eq!(flags, MountFlags::NOATIME | MountFlags::NODEV);
        assert_eq!(rest, "data=journal,errors=remount-ro");
    }
}
