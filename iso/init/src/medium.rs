//! The medium that this machine was started from: a disc in a drive, or a stick. It may be gone by now, as virtual media are.

use crate::disks::{self, Content};
use crate::logs::say;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};

/// Where it is while it is read.
pub const PLACE: &str = "/run/disc";
/// What says on it whose it is.
const INFO: &str = ".disk/info";
const OS_RELEASE: &str = "/etc/os-release";

/// The medium of this very version, mounted for as long as this lives.
#[derive(Debug)]
pub struct Medium {
    /// `/dev/sr0`, `/dev/sda`.
    pub device: PathBuf,
}

impl Medium {
    /// Mounts it, where it is still there.
    pub fn find() -> Option<Self> {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let release = std::fs::read_to_string(OS_RELEASE).unwrap_or_default();
        std::fs::create_dir_all(PLACE).ok()?;
        for disc in disks::all().into_iter().filter(|disk| disk.content == Content::Iso) {
            if mount(&disc.device, PLACE, "iso9660", flags, None).is_err() {
                continue;
            }
            let medium = Self { device: disc.device };
            let info = std::fs::read_to_string(Path::new(PLACE).join(INFO)).unwrap_or_default();
            if is_of(&info, &release) {
                return Some(medium);
            }
        }
        None
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        if let Err(error) = unmount(PLACE, UnmountFlags::DETACH) {
            say(&format!("cannot let go of the disc: {error}"));
        }
    }
}

/// Whether a medium is that of the running version: both are `Bennu VERSION`.
fn is_of(info: &str, os_release: &str) -> bool {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let name = name.trim_matches('"');
    !name.is_empty() && info.trim().strip_suffix("x86_64").is_some_and(|start| start.trim_end() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_medium_of_this_version_is_taken() {
        let release = "ID=bennu\nNAME=Bennu\nPRETTY_NAME=\"Bennu 0.1.0\"\n";
        assert!(is_of("Bennu 0.1.0 x86_64\n", release));
        for other in ["Bennu 0.2.0 x86_64\n", "Bennu 0.1.0\n", "Debian 12 x86_64", ""] {
            assert!(!is_of(other, release), "{other}");
        }
        assert!(!is_of(" x86_64", "ID=bennu\n"));
    }
}
