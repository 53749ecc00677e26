//! The machine's root: a file system in memory, read-only, under an overlay in memory.

use crate::console;
use crate::laydown;
use crate::memory::Memory;
use crate::scoped;
use crate::sys;
pub use crate::sys::LoopPart;
use crate::verity::{self, Device};
use bennu_plan::RootPlan;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The tmpfs that holds the root's file.
const STORE: &str = "/run/bennu/image";
/// The root's file.
pub const FILE: &str = "/run/bennu/image/root.img";
/// Its hash tree's.
pub const TREE: &str = "/run/bennu/image/root.verity";
/// The read-only root.
const LOWER: &str = "/run/bennu/lower";
/// The tmpfs with what the system writes.
const OVERLAY: &str = "/run/bennu/overlay";
/// Where the new root is put together.
pub const NEW_ROOT: &str = "/sysroot";

/// Where a container runtime keeps images and containers.
struct ContainerStore {
    /// The directory in the image.
    path: &'static str,
    /// The directory's name in the overlay's tmpfs.
    name: &'static str,
    /// The runtimes that use it. Their packages leave it to them to make it.
    runtimes: &'static [&'static str],
}

/// Stores of container runtimes, whose own overlays do not work on ours.
const CONTAINER_STORES: &[ContainerStore] = &[
    ContainerStore {
        path: "var/lib/containers",
        name: "containers",
        runtimes: &["usr/bin/podman", "usr/bin/crio", "usr/local/bin/crio"],
    },
    ContainerStore {
        path: "var/lib/docker",
        name: "docker",
        runtimes: &["usr/bin/dockerd", "usr/sbin/dockerd", "usr/local/bin/dockerd"],
    },
    ContainerStore {
        path: "var/lib/containerd",
        name: "containerd",
        runtimes: &["usr/bin/containerd", "usr/sbin/containerd", "usr/local/bin/containerd"],
    },
];

/// A tmpfs counts whole pages; a little more keeps a file of exactly its size from failing.
const SLACK: u64 = 1 << 20;
/// No system runs in less.
const LEAST_OVERLAY: u64 = 16 << 20;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}{advice}")]
pub struct RootError {
    /// What was tried.
    pub what: String,
    /// What the kernel said.
    pub source: io::Error,
    /// What to do, as the end of a sentence.
    pub advice: &'static str,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RootError {
    move |source| RootError { what: what.into(), source, advice: "" }
}

/// Makes the place for files of this size together: [`FILE`] and [`TREE`].
pub fn make_store(size: u64) -> Result<(), RootError> {
    let whole = size.saturating_add(SLACK);
    tmpfs(Path::new(STORE), &format!("mode=0700,nr_inodes=16,size={whole}"))
}

/// Gives the memory of a root's file back.
pub fn drop_store() {
    let _ = unmount(STORE, UnmountFlags::DETACH);
}

/// Mounts the root's file and the overlay at [`NEW_ROOT`]; answers what checks the root's blocks.
pub fn mount_root(wanted: &RootPlan) -> Result<Option<Device>, RootError> {
    let checked = mount_lower(wanted)?;
    let limit = wanted.overlay_limit.unwrap_or_else(half_of_free).max(LEAST_OVERLAY);
    tmpfs(Path::new(OVERLAY), &format!("mode=0700,size={limit}"))?;
    mount_overlay()?;
    for store in CONTAINER_STORES {
        separate_container_store(store)?;
    }
    Ok(checked)
}

/// Mounts the root's file read-only, each block checked when it is read.
fn mount_lower(wanted: &RootPlan) -> Result<Option<Device>, RootError> {
    // Open until the mount uses them: an unused loop device with autoclear would let go of its file.
    let (data, _root) = attach_loop(FILE, "bennu root")?;
    let mut _tree = None;
    let mut checked = None;
    if let Some(verity) = &wanted.verity {
        let (tree, open) = attach_loop(TREE, "bennu hash tree")?;
        _tree = Some(open);
        checked = verity::open(&data, &tree, verity, wanted.root.size)?;
    }
    let device = checked.as_ref().map_or(data, Device::path);
    make_directory(LOWER)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    let kind = wanted.filesystem.as_str();
    let options = own_options(kind).map(options);
    mount(&device, LOWER, kind, flags, options.as_deref()).map_err(|error| RootError {
        what: format!("mount the root's {kind} from {}", device.display()),
        source: error.into(),
        advice: ". Its kernel needs that file system (squashfs: and the compression it was made with) built in or among \
                 its modules",
    })?;
    Ok(checked)
}

/// What a file system must be told on a device that nothing can be written to. One that was not unmounted has entries
/// in its journal, which the kernel would write to their places first, and without that refuse the mount.
fn own_options(filesystem: &str) -> Option<&'static str> {
    match filesystem {
        "ext4" => Some("noload"),
        _ => None,
    }
}

/// Takes apart what [`mount_root`] made, so that it can be tried again.
pub fn unmount_root() {
    for place in [NEW_ROOT, OVERLAY, LOWER] {
        let _ = unmount(place, UnmountFlags::DETACH);
    }
    verity::close();
}

fn half_of_free() -> u64 {
    Memory::now().map_or(LEAST_OVERLAY, |memory| memory.available / 2)
}

/// Binds a file to a loop device, read-only, for as long as the device is open; the device and its path.
pub fn attach_loop(file: &str, name: &str) -> Result<(PathBuf, File), RootError> {
    attach_loop_part(file, name, LoopPart::default())
}

/// The same of a part of a file or device, which may be writable.
pub fn attach_loop_part(file: &str, name: &str, part: LoopPart) -> Result<(PathBuf, File), RootError> {
    let open = |path: &Path| OpenOptions::new().read(true).write(part.is_writable).open(path);
    let backing = open(Path::new(file)).map_err(failed(format!("open {file}")))?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").map_err(|source| RootError {
        what: "open /dev/loop-control".into(),
        source,
        advice: ". The image's kernel needs the loop module in its modules initrd",
    })?;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let number = sys::loop_get_free(&control).map_err(|e| failed("find a free loop device")(e.into()))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let attempt = open(&path)
            .and_then(|device| sys::loop_configure(&device, &backing, name, part).map(|()| device).map_err(Into::into));
        match attempt {
            Ok(device) => return Ok((path, device)),
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(failed(format!("attach {file} to {}", path.display()))(error)),
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

/// A container runtime lays overlays of its own, which the kernel refuses on an overlay: its store becomes a directory of the
/// overlay's tmpfs itself, beside the upper one, so that one limit holds for all that the system writes.
fn separate_container_store(store: &ContainerStore) -> Result<(), RootError> {
    let Some(place) = place_of_store(Path::new(NEW_ROOT), store) else { return Ok(()) };
    let before = fs::metadata(&place).map_err(failed(format!("look at {}", place.display())))?;
    let own = format!("{OVERLAY}/{}", store.name);
    make_directory(&own)?;
    chown(&own, Some(before.uid()), Some(before.gid()))
        .and_then(|()| fs::set_permissions(&own, fs::Permissions::from_mode(before.mode() & 0o7777)))
        .map_err(failed(format!("prepare {own}")))?;
    mount_bind(&own, &place).map_err(|error| failed(format!("mount {own} at {}", place.display()))(error.into()))
}

/// The directory of the store where one of its own is due: the image has it, or a runtime that will make it. One that the image
/// delivers filled is left as it is, because its content would be hidden.
fn place_of_store(root: &Path, store: &ContainerStore) -> Option<PathBuf> {
    let path = store.path;
    if let Some(place) = scoped::resolve(root, path) {
        let filled = holds_data(&place);
        if filled {
            console::say(&format!(
                "/{path} of the image holds files and stays on the overlay; its runtime needs a driver other than overlay"
            ));
        }
        return (place.is_dir() && !filled).then_some(place);
    }
    if !store.runtimes.iter().any(|runtime| scoped::exists(root, runtime)) {
        return None;
    }
    // Root's own; others may pass through it and see no names.
    let make = |place: PathBuf| {
        DirBuilder::new().mode(0o711).create(&place)?;
        Ok(place)
    };
    match laydown::place(root, path).and_then(make) {
        Ok(place) => Some(place),
        Err(error) => {
            console::say(&format!("cannot make /{path}, so its runtime will find no place for overlays: {error}"));
            None
        }
    }
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
    use std::os::unix::fs::symlink;

    #[test]
    fn a_skeleton_is_not_data() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("storage/overlay")).unwrap();
        fs::write(place.path().join("storage/lock"), "").unwrap();
        assert!(!holds_data(place.path()));
        fs::write(place.path().join("storage/overlay/layer"), "x").unwrap();
        assert!(holds_data(place.path()));
    }

    fn store(name: &str) -> &'static ContainerStore {
        CONTAINER_STORES.iter().find(|store| store.name == name).unwrap()
    }

    #[test]
    fn a_runtime_gets_its_store_made() {
        let image = tempfile::tempdir().unwrap();
        let root = image.path();
        for store in CONTAINER_STORES {
            assert_eq!(place_of_store(root, store), None);
        }
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/dockerd"), "").unwrap();
        assert_eq!(place_of_store(root, store("docker")), Some(root.join("var/lib/docker")));
        let mode = fs::metadata(root.join("var/lib/docker")).unwrap().mode();
        assert_eq!(mode & 0o066, 0, "{mode:o}");
        assert_eq!(place_of_store(root, store("containerd")), None);
        assert!(!root.join("var/lib/containerd").exists());
    }

    #[test]
    fn an_empty_store_of_the_image_is_separated_and_a_full_one_not() {
        let image = tempfile::tempdir().unwrap();
        let root = image.path();
        fs::create_dir_all(root.join("srv/containers")).unwrap();
        fs::create_dir_all(root.join("var/lib/docker/overlay2")).unwrap();
        symlink("/srv/containers", root.join("var/lib/containers")).unwrap();
        assert_eq!(place_of_store(root, store("containers")), Some(root.join("srv/containers")));
        assert_eq!(place_of_store(root, store("docker")), Some(root.join("var/lib/docker")));
        fs::write(root.join("var/lib/docker/overlay2/layer"), "x").unwrap();
        assert_eq!(place_of_store(root, store("docker")), None);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_reason_not_to_boot() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir_all(image.path().join("var/lib")).unwrap();
        fs::create_dir_all(image.path().join("usr/bin")).unwrap();
        fs::write(image.path().join("usr/bin/podman"), "").unwrap();
        symlink("/data/containers", image.path().join("var/lib/containers")).unwrap();
        assert_eq!(place_of_store(image.path(), store("containers")), None);
    }
}
