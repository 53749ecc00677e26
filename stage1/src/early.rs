//! The first things PID 1 needs, before anything can be said.

use crate::console;
use rustix::mount::{MountFlags, mount};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Mounts what the kernel shows itself with. Where one is there already, so much the better.
pub fn mount_kernel_filesystems() {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounts: [(&str, &str, MountFlags, Option<&CStr>); 4] = [
        ("devtmpfs", "/dev", MountFlags::NOSUID, Some(c"mode=0755")),
        ("proc", "/proc", safe, None),
        ("sysfs", "/sys", safe, None),
        // Programs run from here: ours.
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=20%")),
    ];
    for (kind, place, flags, options) in mounts {
        drop(fs::create_dir_all(place));
        match mount(kind, place, kind, flags, options) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => console::say(&format!("cannot mount {kind} at {place}: {error}")),
        }
    }
}

/// A machine that nobody stands at must not stay in a panic: it restarts after this many seconds, time to read the console.
const PANIC_RESTART: &str = "60";

/// Lets a panic of the kernel end in a restart, unless `panic=` on the command line or the kernel's configuration says what to do.
/// The system that is booted may set another value.
pub fn restart_after_panic(cmdline: &str) {
    if cmdline.split_whitespace().any(|word| word.starts_with("panic=")) {
        return;
    }
    if let Err(error) = set_where_zero(Path::new("/proc/sys/kernel/panic"), PANIC_RESTART) {
        console::say(&format!("a panic of the kernel will not restart the machine: {error}"));
    }
}

fn set_where_zero(file: &Path, value: &str) -> io::Result<()> {
    if fs::read_to_string(file)?.trim() == "0" { fs::write(file, value) } else { Ok(()) }
}

/// Makes sure that the standard files are open, so that no other file gets their numbers and what is printed for nobody.
/// The kernel leaves them closed when no console works, as with `console=` naming a port that is not there.
pub fn open_standard_files() {
    while let Ok(file) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        if file.as_raw_fd() > 2 {
            return;
        }
        let _ = file.into_raw_fd();
    }
}

/// Puts a copy of this program where the booted system finds it.
pub fn copy_self(target: &str) -> io::Result<()> {
    if let Some(directory) = Path::new(target).parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy("/proc/self/exe", target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unset_value_is_set() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("panic");
        for (before, after) in [("0\n", "60"), ("5\n", "5\n"), ("-1\n", "-1\n")] {
            fs::write(&file, before).unwrap();
            set_where_zero(&file, PANIC_RESTART).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after);
        }
        assert!(set_where_zero(&place.path().join("none"), PANIC_RESTART).is_err());
    }
}
