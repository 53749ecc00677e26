//! The machine's root: a squashfs in memory, read-only, under an overlay in memory.

use crate::console;
use crate::memory::Memory;
use crate::scoped;
use crate::sys;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The tmpfs that holds the root's file.
const STORE: &str = "/run/bennu/image";
/// The root's file.
const FILE: &str = "/run/bennu/image/root.squashfs";
/// The read-only root.
const LOWER: &str = "/run/bennu/lower";
/// The tmpfs with what the system writes.
const OVERLAY: &str = "/run/bennu/overlay";
/// Where the new root is put together.
pub const NEW_ROOT: &str = "/sysroot";

/// Directories of container runtimes, whose own overlays do not work on ours.
const CONTAINER_STORES: &[&str] = &["/var/lib/containers", "/var/lib/docker", "/var/lib/containerd"];

/// A tmpfs counts whole pages; a little more keeps a file of exactly its size from failing.
const SLACK: u64 = 1 << 20;
/// No system runs in less.
const LEAST_OVERLAY: u64 = 16 << 20;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}{advice}")]
pub struct RootError {
    what: String,
    source: io::Error,
    advice: &'static str,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RootError {
    move |source| RootError { what: what.into(), source, advice: "" }
}

/// Makes the place for a root of this size; answers the path of its file.
pub fn make_store(size: u64) -> Result<PathBuf, RootError> {
    let whole = size.saturating_add(SLACK);
    tmpfs(Path::new(STORE), &format!("mode=0700,nr_inodes=16,size={whole}"))?;
    Ok(PathBuf::from(FILE))
}

/// Gives the memory of a root's file back.
pub fn drop_store() {
    let _ = unmount(STORE, UnmountFlags::DETACH);
}

/// Mounts the root's file and the overlay at [`NEW_ROOT`].
pub fn mount_root(overlay_limit: Option<u64>) -> Result<(), RootError> {
    // Open until the mount uses it: an unused loop device with autoclear would let go of its file.
    let (device, _open) = attach_loop()?;
    make_directory(LOWER)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    mount(&device, LOWER, "squashfs", flags, None).map_err(|error| RootError {
        what: format!("mount the root's squashfs from {}", device.display()),
        source: error.into(),
        advice: ". Its kernel needs squashfs (and the compression it was made with) built in or among its modules",
    })?;
    let limit = overlay_limit.unwrap_or_else(half_of_free).max(LEAST_OVERLAY);
    tmpfs(Path::new(OVERLAY), &format!("mode=0700,size={limit}"))?;
    mount_overlay()?;
    for store in CONTAINER_STORES {
        separate_container_store(store, limit)?;
    }
    Ok(())
}

/// Takes apart what [`mount_root`] made, so that it can be tried again.
pub fn unmount_root() {
    for place in [NEW_ROOT, OVERLAY, LOWER] {
        let _ = unmount(place, UnmountFlags::DETACH);
    }
}

fn half_of_free() -> u64 {
    Memory::now().map_or(LEAST_OVERLAY, |memory| memory.available / 2)
}

fn attach_loop() -> Result<(PathBuf, File), RootError> {
    let backing = File::open(FILE).map_err(failed(format!("open {FILE}")))?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").map_err(|source| RootError {
        what: "open /dev/loop-control".into(),
        source,
        advice: ". The image's kernel needs the loop module in its modules initrd",
    })?;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let number = sys::loop_get_free(&control).map_err(|e| failed("find a free loop device")(e.into()))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let attempt = File::open(&path).and_then(|device| {
            sys::loop_configure(&device, &backing, "bennu root").map(|()| device).map_err(Into::into)
        });
        match attempt {
            Ok(device) => return Ok((path, device)),
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(failed(format!("attach the root to {}", path.display()))(error)),
        }
    }
}

fn mount_overlay() -> Result<(), RootError> {
    let (upper, work) = (format!("{OVERLAY}/upper"), format!("{OVERLAY}/work"));
    make_directory(&upper)?;
    make_directory(&work)?;
    // The merged root takes owner and mode from the upper directory.
    let lower = fs::metadata(LOWER).map_err(failed(format!("look at {LOWER}")))?;
    chown(&upper, Some(lower.uid()), Some(lower.gid()))
        .and_then(|()| fs::set_permissions(&upper, fs::Permissions::from_mode(lower.mode() & 0o7777)))
        .map_err(failed(format!("prepare {upper}")))?;
    make_directory(NEW_ROOT)?;
    let options = options(&format!("lowerdir={LOWER},upperdir={upper},workdir={work}"));
    mount("bennu", NEW_ROOT, "overlay", MountFlags::empty(), Some(options.as_c_str())).map_err(|error| RootError {
        what: "mount the overlay over the root".into(),
        source: error.into(),
        advice: ". The image's kernel needs overlayfs built in or among its modules",
    })
}

/// A container runtime lays overlays of its own, which the kernel refuses on an overlay. One that the image delivers filled
/// is left as it is, because its content would be hidden.
fn separate_container_store(store: &str, limit: u64) -> Result<(), RootError> {
    let Some(place) = scoped::resolve(Path::new(NEW_ROOT), store).filter(|place| place.is_dir()) else { return Ok(()) };
    if holds_data(&place) {
        console::say(&format!(
            "{store} of the image holds files and stays on the overlay; its runtime needs a driver other than overlay"
        ));
        return Ok(());
    }
    let before = fs::metadata(&place).map_err(failed(format!("look at {store}")))?;
    tmpfs(&place, &format!("mode={:o},size={limit}", before.mode() & 0o7777))
}

fn holds_data(directory: &Path) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => holds_data(&entry.path()),
        Ok(found) => found.len() > 0,
        Err(_) => false,
    })
}

fn tmpfs(place: &Path, how: &str) -> Result<(), RootError> {
    make_directory(place)?;
    // Devices and set-uid programs in the overlay's files still work: there the flags of the overlay's own mount count.
    mount("bennu", place, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, Some(options(how).as_c_str()))
        .map_err(|error| failed(format!("mount a tmpfs ({how}) at {}", place.display()))(error.into()))
}

fn options(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn make_directory(path: impl AsRef<Path>) -> Result<(), RootError> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(failed(format!("make the directory {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skeleton_is_not_data() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("storage/overlay")).unwrap();
        fs::write(place.path().join("storage/lock"), "").unwrap();
        assert!(!holds_data(place.path()));
        fs::write(place.path().join("storage/overlay/layer"), "x").unwrap();
        assert!(holds_data(place.path()));
    }
}
