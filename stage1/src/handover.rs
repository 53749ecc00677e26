//! Handing the machine over: our mounts move into the new root, the initramfs gives its memory back, the image's init takes our place.

use crate::console;
use crate::root::NEW_ROOT;
use crate::scoped;
use bennu_plan::INITS;
use rustix::fs::{StatFs, statfs};
use rustix::mount::mount_move;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the kernel itself starts when it finds no init.
const SHELL: &str = "/bin/sh";
/// What moves across.
const MOUNTS: &[&str] = &["/proc", "/sys", "/dev", "/run"];

/// Why the machine was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Nothing to hand over to.
    #[error(
        "the image has no init: looked for {0}. Is it a container image without one? Name it with init= in the image's arguments"
    )]
    NoInit(String),
    /// The kernel refused a step.
    #[error("cannot {what}: {source}")]
    Step {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> HandoverError {
    move |source| HandoverError::Step { what: what.into(), source }
}

/// The image's init, as a path inside it. `wanted` is `init=` of the command line.
pub fn find_init(root: &Path, wanted: Option<&str>) -> Result<String, HandoverError> {
    let candidates: Vec<&str> =
        wanted.map_or_else(|| INITS.iter().copied().chain([SHELL]).collect(), |wanted| vec![wanted]);
    let runs = |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    candidates
        .iter()
        .find(|init| scoped::resolve(root, init).is_some_and(|path| runs(&path)))
        .map(|init| (*init).to_owned())
        .ok_or_else(|| HandoverError::NoInit(candidates.join(", ")))
}

/// Whether the init is systemd, which reads units from `/run`.
pub fn is_systemd(root: &Path, init: &str) -> bool {
    scoped::resolve(root, init).and_then(|path| Some(path.file_name()? == "systemd")).unwrap_or(false)
}

/// Moves into the new root. From here on there is no way back.
pub fn enter() -> Result<(), HandoverError> {
    for place in MOUNTS {
        let target = PathBuf::from(format!("{NEW_ROOT}{place}"));
        if !target.is_dir() {
            fs::create_dir_all(&target).map_err(failed(format!("make {place} in the new root")))?;
        }
        mount_move(*place, &target).map_err(|error| failed(format!("move {place} into the new root"))(error.into()))?;
    }
    empty_initramfs();
    let step = |what: &'static str| move |error: rustix::io::Errno| failed(what)(error.into());
    rustix::process::chdir(NEW_ROOT).map_err(step("enter the new root"))?;
    mount_move(".", "/").map_err(step("move the new root to /"))?;
    rustix::process::chroot(".").map_err(step("change to the new root"))?;
    rustix::process::chdir("/").map_err(step("enter the new root"))
}

/// Becomes the image's init, with the console as its standard files. Returns only the reason why that failed.
pub fn become_init(init: &str) -> HandoverError {
    take_console();
    let own: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = Command::new(init).args(own).exec();
    failed(format!("run {init} of the image (for another architecture, or its loader missing?)"))(error)
}

fn take_console() {
    let open = |path| OpenOptions::new().read(true).write(true).open(path);
    let Ok(console) = open("/dev/console").or_else(|_| open("/dev/null")) else { return };
    let _ = rustix::stdio::dup2_stdin(&console);
    let _ = rustix::stdio::dup2_stdout(&console);
    let _ = rustix::stdio::dup2_stderr(&console);
}

/// Deletes what the initramfs holds, because its memory would be lost for as long as the machine runs. Only when `/` really is
/// one: on anything else this would delete somebody's files.
fn empty_initramfs() {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let in_memory = statfs("/").is_ok_and(|StatFs { f_type, .. }| matches!(f_type, TMPFS | RAMFS));
    if !in_memory || std::process::id() != 1 {
        return console::say("the initramfs is not in memory as expected; its files are left");
    }
    if let Ok(root) = fs::metadata("/") {
        empty(Path::new("/"), root.dev());
    }
}

/// Empties a directory without crossing into another filesystem.
fn empty(directory: &Path, device: u64) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.dev() != device {
            continue;
        }
        if found.is_dir() {
            empty(&path, device);
            drop(fs::remove_dir(&path));
        } else {
            drop(fs::remove_file(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn program(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn finds_the_images_init() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        assert!(matches!(find_init(root, None), Err(HandoverError::NoInit(_))));
        program(root, "bin/tini");
        assert_eq!(find_init(root, Some("/bin/tini")).unwrap(), "/bin/tini");
        assert!(find_init(root, Some("/bin/other")).unwrap_err().to_string().contains("/bin/other"));
        program(root, "usr/lib/systemd/systemd");
        fs::create_dir(root.join("sbin")).unwrap();
        symlink("/usr/lib/systemd/systemd", root.join("sbin/init")).unwrap();
        assert_eq!(find_init(root, None).unwrap(), "/sbin/init");
        assert!(is_systemd(root, "/sbin/init") && !is_systemd(root, "/bin/tini"));
    }

    #[test]
    fn finds_an_init_wherever_an_import_accepts_it() {
        let places = ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"];
        for init in places.into_iter().chain(["/init", "/bin/init", "/usr/bin/init", "/etc/init"]) {
            let place = tempfile::tempdir().unwrap();
            program(place.path(), "bin/sh");
            program(place.path(), init.trim_start_matches('/'));
            assert_eq!(find_init(place.path(), None).unwrap(), init);
        }
    }

    #[test]
    fn emptying_removes_everything_of_its_device_only() {
        let place = tempfile::tempdir().unwrap();
        program(place.path(), "lib/modules/a.ko");
        symlink("/etc", place.path().join("link")).unwrap();
        let device = fs::metadata(place.path()).unwrap().dev();
        empty(place.path(), device + 1);
        assert!(place.path().join("lib/modules/a.ko").exists());
        empty(place.path(), device);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }
}
